"""Degradations of recordings, as by rooms, microphones and codecs.

Every function takes (N,) samples and returns (N,) samples; random ones take a generator.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

Samples = NDArray[np.floating]

_EPS = 1e-9


def rms(samples: Samples) -> float:
    """Return the root mean square, never quite 0."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) + _EPS


def at_level(samples: Samples, reference: float, below_db: float) -> Samples:
    """Scale samples to an RMS that lies ``below_db`` under ``reference``."""
    return samples * (reference * 10 ** (-below_db / 20) / rms(samples))


def noise(count: int, colour: float, rng: Generator) -> NDArray[np.float64]:
    """Return (count,) noise of RMS 1, power falling as frequency ** colour: 0 white, 2 brown.

    Below 1/400 of the rate the spectrum is flat, so that brown noise stays audible.
    """
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequency = np.maximum(np.fft.rfftfreq(count), 1 / 400)
    shaped = np.fft.irfft(spectrum * frequency ** (-colour / 2), count)
    return shaped / rms(shaped)


def add_noise(samples: Samples, snr_db: float, colour: float, rng: Generator) -> Samples:
    """Add noise ``snr_db`` under the RMS of the samples.

    Notebook: notebooks/02_trackers.py
    """
    return samples + at_level(noise(len(samples), colour, rng), rms(samples), snr_db)


def clip(samples: Samples, above_db: float) -> Samples:
    """Clip the peaks as if they had been recorded ``above_db`` too loud, at the level they had."""
    limit = np.abs(samples).max() * 10 ** (-above_db / 20)
    return np.clip(samples, -limit, limit)


def quantise(samples: Samples, bits: int, peak: float = 1.0) -> Samples:
    """Round to ``bits`` bits over -peak to peak."""
    steps = 2 ** (bits - 1) / max(peak, _EPS)
    return np.round(samples * steps) / steps


def band_limit(samples: Samples, low_hz: float, high_hz: float, rate_hz: int) -> Samples:
    """Keep one band, with second-order slopes, as a telephone does."""
    edges = [low_hz, min(high_hz, 0.49 * rate_hz)]
    return sosfilt(butter(2, edges, "band", fs=rate_hz, output="sos"), samples)


def reverberate(
    samples: Samples, decay_s: float, wet: float, rate_hz: int, rng: Generator
) -> Samples:
    """Add a room: exponentially decaying noise, ``decay_s`` to -60 dB, at ``wet`` of the level."""
    count = max(round(decay_s * rate_hz), 2)
    response = rng.normal(size=count) * 10 ** (-3 * np.arange(count) / count)
    tail = fftconvolve(samples, response)[: len(samples)]
    return samples + at_level(tail, rms(samples), -20 * np.log10(max(wet, _EPS)))


def degrade_recording(samples: Samples, share: float, rng: Generator) -> NDArray[np.float32]:
    """Degrade samples as a room and a poor microphone do, each kind of damage by chance.

    Args:
        samples: (N,) at 8 kHz; silence becomes noise.
        share: probability of each kind; that of noise is twice as high.
        rng: the random generator.
    """
    if not samples.any():  # no voice and no accompaniment
        samples = 0.1 * noise(len(samples), rng.uniform(0, 2), rng)
    if rng.random() < share:
        samples = reverberate(samples, rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.5), 8000, rng)
    if rng.random() < 2 * share:
        samples = add_noise(samples, rng.uniform(0, 40), rng.uniform(0, 2), rng)
    if rng.random() < share:
        samples = band_limit(samples, rng.uniform(60, 350), rng.uniform(2000, 3900), 8000)
    if rng.random() < share:
        samples = clip(samples, rng.uniform(0, 15))
    if rng.random() < share:
        samples = quantise(samples, 8, float(np.abs(samples).max()) * rng.uniform(1, 4))
    return np.asarray(samples, np.float32)
