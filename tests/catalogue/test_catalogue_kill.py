"""A process that is killed at any moment loses no finished work."""

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import soundfile

from qbhkit.catalogue.edit import verify_catalogue

KILLS = 4
RECORDINGS, TUNES = 12, 8

# A build or an addition in which every recording and every shard takes a while.
CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from qbhkit.contour import F0Track, midi_to_hz
from qbhkit.corpora import open_source
from qbhkit.catalogue import build as building
from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.edit import add_songs
from qbhkit.embedding.windows import Reading

action, source, catalogue, log = sys.argv[1:]
building._SONGS_PER_SHARD = 2

def note(what):
    with open(log, "a") as stream:
        stream.write(what + "\\n")

class FakeTracker:
    rate_hz = 8000
    def track(self, audio):
        time.sleep(0.02)
        seed = round(float(np.abs(audio.samples).max()) * 1000)
        note("tracked")
        pitch = 60 + np.cumsum(np.random.default_rng(seed).choice([-3, -2, 2, 3], 40))
        return F0Track(np.repeat(midi_to_hz(pitch), 20), np.ones(800), 0.01)

class Embedder:
    identity, reading, embedding_dim = "fake", Reading(20), 16
    matrix = np.random.default_rng(0).normal(size=(40, 16))
    def embed(self, frames):
        print("a shard", flush=True)
        note("embedded")
        time.sleep(0.02)
        vectors = (frames.reshape(len(frames), -1) + 1e-3) @ self.matrix
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

songs, _ = read_sources(open_source(source, Path()))
change = add_songs if action == "add" else build_catalogue
print("begins", flush=True)
change(songs, Path(catalogue), Embedder(), "swift-f0", lambda name: FakeTracker(), progress=False)
"""


@pytest.fixture(scope="module")
def source(tunes, write_midi, tmp_path_factory):
    """A folder of songs in notes and recordings."""
    folder = tmp_path_factory.mktemp("source")
    for k, tune in enumerate(tunes[:TUNES]):
        write_midi(folder / f"tune-{k}.mid", tune.notes)
    for k in range(RECORDINGS):
        samples = np.sin(np.arange(8000) * 0.1) * (500 + 10 * k) / 1000
        soundfile.write(folder / f"take-{k}.wav", samples, 8000)
    return folder


def start(action, source, catalogue):
    log = catalogue.with_suffix(".log")
    command = [sys.executable, "-c", CHILD, action, source, catalogue, log]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def finish(action, source, catalogue):
    with start(action, source, catalogue) as child:
        assert child.wait() == 0


def kill_often(action, source, catalogue, before, seed):
    """Kill the command at random moments; each run continues from what the last one left.

    Each run is allowed up to three shards and a moment more. If it ends before it is killed, which
    happens on a busy machine, the catalogue is reset.
    """
    rng = np.random.default_rng(seed)
    kills = 0
    while kills < KILLS:
        with start(action, source, catalogue) as child:
            assert child.stdout.readline() == b"begins\n"
            for _ in range(rng.integers(4)):
                child.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            child.kill()
        kills += child.returncode == -signal.SIGKILL
        if child.returncode == 0:
            shutil.rmtree(catalogue)
            shutil.copytree(before, catalogue)


def files_of(catalogue):
    return {str(file.relative_to(catalogue)): file.read_bytes() for file in catalogue.rglob("*.*")}


@pytest.mark.parametrize("action", ["build", "add"])
def test_kills_at_random_moments_change_nothing(source, tmp_path, action):
    before, at_once, killed = (tmp_path / name for name in ("before", "at_once", "killed"))
    before.mkdir()
    if action == "add":
        few = tmp_path / "few"
        few.mkdir()
        for name in ("tune-0.mid", "tune-1.mid", "tune-2.mid", "take-0.wav"):
            shutil.copy(source / name, few)
        finish("build", few, before)
    for catalogue in (at_once, killed):
        shutil.copytree(before, catalogue)
    finish(action, source, at_once)
    kill_often(action, source, killed, before, seed=5)
    if action == "add":
        assert verify_catalogue(killed).problems == []  # what stood there before can be read
    shards = files_of(killed / "shards")
    done = {name: content for name, content in shards.items() if name[0] != "."}
    recordings = sum(b"tracker" in content for content in done.values())
    log = killed.with_suffix(".log")
    log.write_text("")
    finish(action, source, killed)
    shards = files_of(killed / "shards")
    left = {"tracked": RECORDINGS - recordings, "embedded": len(shards.keys() - done)}
    assert Counter(log.read_text().split()) == Counter(left)  # finished work is not repeated
    assert files_of(killed) == files_of(at_once)
    if action == "add":
        assert files_of(before / "shards").items() < shards.items()
    assert verify_catalogue(killed) == (TUNES + RECORDINGS, verify_catalogue(at_once).windows, [])
