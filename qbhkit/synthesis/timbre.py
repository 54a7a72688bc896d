"""The timbre of a recorded voice at any pitch: its spectral envelopes, synthesised with another f0.

Source: Morise, Yokomori and Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for
real-time applications", 2016.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import binary_closing

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, midi_to_hz
from qbhkit.errors import missing_package
from qbhkit.synthesis.singer import SUNG_LEVEL, Line, RenderedVoice

TIMBRE_RATE_HZ = 16000
_SHORTEST_SYLLABLE = 8  # frames of 10 ms
_CONSONANT = 12  # frames before a syllable that may belong to its consonant
_PERIOD_MS = 1000 * F0_HOP_S


@dataclass(frozen=True, eq=False)
class Timbre:
    """Hold what WORLD measured of a recorded voice every 10 ms.

    Args:
        f0_hz: (N,) Hz, 0 where unvoiced.
        envelope: (N, bins) power spectral envelope.
        aperiodicity: (N, bins) 0 to 1.
        syllables: (S, 3) frames: where a consonant begins, where its vowel begins, where it ends.
    """

    f0_hz: NDArray[np.float64]
    envelope: NDArray[np.float32]
    aperiodicity: NDArray[np.float32]
    syllables: NDArray[np.int64]


def analyse(audio: Audio, f0: F0Track) -> Timbre:
    """Measure envelope and aperiodicity of a voice whose pitch is known.

    Args:
        audio: mono, 16 kHz.
        f0: its pitch every 10 ms.

    Raises:
        MissingPackageError: if pyworld is not installed.
    """
    world = _world()
    hz = np.where(f0.voiced, f0.frequency_hz, 0.0).astype(float)
    centres_s = (np.arange(len(hz)) + 0.5) * F0_HOP_S
    samples = audio.samples.astype(float)
    envelope = world.cheaptrick(samples, hz, centres_s, TIMBRE_RATE_HZ)
    aperiodicity = world.d4c(samples, hz, centres_s, TIMBRE_RATE_HZ)
    syllables = _syllables(binary_closing(hz > 0, np.ones(3)))
    return Timbre(hz, envelope.astype(np.float32), aperiodicity.astype(np.float32), syllables)


def sing(line: Line, timbre: Timbre, tract: float, rng: Generator) -> RenderedVoice:
    """Sing a line with the syllables of a recorded voice, one drawn for each note.

    The consonant of a syllable comes before the note, unvoiced; its vowel is stretched over the
    note.

    Args:
        line: pitch and level every 10 ms.
        timbre: with at least one syllable.
        tract: formants are divided by it; 1 leaves the voice as it is.
        rng: the random generator.

    Returns:
        16 kHz audio peaking at 0.5, and its exact f0.
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
    return _render(np.where(sounding, midi_to_hz(line.pitch_st), 0.0), source, loudness,
                   timbre, tract)  # fmt: skip


def sing_again(timbre: Timbre, shift_st: float, tract: float) -> RenderedVoice:
    """Sing a recording again in another key and with another vocal tract, articulation unchanged.

    Args:
        timbre: of the recording.
        shift_st: change of key, semitones.
        tract: formants are divided by it; 1 leaves the voice as it is.

    Returns:
        16 kHz audio peaking at 0.5, and its exact f0.
    """
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
        _PERIOD_MS,
    )
    # WORLD puts frame k at k * 10 ms, the kit at its middle
    samples = np.concatenate([np.zeros(round(0.5 * F0_HOP_S * TIMBRE_RATE_HZ)), samples])
    samples = samples[: round(len(f0_hz) * F0_HOP_S * TIMBRE_RATE_HZ)]
    samples = (0.5 * samples / max(np.abs(samples).max(), 1e-9)).astype(np.float32)
    return RenderedVoice(
        Audio(samples, TIMBRE_RATE_HZ), F0Track(f0_hz, (f0_hz > 0).astype(np.float32))
    )


def _syllables(voiced: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (S, 3) consonant, vowel and end of every voiced run that is long enough."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], voiced, [False]]).astype(int)))
    begins, ends = edges[::2], edges[1::2]
    before = np.concatenate([[0], ends[:-1]])
    firsts = np.maximum(before, begins - _CONSONANT)
    long_enough = ends - begins >= _SHORTEST_SYLLABLE
    return np.stack([firsts, begins, ends], axis=1)[long_enough]


def _world() -> Any:
    try:
        import pyworld
    except ImportError:
        raise missing_package("WORLD", "pyworld-prebuilt==0.3.6.post1") from None
    return pyworld
