"""Threads that search, and a short queue before them that says no when it is full."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any


class PoolFullError(Exception):
    """Raise when every thread works and every place in the queue is taken."""


class BoundedPool:
    """Run functions in threads, and take no more of them than can be done soon.

    A place is given back when its function has returned, or was cancelled before it began: work
    that nobody waits for any more still counts for as long as it runs, so it cannot pile up.

    Args:
        workers: threads, at least 1.
        queue: calls that may wait for one.
    """

    def __init__(self, workers: int, queue: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="search")
        self._places = workers + queue
        self._lock = Lock()
        self.taken = 0

    @property
    def full(self) -> bool:
        """True when :meth:`submit` would refuse."""
        return self.taken >= self._places

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Queue a call.

        Returns:
            Its future; cancelling it frees the place if the call has not begun.

        Raises:
            PoolFullError: at once, if there is no place.
        """
        with self._lock:
            if self.full:
                raise PoolFullError
            self.taken += 1
        future = self._threads.submit(function, *arguments)
        future.add_done_callback(self._free)
        return future

    def _free(self, _future: "Future[Any]") -> None:
        with self._lock:
            self.taken -= 1

    def close(self) -> None:
        """Drop what waits, and return when what runs has ended."""
        self._threads.shutdown(cancel_futures=True)
