"""Build a catalogue on the workers of a Dask cluster: on this machine, or an existing one.

Workers write shards into the catalogue's folder, which all of them must share; only the client
writes the manifest. If a process dies, the finished shards remain for the next build.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, cast

import qbhkit
from qbhkit.catalogue.build import BuildContext, Executor, Group, ShardResult, serial_executor
from qbhkit.embedding.embedder import ContourEmbedder, Embedder
from qbhkit.errors import Failure, QbhError, missing_package
from qbhkit.pitch import trackers
from qbhkit.weights import DEFAULT_EMBEDDING

_DEATHS = 3  # of workers, after which a group is not given to another one
_MIN_PENDING = 32  # groups given to the scheduler ahead of time, at the least
_CONNECT_S = 10.0
_POLL_S = 0.02
_PATIENCE_S = 1.0

# By default, Dask makes workers return every freed 64 KiB to the system. With crnn-lite that causes
# eight times the page faults, and a build takes 1.5 times as long. glibc allows at most 32 MiB.
_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


@contextmanager
def open_executor(
    workers: int | None = None, scheduler: str | None = None, weights: str = DEFAULT_EMBEDDING
) -> Iterator[Executor]:
    """Open an executor: worker processes, a Dask cluster, or this process alone.

    Worker processes on this machine end with the block, or when this process ends for any reason.
    A script that starts them must do its work under ``if __name__ == "__main__":``.

    Args:
        workers: number of processes to start on this machine.
        scheduler: address of an existing cluster instead, such as ``tcp://10.0.0.1:8786``. Its
            workers need the kit, and must find recordings and catalogue under the same paths.
        weights: name or file of the client's weights; the workers load them too.

    Yields:
        What ``build_catalogue`` and ``add_songs`` take as ``executor``.

    Raises:
        QbhError: if dask is missing, there are no workers, or the scheduler cannot be reached.
    """
    if workers is None and scheduler is None:
        yield serial_executor
        return
    if workers is not None and workers < 1:
        raise QbhError(f"{workers} workers build nothing: ask for at least one.")
    try:
        from distributed import Client
        from distributed.utils import silence_logging_cmgr
    except ImportError:
        raise missing_package("Dask", "'qbhkit[dask]'") from None
    if Path(weights).is_file():
        weights = str(Path(weights).absolute())
    with _scheduler(workers, scheduler) as (address, has_workers):
        try:
            _probe(address)
            client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise QbhError(
                f"No Dask scheduler answers at {address} ({error}): start one with 'dask "
                "scheduler', or use --workers."
            ) from None
        with silence_logging_cmgr(logging.CRITICAL), client:  # errors are reported once
            _refuse_without_kit(client)
            yield DaskExecutor(client, weights, has_workers)


def _probe(address: str) -> None:
    """Refuse a port that sends nothing, such as the dashboard's: a client would wait for ever."""
    from distributed.comm import get_address_host_port

    host, port = get_address_host_port(address)  # raises if it is malformed
    if "://" in address and not address.startswith("tcp://"):
        return  # with TLS the scheduler waits for the client to send first
    # A scheduler that refuses the connection may just be starting: the client tries for longer.
    with suppress(ConnectionError), socket.create_connection((host, port), _CONNECT_S) as probe:
        probe.recv(1)


def _refuse_without_kit(client: Any) -> None:
    """Wait for a worker, and refuse a cluster that cannot import this module."""
    from distributed.comm import CommClosedError

    client.wait_for_workers(1)
    found = client.run(import_module, __name__, on_error="return")
    try:
        client.run_on_scheduler(import_module, __name__)
    except ImportError as error:
        found["scheduler"] = error
    for where, result in found.items():
        # A worker that has just died may still be listed; it says nothing about the kit.
        if isinstance(result, Exception) and not isinstance(result, CommClosedError):
            raise QbhError(
                f"The Dask cluster cannot use the kit ({where}: {result}): install qbhkit "
                f"{qbhkit.__version__} for its scheduler and all workers."
            )


@contextmanager
def _scheduler(
    workers: int | None, scheduler: str | None
) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield the address of a scheduler, and a function: whether workers can be expected.

    If no scheduler is given, start one with workers on this machine.
    """
    if scheduler is not None:
        yield scheduler, lambda: True
        return
    import dask
    from distributed import LocalCluster, Status

    settings = {
        "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
        "distributed.scheduler.allowed-failures": _DEATHS - 1,
        # By default, a worker is not replaced if starting its successor takes 15 s, which happens
        # on a busy machine.
        "distributed.deploy.lost-worker-timeout": "10 minutes",
    }
    before = dict(os.environ)  # Dask writes the settings of workers into it
    try:
        with (
            dask.config.set(settings),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tcp://",
                dashboard_address="127.0.0.1:0",  # for this machine only, on a free port
                silence_logs=logging.ERROR,
                preload=__name__,
            ) as cluster,
        ):
            ended = {Status.closed, Status.failed}
            yield (
                cluster.scheduler_address,
                lambda: any(nanny.status not in ended for nanny in [*cluster.workers.values()]),
            )
    finally:
        for name in {*_ENVIRONMENT, "PYTHONHASHSEED"}:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def dask_setup(worker: Any) -> None:
    """Leave errors and KeyboardInterrupt to the client; Dask calls this in every worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


class DaskExecutor:
    """Build shards on the workers of the cluster that a client is connected to."""

    def __init__(self, client: Any, weights: str, has_workers: Callable[[], bool]) -> None:
        self.client, self.weights, self.has_workers = client, weights, has_workers

    def __call__(
        self, context: BuildContext, groups: Iterable[tuple[int, Group]]
    ) -> Iterator[tuple[int, ShardResult]]:
        """Yield the number of each group and its result, as they are finished.

        A group whose workers died is tried again at the end, alone, because another group on the
        same workers may have killed them. If its workers die again, its songs fail.
        """
        from distributed import CancelledError
        from distributed.comm import CommClosedError

        suspects = []
        try:
            for number, group, result in self._run(context, groups):
                if result is None:
                    suspects.append((number, group))
                else:
                    yield number, result
            for number, group, result in self._run(context, suspects, alone=True):
                reason = "was given up: whichever worker tried it died, perhaps for lack of memory."
                given_up = [Failure(s.source, f"{s.source} {reason}") for s in group.songs]
                yield number, result or ShardResult(None, given_up)
        except (CancelledError, CommClosedError):
            raise QbhError(
                "The Dask scheduler is gone: start it and run the same command again to go on."
            ) from None

    def _run(
        self, context: BuildContext, groups: Iterable[tuple[int, Group]], alone: bool = False
    ) -> Iterator[tuple[int, Group, ShardResult | None]]:
        """Yield the results of groups, None where the workers died; ``alone``: one at a time."""
        from distributed import as_completed

        folder = context.folder.absolute()  # workers may have another working folder
        to_send = replace(context, folder=folder, embedder=cast(Embedder, None))  # they open theirs
        order = to_send, context.embedder.identity, self.weights
        left = iter(groups)
        pending: dict[str, tuple[int, Group]] = {}
        done = as_completed(loop=self.client.loop)
        while True:
            most = 1 if alone else max(_MIN_PENDING, 2 * sum(self.client.nthreads().values()))
            for number, group in islice(left, max(0, most - len(pending))):
                songs = [replace(s, audio=s.audio and s.audio.absolute()) for s in group.songs]
                sent = group._replace(songs=songs)
                future = self.client.submit(_build, order, sent, pure=False)
                pending[future.key] = number, group
                done.add(future)
            if not pending:
                return
            while not done.has_ready():
                self._refuse_without_workers()
                time.sleep(_POLL_S)
            future = next(done)
            yield *pending.pop(future.key), self._result(future, folder)

    def _result(self, future: Any, folder: Path) -> ShardResult | None:
        from distributed import KilledWorker

        while True:
            failed = future.status == "error"
            try:
                result: ShardResult = future.result(timeout=_PATIENCE_S)
                break
            except KilledWorker:
                return None
            except TimeoutError:
                if failed:
                    raise  # the TimeoutError was raised by the worker
                self._refuse_without_workers()  # it died with its result: another one builds again
        if result.entry and not result.entry.path(folder).is_file():
            raise QbhError(
                f"{result.entry.path(folder)} was written by a worker and is not here: choose a "
                "folder that all workers share."
            )
        return result

    def _refuse_without_workers(self) -> None:
        if not self.has_workers():
            raise QbhError(
                "No worker is left: run the same command again to go on, with fewer --workers if "
                "memory is short."
            )


def _build(order: tuple[BuildContext, str, str], group: Group) -> ShardResult:
    """Build a shard on a worker."""
    import torch

    torch.set_num_threads(1)  # the other cores have workers of their own
    context = _opened(*order)
    if any(song.audio is not None for song in group.songs):
        identity = trackers.identity_of(context.tracker.split("@")[0])
        _refuse_other("tracker", identity, context.tracker)
    return context.build_shard(group)


@lru_cache(maxsize=1)
def _opened(context: BuildContext, model: str, weights: str) -> BuildContext:
    embedder = ContourEmbedder(weights)
    _refuse_other("model", embedder.identity, model)
    return replace(context, embedder=embedder)


def _refuse_other(what: str, here: str, wanted: str) -> None:
    if here != wanted:
        raise QbhError(
            f"A worker on {socket.gethostname()} has the {what} {here}, not {wanted}: give all "
            "workers the same kit and weights."
        )
