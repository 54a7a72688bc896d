"""Degradations of recordings, as by rooms, studios, microphones and codecs.

Every function takes (N,) samples and returns (N,) samples; random ones take a generator.
"""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from qbhkit.errors import missing_package

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


def _level(samples: Samples, rate_hz: int) -> NDArray[np.float64]:
    """Return the (N,) RMS of the last 20 ms or so."""
    kept = np.exp(-1 / (0.02 * rate_hz))
    return np.sqrt(np.maximum(lfilter([1 - kept], [1, -kept], np.square(samples)), 0)) + _EPS


def compress(samples: Samples, threshold_db: float, ratio: float, rate_hz: int) -> Samples:
    """Reduce what lies over a threshold (relative to the RMS) by a ratio; 20 and more limits."""
    over = _level(samples, rate_hz) / (rms(samples) * 10 ** (threshold_db / 20))
    return samples * np.maximum(over, 1) ** (1 / ratio - 1)


def gate(samples: Samples, threshold_db: float, rate_hz: int) -> Samples:
    """Lower what lies under a threshold (relative to the RMS), as a phone does between words."""
    over = _level(samples, rate_hz) / (rms(samples) * 10 ** (threshold_db / 20))
    return samples * np.minimum(over, 1)


def saturate(samples: Samples, drive: float) -> Samples:
    """Bend the peaks as a tube does; a drive of 0.1 hardly shows, one of 5 distorts."""
    peak = np.abs(samples).max() + _EPS
    return peak * np.tanh(drive * samples / peak) / np.tanh(drive)


def echo(samples: Samples, delay_s: float, gain: float, rate_hz: int) -> Samples:
    """Repeat the samples three times, each time ``gain`` (0 to 1) as loud as before."""
    delay, result = round(delay_s * rate_hz), np.array(samples, float)
    for k in range(1, 4):
        result[k * delay :] += gain**k * samples[: max(len(samples) - k * delay, 0)]
    return result


def pump(samples: Samples, beat_s: float, depth_db: float, rate_hz: int) -> Samples:
    """Duck by ``depth_db`` on every beat, and recover until the next, as a side chain does."""
    since = np.arange(len(samples)) / rate_hz % beat_s / beat_s  # 0 to 1
    return samples * 10 ** (-depth_db * (1 - since) ** 2 / 20)


def mp3(samples: Samples, kbit_s: int, rate_hz: int) -> Samples:
    """Encode as MP3 and decode, without the delay of the codec.

    Args:
        samples: (N,), at most 1.
        kbit_s: 8 to 64 at 8 kHz. There, 16 to 32 spend on a voice about what 64 to 128 do in stereo
            at 44.1 kHz.
        rate_hz: a rate that MP3 has.

    Raises:
        MissingPackageError: if PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise missing_package("The MP3 codec", "av") from None
    coder: Any = av.CodecContext.create("libmp3lame", "w")
    coder.sample_rate, coder.layout, coder.format = rate_hz, "mono", "fltp"
    coder.bit_rate = 1000 * kbit_s
    coder.open()
    decoder: Any = av.CodecContext.create("mp3float", "r")
    size = coder.frame_size
    blocks = np.pad(samples, (0, -len(samples) % size + 2 * size)).astype(np.float32)
    decoded = []
    for block in [*blocks.reshape(-1, 1, size), None]:
        frame = block if block is None else av.AudioFrame.from_ndarray(block, "fltp", "mono")
        if frame is not None:
            frame.sample_rate = rate_hz
        for packet in coder.encode(frame):  # the first one says how much its decoder must skip
            decoded += [part.to_ndarray()[0] for part in decoder.decode(packet)]
    return np.concatenate(decoded)[: len(samples)]


def produce(samples: Samples, rng: Generator) -> Samples:
    """Treat (N,) samples at 8 kHz as a studio and a player do, each effect by chance; peak 0.9."""
    if rng.random() < 0.5:
        samples = compress(samples, rng.uniform(-10, 6), rng.choice([2, 4, 20]), 8000)
    if rng.random() < 0.3:
        samples = saturate(samples, rng.uniform(0.3, 4))
    if rng.random() < 0.2:
        samples = echo(samples, rng.uniform(0.1, 0.45), rng.uniform(0.1, 0.45), 8000)
    if rng.random() < 0.1:
        samples = gate(samples, rng.uniform(-25, -10), 8000)
    samples = 0.9 * samples / max(float(np.abs(samples).max()), _EPS)
    return mp3(samples, int(rng.choice([16, 24, 32])), 8000) if rng.random() < 0.4 else samples


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
