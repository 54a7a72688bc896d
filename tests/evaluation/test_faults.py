"""Kills, full and read-only disks, sources that vanish: nothing is lost, and the cure is named.

Ten kills of building and adding are in test_catalogue_kill.py, two writers of one catalogue in
test_edit.py; ``qbhkit bench faults`` kills each work fifty times.
"""

import os
import subprocess
from pathlib import Path

import pytest
import soundfile

from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.read import open_catalogue
from qbhkit.cli import main
from qbhkit.corpora import open_source
from qbhkit.evaluation.benchmarks.bench_faults import (
    WORKS,
    fill_disk,
    kill_often,
    own_disk,
    started,
    works,
)
from qbhkit.pitch.folder_to_csv import extract_all

KILLS = 2


@pytest.fixture(scope="module")
def work_named(tmp_path_factory):
    with works(tmp_path_factory.mktemp("works") / "given", songs=40) as found:
        assert tuple(found) == WORKS
        yield found


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """Skip where this process may not mount a disk."""
    try:
        with own_disk(tmp_path_factory.mktemp("probe")):
            pass
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a disk of its own takes root")


@pytest.mark.parametrize("name", WORKS[2:])
def test_kills_at_random_moments_change_nothing(work_named, name, tmp_path):
    assert kill_often(work_named[name], tmp_path, KILLS, seed=3) == KILLS


@pytest.mark.parametrize("name", ["build", "train", "fetch", "convert"])  # add ends as build does
def test_on_a_full_disk_nothing_is_lost(work_named, name, tmp_path, disks):
    sentence = fill_disk(work_named[name], tmp_path)
    assert "No space left on device" in sentence
    assert "DISK" in sentence
    assert sentence.endswith("make room, and run the same command again.")


@pytest.mark.parametrize("name", ["add", "train"])
def test_a_read_only_folder_is_named(work_named, name, tmp_path, disks):
    work = work_named[name]
    with own_disk(tmp_path / "disk") as remount:
        place = tmp_path / "disk" / "work"
        work.reset(place)
        before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
        remount("ro")
        with started(work.command(place)) as child:
            _, said = child.communicate()
        assert child.returncode == 2
        assert "Traceback" not in said.decode()
        assert str(place) in said.decode().splitlines()[-1]
        assert {file: file.read_bytes() for file in before} == before


@pytest.fixture
def recordings(tmp_path, tunes, write_midi):
    """A folder of two recordings and two tunes."""
    folder = tmp_path / "songs"
    for number in range(2):
        write_midi(folder / f"tune-{number}.mid", tunes[number].notes)
    hum = Path(__file__).parents[2] / "qbhkit" / "assets" / "hums" / "demo_1.flac"
    samples, rate_hz = soundfile.read(hum)
    for number in range(2):
        soundfile.write(folder / f"take-{number}.wav", samples * (1 - 0.2 * number), rate_hz)
    return folder


def test_a_source_that_vanishes_fails_alone(recordings, tmp_path, embedder):
    songs, _ = read_sources(open_source(str(recordings), tmp_path))
    (recordings / "take-0.wav").unlink()
    failures = build_catalogue(songs, tmp_path / "catalogue", embedder, progress=False).failures
    assert [Path(failure.name).name for failure in failures] == ["take-0.wav"]
    assert "does not exist" in failures[0].reason
    names = {song["id"] for song in open_catalogue(tmp_path / "catalogue").songs}
    assert names == {"take-1", "tune-0", "tune-1"}


def test_a_clock_that_goes_back_leaves_no_melody_of_an_older_recording(recordings, tmp_path):
    source, target = recordings / "take-0.wav", tmp_path / "out" / "take-0.f0.csv"
    extract_all({source: target}, "whistle", progress=False)
    before = target.read_bytes()
    (recordings / "take-1.wav").replace(source)
    soundfile.write(source, soundfile.read(source)[0][4000:], 16000)
    os.utime(source, (1e9, 1e9))  # written in 2001, as that clock says
    assert extract_all({source: target}, "whistle", progress=False).written == 1
    assert target.read_bytes() != before


def test_not_enough_memory_is_one_sentence(monkeypatch, capsys, tmp_path):
    def greedy(*_arguments):
        raise MemoryError

    monkeypatch.setattr("qbhkit.retrieval.searcher.open_catalogue", greedy)
    assert main(["search", "hum.wav", "--catalogue", str(tmp_path)]) == 2
    assert "not enough memory" in capsys.readouterr().err
