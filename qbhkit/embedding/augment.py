"""Rule-based humming distortions, vectorised over a batch of contours.

Rules of time decide which frame of its song each frame of a window reads (:func:`warp_positions`).
The others change what was read, in the order of a real hum: what is sung, how it is sung, how it is
tracked (:func:`distort`). Every rule draws for each contour by itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import savgol_filter

from qbhkit.config import check_range
from qbhkit.contour import voiced_median
from qbhkit.embedding.windows import Reading, inside_window
from qbhkit.errors import QbhError

Frames = NDArray[np.float32]
Voiced = NDArray[np.bool_]
_Sung = tuple[NDArray, Voiced]  # (B, L) pitch, and where it sounds


@dataclass(frozen=True)
class Distortions:
    """Say how strongly each rule distorts; a chance of 0 switches a rule off.

    Chances are per contour, 0 to 1. ``_st`` are semitones, ``_frames`` are frames of the window as
    it is read. Shares are of a contour's length, or of its notes or frames where a comment says so.

    Raises:
        QbhError: if a number is out of its range.

    Source: fixed facts, "Augmentations", for crop, tempo, key, range, slice offset, dropout,
    filling, smoothing and absurd noise; the others imitate errors of real hums and trackers.
    Notebook: notebooks/04_augmentation.py
    """

    most_slices: int = 7  # most slices of a contour that have a tempo or an offset of their own
    # Time: how a hum's window differs from the song's window that it is paired with.
    start_shift: float = 0.1  # largest shift of the start, as a share of the window
    tempo_octaves: float = 0.25  # overall tempo 2 ** uniform(-x, x)
    slice_tempo: float = 0.25  # each of the slices at 2 ** uniform(-x, x)
    # Pitch: what is sung instead of the notes, from the whole tune down to glides between notes.
    key_st: float = 6.0
    range_chance: float = 0.5
    range_scale: float = 0.15  # 1 +- x around the median
    offset_chance: float = 0.3
    offset_st: float = 0.8  # standard deviation of a slice's offset
    octave_chance: float = 0.05  # a slice is sung an octave higher or lower
    drift_chance: float = 0.3
    drift_st: float = 1.0  # largest drift from the first frame to the last
    modulation_chance: float = 0.05  # the singer changes key at some note
    modulation_st: float = 2.0  # by half of it to all of it, up or down
    note_chance: float = 0.8
    note_st: float = 0.35  # largest standard deviation of a note's error
    wrong_note: float = 0.02  # chance that a note is off by 1 to 4 semitones
    left_out_chance: float = 0.1
    left_out_share: float = 0.1  # of the notes: half become rests, half go to the note before
    added_chance: float = 0.1
    added_share: float = 0.1  # of the notes end in a passing note
    glide_chance: float = 0.2
    glide_frames: int = 3  # longest glide into a note
    smooth_chance: float = 0.6
    # Voicing: where the voice sounds.
    crop_chance: float = 0.05
    crop_share: float = 0.5  # at most, both ends together
    dropout_chance: float = 0.15
    dropout_share: float = 0.15  # at most
    fill_chance: float = 0.4  # all rests are sung through
    legato_chance: float = 0.05  # short rests are sung through
    legato_frames: int = 3  # the longest of them
    staccato_chance: float = 0.4
    staccato_share: float = 0.3  # of the notes lose their end
    # Tracker: what is tracked instead of what was sung.
    jitter_st: float = 0.15  # largest standard deviation of frame noise
    absurd_chance: float = 0.15
    absurd_share: float = 0.05  # of the frames, at most
    octave_note_chance: float = 0.05
    octave_note_share: float = 0.1  # of the notes are tracked an octave off
    lost_frame_chance: float = 0.3
    lost_frame_share: float = 0.1  # of the frames are tracked as unvoiced

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]
        shares = [name for name in names if name.endswith(("_chance", "_share"))]
        check_range(self, 0, 1, "wrong_note", *shares)
        check_range(self, 0, math.inf, *names)
        check_range(self, 1, math.inf, "most_slices")
        if self.glide_chance:
            check_range(self, 1, math.inf, "glide_frames")


_NAMES = [field.name for field in fields(Distortions)]
_FIRST = {
    "time": "start_shift",
    "pitch": "key_st",
    "voicing": "crop_chance",
    "tracker": "jitter_st",
}
_EDGES = [*(_NAMES.index(name) for name in _FIRST.values()), len(_NAMES)]
GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(_NAMES[begin:end])
    for group, (begin, end) in zip(_FIRST, pairwise(_EDGES), strict=True)
}
"""The fields of each group of rules; ``most_slices`` alone distorts nothing, so it has no group."""


def without(rules: Distortions, *groups: str) -> Distortions:
    """Set every field of some :data:`GROUPS` of rules to 0; raise QbhError for an unknown group.

    Notebook: notebooks/04_augmentation.py
    """
    if unknown := [group for group in groups if group not in GROUPS]:
        raise QbhError(f"There are no rules {unknown[0]!r}: use {', '.join(GROUPS)}.")
    return replace(rules, **{name: 0 for group in groups for name in GROUPS[group]})


def with_only(rules: Distortions, *groups: str) -> Distortions:
    """Switch off every rule except those of some :data:`GROUPS`; without a group, all rules.

    Notebook: notebooks/04_augmentation.py
    """
    without(rules, *groups)  # raises for an unknown group
    return without(rules, *(group for group in GROUPS if group not in groups))


def warp_positions(
    start: NDArray, length: NDArray, reading: Reading, rules: Distortions, rng: Generator
) -> NDArray[np.float64]:
    """Draw a shifted, stretched and unevenly timed reading of each window.

    Args:
        start: (B,) first frame of each window in its song.
        length: (B,) window length in frames.
        reading: how a window becomes L frames. At another tempo a stretched window covers more or
            less of the song; a window that keeps its speed has more or fewer frames.
        rules: those of time are used; for windows that keep their speed the crop too, because a
            cropped hum also lies in the middle of its window (:func:`after_warp`).
        rng: the random generator.

    Returns:
        (B, L) fractional positions in frames of the song, rising along L; -1 outside of the hum.

    Notebook: notebooks/04_augmentation.py
    """
    batch = len(start)
    slices = rng.integers(1, rules.most_slices + 1, batch)
    rates = np.exp2(rng.uniform(-rules.slice_tempo, rules.slice_tempo, (batch, rules.most_slices)))
    used = np.arange(rules.most_slices) < slices[:, None]
    rates *= used / (rates * used).sum(axis=1, keepdims=True)  # shares of the song's time
    tempo = np.exp2(rng.uniform(-rules.tempo_octaves, rules.tempo_octaves, batch))
    shift = rng.uniform(-rules.start_shift, rules.start_shift, batch)
    stretched = reading.window_s is None
    if not stretched:
        share = rng.uniform(0, rules.crop_share, batch) * (rng.random(batch) < rules.crop_chance)
        start = start + rng.uniform(0, share) * length
        length = length * (1 - share)
    share = reading.shares(length if stretched else length / tempo)  # (B, L) of the hum
    owner = np.clip(share * slices[:, None], 0, slices[:, None] - 1).astype(np.int64)
    before = np.cumsum(rates, axis=1) - rates
    passed = np.take_along_axis(rates, owner, axis=1) * (share * slices[:, None] - owner)
    passed += np.take_along_axis(before, owner, axis=1)
    covered = length * tempo if stretched else length
    return inside_window(share, (start + shift * length)[:, None] + passed * covered[:, None])


def after_warp(reading: Reading, rules: Distortions) -> Distortions:
    """Return the rules that are left for :func:`distort` after :func:`warp_positions`."""
    return rules if reading.window_s is None else replace(rules, crop_chance=0)


def distort(frames: Frames, rules: Distortions, rng: Generator) -> Frames:
    """Apply every pitch, voicing and tracker rule to a batch.

    Args:
        frames: (B, L, 2) MIDI semitones (0 where unvoiced) and voiced.
        rules: strengths and chances.
        rng: the random generator.

    Returns:
        (B, L, 2); no contour loses all its voiced frames.

    Notebook: notebooks/03_contours.py, notebooks/04_augmentation.py
    """
    batch, length = frames.shape[:2]
    given = frames[..., 1] > 0
    # What is sung: which notes, through which rests.
    pitch, voiced = _fill(frames[..., 0], given, _chosen(rules.fill_chance, batch, rng))
    _to_some(_legato, rules.legato_chance, pitch, voiced, rules, rng)
    _to_some(_leave_out, rules.left_out_chance, pitch, voiced, rules, rng)
    _to_some(_add_notes, rules.added_chance, pitch, voiced, rules, rng)
    # How it is sung.
    note = note_index(pitch, voiced)
    pitch = pitch + _note_errors(note, rules, rng) + _slow_errors(note, rules, rng)
    pitch = _scale_range(pitch, voiced, rules, rng)
    _to_some(_glide, rules.glide_chance, pitch, voiced, rules, rng)
    voiced = _staccato(note, voiced, rules, rng)
    pitch = _smooth(pitch, voiced, _chosen(rules.smooth_chance, batch, rng), rng)
    # How it is tracked.
    pitch += rng.normal(0, 1, pitch.shape) * rng.uniform(0, rules.jitter_st, (batch, 1))
    pitch += _octave_notes(note, rules, rng)
    pitch = _absurd(pitch, rules, rng)
    kept = voiced & ~_lost(batch, length, rules, rng)
    voiced = np.where(kept.any(axis=1, keepdims=True), kept, given)
    return np.stack([np.where(voiced, pitch, 0.0), voiced], axis=-1).astype(np.float32)


_Rule = Callable[[NDArray, Voiced, Distortions, Generator], _Sung]


def _to_some(
    rule: _Rule, chance: float, pitch: NDArray, voiced: Voiced, rules: Distortions, rng: Generator
) -> None:
    """Apply a rule to the contours that draw it, in place."""
    rows = np.flatnonzero(rng.random(len(pitch)) < chance)
    if rows.size:
        pitch[rows], voiced[rows] = rule(pitch[rows], voiced[rows], rules, rng)


def _chosen(chance: float, batch: int, rng: Generator) -> Voiced:
    return rng.random((batch, 1)) < chance


def hold(values: NDArray, present: Voiced) -> NDArray:
    """Carry each present value of (B, L) forward until the next; the first also backwards."""
    index = np.where(present, np.arange(values.shape[1]), -1)
    last = np.maximum.accumulate(index, axis=1)
    first = present.argmax(axis=1)[:, None]
    return np.take_along_axis(values, np.where(last < 0, first, last), axis=1)


def _fill(pitch: NDArray, voiced: Voiced, chosen: Voiced) -> _Sung:
    """Give every frame a pitch; in chosen contours, sing through pauses between voiced frames."""
    count = np.cumsum(voiced, axis=1)
    between = (count > 0) & (count < count[:, -1:])
    return hold(pitch, voiced), voiced | (chosen & between)


def note_index(pitch: NDArray, voiced: Voiced) -> NDArray[np.int64]:
    """Return (B, L) the number of the note a frame belongs to, counted from 0."""
    change = np.zeros(pitch.shape, bool)
    change[:, 1:] = (np.abs(np.diff(pitch, axis=1)) > 0.5) | (voiced[:, 1:] & ~voiced[:, :-1])
    return np.cumsum(change, axis=1)


def _note_ends(note: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (B, L) the first frame of each frame's note, and the first frame after that note."""
    at, length = np.arange(note.shape[1]), note.shape[1]
    change = note[:, 1:] != note[:, :-1]
    begin, end = np.zeros(note.shape, np.int64), np.full(note.shape, length)
    begin[:, 1:] = np.maximum.accumulate(np.where(change, at[1:], 0), axis=1)
    end[:, -2::-1] = np.minimum.accumulate(np.where(change, at[1:], length)[:, ::-1], axis=1)
    return begin, end


def _legato(pitch: NDArray, voiced: Voiced, rules: Distortions, rng: Generator) -> _Sung:
    """Hold notes through the short rests between two of them."""
    at, length = np.arange(voiced.shape[1]), voiced.shape[1]
    before = np.maximum.accumulate(np.where(voiced, at, -length), axis=1)
    after = np.minimum.accumulate(np.where(voiced, at, 2 * length)[:, ::-1], axis=1)[:, ::-1]
    return pitch, voiced | (after - before - 1 <= rules.legato_frames)


def _leave_out(pitch: NDArray, voiced: Voiced, rules: Distortions, rng: Generator) -> _Sung:
    """Leave notes out: rest, or hold the note before, instead of them."""
    note = note_index(pitch, voiced)
    draw = np.take_along_axis(rng.random(note.shape), note, axis=1)
    resting = draw < rules.left_out_share / 2
    return hold(pitch, draw >= rules.left_out_share), voiced & ~resting


def _add_notes(pitch: NDArray, voiced: Voiced, rules: Distortions, rng: Generator) -> _Sung:
    """Sing a passing note in a note's second half, between it and the next or beside it."""
    note = note_index(pitch, voiced)
    begin, end = _note_ends(note)
    drawn = np.take_along_axis(rng.random(note.shape) < rules.added_share, note, axis=1)
    beside = np.take_along_axis(rng.choice([-2, -1, 1, 2], note.shape), note, axis=1)
    following = np.take_along_axis(pitch, np.minimum(end, pitch.shape[1] - 1), axis=1)
    step = np.where(np.abs(following - pitch) > 2.5, np.round((following - pitch) / 2), beside)
    second_half = np.arange(pitch.shape[1]) >= (begin + end + 1) // 2
    return pitch + step * (drawn & second_half), voiced


def _glide(pitch: NDArray, voiced: Voiced, rules: Distortions, rng: Generator) -> _Sung:
    longest = rng.integers(1, rules.glide_frames + 1, (len(pitch), 1))
    return glide(pitch, voiced, longest), voiced


def glide(pitch: NDArray, voiced: Voiced, longest: NDArray[np.int64]) -> NDArray:
    """Slide into each note from the one before, where no rest lies between.

    Args:
        pitch: (B, L) semitones.
        voiced: (B, L).
        longest: (B, 1) frames that a glide takes at most; it is no longer than its note.
    """
    begin, end = _note_ends(note_index(pitch, voiced))
    frames = np.minimum(longest, end - begin)
    before = np.maximum(begin - 1, 0)
    joined = (begin > 0) & np.take_along_axis(voiced, before, axis=1)
    left = np.maximum(1 - (np.arange(pitch.shape[1]) - begin + 1) / (frames + 1), 0)
    return pitch + (np.take_along_axis(pitch, before, axis=1) - pitch) * left * joined


def _note_errors(note: NDArray, rules: Distortions, rng: Generator) -> NDArray:
    batch, length = note.shape
    chosen = _chosen(rules.note_chance, batch, rng)
    spread = np.where(chosen, rng.uniform(0.2, 1.0, (batch, 1)), 0.0)
    error = rng.normal(0, rules.note_st, (batch, length)) * spread
    wrong = rng.random((batch, length)) < rules.wrong_note
    error += np.where(wrong, rng.choice([-4, -3, -2, -1, 1, 2, 3, 4], (batch, length)), 0)
    return np.take_along_axis(error, note, axis=1)


def _slow_errors(note: NDArray, rules: Distortions, rng: Generator) -> NDArray:
    """Return (B, L) key, drift, modulation, and offsets and octave jumps of slices, summed."""
    batch, length = len(note), note.shape[1]
    total = np.repeat(rng.uniform(-rules.key_st, rules.key_st, (batch, 1)), length, axis=1)
    drift = rng.uniform(-rules.drift_st, rules.drift_st, (batch, 1))
    total += np.where(_chosen(rules.drift_chance, batch, rng), drift, 0) * np.linspace(0, 1, length)
    moment = (rng.uniform(0.2, 0.8, (batch, 1)) * length).astype(np.int64)
    modulation = rng.choice([-1, 1], (batch, 1)) * rng.uniform(0.5, 1, (batch, 1))
    modulation *= rules.modulation_st * _chosen(rules.modulation_chance, batch, rng)
    total += modulation * (note >= np.take_along_axis(note, moment, axis=1))
    slices = rng.integers(1, rules.most_slices + 1, (batch, 1))
    owner = (np.arange(length) * slices) // length  # (B, L) the equal slice of each frame
    offsets = rng.normal(0, rules.offset_st, (batch, rules.most_slices))
    offsets *= _chosen(rules.offset_chance, batch, rng)
    jumped = rng.integers(0, rules.most_slices, (batch, 1)) == np.arange(rules.most_slices)
    octave = rng.choice([-12.0, 12.0], (batch, 1)) * _chosen(rules.octave_chance, batch, rng)
    return total + np.take_along_axis(offsets + octave * jumped, owner, axis=1)


def _scale_range(pitch: NDArray, voiced: Voiced, rules: Distortions, rng: Generator) -> NDArray:
    batch = len(pitch)
    scale = 1 + rng.uniform(-rules.range_scale, rules.range_scale, (batch, 1))
    scale = np.where(_chosen(rules.range_chance, batch, rng), scale, 1.0)
    centre = voiced_median(pitch, voiced)[:, None]
    return centre + (pitch - centre) * scale


def _staccato(note: NDArray, voiced: Voiced, rules: Distortions, rng: Generator) -> Voiced:
    """Silence the last frame or two of some notes."""
    batch, length = note.shape
    short = rng.random((batch, length)) < rules.staccato_share
    short &= _chosen(rules.staccato_chance, batch, rng)
    ends = np.ones(note.shape, bool)
    ends[:, :-1] = note[:, 1:] != note[:, :-1]
    two = _chosen(0.5, batch, rng)
    ends[:, :-1] |= ends[:, 1:] & two
    return voiced & ~(ends & np.take_along_axis(short, note, axis=1))


def _smooth(pitch: NDArray, voiced: Voiced, chosen: Voiced, rng: Generator) -> NDArray:
    """Glide from note to note: Savitzky-Golay or a running mean over the held pitch."""
    held = hold(pitch, voiced)
    savitzky = savgol_filter(held, 5, 2, axis=1, mode="nearest")
    mean = uniform_filter1d(held, 3, axis=1, mode="nearest")
    smooth = np.where(_chosen(0.5, len(pitch), rng), savitzky, mean)
    return np.where(chosen & voiced, smooth, pitch)


def _octave_notes(note: NDArray, rules: Distortions, rng: Generator) -> NDArray:
    """Return (B, L) octave errors of single notes, in semitones."""
    error = np.zeros(note.shape)
    rows = np.flatnonzero(rng.random(len(note)) < rules.octave_note_chance)
    drawn = rng.random((len(rows), note.shape[1])) < rules.octave_note_share
    octaves = drawn * rng.choice([-12.0, 12.0], drawn.shape)
    error[rows] = np.take_along_axis(octaves, note[rows], axis=1)
    return error


def _absurd(pitch: NDArray, rules: Distortions, rng: Generator) -> NDArray:
    """Move single frames by up to 14 semitones, as a tracker does in noise."""
    batch = len(pitch)
    hit = rng.random(pitch.shape) < rng.uniform(0, rules.absurd_share, (batch, 1))
    hit &= _chosen(rules.absurd_chance, batch, rng)
    return np.where(hit, pitch + rng.uniform(-14, 14, pitch.shape), pitch)


def _lost(batch: int, length: int, rules: Distortions, rng: Generator) -> Voiced:
    """Return (B, L) whether a frame is cropped off an end, in a dropout, or lost by itself."""
    at = np.arange(length)
    share = rng.uniform(0, rules.crop_share, (batch, 1)) * _chosen(rules.crop_chance, batch, rng)
    front = rng.random((batch, 1))
    lost = (at < share * front * length) | (at >= length - share * (1 - front) * length)
    width = rng.uniform(0, rules.dropout_share, (batch, 1)) * length
    width *= _chosen(rules.dropout_chance, batch, rng)
    begin = rng.uniform(0, length, (batch, 1))
    lost |= (at >= begin) & (at < begin + width)
    rows = np.flatnonzero(rng.random(batch) < rules.lost_frame_chance)
    lost[rows] |= rng.random((len(rows), length)) < rules.lost_frame_share
    return lost
