import sys

import numpy as np
import pytest
from scipy.signal import welch

from qbhkit.errors import MissingPackageError
from qbhkit.synthesis.degrade import (
    add_noise,
    at_level,
    band_limit,
    clip,
    compress,
    degrade_recording,
    echo,
    gate,
    mp3,
    noise,
    produce,
    pump,
    quantise,
    reverberate,
    rms,
    saturate,
)

RATE_HZ = 8000


def rng(seed=0):
    return np.random.default_rng(seed)


def tone(frequency_hz=440.0, seconds=2.0, amplitude=0.3):
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * RATE_HZ)) / 8000)


def decibels(ratio):
    return 20 * np.log10(ratio)


@pytest.mark.parametrize(("db", "colour"), [(-5.0, 0.0), (0.0, 2.0), (30.0, 1.0)])
def test_levels_and_noise_lie_as_far_below_as_asked(db, colour):
    assert decibels(0.5 / rms(at_level(tone(), 0.5, db))) == pytest.approx(db, abs=1e-4)
    added = add_noise(tone(), db, colour, rng()) - tone()
    assert decibels(rms(tone()) / rms(added)) == pytest.approx(db, abs=1e-3)


@pytest.mark.parametrize(("colour", "count"), [(0.0, 60_001), (1.0, 60_000), (2.0, 60_001)])
def test_the_colour_is_the_slope_of_the_power(colour, count):
    samples = noise(count, colour, rng())
    assert len(samples) == count
    assert rms(samples) == pytest.approx(1, abs=1e-6)
    frequency, power = welch(samples, RATE_HZ, nperseg=2048)
    inside = (frequency > 50) & (frequency < 3500)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-colour, abs=0.1)


@pytest.mark.parametrize("above_db", [0.0, 6.0])
def test_clipping_cuts_the_peaks_and_nothing_else(above_db):
    samples = tone()
    found = clip(samples, above_db)
    limit = 0.3 * 10 ** (-above_db / 20)
    assert np.abs(found).max() == pytest.approx(limit, rel=1e-3)
    low = np.abs(samples) <= limit
    np.testing.assert_array_equal(found[low], samples[low])


@pytest.mark.parametrize(("bits", "peak"), [(3, 0.5), (8, 1.0)])
def test_quantising_leaves_as_many_steps_as_the_bits_say(bits, peak):
    samples = np.linspace(-peak, peak, 10_001)
    found = quantise(samples, bits, peak)
    steps = np.unique(found)
    assert len(steps) in (2**bits, 2**bits + 1)  # both ends may be there
    np.testing.assert_allclose(np.diff(steps), peak / 2 ** (bits - 1), rtol=1e-6)
    assert np.abs(found - samples).max() <= 0.5001 * peak / 2 ** (bits - 1)


def test_a_telephone_loses_what_lies_outside_its_band():
    found = {hz: rms(band_limit(tone(hz), 300, 3400, RATE_HZ)) / rms(tone(hz)) for hz in (60, 1000)}
    assert decibels(found[60]) < -20
    assert abs(decibels(found[1000])) < 1
    with_open_top = band_limit(tone(1000), 100, 9000, RATE_HZ)  # over half the rate
    assert rms(with_open_top) == pytest.approx(rms(tone(1000)), rel=0.1)


def test_a_room_adds_its_share_and_decays_to_minus_60_db():
    samples = tone()
    found = reverberate(samples, 3.0, 0.3, RATE_HZ, rng())  # longer than the sound
    assert found.shape == samples.shape
    assert rms(found - samples) == pytest.approx(0.3 * rms(samples), rel=1e-3)
    click = np.zeros(RATE_HZ)
    click[1000] = 1
    tail = reverberate(click, 0.5, 0.5, RATE_HZ, rng()) - click
    np.testing.assert_allclose(tail[:1000], 0, atol=1e-9)
    first, middle = rms(tail[1000:1400]), rms(tail[3000:3400])
    assert decibels(middle / first) == pytest.approx(-60 * 2000 / 4000, abs=4)
    np.testing.assert_allclose(tail[5001:], 0, atol=1e-9)


def test_silence_stays_nearly_silent_and_finite():
    silence = np.zeros(4000)
    for found in (
        add_noise(silence, 10, 1, rng()),
        clip(silence, 6),
        quantise(silence, 8, 0.0),
        band_limit(silence, 100, 3000, RATE_HZ),
        reverberate(silence, 0.3, 0.2, RATE_HZ, rng()),
    ):
        assert np.abs(found).max() < 1e-6
        assert found.shape == (4000,)


def test_recordings_are_degraded_by_chance():
    samples = tone(seconds=0.5).astype(np.float32)
    np.testing.assert_array_equal(degrade_recording(samples, 0.0, rng()), samples)
    assert rms(degrade_recording(0 * samples, 0.0, rng())) == pytest.approx(0.1, rel=1e-3)
    found = [degrade_recording(samples, 1.0, rng(seed)) for seed in (0, 0, 1)]
    assert found[0].dtype == np.float32
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert np.abs(np.corrcoef(found[0], samples)[0, 1]) < 0.999


def loud_and_soft():
    """A second at 0.5 and a second at 0.05, and where each of them has settled."""
    samples = np.concatenate([tone(seconds=1, amplitude=0.5), tone(seconds=1, amplitude=0.05)])
    return samples, slice(4000, 8000), slice(12000, 16000)


def test_a_compressor_narrows_the_range_by_its_ratio():
    samples, loud, soft = loud_and_soft()
    found = compress(samples, -40, 4, RATE_HZ)  # all of it lies over the threshold
    assert decibels(rms(found[loud]) / rms(found[soft])) == pytest.approx(20 / 4, abs=0.5)
    limited = compress(samples, 0, 20, RATE_HZ)
    np.testing.assert_array_equal(limited[soft], samples[soft])
    assert decibels(rms(limited[loud]) / rms(samples)) == pytest.approx(0, abs=0.5)


def test_a_gate_lowers_only_what_is_soft():
    samples, loud, soft = loud_and_soft()
    found = gate(samples, -7, RATE_HZ)
    np.testing.assert_allclose(found[loud], samples[loud])
    assert decibels(rms(found[soft]) / rms(samples[soft])) < -8


def test_saturation_adds_odd_harmonics_and_keeps_the_peak():
    found = saturate(tone(500), 4.0)
    spectrum = np.abs(np.fft.rfft(found))  # every 0.5 Hz
    assert decibels(spectrum[3000] / spectrum[1000]) > -20
    assert np.abs(found).max() == pytest.approx(0.3, rel=1e-3)


def test_an_echo_repeats_the_sound_later_and_softer():
    click = np.zeros(RATE_HZ)
    click[100] = 1
    found = echo(click, 0.25, 0.5, RATE_HZ)
    np.testing.assert_array_equal(np.flatnonzero(found), [100, 2100, 4100, 6100])
    np.testing.assert_allclose(found[[100, 2100, 4100, 6100]], [1, 0.5, 0.25, 0.125])


def test_a_side_chain_ducks_on_every_beat():
    found = pump(np.ones(RATE_HZ), 0.5, 6.0, RATE_HZ)
    np.testing.assert_allclose(decibels(found[[0, 4000]]), -6)
    assert decibels(found[3999]) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kbit_s", [16, 32])
def test_an_mp3_is_neither_late_nor_the_same(kbit_s):
    samples = 0.1 * band_limit(rng().normal(size=20_001), 100, 2000, RATE_HZ)
    found = mp3(samples, kbit_s, RATE_HZ)
    assert found.shape == samples.shape
    lags = range(-100, 101)
    alike = [np.corrcoef(samples[200:-200], np.roll(found, lag)[200:-200])[0, 1] for lag in lags]
    assert lags[int(np.argmax(alike))] == 0
    assert 0.9 < max(alike) < 0.9999


def test_an_mp3_without_pyav_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match="pip install av"):
        mp3(tone(), 32, RATE_HZ)


def test_produced_recordings_keep_time_and_pitch():
    samples = tone(400, seconds=1)
    found = [produce(samples, rng(seed)) for seed in range(12)]
    for one in found:
        assert one.shape == samples.shape
        assert np.abs(one).max() < 1.2
        assert np.abs(np.fft.rfft(one)).argmax() == 400
    assert len({one.tobytes() for one in found}) > 6
    assert np.isfinite(produce(np.zeros(8000), rng())).all()
