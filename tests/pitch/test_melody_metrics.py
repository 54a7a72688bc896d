import sys

import numpy as np
import pytest

from qbhkit.errors import MissingPackageError
from qbhkit.metrics import melody_score

pytestmark = pytest.mark.filterwarnings("ignore:.*no voiced frames")  # mir_eval's

TRUE_HZ = np.array([0, 0, 200, 200, 200, 200, 200, 200, 200, 200], float)


def cents(hz, by):
    return hz * 2 ** (by / 1200)


def test_every_measure_counts_its_own_frames():
    """Two unvoiced frames, one of them called voiced; 8 voiced, of which 2 wrong and 1 missed."""
    found = TRUE_HZ.copy()
    found[0] = 300
    found[2] = cents(200, 49)
    found[3] = cents(200, -51)
    found[4] = 400
    voicing = np.array([0.9, 0.1, 0.9, 0.9, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9])
    score = melody_score(TRUE_HZ, found, voicing)
    assert score.raw_pitch_accuracy == pytest.approx(6 / 8)  # also where voicing says no
    assert score.raw_chroma_accuracy == pytest.approx(7 / 8)
    assert score.voicing_recall == pytest.approx(7 / 8)
    assert score.voicing_false_alarm == pytest.approx(1 / 2)
    assert score.overall_accuracy == pytest.approx((1 + 5) / 10)


def test_the_threshold_is_the_first_voiced_value():
    voicing = np.full(10, 0.3)
    assert melody_score(TRUE_HZ, TRUE_HZ, voicing, 0.3).voicing_recall == 1
    assert melody_score(TRUE_HZ, TRUE_HZ, voicing, 0.31).voicing_recall == 0


def test_a_frame_without_pitch_is_not_voiced():
    score = melody_score(TRUE_HZ, np.zeros(10), np.ones(10))
    assert score == (0, 0, 0, 0, pytest.approx(0.2))


def test_nothing_voiced_gives_numbers():
    score = melody_score(np.zeros(5), np.full(5, 200.0), np.zeros(5))
    assert np.isfinite(score).all()
    assert score.overall_accuracy == 1


def test_low_pitches_count_as_pitches():
    low = np.full(10, 7.0)  # below MIDI 0, where cents turn negative: mir_eval's sign for unvoiced
    score = melody_score(TRUE_HZ, low, np.ones(10))
    assert np.isfinite(score).all()
    assert score.raw_pitch_accuracy == 0


def test_without_mir_eval_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mir_eval", None)
    with pytest.raises(MissingPackageError, match="pip install mir_eval"):
        melody_score(TRUE_HZ, TRUE_HZ, np.ones(10))
