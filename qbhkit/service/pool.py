"""Threads with a short queue that refuses work when it is full."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any


class PoolFullError(Exception):
    """Raise when all threads are busy and the queue is full."""


class BoundedPool:
    """Run functions in threads, with a bound on running and waiting calls together.

    A call counts until its function has returned or was cancelled before it began. Work for which
    nobody waits any more therefore counts as long as it runs, and cannot pile up.

    Args:
        workers: threads, at least 1.
        queue: calls that may wait for a thread.
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
            Its future; cancelling it removes the call from the queue if it has not begun.

        Raises:
            PoolFullError: if the pool is full.
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
        """Cancel waiting calls, and return when running ones have ended."""
        self._threads.shutdown(cancel_futures=True)
