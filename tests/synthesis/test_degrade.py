import numpy as np
import pytest
from scipy.signal import welch

from qbhkit.synthesis.degrade import (
    add_noise,
    at_level,
    band_limit,
    clip,
    noise,
    quantise,
    reverberate,
    rms,
)

RATE_HZ = 8000


def rng(seed=0):
    return np.random.default_rng(seed)


def tone(frequency_hz=440.0, seconds=2.0, amplitude=0.3):
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * RATE_HZ)) / 8000)


def decibels(ratio):
    return 20 * np.log10(ratio)


def test_rms_is_the_naive_one_and_never_zero():
    samples = rng().normal(size=1000).astype(np.float32)
    assert rms(samples) == pytest.approx(np.sqrt(sum(float(x) ** 2 for x in samples) / 1000))
    assert rms(np.zeros(10)) > 0


@pytest.mark.parametrize("below_db", [-6.0, 0.0, 20.0])
def test_a_level_lies_as_far_below_as_asked(below_db):
    found = at_level(tone(), 0.5, below_db)
    assert decibels(0.5 / rms(found)) == pytest.approx(below_db, abs=1e-4)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 30.0])
@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_noise_is_added_at_the_ratio_asked(snr_db, colour):
    samples = tone()
    added = add_noise(samples, snr_db, colour, rng()) - samples
    assert decibels(rms(samples) / rms(added)) == pytest.approx(snr_db, abs=1e-3)


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("count", [200_000, 200_001])
def test_the_colour_is_the_slope_of_the_power(colour, count):
    samples = noise(count, colour, rng())
    assert len(samples) == count
    assert rms(samples) == pytest.approx(1, abs=1e-6)
    frequency, power = welch(samples, RATE_HZ, nperseg=2048)
    inside = (frequency > 50) & (frequency < 3500)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-colour, abs=0.1)


@pytest.mark.parametrize("above_db", [0.0, 6.0, 15.0])
def test_clipping_cuts_the_peaks_and_nothing_else(above_db):
    samples = tone()
    found = clip(samples, above_db)
    limit = 0.3 * 10 ** (-above_db / 20)
    assert np.abs(found).max() == pytest.approx(limit, rel=1e-3)
    low = np.abs(samples) <= limit
    np.testing.assert_array_equal(found[low], samples[low])


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("peak", [0.5, 1.0])
def test_quantising_leaves_as_many_steps_as_the_bits_say(bits, peak):
    samples = np.linspace(-peak, peak, 10_001)
    found = quantise(samples, bits, peak)
    steps = np.unique(found)
    assert len(steps) in (2**bits, 2**bits + 1)  # both ends may be there
    np.testing.assert_allclose(np.diff(steps), peak / 2 ** (bits - 1), rtol=1e-6)
    assert np.abs(found - samples).max() <= 0.5001 * peak / 2 ** (bits - 1)


def test_a_quiet_recording_has_few_steps_left():
    assert len(np.unique(quantise(tone(amplitude=0.01), 8))) == 3


def test_a_telephone_loses_what_lies_outside_its_band():
    found = {hz: rms(band_limit(tone(hz), 300, 3400, RATE_HZ)) / rms(tone(hz)) for hz in (60, 1000)}
    assert decibels(found[60]) < -20
    assert abs(decibels(found[1000])) < 1
    with_open_top = band_limit(tone(1000), 100, 9000, RATE_HZ)  # over half the rate
    assert rms(with_open_top) == pytest.approx(rms(tone(1000)), rel=0.1)


@pytest.mark.parametrize("decay_s", [0.2, 3.0])
def test_a_room_keeps_the_length_and_adds_its_share(decay_s):
    samples = tone()
    found = reverberate(samples, decay_s, 0.3, RATE_HZ, rng())
    assert found.shape == samples.shape
    assert rms(found - samples) == pytest.approx(0.3 * rms(samples), rel=1e-3)


def test_a_room_decays_to_minus_60_db_and_never_comes_early():
    click = np.zeros(RATE_HZ)
    click[1000] = 1
    tail = reverberate(click, 0.5, 0.5, RATE_HZ, rng()) - click
    np.testing.assert_allclose(tail[:1000], 0, atol=1e-9)
    first, middle = rms(tail[1000:1400]), rms(tail[3000:3400])
    assert decibels(middle / first) == pytest.approx(-60 * 2000 / 4000, abs=4)
    np.testing.assert_allclose(tail[5001:], 0, atol=1e-9)


@pytest.mark.parametrize(
    "degradation",
    [
        lambda x: add_noise(x, 10, 1, rng()),
        lambda x: clip(x, 6),
        lambda x: quantise(x, 8, float(np.abs(x).max())),
        lambda x: band_limit(x, 100, 3000, RATE_HZ),
        lambda x: reverberate(x, 0.3, 0.2, RATE_HZ, rng()),
    ],
    ids=["noise", "clip", "quantise", "band", "room"],
)
def test_silence_stays_nearly_silent_and_finite(degradation):
    found = degradation(np.zeros(4000))
    assert np.abs(found).max() < 1e-6
    assert found.shape == (4000,)
