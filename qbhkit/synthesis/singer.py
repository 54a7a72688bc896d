"""Hums from notes: a source-filter singer that needs no recordings, and its exact pitch."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfilt

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, midi_to_hz
from qbhkit.errors import QbhError
from qbhkit.synthesis.degrade import band_limit

Style = Literal["mm", "vowels", "whistle"]

SINGER_RATE_HZ = 16000
LEAD_IN_S = 0.2  # silence before the first note
SUNG_LEVEL = 0.05  # of the level curve; a frame below it counts as unvoiced
_MOST_HARMONICS = 40
_CONSONANT_S = 0.06
_WHISTLE_ST = 24.0  # people whistle a tune about two octaves above where they sing it
# Centre (Hz), width (Hz) and gain of the resonances of a closed-mouth "mm".
_HUM_RESONANCES = ((250.0, 120.0, 1.0), (1000.0, 250.0, 0.08), (2200.0, 400.0, 0.04))
# The first three formants (Hz) of a, e, i, o, u: averages of adult speakers, rounded.
# Source: Peterson and Barney, "Control methods used in a study of the vowels", 1952.
_VOWELS_HZ = np.array(
    [[750, 1150, 2500], [550, 1900, 2550], [280, 2400, 3000], [550, 850, 2450], [320, 900, 2300]],
    float,
)
_VOWEL_WIDTHS_HZ, _VOWEL_GAINS = (90.0, 120.0, 170.0), (1.0, 0.6, 0.35)


@dataclass(frozen=True)
class Voice:
    """Say how somebody sings; the default errors are those of an untrained singer.

    Raises:
        QbhError: if the style is unknown, or a size is out of range.
    """

    style: Style = "mm"  # mm: closed mouth; vowels: one per note; whistle: two octaves higher
    key_st: float = 0.0  # transposition of the whole tune, semitones
    tempo: float = 1.0  # factor on the written tempo
    note_error_st: float = 0.25  # standard deviation of a note's pitch error, semitones
    timing_error: float = 0.08  # standard deviation of a note's length, share of the length
    glide_s: float = 0.05  # duration of a glide between notes
    scoop_st: float = 0.0  # how far below its pitch a note begins, semitones
    vibrato_st: float = 0.25  # depth, semitones; it sets in on long notes
    vibrato_hz: float = 5.3  # rate
    jitter_st: float = 0.08  # standard deviation of the slow random wander of pitch
    breath: float = 0.02  # noise, share of the voice's level
    gap: float = 0.12  # share of each note that is silent at its end
    consonants: float = 0.0  # share of notes that begin with an unvoiced burst
    tract: float = 1.0  # length of the vocal tract; 1.15 is a bass, 0.8 a child

    def __post_init__(self) -> None:
        if self.style not in ("mm", "vowels", "whistle"):
            raise QbhError(f"style must be mm, vowels or whistle, not {self.style!r}.")
        if not (self.tempo > 0 and self.tract > 0 and 0 <= self.gap < 1):
            raise QbhError("A voice needs tempo > 0, tract > 0 and a gap from 0 to below 1.")


class RenderedVoice(NamedTuple):
    """Hold a rendered voice, which peaks at 0.5, and its exact pitch every 10 ms."""

    audio: Audio
    f0: F0Track  # 0 Hz where unvoiced


class Line(NamedTuple):
    """Hold the pitch and level to sing, every 10 ms, and where the notes begin."""

    pitch_st: NDArray[np.float64]  # (N,) MIDI semitones, continuous through rests
    level: NDArray[np.float64]  # (N,) 0 to 1
    onsets_s: NDArray[np.float64]  # (M,)


def render_hum(notes: NDArray, voice: Voice, rng: Generator) -> RenderedVoice:
    """Hum, sing or whistle a melody, at 16 kHz.

    Args:
        notes: (M, 3) onset in seconds, duration in seconds, MIDI pitch; M >= 1.
        voice: who sings, and how.
        rng: the random generator; the same state gives the same samples.

    Notebook: notebooks/01_audio_to_melody.py, notebooks/02_trackers.py,
        notebooks/04_augmentation.py
    """
    return render_line(sung_line(notes, voice, rng), voice, rng)


def render_line(
    line: Line, voice: Voice, rng: Generator, rate_hz: int = SINGER_RATE_HZ
) -> RenderedVoice:
    """Render a line of :func:`sung_line` with the tone, breath and consonants of a voice.

    ``rate_hz`` must be a multiple of 100; half the rate takes a quarter of the time.
    """
    if voice.style == "whistle":
        line = line._replace(pitch_st=line.pitch_st + _WHISTLE_ST)
    sounding = line.level > SUNG_LEVEL
    at = np.arange(len(sounding) * round(F0_HOP_S * rate_hz)) / rate_hz
    grid_s = _middles_s(len(sounding))
    frequency = midi_to_hz(np.interp(at, grid_s, line.pitch_st))
    loudness = np.interp(at, grid_s, line.level)
    voiced = _harmonics(frequency, _resonances(line, voice, at, rng), voice.style, rate_hz)
    noise = band_limit(rng.normal(size=len(at)), 200, 3000, rate_hz)
    voiced /= max(voiced.std(), 1e-9)  # 0 if all harmonics lie above half the rate
    samples = loudness * (voiced + voice.breath * noise / noise.std())
    if voice.consonants:
        samples += _bursts(line.onsets_s, voice, at, rng, rate_hz)
    samples += 0.1 * voice.breath * rng.normal(size=len(at))  # noise of the room
    return rendered(samples, rate_hz, np.where(sounding, midi_to_hz(line.pitch_st), 0.0))


def rendered(samples: NDArray, rate_hz: int, f0_hz: NDArray) -> RenderedVoice:
    """Return a voice, scaled to a peak of 0.5, and its (N,) Hz every 10 ms, 0 = unvoiced."""
    peak = max(np.abs(samples).max(), 1e-9)
    audio = Audio((0.5 * samples / peak).astype(np.float32), rate_hz)
    return RenderedVoice(audio, F0Track(f0_hz, (f0_hz > 0).astype(np.float32)))


def sung_line(notes: NDArray, voice: Voice, rng: Generator) -> Line:
    """Draw the pitch and level with which a voice sings notes, as :func:`render_hum` takes them.

    The first note begins after 0.2 s, whatever its onset.
    """
    sung = _sung_notes(notes, voice, rng)
    count = int(np.ceil((sung[-1, 0] + sung[-1, 1] + 0.1) / F0_HOP_S))
    grid_s = _middles_s(count)
    owner = _owner(sung[:, 0], grid_s)
    into_s = grid_s - sung[owner, 0]
    sounding = (into_s >= 0) & (into_s < sung[owner, 1])
    width = max(voice.glide_s / F0_HOP_S / 2, 1e-3)  # frames; the filter divides by it
    pitch = gaussian_filter1d(sung[owner, 2], width, mode="nearest")
    pitch -= voice.scoop_st * np.exp(-np.maximum(into_s, 0) / 0.06)
    settled = np.clip((into_s - 0.25) / 0.3, 0, 1)
    pitch += settled * voice.vibrato_st * np.sin(2 * np.pi * voice.vibrato_hz * grid_s)
    wander = gaussian_filter1d(rng.normal(size=count), 8)
    pitch += voice.jitter_st * wander / max(wander.std(), 1e-9)
    level = gaussian_filter1d(sounding.astype(float), 2, mode="constant")
    return Line(pitch, level, sung[:, 0])


def with_melismas(line: Line, share: float, rng: Generator) -> Line:
    """Split a share of the notes of 0.3 s or more into two or three pitches, on one syllable."""
    ends = [*np.round(line.onsets_s[1:] / F0_HOP_S).astype(int), len(line.level)]
    steps = np.zeros(len(line.level))
    for begin, end in zip(np.round(line.onsets_s / F0_HOP_S).astype(int), ends, strict=True):
        if end - begin >= 30 and rng.random() < share:
            for part in np.array_split(np.arange(begin, end), rng.integers(2, 4))[1:]:
                steps[part] = rng.choice([-4, -3, -2, -1, 1, 2, 3, 4])
    glided = gaussian_filter1d(steps, 2, mode="nearest")
    return line._replace(pitch_st=line.pitch_st + glided)


def harmony(notes: NDArray, chords: NDArray, rng: Generator) -> NDArray[np.float64]:
    """Move (M, 3) notes a third or a fifth up or down, within the pitch classes of both."""
    scale = set(np.concatenate([notes[:, 2], chords[:, 2]]) % 12)
    sizes = np.array([(4, 3), (7, 6)][rng.integers(2)]) * rng.choice([-1, 1])
    first, second = ((notes[:, 2] + size) % 12 for size in sizes)
    use_second = ~np.isin(first, list(scale)) & np.isin(second, list(scale))
    return notes + np.outer(np.where(use_second, *sizes[::-1]), [0, 0, 1])


def add_breaths(samples: NDArray, f0: NDArray, rate_hz: int, rng: Generator) -> NDArray:
    """Breathe in before phrases: noise where at least 0.3 s are unvoiced.

    Args:
        samples: (N,) a voice.
        f0: its Hz every 10 ms, 0 = unvoiced, which a breath leaves as it is.
        rate_hz: of the samples.
        rng: the random generator.
    """
    level = samples[np.repeat(f0 > 0, round(F0_HOP_S * rate_hz))[: len(samples)]].std()
    result = samples.copy()
    for onset in np.flatnonzero((f0[1:] > 0) & (f0[:-1] == 0)) + 1:
        count = int(rng.integers(15, 30))  # frames
        if onset >= 30 and not f0[onset - 30 : onset].any():
            noise = rng.normal(size=round(count * F0_HOP_S * rate_hz))
            breath = band_limit(noise * np.hanning(len(noise)), 500, 3500, rate_hz)
            breath *= level * 10 ** (rng.uniform(-30, -12) / 20) / breath.std()
            first = round((onset - count) * F0_HOP_S * rate_hz)
            result[first : first + len(breath)] += breath
    return result


def _middles_s(count: int) -> NDArray:
    return (np.arange(count) + 0.5) * F0_HOP_S


def _owner(onsets_s: NDArray, grid_s: NDArray) -> NDArray[np.int64]:
    """Return the number of the note that began last; 0 before the first note."""
    return np.clip(np.searchsorted(onsets_s, grid_s, side="right") - 1, 0, None)


def _sung_notes(notes: NDArray, voice: Voice, rng: Generator) -> NDArray:
    """Apply key, tempo and the singer's errors: a long note delays all that follow."""
    notes = np.asarray(notes, float)
    steps = np.diff(notes[:, 0], append=notes[-1, 0] + notes[-1, 1]) / voice.tempo
    steps *= np.exp(rng.normal(0, voice.timing_error, len(notes)))
    onsets = LEAD_IN_S + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    share = np.minimum(notes[:, 1] / voice.tempo / np.maximum(steps, 1e-3), 1.0) * (1 - voice.gap)
    pitch = notes[:, 2] + voice.key_st + rng.normal(0, voice.note_error_st, len(notes))
    return np.stack([onsets, np.maximum(share * steps, 0.06), pitch], axis=1)


def _resonances(
    line: Line, voice: Voice, at: NDArray, rng: Generator
) -> list[tuple[NDArray | float, float, float]]:
    """Return centre (Hz, may change in time), width (Hz) and gain of each resonance."""
    if voice.style == "mm":
        return [(centre / voice.tract, width, gain) for centre, width, gain in _HUM_RESONANCES]
    if voice.style == "whistle":
        return []
    grid_s = _middles_s(len(line.level))
    vowel = rng.integers(len(_VOWELS_HZ), size=len(line.onsets_s))[_owner(line.onsets_s, grid_s)]
    moving = gaussian_filter1d(_VOWELS_HZ[vowel], 4, axis=0) / voice.tract
    tables = zip(moving.T, _VOWEL_WIDTHS_HZ, _VOWEL_GAINS, strict=True)
    return [(np.interp(at, grid_s, centre), width, gain) for centre, width, gain in tables]


def _harmonics(
    frequency_hz: NDArray,
    resonances: list[tuple[NDArray | float, float, float]],
    style: Style,
    rate_hz: int,
) -> NDArray[np.float64]:
    """Sum the harmonics of a gliding tone, weighted by the resonances."""
    phase = 2 * np.pi * np.cumsum(frequency_hz) / rate_hz
    if style == "whistle":
        return np.sin(phase) + 0.02 * np.sin(2 * phase)
    total = np.zeros(len(frequency_hz))
    for harmonic in range(1, _MOST_HARMONICS + 1):
        partial_hz = harmonic * frequency_hz
        if partial_hz.min() >= rate_hz / 2:
            break
        gain = sum(
            peak / (1 + ((partial_hz - centre) / width) ** 2) for centre, width, peak in resonances
        )
        audible = partial_hz < 0.45 * rate_hz
        total += np.where(audible, gain / harmonic * np.sin(harmonic * phase), 0.0)
    return total


def _bursts(
    onsets_s: NDArray, voice: Voice, at: NDArray, rng: Generator, rate_hz: int
) -> NDArray[np.float64]:
    """Return noise bursts before some notes, like t, k, s: unvoiced, about as loud as the voice."""
    envelope = np.zeros(len(at))
    for onset_s in onsets_s[rng.random(len(onsets_s)) < voice.consonants]:
        into = (at - (onset_s - _CONSONANT_S)) / _CONSONANT_S
        envelope = np.maximum(envelope, np.where((into >= 0) & (into < 1), np.sin(np.pi * into), 0))
    high = sosfilt(butter(2, 2000, "high", fs=rate_hz, output="sos"), rng.normal(size=len(at)))
    return 0.5 * envelope * high / high.std()
