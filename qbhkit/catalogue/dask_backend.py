"""A catalogue built by the workers of a Dask cluster: one on this machine, or one that is there.

A worker writes the shards it makes straight into the catalogue's folder, which all of them must
share; what travels is a name and a count. The client alone writes the manifest. Whatever dies, the
shards that are whole stay, and what is missing is made again.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import qbhkit
from qbhkit.catalogue.build import (
    BuildContext,
    Executor,
    Group,
    ShardResult,
    TrackerFactory,
    serial_executor,
)
from qbhkit.embedding.embedder import Embedder
from qbhkit.embedding.windows import WindowGrid
from qbhkit.errors import Failure, MissingPackageError, QbhError
from qbhkit.pitch import trackers
from qbhkit.weights import DEFAULT_EMBEDDING

_DEATHS = 3  # of workers, after which a group is no longer given to others
_AHEAD = 32  # groups that wait with the scheduler, at the least
_CONNECT_S = 10.0
_POLL_S = 0.02
_PATIENCE_S = 1.0

# By default Dask has workers return every freed 64 KiB to the system and fetch them again: eight
# times the page faults, half as much time again for crnn-lite. 32 MiB is the most that glibc takes.
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
    """Open the executor that builds a catalogue: worker processes, a cluster, or this process alone.

    Worker processes of this machine end with the block, or with this process, however it ends. A
    script that starts them does its work under ``if __name__ == "__main__":``.

    Args:
        workers: processes to start on this machine.
        scheduler: address of a cluster instead, such as ``tcp://10.0.0.1:8786``. Its workers need
            the kit, and see recordings and catalogue under the same paths; the build waits for
            the first of them.
        weights: as the client's embedder has them; workers load them by this name.

    Yields:
        What ``build_catalogue`` and ``add_songs`` take as ``executor``.

    Raises:
        QbhError: if there are no workers to start, or the scheduler cannot be reached.
        MissingPackageError: if dask is not installed.
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
        raise MissingPackageError(
            "A cluster needs Dask, which is not installed: pip install 'qbhkit[dask]'."
        ) from None
    if Path(weights).is_file():
        weights = str(Path(weights).absolute())
    with _addressed(workers, scheduler) as (address, any_left):
        try:
            _probe(address)
            client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise QbhError(
                f"No Dask scheduler answers at {address} ({error}): start one with 'dask "
                "scheduler', or use --workers."
            ) from None
        with silence_logging_cmgr(logging.CRITICAL), client:  # what is wrong is said once
            _refuse_without_kit(client)
            yield DaskExecutor(client, partial(_load_embedder, weights), any_left)


def _probe(address: str) -> None:
    """Refuse what a client would wait for for ever: a port, say the dashboard's, that is silent."""
    from distributed.comm import get_address_host_port

    host, port = get_address_host_port(address)  # says what is malformed
    if "://" in address and not address.startswith("tcp://"):
        return  # with TLS a scheduler waits for the client to speak
    # Refused at once, it may be just starting: the client tries for longer.
    with suppress(ConnectionError), socket.create_connection((host, port), _CONNECT_S) as probe:
        probe.recv(1)


def _refuse_without_kit(client: Any) -> None:
    """Wait for a worker, and refuse a cluster that cannot import this module: its workers die."""
    from distributed.comm import CommClosedError

    client.wait_for_workers(1)
    found = client.run(import_module, __name__, on_error="return")
    try:
        found["scheduler"] = client.run_on_scheduler(import_module, __name__)
    except ImportError as error:
        found["scheduler"] = error
    for where, result in found.items():
        # A worker that has just died may still be listed: whether it had the kit no longer matters.
        if isinstance(result, Exception) and not isinstance(result, CommClosedError):
            raise QbhError(
                f"The Dask cluster cannot use the kit ({where}: {result}): install qbhkit "
                f"{qbhkit.__version__} for its scheduler and all workers."
            )


@contextmanager
def _addressed(
    workers: int | None, scheduler: str | None
) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield the address of a scheduler, and what says whether it may ever have a worker again.

    If none was given, it is started here with workers of its own.
    """
    if scheduler is not None:
        yield scheduler, _always
        return
    import dask
    from distributed import LocalCluster, Status

    settings = {
        "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
        "distributed.scheduler.allowed-failures": _DEATHS - 1,
        # By default a worker that died is given up if its successor takes 15 s to start, as it
        # does on a busy machine.
        "distributed.deploy.lost-worker-timeout": "10 minutes",
    }
    before = dict(os.environ)  # into which Dask puts what it sets for a worker
    try:
        with (
            dask.config.set(settings),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tcp://",
                dashboard_address="127.0.0.1:0",  # no other machine, no fixed port
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


def _always() -> bool:
    return True


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C and what went wrong to the client, which says it once: Dask calls this in each.

    Args:
        worker: the one that begins.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


class DaskExecutor:
    """Make shards on the workers of a Dask cluster: a :class:`~qbhkit.catalogue.build.Executor`.

    Args:
        client: connected to the scheduler.
        make_embedder: makes the client's embedder, once on each worker.
        any_left: says whether there is a worker, or may be one again.
    """

    def __init__(
        self,
        client: Any,
        make_embedder: Callable[[], Embedder],
        any_left: Callable[[], bool] = _always,
    ) -> None:
        self.client, self.make_embedder, self.any_left = client, make_embedder, any_left

    def __call__(
        self, context: BuildContext, groups: Iterable[tuple[int, Group]]
    ) -> Iterator[tuple[int, ShardResult]]:
        """Yield the number of each group and what became of it, as they are done.

        A group whose workers died is tried once more when nothing else is under way, since its
        neighbours on those workers are suspected too; its songs fail if they die again.

        Raises:
            QbhError: if a worker has another model or tracker or lacks the kit, does not share the
                folder, the scheduler is gone, or no worker is left.
        """
        from distributed import CancelledError
        from distributed.comm import CommClosedError

        order = _WorkerContext(
            context.folder.absolute(),
            context.embedder.identity,
            context.grid,
            context.tracker,
            self.make_embedder,
            context.get_tracker,
        )
        suspects = []
        try:
            for number, group, made in self._flow(order, groups, _AHEAD):
                if made is None:
                    suspects.append((number, group))
                else:
                    yield number, made
            for number, group, made in self._flow(order, suspects, 1):
                failures = [_killer(song.source) for song in group.songs]
                yield number, made or ShardResult(None, failures, False)
        except (CancelledError, CommClosedError):
            raise QbhError(
                "The Dask scheduler is gone: start it and run the same command again to go on."
            ) from None

    def _flow(
        self, order: "_WorkerContext", groups: Iterable[tuple[int, Group]], ahead: int
    ) -> Iterator[tuple[int, Group, ShardResult | None]]:
        """Yield what became of groups, None where the workers died; so many are under way."""
        from distributed import as_completed

        left = iter(groups)
        flying: dict[str, tuple[int, Group]] = {}
        done = as_completed(loop=self.client.loop)
        while True:
            busy = ahead if ahead == 1 else max(ahead, 2 * sum(self.client.nthreads().values()))
            for number, group in islice(left, max(0, busy - len(flying))):
                future = self.client.submit(_make, order, _from_anywhere(group), pure=False)
                flying[future.key] = number, group
                done.add(future)
            if not flying:
                return
            while not done.has_ready():
                self._refuse_without_workers()
                time.sleep(_POLL_S)
            future = next(done)
            yield *flying.pop(future.key), self._result(future, order.folder)

    def _result(self, future: Any, folder: Path) -> ShardResult | None:
        from distributed import KilledWorker

        while True:
            failed = future.status == "error"
            try:
                made: ShardResult = future.result(timeout=_PATIENCE_S)
                break
            except KilledWorker:
                return None
            except TimeoutError:
                if failed:
                    raise  # the worker's own
                self._refuse_without_workers()  # it died after its work, which has to be done again
        if made.entry and not made.entry.path(folder).is_file():
            raise QbhError(
                f"{made.entry.path(folder)} was written by a worker and is not here: choose a "
                "folder that all workers share."
            )
        return made

    def _refuse_without_workers(self) -> None:
        if not self.any_left():
            raise QbhError(
                "No worker is left: run the same command again to go on, with fewer --workers if "
                "memory is short."
            )


@dataclass(frozen=True)
class _WorkerContext:
    """What a worker needs to make shards as the client would."""

    folder: Path
    model: str
    grid: WindowGrid
    tracker: str
    make_embedder: Callable[[], Embedder] = field(compare=False)
    get_tracker: TrackerFactory = field(compare=False)


def _from_anywhere(group: Group) -> Group:
    """Return the group with recordings whose paths do not depend on the working folder."""
    songs = [replace(song, audio=song.audio and song.audio.absolute()) for song in group.songs]
    return replace(group, songs=songs)


def _killer(source: str) -> Failure:
    reason = "whichever worker tried it died, perhaps for lack of memory"
    return Failure(source, f"{source} was given up: {reason}.")


def _load_embedder(weights: str) -> Embedder:
    from qbhkit.embedding.embedder import ContourEmbedder

    return ContourEmbedder(weights)


def _make(order: _WorkerContext, group: Group) -> ShardResult:
    """Make a shard: on a worker."""
    import torch

    torch.set_num_threads(1)  # the other cores have workers of their own
    context = _context(order)
    if any(song.audio is not None for song in group.songs):
        _refuse_other("tracker", trackers.identity_of(order.tracker.split("@")[0]), order.tracker)
    return context.make(group)


@lru_cache(maxsize=1)
def _context(order: _WorkerContext) -> BuildContext:
    embedder = order.make_embedder()
    _refuse_other("model", embedder.identity, order.model)
    return BuildContext(order.folder, embedder, order.grid, order.tracker, order.get_tracker)


def _refuse_other(what: str, here: str, wanted: str) -> None:
    if here != wanted:
        raise QbhError(
            f"A worker on {socket.gethostname()} has the {what} {here}, not {wanted}: give all "
            "workers the same kit and weights."
        )
