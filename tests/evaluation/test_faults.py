"""Kills, full and read-only disks, sources that vanish: nothing is lost, and the cure is named.

Two writers of one catalogue are in test_edit.py; ``qbhkit bench faults`` kills each work fifty
times.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.read import open_catalogue
from qbhkit.cli import main
from qbhkit.corpora import open_source
from qbhkit.evaluation.benchmarks import bench_faults
from qbhkit.evaluation.benchmarks.bench_faults import WORKS, own_disk
from qbhkit.storage import asset

KILLS = 2


@pytest.fixture(scope="module")
def work_named(tmp_path_factory):
    with bench_faults.works(tmp_path_factory.mktemp("works") / "given", songs=40) as found:
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


@pytest.mark.parametrize("name", WORKS)
def test_kills_at_random_moments_change_nothing(work_named, name, tmp_path):
    assert bench_faults.kill_often(work_named[name], tmp_path, KILLS, seed=3) == KILLS


@pytest.mark.parametrize("name", ["build", "train", "fetch", "convert"])  # add ends as build does
def test_on_a_full_disk_nothing_is_lost(work_named, name, tmp_path, disks):
    sentence = bench_faults.fill_disk(work_named[name], tmp_path)
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
        with bench_faults.started(work.command(place)) as child:
            _, said = child.communicate()
        assert child.returncode == 2
        assert "Traceback" not in said.decode()
        assert str(place) in said.decode().splitlines()[-1]
        assert {file: file.read_bytes() for file in before} == before


def test_a_source_that_vanishes_fails_alone(tmp_path, tunes, write_midi, embedder):
    folder = tmp_path / "songs"
    write_midi(folder / "tune.mid", tunes[0].notes)
    for name in ("kept.flac", "lost.flac"):
        shutil.copyfile(asset("hums/demo_1.flac"), folder / name)
    songs, _ = read_sources(open_source(str(folder), tmp_path))
    (folder / "lost.flac").unlink()
    (failure,) = build_catalogue(songs, tmp_path / "catalogue", embedder, progress=False).failures
    assert Path(failure.name).name == "lost.flac"
    assert "does not exist" in failure.reason
    assert {song["id"] for song in open_catalogue(tmp_path / "catalogue").songs} == {"kept", "tune"}


def test_not_enough_memory_is_one_sentence(monkeypatch, capsys, tmp_path):
    def greedy(*_arguments):
        raise MemoryError

    monkeypatch.setattr("qbhkit.retrieval.searcher.open_catalogue", greedy)
    assert main(["search", "hum.wav", "--catalogue", str(tmp_path)]) == 2
    assert "not enough memory" in capsys.readouterr().err
