import os
import time

import numpy as np
import pytest

from qbhkit.errors import QbhError
from qbhkit.parallel import parallel_map

GIVEN = np.arange(3)  # arrays, which do not compare to true or false
_prepared = []


def prepare(*arguments):
    _prepared.append(arguments)


def describe(item):
    """What a process knows: the item, its own number, and what it was given."""
    return item, os.getpid(), len(_prepared), _prepared[0][0].tolist()


def threads(_):
    import torch

    return torch.get_num_threads()


def work(item):
    if item == "die":
        os._exit(9)
    if item == "fail":
        raise QbhError("song.mid is damaged.")
    if item == "break":
        return {}["key"]
    if item == "sleep":
        time.sleep(60)
    return os.getpid()


@pytest.fixture(autouse=True)
def nothing_prepared():
    _prepared.clear()


@pytest.mark.parametrize(("count", "workers"), [(5, 1), (1, 4), (0, 4)])
def test_one_worker_or_item_stays_in_this_process(count, workers):
    results = parallel_map(describe, range(count), workers, prepare, (GIVEN,))
    assert [(item, process) for item, process, *_ in results] == [
        (item, os.getpid()) for item in range(count)
    ]
    assert _prepared == [(GIVEN,)]


def test_two_workers_keep_the_order_and_are_prepared_once_a_call():
    for given in (np.arange(3), np.arange(1, 4)):
        found = list(parallel_map(describe, range(20), 2, prepare, (given,)))
        assert [item for item, *_ in found] == [*range(20)]
        assert os.getpid() not in {process for _, process, *_ in found}
        assert all(rest == [1, given.tolist()] for _, _, *rest in found)
    assert _prepared == []


def test_workers_leave_the_other_cores_to_one_another():
    assert list(parallel_map(threads, range(2), 2, prepare, ())) == [1, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_is_raised_as_it_is_after_the_results_before(workers):
    results = parallel_map(work, ["a", "fail", "b"], workers, prepare, ())
    assert next(results)
    with pytest.raises(QbhError, match=r"^song\.mid is damaged\.$"):
        next(results)
    with pytest.raises(KeyError):  # a fault of the code keeps its kind
        list(parallel_map(work, ["break", "a"], workers, prepare, ()))


def test_a_worker_that_dies_is_an_error_with_a_cure():
    with pytest.raises(QbhError, match=r"worker process died.*--workers 1\.$"):
        list(parallel_map(work, ["a", "die", "b"], 2, prepare, ()))


def test_a_stop_does_not_wait_for_the_rest():
    results = parallel_map(work, ["a", *["sleep"] * 9], 2, prepare, ())
    worker = next(results)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    results.close()
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < began + 20:
        time.sleep(0.05)
    assert time.monotonic() < began + 20
