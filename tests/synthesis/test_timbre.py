import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import score_of
from scipy.ndimage import gaussian_filter1d

from qbhkit.audio import Audio
from qbhkit.contour import F0Track
from qbhkit.errors import MissingPackageError
from qbhkit.synthesis.singer import Voice, render_hum, sung_line
from qbhkit.synthesis.timbre import TIMBRE_RATE_HZ, analyse, sing, sing_again

# onset s, duration s, MIDI pitch
NOTES = np.array([[0.0, 0.5, 57], [0.5, 0.5, 61], [1.0, 0.6, 64], [1.6, 0.5, 59], [2.1, 0.8, 55]])
SINGER = Voice("vowels", note_error_st=0, timing_error=0, breath=0.02, consonants=0.8, gap=0.3)
LEGATO = replace(SINGER, gap=0.0, vibrato_st=0, jitter_st=0, glide_s=0.02)


def rng(seed=0):
    return np.random.default_rng(seed)


def centroid_hz(audio) -> float:
    power = np.abs(np.fft.rfft(audio.samples)) ** 2
    frequency = np.fft.rfftfreq(len(audio.samples), 1 / audio.rate_hz)
    return float((frequency * power).sum() / power.sum())


@pytest.fixture(scope="module")
def recording():
    """Stands for a recorded voice: five syllables of known pitch."""
    return render_hum(NOTES, SINGER, rng())


@pytest.fixture(scope="module")
def timbre(recording):
    return analyse(recording.audio, recording.f0)


def test_every_note_of_a_recording_is_a_syllable(recording, timbre):
    assert len(timbre.syllables) == len(NOTES)
    voiced = recording.f0.voiced
    before = 0
    for first, vowel, end in timbre.syllables:
        assert before <= first <= vowel < end
        assert not voiced[first:vowel].any()
        assert voiced[vowel:end].all()
        before = end
    assert timbre.envelope.shape == timbre.aperiodicity.shape
    assert len(timbre.envelope) == len(voiced)


def test_a_syllable_survives_a_lost_frame_and_a_short_one_is_none():
    hz = np.zeros(100)
    hz[10:30] = hz[31:50] = 200  # one frame lost
    hz[60:65] = 200  # too short
    hz[70:90] = 200
    audio = Audio(rng().normal(0, 0.1, 16000).astype(np.float32), TIMBRE_RATE_HZ)
    found = analyse(audio, F0Track(hz, (hz > 0).astype(float))).syllables
    assert found[:, 1:].tolist() == [[10, 50], [70, 90]]
    assert found[1, 0] >= 65  # a consonant never reaches into what was sung before


def test_what_is_sung_is_what_was_asked(timbre):
    line = sung_line(NOTES + np.array([0, 0, 3]), replace(SINGER, vibrato_st=0.5), rng(1))
    hum, again, other = (sing(line, timbre, 1.0, rng(seed)) for seed in (2, 2, 3))
    np.testing.assert_array_equal(hum.audio.samples, again.audio.samples)
    assert not np.array_equal(hum.audio.samples, other.audio.samples)
    assert hum.audio.rate_hz == TIMBRE_RATE_HZ
    assert len(hum.audio.samples) == 160 * len(line.level)
    assert np.abs(hum.audio.samples).max() == pytest.approx(0.5, abs=1e-6)
    at = hum.f0.voiced
    assert at.sum() > 100
    sung_st = 69 + 12 * np.log2(hum.f0.frequency_hz[at] / 440)
    np.testing.assert_allclose(sung_st, line.pitch_st[at], atol=1e-3)
    assert score_of(hum).raw_pitch_accuracy >= 0.9


def test_a_consonant_comes_before_its_note_and_is_unvoiced_and_a_rest_is_silent(timbre):
    _, vowel, end = timbre.syllables[1]
    line = sung_line(np.array([[0, 0.5, 57], [0.5, 0.5, 61], [1.5, 0.5, 62.0]]), LEGATO, rng())
    one_syllable = timbre._replace(syllables=np.array([[vowel - 6, vowel, end]]))
    hum = sing(line, one_syllable, 1.0, rng())
    for onset_s in line.onsets_s:
        start = round(onset_s / 0.01)
        assert not hum.f0.voiced[start - 6 : start].any()
        assert hum.f0.voiced[start : start + 20].all()
        assert np.abs(hum.audio.samples[160 * (start - 6) : 160 * start]).max() > 0
    assert hum.f0.voiced[round(line.onsets_s[1] / 0.01) - 7]  # legato up to the consonant
    assert not hum.f0.voiced[130:160].any()
    assert np.abs(hum.audio.samples[160 * 135 : 160 * 160]).max() < 0.01


@pytest.mark.parametrize("shift_st", [-4.0, 7.0])
def test_a_recording_is_sung_again_in_another_key(recording, timbre, shift_st):
    hum = sing_again(timbre, shift_st, 1.0)
    assert len(hum.audio.samples) == len(recording.audio.samples)
    np.testing.assert_array_equal(hum.f0.voiced, recording.f0.voiced)
    at = hum.f0.voiced
    ratio = hum.f0.frequency_hz[at] / recording.f0.frequency_hz[at]
    np.testing.assert_allclose(12 * np.log2(ratio), shift_st, atol=1e-3)
    assert score_of(hum).raw_pitch_accuracy >= 0.9


def test_what_is_sung_again_comes_at_its_time(recording, timbre):
    """Never early, for WORLD's filter rings after each pulse; late by less than half a frame."""
    again = sing_again(timbre, 0.0, 1.0).audio.samples
    level = [gaussian_filter1d(np.abs(x), 40) for x in (recording.audio.samples, again)]
    fits = {lag: np.corrcoef(level[0], np.roll(level[1], lag))[0, 1] for lag in range(-200, 201, 4)}
    assert -80 < max(fits, key=fits.__getitem__) <= 0


def test_a_longer_throat_sounds_darker_at_the_same_pitch(timbre):
    short, usual, long = (sing_again(timbre, 0.0, tract) for tract in (0.8, 1.0, 1.25))
    assert centroid_hz(short.audio) > 1.05 * centroid_hz(usual.audio)
    assert centroid_hz(usual.audio) > 1.05 * centroid_hz(long.audio)
    np.testing.assert_array_equal(short.f0.frequency_hz, long.f0.frequency_hz)


def test_without_pyworld_it_says_what_to_install(recording, timbre, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(MissingPackageError, match="pip install pyworld-prebuilt"):
        analyse(recording.audio, recording.f0)
    with pytest.raises(MissingPackageError, match="pip install pyworld-prebuilt"):
        sing_again(timbre, 0.0, 1.0)
