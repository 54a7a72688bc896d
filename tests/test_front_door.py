"""The front door: lazy, documented, and it takes whatever a recording may be given as."""

import numpy as np
import pytest

import qbhkit
from qbhkit.audio import load
from qbhkit.contour import CONTOUR_HOP_S, F0_HOP_S
from qbhkit.metrics import LabelledQuery
from qbhkit.storage import asset

HUM, HUMMED = asset("hums/demo_1.flac"), "oneills1850-0487-0500-498"


def test_the_way_from_a_hum_to_its_song(hummed_catalogue):
    """The lines of the docstring and of the README."""
    catalogue = hummed_catalogue
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
    found = qbhkit.evaluate([LabelledQuery(str(HUM), HUMMED, None)], catalogue)
    assert found.metrics().top1 == 1
    assert len(qbhkit.open_catalogue(str(catalogue)).songs) == 21


def test_a_hum_may_be_given_in_many_ways(hummed_catalogue):
    audio, f0 = load(HUM, 16000), qbhkit.track(HUM, "swift-f0")
    expected = qbhkit.to_contour(HUM)
    stereo = (np.stack([audio.samples, audio.samples], axis=1), audio.rate_hz)
    for given in (str(HUM), (audio.samples, audio.rate_hz), stereo, f0, expected):
        found = qbhkit.to_contour(given)
        # From a file, samples pass the resampler at another moment. Of sound, faint ends of notes
        # are unvoiced; an f0 track is taken as it is.
        assert np.mean(np.abs(found.pitch_st - expected.pitch_st) < 0.2) > 0.97
        assert float(qbhkit.embed(given) @ qbhkit.embed(expected)) > 0.95
        assert qbhkit.search(given, hummed_catalogue, k=1)[0].song_id == HUMMED
    takes = [str(HUM), expected]
    assert qbhkit.search(takes, hummed_catalogue, k=1)[0].song_id == HUMMED


def test_what_is_no_recording_and_no_place_is_refused(hummed_catalogue):
    with pytest.raises(qbhkit.QbhError, match=r"^Give a path, .*\.$"):
        qbhkit.to_contour(None)
    with pytest.raises(qbhkit.QbhError, match="must be 'start' or 'anywhere', not 'middle'"):
        qbhkit.search(HUM, hummed_catalogue, match_from="middle")


def test_every_name_is_there():
    assert "HumRecorder" in dir(qbhkit)
    assert all(getattr(qbhkit, name) is not None for name in qbhkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        _ = qbhkit.sing
