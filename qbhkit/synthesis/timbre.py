"""The timbre of a recorded voice at any pitch: its spectral envelopes, synthesised with another f0.

Source: Morise, Yokomori and Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for
real-time applications", 2016.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import binary_closing

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, midi_to_hz
from qbhkit.errors import missing_package
from qbhkit.synthesis.singer import SUNG_LEVEL, Line, RenderedVoice, rendered

TIMBRE_RATE_HZ = 16000
_SHORTEST_SYLLABLE = 8  # frames of 10 ms
_CONSONANT = 12  # frames before a syllable that may belong to its consonant


class Timbre(NamedTuple):
    """Hold what WORLD measured of a recorded voice every 10 ms."""

    f0_hz: NDArray[np.float64]  # (N,) Hz, 0 where unvoiced
    envelope: NDArray[np.float32]  # (N, bins) power spectral envelope
    aperiodicity: NDArray[np.float32]  # (N, bins) 0 to 1
    syllables: NDArray[np.int64]  # (S, 3) frames: begin of consonant, begin and end of vowel


def analyse(audio: Audio, f0: F0Track) -> Timbre:
    """Measure envelope and aperiodicity of a voice at 16 kHz whose pitch is known.

    Raises:
        MissingPackageError: if pyworld is not installed.
    """
    world = _world()
    hz = np.where(f0.voiced, f0.frequency_hz, 0.0).astype(float)
    centres_s = (np.arange(len(hz)) + 0.5) * F0_HOP_S
    samples = audio.samples.astype(float)
    envelope = world.cheaptrick(samples, hz, centres_s, TIMBRE_RATE_HZ)
    aperiodicity = world.d4c(samples, hz, centres_s, TIMBRE_RATE_HZ)
    voiced = np.concatenate([[0], binary_closing(hz > 0, np.ones(3)), [0]])
    begins, ends = np.flatnonzero(np.diff(voiced)).reshape(-1, 2).T  # of runs of voiced frames
    firsts = np.maximum(np.concatenate([[0], ends])[: len(ends)], begins - _CONSONANT)
    syllables = np.stack([firsts, begins, ends], axis=1)[ends - begins >= _SHORTEST_SYLLABLE]
    return Timbre(hz, envelope.astype(np.float32), aperiodicity.astype(np.float32), syllables)


def sing(line: Line, timbre: Timbre, tract: float, rng: Generator) -> RenderedVoice:
    """Sing a line with the syllables of a recorded voice, one drawn for each note.

    The consonant of a syllable comes before the note, unvoiced; its vowel is stretched over the
    note. Formants are divided by ``tract``; 1 leaves the voice as it is.
    """
    count = len(line.level)
    source = np.zeros(count, np.int64)
    loudness = np.zeros(count)
    starts = np.round(line.onsets_s / F0_HOP_S).astype(int)
    sounding = line.level > SUNG_LEVEL
    for start, following in zip(starts, [*starts[1:], count], strict=True):
        first, vowel, end = timbre.syllables[rng.integers(len(timbre.syllables))]
        source[start:following] = np.linspace(vowel, end - 1, following - start).astype(int)
        loudness[start:following] = line.level[start:following]
        begin = max(start - (vowel - first), 0)
        source[begin:start] = np.arange(vowel - (start - begin), vowel)
        loudness[begin:start] = 1.0
        sounding[begin:start] = False
    f0_hz = np.where(sounding, midi_to_hz(line.pitch_st), 0.0)
    return _render(f0_hz, source, loudness, timbre, tract)


def sing_again(timbre: Timbre, shift_st: float, tract: float) -> RenderedVoice:
    """Sing a recording again, ``shift_st`` semitones higher and with another vocal tract."""
    everything = np.arange(len(timbre.f0_hz))
    shifted = timbre.f0_hz * 2 ** (shift_st / 12)
    return _render(shifted, everything, np.ones(len(everything)), timbre, tract)


def _render(
    f0_hz: NDArray, source: NDArray, loudness: NDArray, timbre: Timbre, tract: float
) -> RenderedVoice:
    bins = timbre.envelope.shape[1]
    reads = np.minimum(np.arange(bins) * tract, bins - 1).astype(int)
    envelope = timbre.envelope[source][:, reads] * loudness[:, None] ** 2 + 1e-12
    samples = _world().synthesize(
        np.ascontiguousarray(f0_hz, float),
        np.ascontiguousarray(envelope, float),
        np.ascontiguousarray(timbre.aperiodicity[source][:, reads], float),
        TIMBRE_RATE_HZ,
        1000 * F0_HOP_S,
    )
    # WORLD puts frame k at k * 10 ms, the kit at its middle
    samples = np.concatenate([np.zeros(round(0.5 * F0_HOP_S * TIMBRE_RATE_HZ)), samples])
    samples = samples[: round(len(f0_hz) * F0_HOP_S * TIMBRE_RATE_HZ)]
    return rendered(samples, TIMBRE_RATE_HZ, f0_hz)


def _world() -> Any:
    try:
        import pyworld
    except ImportError:
        raise missing_package("WORLD", "pyworld-prebuilt==0.3.6.post1") from None
    return pyworld
