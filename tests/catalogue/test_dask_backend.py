"""Build catalogues on a real Dask cluster of processes that communicate over TCP."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import distributed
import numpy as np
import pytest
import soundfile
import torch

from qbhkit.catalogue import build as building
from qbhkit.catalogue import dask_backend
from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.dask_backend import DaskExecutor, open_executor
from qbhkit.catalogue.edit import add_songs, verify_catalogue
from qbhkit.catalogue.files import ShardEntry
from qbhkit.cli import main
from qbhkit.contour import F0Track, midi_to_hz
from qbhkit.corpora import open_source
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.errors import MissingPackageError, QbhError

TUNES, RECORDINGS = 12, 6
WAIT_S = 120.0  # longest wait for an event, on a busy machine
SLOW, DEADLY = 0.503, 0.555  # loudness of recordings that stop or kill the process that tracks them


class FakeTracker:
    """Return a melody that depends on how loud a recording is; note in a file who tracked it."""

    rate_hz = 8000

    def __init__(self, log, _name):
        self.log = log

    def track(self, audio):
        loudness = round(float(np.abs(audio.samples).max()), 3)
        (self.log / f"{loudness}-{os.getpid()}").touch()
        if loudness == DEADLY and os.getpid() != int((self.log / "client").read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        trap = self.log / "trap"
        if loudness == SLOW and trap.exists():
            trap.rename(self.log / f"caught-{os.getpid()}")
            time.sleep(WAIT_S)
        pitch = 60 + np.cumsum(
            np.random.default_rng(round(1000 * loudness)).choice([-3, -2, 2, 3], 40)
        )
        return F0Track(np.repeat(midi_to_hz(pitch), 20), np.ones(800), 0.01)


def sound(path, loudness):
    soundfile.write(path, np.sin(np.arange(8000) * 0.1) * loudness, 8000, "FLOAT")


@pytest.fixture(scope="module")
def source(tunes, write_midi, tmp_path_factory):
    """A folder of songs in notes, recordings, and a file that is none."""
    folder = tmp_path_factory.mktemp("source")
    for k, tune in enumerate(tunes[:TUNES]):
        write_midi(folder / f"tune-{k:02}.mid", tune.notes)
    for k in range(RECORDINGS):
        sound(folder / f"take-{k}.wav", 0.5 + k / 1000)
    (folder / "bad.wav").write_text("no audio")
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Use one thread as the workers do: sums over more threads may be rounded differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_SONGS_PER_SHARD", 3)
        yield


@pytest.fixture
def log(tmp_path):
    """The folder in which :class:`FakeTracker` notes what it does."""
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "client").write_text(str(os.getpid()))
    return folder


@pytest.fixture(scope="module")
def executor():
    """Two worker processes on this machine; a song that kills two of them is suspected."""
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask_backend, "_DEATHS", 2)
        with open_executor(workers=2) as executor:
            yield executor
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "OMP_NUM_THREADS"):
        assert os.environ.get(name) == before.get(name)  # nothing leaks into this process


def build(source, path, log, action=build_catalogue, **options):
    songs, _ = read_sources(open_source(str(source), Path()))
    return action(
        songs, path, ContourEmbedder(), "swift-f0", partial(FakeTracker, log), progress=False,
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def serial(source, tmp_path_factory):
    """The catalogue that one process builds, and its report."""
    folder = tmp_path_factory.mktemp("serial")
    return folder / "catalogue", build(source, folder / "catalogue", folder)


def files_of(catalogue):
    files = [file for file in catalogue.rglob("*") if file.is_file()]
    return {str(file.relative_to(catalogue)): file.read_bytes() for file in files}


def workers_in(log):
    """Process ids of those that tracked a recording."""
    return {int(file.name.split("-")[1]) for file in log.glob("0.*")}


def wait_until(condition):
    end = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def shards_in(catalogue):
    return len(list((catalogue / "shards").glob("[0-9a-f]*")))


@contextmanager
def once_caught(log, act):
    """Act, in a thread, as soon as a worker has walked into the trap of :class:`FakeTracker`."""
    (log / "trap").touch()
    actor = threading.Thread(target=lambda: act(wait_until(lambda: list(log.glob("caught-*")))[0]))
    actor.start()
    yield
    actor.join()


def test_two_processes_build_what_one_does(source, serial, executor, log, tmp_path):
    report = build(source, tmp_path / "c", log, executor=executor)
    assert report == serial[1]
    assert [Path(failure.name).name for failure in report.failures] == ["bad.wav"]
    assert files_of(tmp_path / "c") == files_of(serial[0])
    assert workers_in(log).isdisjoint({os.getpid()})
    again = build(source, tmp_path / "c", log, executor=executor)
    assert again.reused == again.songs == TUNES + RECORDINGS


def test_workers_run_with_settings_of_their_own(executor):
    addresses = list(executor.client.scheduler_info(n_workers=-1)["workers"])
    assert [re.sub(r":\d+$", "", address) for address in addresses] == ["tcp://127.0.0.1"] * 2
    seen = list(executor.client.run(lambda: dict(os.environ)).values())
    assert len({env["MALLOC_TRIM_THRESHOLD_"] for env in seen} - {"65536"}) == 1
    assert all(env["OMP_NUM_THREADS"] == "1" for env in seen)
    loud = executor.client.run(
        lambda: logging.getLogger("distributed.worker").isEnabledFor(logging.ERROR)
    )
    assert not any(loud.values())  # errors are reported by the client only


def test_a_killed_worker_costs_nothing(source, serial, executor, log, tmp_path):
    """Kill one worker while it tracks a recording, when other shards are written already."""
    killed = []

    def kill(caught):
        wait_until(lambda: shards_in(tmp_path / "c") > 4)
        killed.append(int(caught.name.split("-")[1]))
        os.kill(killed[0], signal.SIGKILL)

    with once_caught(log, kill):
        report = build(source, tmp_path / "c", log, executor=executor)
    assert report == serial[1]
    assert files_of(tmp_path / "c") == files_of(serial[0])
    assert len({int(file.name.split("-")[1]) for file in log.glob(f"{SLOW}-*")}) == 2
    assert killed[0] in workers_in(log)


def test_a_song_that_kills_its_workers_fails_alone(source, serial, executor, log, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in source.glob("t*"):
        (mixed / file.name).symlink_to(file)
    sound(mixed / "a-bomb.wav", DEADLY)
    report = build(mixed, tmp_path / "c", log, executor=executor)
    (failure,) = report.failures
    assert failure.name == str(mixed / "a-bomb.wav")
    assert "whichever worker tried it died" in failure.reason
    assert report.songs == TUNES + RECORDINGS
    assert verify_catalogue(tmp_path / "c").problems == []


def test_workers_add_songs(source, executor, log, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for file in source.glob("*-0*"):
        (few / file.name).symlink_to(file)
    for name in ("a", "b"):
        build(few, tmp_path / name, log)
    one = build(source, tmp_path / "a", log, add_songs)
    two = build(source, tmp_path / "b", log, add_songs, executor=executor)
    assert one == two
    assert one.added
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_workers_with_other_weights_are_refused(source, executor, log, tmp_path):
    other = DaskExecutor(executor.client, "stage1", lambda: True)
    with pytest.raises(QbhError, match=r"has the model stage1-\w+, not best-\w+: give all workers"):
        build(source, tmp_path / "c", log, executor=other)
    assert not (tmp_path / "c" / "manifest.json").exists()


def test_a_build_without_workers_stops(source, serial, log, tmp_path, monkeypatch):
    """Close the nanny of the only worker while it tracks: no result will come any more."""
    started = []

    class Watched(distributed.LocalCluster):
        def __init__(self, **options):
            super().__init__(**options)
            started.append(self)

    monkeypatch.setattr(distributed, "LocalCluster", Watched)

    def close(_):
        for nanny in started[0].workers.values():
            started[0].sync(nanny.close)

    with (
        once_caught(log, close),
        pytest.raises(QbhError, match="No worker is left: run"),
        open_executor(workers=1) as executor,
    ):
        build(source, tmp_path / "c", log, executor=executor)
    assert build(source, tmp_path / "c", log).reused
    assert files_of(tmp_path / "c") == files_of(serial[0])


def test_a_shard_in_another_folder_is_noticed(tmp_path):
    written = Future()
    written.status = "finished"
    written.set_result(building.ShardResult(ShardEntry("0" * 64, 1, 1), []))
    with pytest.raises(QbhError, match="choose a folder that all workers share"):
        DaskExecutor(None, "", lambda: True)._result(written, tmp_path)


def test_a_lost_result_is_waited_for_while_there_are_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_backend, "_PATIENCE_S", 0.01)
    lost, left = Future(), [True, True, False]
    lost.status = "finished"  # and its result is lost with its worker
    with pytest.raises(QbhError, match="No worker is left: run"):
        DaskExecutor(None, "", lambda: left.pop(0))._result(lost, tmp_path)
    assert left == []
    lost.status = "error"
    lost.set_exception(TimeoutError("of a worker's disk"))
    with pytest.raises(TimeoutError, match="of a worker's disk"):
        DaskExecutor(None, "", lambda: True)._result(lost, tmp_path)


CHILD = """
import os, sys
from pathlib import Path
import test_dask_backend
from qbhkit.catalogue import build as building
from qbhkit.catalogue.dask_backend import open_executor
building._SONGS_PER_SHARD = 3
source, catalogue, log = map(Path, sys.argv[1:])
with open_executor(workers=2) as executor:
    test_dask_backend.build(source, catalogue, log, executor=executor)
"""


def child_env(*folders):
    path = [*map(str, folders), str(Path(__file__).parents[2])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def running(process):
    """Whether a process does, or might still do, something."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_killed_client_leaves_shards_and_no_workers(source, serial, log, tmp_path):
    (log / "trap").touch()
    command = [sys.executable, "-c", CHILD, source, tmp_path / "c", log]
    env = child_env(Path(__file__).parent)
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as child:
        try:
            wait_until(lambda: list(log.glob("caught-*")))
            wait_until(lambda: shards_in(tmp_path / "c") > 4)
            assert all(map(running, workers_in(log)))
        finally:
            child.kill()
    wait_until(lambda: not any(map(running, workers_in(log))))
    report = build(source, tmp_path / "c", log)
    assert report.reused > 4
    assert files_of(tmp_path / "c") == files_of(serial[0])


class ExternalCluster:
    """A Dask cluster that this process has no part in."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address, self.folder, self.children = f"tcp://127.0.0.1:{port}", folder, []
        self.start("scheduler", "--host", "127.0.0.1", "--port", str(port))

    def start(self, program, *arguments, path=()):
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--no-dashboard"]
        with open(self.folder / f"{program}.log", "ab") as log:
            child = subprocess.Popen(
                [*command, *arguments], cwd=self.folder, stdout=log, stderr=log,
                env=child_env(*path, Path(__file__).parent),
            )  # fmt: skip
        self.children.append(child)
        return child

    def worker(self, *path):
        return self.start("worker", self.address, "--nthreads", "1", path=path)


@pytest.fixture(scope="module")
def external(tmp_path_factory):
    """A scheduler and a worker, each in a process of its own."""
    cluster = ExternalCluster(tmp_path_factory.mktemp("external"))
    cluster.worker()
    yield cluster
    for child in cluster.children:
        child.kill()
        child.wait()


def test_the_command_line_uses_an_existing_cluster(source, external, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dask_backend, "_CONNECT_S", WAIT_S)  # it may still be starting
    tunes = tmp_path / "tunes"
    tunes.mkdir()
    for file in source.glob("*.mid"):
        (tunes / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)  # the workers have another working folder
    assert main(["catalogue", "build", "tunes", "--out", "a"]) == 0
    command = ["catalogue", "build", "tunes", "--out", "b", "--scheduler", external.address]
    assert main(command) == 0
    assert f"b: {TUNES} songs" in capsys.readouterr().out
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_worker_without_the_kit_is_named(source, external, tmp_path, capsys):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'qbhkit':\n"
        "            raise ModuleNotFoundError('No module named qbhkit')\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    bare = external.worker(tmp_path)
    with distributed.Client(external.address, timeout=WAIT_S, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=WAIT_S)
    command = ["catalogue", "build", str(source), "--out", str(tmp_path / "c")]
    assert main([*command, "--scheduler", external.address]) == 2
    bare.kill()
    bare.wait()
    said = capsys.readouterr().err
    assert re.search(r"cannot use the kit \(tcp://127\S+: No module named qbhkit\): install", said)


def test_a_worker_that_has_just_died_is_not_blamed():
    client = Mock()
    found = {"tcp://a": None, "tcp://b": distributed.comm.CommClosedError("reset")}
    client.run.return_value = found
    dask_backend._refuse_without_kit(client)
    found["tcp://c"] = ModuleNotFoundError("No module named qbhkit")
    with pytest.raises(QbhError, match="tcp://c: No module named qbhkit"):
        dask_backend._refuse_without_kit(client)


def test_a_scheduler_that_dies_stops_the_build(source, serial, external, log, tmp_path):
    with (
        once_caught(log, lambda _: external.children[0].kill()),
        pytest.raises(QbhError, match="scheduler is gone: start it and run the same command"),
        open_executor(scheduler=external.address) as executor,
    ):
        build(source, tmp_path / "c", log, executor=executor)
    assert build(source, tmp_path / "c", log).reused
    assert files_of(tmp_path / "c") == files_of(serial[0])


def test_a_scheduler_that_does_not_answer(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dask_backend, "_CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        command = ["catalogue", "build", str(source), "--out", str(tmp_path / "c"), "--scheduler"]
        for address in (f"127.0.0.1:{port}", "tcp://127.0.0.1:1", "ftp://here:1"):
            assert main([*command, address]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"qbhkit: No Dask scheduler answers at {address} (")
    assert not (tmp_path / "c").exists()


def test_missing_dask_and_no_workers_are_named(monkeypatch):
    with pytest.raises(QbhError, match="0 workers build nothing"), open_executor(0):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    install = r"pip install 'qbhkit\[dask\]'"
    with pytest.raises(MissingPackageError, match=install), open_executor(2):
        pass
    with open_executor() as executor:
        assert executor is building.serial_executor
