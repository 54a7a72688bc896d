import sys

import mir_eval
import numpy as np
import pytest

from qbhkit.audio import Audio
from qbhkit.contour import F0Track
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.melody import trackers
from qbhkit.melody.synthesis import Voice, render_hum
from qbhkit.melody.trackers import (
    TRACKERS,
    default_tracker,
    get_tracker,
    on_f0_grid,
    rescale_confidence,
)

NAMES = ["swift-f0", "pyin", "praat"]
# onset s, duration s, MIDI pitch: a man's and a woman's register, a leap, a long note
NOTES = np.array([[0, 0.4, 50], [0.4, 0.4, 55], [0.8, 0.8, 62], [1.6, 0.4, 67], [2.0, 0.6, 57.0]])


@pytest.fixture(scope="module")
def hum():
    return render_hum(NOTES, Voice(), np.random.default_rng(11))


@pytest.fixture(scope="module", params=NAMES)
def tracker(request):
    return get_tracker(request.param)


def raw_pitch_accuracy(truth: F0Track, found: F0Track) -> float:
    times = np.arange(len(truth.frequency_hz)) * 0.01
    voicing, cents, found_voicing, found_cents = mir_eval.melody.to_cent_voicing(
        times, np.where(truth.voiced, truth.frequency_hz, 0),
        times, np.where(found.voiced, found.frequency_hz, 0),
    )  # fmt: skip
    return mir_eval.melody.raw_pitch_accuracy(
        voicing, cents, found_voicing, found_cents, cent_tolerance=50
    )


def test_a_hum_is_heard_as_it_was_sung(tracker, hum):
    assert tracker.rate_hz == hum.audio.rate_hz
    found = tracker.track(hum.audio)
    assert len(found.frequency_hz) == len(hum.f0.frequency_hz)
    # the faded edges of notes are left out: there the truth is a matter of taste
    sung = hum.f0.voiced
    core = sung & np.roll(sung, 4) & np.roll(sung, -4)
    truth = F0Track(np.where(core, hum.f0.frequency_hz, 0), core.astype(float))
    assert core.sum() > 150
    assert raw_pitch_accuracy(truth, found) > 0.95
    if tracker.name != "pyin":  # which holds a pitch through short gaps
        assert found.voiced[~sung].mean() < 0.35


def test_silence_is_unvoiced(tracker):
    found = tracker.track(Audio(np.zeros(16000, np.float32), 16000))
    assert len(found.frequency_hz) == 100
    assert not found.voiced.any()


def test_white_noise_is_almost_unvoiced(tracker):
    noise = 0.1 * np.random.default_rng(2).normal(size=16000).astype(np.float32)
    found = tracker.track(Audio(noise, 16000))
    assert found.voiced.mean() < (0.4 if tracker.name == "pyin" else 0.1)  # pYIN is weak in noise


def test_the_shortest_recording_is_tracked(tracker):
    at = np.arange(1600) / 16000
    found = tracker.track(Audio((0.3 * np.sin(2 * np.pi * 220 * at)).astype(np.float32), 16000))
    assert len(found.frequency_hz) == 10


def test_pyin_in_chunks_has_every_frame(hum, monkeypatch):
    monkeypatch.setattr(trackers.PyinTracker, "chunk_s", 1.0)
    found = get_tracker("pyin").track(hum.audio)
    assert len(found.frequency_hz) == len(hum.f0.frequency_hz)
    both = found.voiced & hum.f0.voiced
    assert both.sum() > 0.8 * hum.f0.voiced.sum()
    cents = 1200 * np.log2(found.frequency_hz[both] / hum.f0.frequency_hz[both])
    assert np.mean(np.abs(cents) < 50) > 0.9


def test_names_agree_with_the_registry():
    assert list(TRACKERS) == NAMES
    assert [TRACKERS[name].name for name in NAMES] == NAMES
    assert default_tracker() == "swift-f0"
    assert get_tracker().name == "swift-f0"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(QbhError, match=r"'crepe'.*swift-f0, pyin, praat"):
        get_tracker("crepe")


def test_swift_f0_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "swift_f0", None)
    with pytest.raises(MissingPackageError, match="pip install swift-f0, or use pyin"):
        get_tracker("swift-f0")


def test_praat_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'qbhkit\[trackers\]'"):
        get_tracker("praat")


def test_pyin_is_the_default_where_swift_f0_is_missing(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert default_tracker() == "pyin"
    assert get_tracker().name == "pyin"


def test_a_missing_package_is_bad_input_and_an_import_error():
    assert issubclass(MissingPackageError, QbhError)
    assert issubclass(MissingPackageError, ImportError)


@pytest.mark.parametrize("hop_s", [0.004, 0.01, 0.016, 0.032])
@pytest.mark.parametrize("count", [1, 2, 57])
def test_the_grid_takes_the_nearest_frame(hop_s, count):
    rng = np.random.default_rng(count)
    centres_s = np.arange(count) * hop_s + rng.uniform(0, hop_s / 2, count) * 0.9
    frequency, voicing = rng.uniform(100, 400, count), rng.random(count)
    duration_s = count * hop_s + 0.123
    found = on_f0_grid(centres_s, frequency, voicing, duration_s)
    assert len(found.frequency_hz) == round(duration_s / 0.01)
    for k in range(len(found.frequency_hz)):
        nearest = min(range(count), key=lambda n: abs(centres_s[n] - (k + 0.5) * 0.01))
        assert found.frequency_hz[k] == np.float32(frequency[nearest])
        assert found.voicing[k] == np.float32(voicing[nearest])


def test_the_grid_calls_nan_and_zero_unvoiced():
    centres_s = (np.arange(4) + 0.5) * 0.01
    frequency = np.array([200.0, np.nan, 0.0, 210.0])
    found = on_f0_grid(centres_s, frequency, np.ones(4), 0.04)
    assert found.frequency_hz.tolist() == [200, 0, 0, 210]
    assert found.voicing.tolist() == [1, 0, 0, 1]


def test_the_grid_of_no_frames_is_unvoiced():
    found = on_f0_grid(np.zeros(0), np.zeros(0), np.zeros(0), 0.5)
    assert len(found.frequency_hz) == 50
    assert not found.voiced.any()


def test_the_threshold_becomes_one_half():
    found = rescale_confidence(np.array([0.0, 0.4, 0.8, 0.9, 1.0]), 0.8)
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 1.0])
    dense = rescale_confidence(np.linspace(0, 1, 101), 0.65)
    assert (np.diff(dense) > 0).all()
    assert ((dense >= 0.5) == (np.linspace(0, 1, 101) >= 0.65)).all()
