"""The front door: lazy, documented, and it takes whatever a recording may be given as."""

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qbhkit
from qbhkit.audio import load
from qbhkit.contour import CONTOUR_HOP_S, F0_HOP_S
from qbhkit.storage import asset

HUM, HUMMED = asset("hums/demo_1.flac"), "oneills1850-0487-0500-498"
FUNCTIONS = (
    "track",
    "to_contour",
    "embed",
    "build_catalogue",
    "open_catalogue",
    "search",
    "evaluate",
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """The folder of a catalogue of twenty tunes, the one that is hummed among them."""
    from qbhkit.corpora import songs_of
    from qbhkit.corpora.abc import music21_collection

    songs = [song for song in songs_of(music21_collection("oneills1850"))]
    chosen = [song for song in songs if song.id == HUMMED] + songs[:19]
    out = tmp_path_factory.mktemp("built") / "catalogue"
    report = qbhkit.build_catalogue(chosen, out=str(out), progress=False)
    assert (report.songs, report.failures) == (20, [])
    return out


def test_the_way_from_a_hum_to_its_song(catalogue):
    """The lines of the docstring and of the README."""
    f0 = qbhkit.track(str(HUM), "swift-f0")
    assert (f0.hop_s, len(f0.frequency_hz)) == (F0_HOP_S, round(f0.duration_s / F0_HOP_S))
    contour = qbhkit.to_contour(f0)
    assert contour.hop_s == CONTOUR_HOP_S
    vector = qbhkit.embed(contour)
    assert (vector.shape, vector.dtype) == ((512,), np.float32)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    answers = qbhkit.search(HUM, catalogue, k=5)
    assert len(answers) == 5
    assert answers[0].song_id == HUMMED
    found = qbhkit.evaluate([qbhkit_query(HUM, HUMMED)], catalogue)
    assert found.metrics().top1 == 1
    assert len(qbhkit.open_catalogue(str(catalogue)).songs) == 20


def qbhkit_query(path, song_id):
    from qbhkit.metrics import LabelledQuery

    return LabelledQuery(str(path), song_id, None)


def sources():
    """The same hum as everything that a recording may be given as."""
    audio = load(HUM, 16000)
    f0 = qbhkit.track(HUM, "swift-f0")
    return {
        "str": str(HUM),
        "Path": Path(HUM),
        "samples": (audio.samples, audio.rate_hz),
        "stereo": (np.stack([audio.samples, audio.samples], axis=1), audio.rate_hz),
        "F0Track": f0,
        "Contour": qbhkit.to_contour(f0),
    }


@pytest.mark.parametrize("kind", ["str", "Path", "samples", "stereo", "F0Track", "Contour"])
def test_a_hum_may_be_given_as(kind, catalogue):
    given, expected = sources()[kind], qbhkit.to_contour(HUM)
    found = qbhkit.to_contour(given)
    # From a file, samples pass the resampler at another moment.
    assert np.mean(np.abs(found.pitch_st - expected.pitch_st) < 0.2) > 0.97
    assert float(qbhkit.embed(given) @ qbhkit.embed(expected)) > 0.97
    assert qbhkit.search(given, catalogue, k=1)[0].song_id == HUMMED


def test_two_takes_are_searched_as_one(catalogue):
    takes = [str(HUM), qbhkit.to_contour(HUM)]
    assert qbhkit.search(takes, catalogue, k=1)[0].song_id == HUMMED


@pytest.mark.parametrize("given", [3, None, ("no", "sound"), (np.zeros((2, 2, 2)), 8000)])
def test_what_is_no_recording_is_refused_in_a_sentence(given):
    with pytest.raises(qbhkit.QbhError, match=r"\.$"):
        qbhkit.to_contour(given)


def test_another_place_to_match_from_is_refused(catalogue):
    with pytest.raises(qbhkit.QbhError, match="must be 'start' or 'anywhere', not 'middle'"):
        qbhkit.search(HUM, catalogue, match_from="middle")


def test_every_name_is_there_and_documented():
    assert set(FUNCTIONS) | {"HumRecorder"} <= set(dir(qbhkit))
    for name in qbhkit.__all__:
        assert getattr(qbhkit, name) is not None
    for name in FUNCTIONS:
        text = inspect.getdoc(getattr(qbhkit, name))
        for part in ("Args:", "Raises:", "Notebook:"):
            assert part in text, name
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        _ = qbhkit.sing


def test_a_name_loads_its_own_room_alone():
    code = "import sys, qbhkit; qbhkit.F0Track; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "qbhkit.contour" in loaded
    assert not {"torch", "numba", "qbhkit.embedding", "qbhkit.retrieval"} & loaded
