"""Map a function over many items, in this process or in several."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar
from warnings import catch_warnings

from qbhkit.errors import QbhError

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    prepare: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Iterator[Result]:
    """Yield ``work(item)`` for every item, in order.

    Args:
        work: a function at the top level of a module, which worker processes import.
        items: arguments of ``work``.
        workers: number of processes; with one, or one item, everything happens in this process.
        prepare: called with ``arguments`` once in each process, to set up module globals that
            ``work`` uses. In worker processes torch and NumPy use one thread.
        arguments: of ``prepare``; they are sent to each process once.

    Raises:
        QbhError: if a worker process dies. Errors of ``prepare`` in this process, and of ``work``,
            are raised as they are.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    workers = min(effective_n_jobs(workers), len(items))
    if workers <= 1:
        prepare(*arguments)
        yield from map(work, items)
        return
    processes = Parallel(
        workers, "loky", return_as="generator", max_nbytes=None, idle_worker_timeout=10,
        inner_max_num_threads=1, initializer=_Start(prepare, arguments),
    )  # fmt: skip
    results = processes(delayed(_attempt)(work, item) for item in items)
    try:
        for result in results:
            if isinstance(result, QbhError):
                raise result
            yield result
    except BrokenProcessPool:
        raise QbhError(
            "A worker process died, perhaps for lack of memory: run it again with --workers 1."
        ) from None
    finally:
        with catch_warnings(category=UserWarning, action="ignore"):  # about tasks not done
            results.close()


class _Start:
    """Prepare a worker; joblib compares these with ==, which must not compare their arrays."""

    def __init__(self, prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.prepare, self.arguments = prepare, arguments

    def __call__(self) -> None:
        self.prepare(*self.arguments)


def _attempt(work: Callable[[Item], Result], item: Item) -> Result | QbhError:
    """Return a QbhError as a result: joblib would raise it before yielding earlier results."""
    try:
        return work(item)
    except QbhError as error:
        return error
