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
from qbhkit.catalogue.edit import add_songs, remove_songs, verify_catalogue
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
    remove_songs(["take-3", "tune-05"], tmp_path / "c")
    added = build(source, tmp_path / "c", log, add_songs, executor=executor).added
    assert (added, workers_in(log) & {os.getpid()}) == (2, set())


def test_workers_run_with_settings_of_their_own(executor):
    addresses = list(executor.client.scheduler_info(n_workers=-1)["workers"])
    assert [re.sub(r":\d+$", "", address) for address in addresses] == ["tcp://127.0.0.1"] * 2
    seen = executor.client.run(lambda: os.environ["OMP_NUM_THREADS"])
    assert list(seen.values()) == ["1", "1"]
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


@pytest.fixture(scope="module")
def external(tmp_path_factory):
    """The address of a scheduler, its process, and that of a worker in another folder."""
    folder, children = tmp_path_factory.mktemp("external"), []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    for program, *arguments in (
        ("scheduler", "--host", "127.0.0.1", "--port", str(port)),
        ("worker", address, "--nthreads", "1"),
    ):
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--no-dashboard"]
        with open(folder / f"{program}.log", "ab") as log:
            everything = [*command, *arguments]
            child = subprocess.Popen(everything, cwd=folder, stdout=log, stderr=log, env=env)
        children.append(child)
    yield address, *children
    for child in children:
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
    assert main(["catalogue", "build", "tunes", "--out", "b", "--scheduler", external[0]]) == 0
    assert f"b: {TUNES} songs" in capsys.readouterr().out
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


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
        once_caught(log, lambda _: external[1].kill()),
        pytest.raises(QbhError, match="scheduler is gone: start it and run the same command"),
        open_executor(scheduler=external[0]) as executor,
    ):
        build(source, tmp_path / "c", log, executor=executor)
    assert build(source, tmp_path / "c", log).reused
    assert files_of(tmp_path / "c") == files_of(serial[0])


def test_a_scheduler_that_does_not_answer(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dask_backend, "_CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        command = ["catalogue", "build", str(source), "--out", str(tmp_path / "c"), "--scheduler"]
        for address in (f"127.0.0.1:{port}", "ftp://here:1"):
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
