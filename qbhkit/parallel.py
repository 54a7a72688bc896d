"""Map a function over many items, in this process or in several."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

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

    With one worker, or one item, everything happens in this process.

    Args:
        work: a function at the top level of a module, which worker processes import.
        items: arguments of ``work``.
        workers: number of processes, 1 or more.
        prepare: called with ``arguments`` once in each process, to set up module globals that
            ``work`` uses. In worker processes torch then uses one thread.
        arguments: of ``prepare``; they are sent to each process once.

    Yields:
        Results in the order of the items.

    Raises:
        QbhError: if a worker process dies. Errors of ``prepare`` in this process, and of ``work``,
            are raised as they are.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        prepare(*arguments)
        yield from map(work, items)
        return
    # not fork, which would copy torch's threads in a state in which they can hang
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (prepare, arguments)) as processes:
        try:
            yield from processes.map(work, items)
        except BrokenProcessPool:
            raise QbhError(
                "A worker process died, perhaps for lack of memory: run it again with --workers 1."
            ) from None
        finally:  # a stop must not wait for the rest of the list
            processes.shutdown(wait=True, cancel_futures=True)


def _start(prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)  # the other cores have workers of their own
    prepare(*arguments)
