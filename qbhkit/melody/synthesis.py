"""Hums from notes: a source-filter voice with no recordings behind it, and the pitch it sang.

The kit ships demo hums made this way, so that nobody's voice or song is redistributed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfilt

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, midi_to_hz

RATE_HZ = 16000
_MOST_HARMONICS = 40
# Centre (Hz), width (Hz) and gain of the resonances of a closed-mouth "mm".
_HUM_RESONANCES = ((250.0, 120.0, 1.0), (1000.0, 250.0, 0.08), (2200.0, 400.0, 0.04))


@dataclass(frozen=True)
class Voice:
    """Say how somebody hums; the errors are those of an untrained singer.

    Args:
        key_st: transposition of the whole tune, semitones.
        tempo: 1 as written, 2 twice as fast.
        note_error_st: standard deviation of a note's pitch error, semitones.
        timing_error: standard deviation of a note's length, as a share of it.
        glide_s: time a glide between notes takes.
        vibrato_st: depth of the vibrato, semitones; it sets in on long notes.
        vibrato_hz: its rate.
        jitter_st: standard deviation of the slow random wander of pitch.
        breath: noise, as a share of the voice's level.
        gap: share of each note that is silent at its end.
    """

    key_st: float = 0.0
    tempo: float = 1.0
    note_error_st: float = 0.25
    timing_error: float = 0.08
    glide_s: float = 0.05
    vibrato_st: float = 0.25
    vibrato_hz: float = 5.3
    jitter_st: float = 0.08
    breath: float = 0.02
    gap: float = 0.12


class Hum(NamedTuple):
    """A rendered hum and the exact pitch that was sung."""

    audio: Audio
    f0: F0Track


def render_hum(notes: NDArray, voice: Voice, rng: Generator) -> Hum:
    """Hum a melody.

    Args:
        notes: (M, 3) onset in seconds, duration in seconds, MIDI pitch; M >= 1.
        voice: who hums.
        rng: the random generator; the same state gives the same samples.

    Returns:
        16 kHz audio peaking at 0.5, and its exact f0 every 10 ms.

    Notebook: notebooks/00_hum_to_song.py
    """
    sung = _sung_notes(notes, voice, rng)
    count = int(np.ceil((sung[-1, 0] + sung[-1, 1] + 0.1) / F0_HOP_S))
    pitch, level = _curves(sung, count, voice, rng)
    f0 = F0Track(np.where(level > 0.05, midi_to_hz(pitch), 0.0), (level > 0.05).astype(np.float32))
    at = np.arange(count * round(F0_HOP_S * RATE_HZ)) / RATE_HZ
    grid_s = (np.arange(count) + 0.5) * F0_HOP_S
    frequency = midi_to_hz(np.interp(at, grid_s, pitch))
    loudness = np.interp(at, grid_s, level)
    voiced = _harmonics(frequency)
    noise = sosfilt(
        butter(2, [200, 3000], "band", fs=RATE_HZ, output="sos"), rng.normal(size=len(at))
    )
    samples = loudness * (voiced / voiced.std() + voice.breath * noise / noise.std())
    samples += 0.1 * voice.breath * rng.normal(size=len(at))  # the room
    return Hum(Audio((0.5 * samples / np.abs(samples).max()).astype(np.float32), RATE_HZ), f0)


def _sung_notes(notes: NDArray, voice: Voice, rng: Generator) -> NDArray:
    """Apply key, tempo and the singer's errors; time moves on by what was really sung."""
    notes = np.asarray(notes, float)
    steps = np.diff(notes[:, 0], append=notes[-1, 0] + notes[-1, 1]) / voice.tempo
    steps *= np.exp(rng.normal(0, voice.timing_error, len(notes)))
    onsets = 0.2 + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    share = np.minimum(notes[:, 1] / voice.tempo / np.maximum(steps, 1e-3), 1.0) * (1 - voice.gap)
    pitch = notes[:, 2] + voice.key_st + rng.normal(0, voice.note_error_st, len(notes))
    return np.stack([onsets, np.maximum(share * steps, 0.06), pitch], axis=1)


def _curves(
    sung: NDArray, count: int, voice: Voice, rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (count,) pitch in semitones and level 0 to 1, every 10 ms."""
    grid_s = (np.arange(count) + 0.5) * F0_HOP_S
    owner = np.clip(np.searchsorted(sung[:, 0], grid_s, side="right") - 1, 0, None)
    into_s = grid_s - sung[owner, 0]
    sounding = (into_s >= 0) & (into_s < sung[owner, 1])
    pitch = gaussian_filter1d(sung[owner, 2], voice.glide_s / F0_HOP_S / 2, mode="nearest")
    settled = np.clip((into_s - 0.25) / 0.3, 0, 1)
    pitch += settled * voice.vibrato_st * np.sin(2 * np.pi * voice.vibrato_hz * grid_s)
    wander = gaussian_filter1d(rng.normal(size=count), 8)
    pitch += voice.jitter_st * wander / max(wander.std(), 1e-9)
    level = gaussian_filter1d(sounding.astype(float), 2, mode="constant")
    return pitch, level


def _harmonics(frequency_hz: NDArray) -> NDArray[np.float64]:
    """Sum harmonics of a gliding tone, each as loud as the resonances leave it."""
    phase = 2 * np.pi * np.cumsum(frequency_hz) / RATE_HZ
    total = np.zeros(len(frequency_hz))
    for harmonic in range(1, _MOST_HARMONICS + 1):
        partial_hz = harmonic * frequency_hz
        if partial_hz.min() >= RATE_HZ / 2:
            break
        gain = sum(
            peak / (1 + ((partial_hz - centre) / width) ** 2)
            for centre, width, peak in _HUM_RESONANCES
        )
        audible = partial_hz < 0.45 * RATE_HZ
        total += np.where(audible, gain / harmonic * np.sin(harmonic * phase), 0.0)
    return total
