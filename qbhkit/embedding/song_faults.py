"""Rules that turn the notes of a song into the melody that a tracker hears in its recording.

Hums are distorted by :mod:`qbhkit.embedding.augment`. The other side of a pair, the song, is clean
only where its notes are known: in a recording, trackers take harmonics for the pitch, instruments
for the voice, and lose phrases.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.config import check_range
from qbhkit.embedding.augment import Frames, Voiced, glide, note_index

_HARMONICS_ST = (-12.0, 12.0, -19.0, 19.0)  # half, twice, a third and three times the frequency
_HARMONIC_SHARES = (0.45, 0.45, 0.05, 0.05)
_CHORD_ST = (-8.0, -7.0, -5.0, -4.0, -3.0, 3.0, 4.0, 5.0, 7.0, 8.0)  # other notes of a chord
_LONGEST_STRETCH = 0.6  # of a window


@dataclass(frozen=True)
class SongFaults:
    """Say how strong the faults are; with ``heard`` 0 there are none.

    The default strengths were fitted by hand to crnn-lite and Melodia on eight recordings
    (``faults`` in data/results/real_songs.json).

    Chances are per window that a tracker heard, shares are of its notes or frames. A stretch is a
    tenth to six tenths of a window.

    Raises:
        QbhError: if a number is out of its range.

    Notebook: notebooks/04_augmentation.py
    """

    heard: float = 0.0  # share of windows that a tracker heard; the others stay notes
    octave_chance: float = 0.15  # a stretch is heard at another harmonic
    octave_note_share: float = 0.03  # of the notes, likewise
    other_chance: float = 0.1  # an instrument is heard in a stretch instead of the voice
    between_chance: float = 0.8  # and in the rests
    lost_chance: float = 0.1  # nothing is heard in a stretch
    lost_note_share: float = 0.05
    chord_note_share: float = 0.03  # of the notes: another note of the chord is heard
    note_st: float = 0.4  # standard deviation of a note's error
    jitter_st: float = 0.2  # of a frame, as vibrato makes it
    glide_chance: float = 0.5
    glide_frames: int = 2  # longest glide into a note
    stray_share: float = 0.2  # of the frames, at most, are off by 2 to 12 semitones
    flicker_share: float = 0.4  # of the frames, at most, are heard as unvoiced

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]
        shares = [name for name in names if name.endswith(("_chance", "_share"))]
        check_range(self, 0, 1, "heard", *shares)
        check_range(self, 0, math.inf, "note_st", "jitter_st")
        check_range(self, 1, math.inf, "glide_frames")


AS_WRITTEN = SongFaults()


def as_heard(frames: Frames, faults: SongFaults, rng: Generator) -> Frames:
    """Let a tracker hear some of a batch of windows of songs.

    Args:
        frames: (B, L, 2) MIDI semitones (0 where unvoiced) and voiced. The instrument that is heard
            beside a voice plays the melody of another row.
        faults: chances and strengths.
        rng: the random generator.

    Returns:
        (B, L, 2); no window loses all its voiced frames.

    Notebook: notebooks/04_augmentation.py
    """
    rows = np.flatnonzero(rng.random(len(frames)) < faults.heard)
    if not rows.size:
        return frames
    given, others = frames[rows], frames[rng.permutation(len(frames))[: len(rows)]]
    voiced, playing = given[..., 1] > 0, others[..., 1] > 0
    note = note_index(given[..., 0], voiced)
    pitch = given[..., 0] + _note_faults(note, faults, rng)
    pitch = pitch + _harmonic(note.shape, faults.octave_chance, rng)
    sliding = rng.random(len(pitch)) < faults.glide_chance
    if sliding.any():
        longest = rng.integers(1, faults.glide_frames + 1, (sliding.sum(), 1))
        pitch[sliding] = glide(pitch[sliding], voiced[sliding], longest)
    heard = voiced & ~_of_notes(note, faults.lost_note_share, rng)
    heard &= ~_stretch(note.shape, faults.lost_chance, rng)
    between = ~voiced & (rng.random((len(rows), 1)) < faults.between_chance)
    instead = playing & (between | _stretch(note.shape, faults.other_chance, rng))
    pitch, heard = np.where(instead, others[..., 0], pitch), heard | instead
    pitch = pitch + rng.normal(0, faults.jitter_st, pitch.shape)
    astray = rng.choice([-1, 1], pitch.shape) * rng.integers(2, 13, pitch.shape)
    pitch += astray * _of_frames(pitch.shape, faults.stray_share, rng)
    heard &= ~_of_frames(pitch.shape, faults.flicker_share, rng)
    heard = np.where(heard.any(axis=1, keepdims=True), heard, voiced)
    found = frames.copy()
    found[rows] = np.stack([np.where(heard, pitch, 0), heard], axis=-1)
    return found


def _of_notes(note: NDArray[np.int64], share: float, rng: Generator) -> Voiced:
    """Return (B, L) whether the note of a frame is one of a drawn share of the notes."""
    drawn: Voiced = np.take_along_axis(rng.random(note.shape) < share, note, axis=1)
    return drawn


def _of_frames(shape: tuple[int, ...], most: float, rng: Generator) -> Voiced:
    """Return (B, L) whether a frame is one of a share, at most ``most``, drawn for each window."""
    drawn: Voiced = rng.random(shape) < rng.uniform(0, most, (shape[0], 1))
    return drawn


def _note_faults(note: NDArray[np.int64], faults: SongFaults, rng: Generator) -> NDArray:
    """Return (B, L) semitones: errors of notes, other harmonics, and other notes of the chord."""
    error = rng.normal(0, faults.note_st, note.shape)
    for share, steps, weights in (
        (faults.octave_note_share, _HARMONICS_ST, _HARMONIC_SHARES),
        (faults.chord_note_share, _CHORD_ST, None),
    ):
        error += (rng.random(note.shape) < share) * rng.choice(steps, note.shape, p=weights)
    return np.take_along_axis(error, note, axis=1)


def _harmonic(shape: tuple[int, ...], chance: float, rng: Generator) -> NDArray:
    steps = rng.choice(_HARMONICS_ST, (shape[0], 1), p=_HARMONIC_SHARES)
    return steps * _stretch(shape, chance, rng)


def _stretch(shape: tuple[int, ...], chance: float, rng: Generator) -> Voiced:
    """Return (B, L) whether a frame lies in the stretch of a window that draws one."""
    batch, length = shape
    chosen = rng.random((batch, 1)) < chance
    width = rng.uniform(0.1, _LONGEST_STRETCH, (batch, 1)) * length
    begin = rng.uniform(-width, length)
    at = np.arange(length)
    inside: Voiced = chosen & (at >= begin) & (at < begin + width)
    return inside
