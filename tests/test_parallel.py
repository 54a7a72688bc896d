import os

import pytest

from qbhkit.errors import QbhError
from qbhkit.parallel import parallel_map

_prepared = []


def prepare(*arguments):
    _prepared.append(arguments)


def describe(item):
    """What a process knows: the item, its own number, what it was given, torch's threads."""
    import torch

    return item, os.getpid(), list(_prepared), torch.get_num_threads()


def work(item):
    if item == "die":
        os._exit(9)
    if item == "fail":
        raise QbhError("song.mid is damaged.")
    return item


@pytest.fixture(autouse=True)
def nothing_prepared():
    _prepared.clear()


def run(function, items, workers):
    return list(parallel_map(function, items, workers, prepare, ("a", 3)))


@pytest.mark.parametrize(("count", "workers"), [(5, 1), (1, 4), (0, 4)])
def test_one_worker_or_item_stays_in_this_process(count, workers):
    found = run(describe, range(count), workers)
    assert [item for item, *_ in found] == [*range(count)]
    assert all(process == os.getpid() for _, process, *_ in found)
    assert _prepared == [("a", 3)]


def test_two_workers_keep_the_order_and_are_prepared_once():
    found = run(describe, range(20), 2)
    assert [item for item, *_ in found] == [*range(20)]
    assert os.getpid() not in {process for _, process, *_ in found}
    assert all(given == [("a", 3)] for *_, given, _ in found)
    assert all(threads == 1 for *_, threads in found)
    assert _prepared == []


def test_results_come_before_the_rest_is_done_here():
    done = []

    def slow(item):
        done.append(item)
        return item

    results = parallel_map(slow, [1, 2, 3], 1, prepare, ())
    assert next(results) == 1
    assert done == [1]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_the_work_are_raised_as_they_are_after_the_results_before(workers):
    results = parallel_map(work, ["a", "fail", "b"], workers, prepare, ())
    assert next(results) == "a"
    with pytest.raises(QbhError, match=r"^song\.mid is damaged\.$"):
        next(results)


def test_a_worker_that_dies_is_an_error_with_a_cure():
    with pytest.raises(QbhError, match=r"worker process died.*--workers 1\.$"):
        run(work, ["a", "die", "b"], 2)
