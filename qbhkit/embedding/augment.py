"""Rule-based humming distortions, vectorised over a batch of contours.

Every rule takes frames (B, L, 2) (MIDI semitones, voiced) and an explicit random generator, draws
its own parameters for each of the B contours; those with a chance apply to that share of the
contours. Time rules live in :func:`warp_positions`: they decide which source frame each of
the L output frames reads, so that a contour is read from its song only once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import savgol_filter

from qbhkit.contour import voiced_median

Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Distortions:
    """Say how strongly each rule distorts; a chance of 0 switches a rule off.

    Chances are per contour, 0 to 1; ``_st`` are semitones; shares are parts of a contour's length.

    Source: fixed facts, "Augmentations", for crop, tempo, key, range, slice offset, dropout,
    filling, smoothing and absurd noise; the others imitate errors of real hums and trackers.
    Notebook: notebooks/03_contours.py
    """

    # Time: how a hum's window differs from the song's window it is paired with.
    start_shift: float = 0.1  # largest shift of the start, as a share of the window
    tempo_octaves: float = 0.25  # overall tempo 2 ** uniform(-x, x)
    slice_tempo: float = 0.25  # each of the slices at 2 ** uniform(-x, x)
    most_slices: int = 7
    # Pitch.
    key_st: float = 6.0
    range_chance: float = 0.5
    range_scale: float = 0.15  # 1 +- x around the median
    offset_chance: float = 0.3
    offset_st: float = 0.8  # standard deviation of a slice's offset
    drift_chance: float = 0.3
    drift_st: float = 1.0  # largest drift from the first frame to the last
    note_chance: float = 0.8
    note_st: float = 0.35  # standard deviation of a note's error
    wrong_note: float = 0.02  # chance that a note is off by a whole step or more
    octave_chance: float = 0.05
    jitter_st: float = 0.15  # standard deviation of frame noise
    absurd_chance: float = 0.15
    absurd_share: float = 0.05  # of the frames
    smooth_chance: float = 0.6
    # Voicing.
    crop_chance: float = 0.05
    crop_share: float = 0.5  # both ends together
    dropout_chance: float = 0.15
    dropout_share: float = 0.15
    fill_chance: float = 0.4
    staccato_chance: float = 0.4
    staccato_share: float = 0.3  # of the notes lose their end


def warp_positions(
    start: NDArray, length: NDArray, steps: int, rules: Distortions, rng: Generator
) -> NDArray[np.float64]:
    """Draw a shifted, stretched and unevenly timed reading of each window.

    Args:
        start: (B,) first frame of each window in its song.
        length: (B,) window length in frames.
        steps: number of output frames, L.
        rules: ``start_shift``, ``tempo_octaves``, ``slice_tempo`` and ``most_slices`` are used.
        rng: the random generator.

    Returns:
        (B, L) fractional positions in the song, rising along L.
    """
    batch = len(start)
    slices = rng.integers(1, rules.most_slices + 1, batch)
    rates = np.exp2(rng.uniform(-rules.slice_tempo, rules.slice_tempo, (batch, rules.most_slices)))
    owner = _slice_of_frame(slices, steps)  # (B, L)
    rate = np.take_along_axis(rates, owner, axis=1)
    rate /= rate.mean(axis=1, keepdims=True)
    passed = np.cumsum(rate, axis=1) - 0.5 * rate  # middle of each output frame
    stretch = np.exp2(rng.uniform(-rules.tempo_octaves, rules.tempo_octaves, batch))
    shift = rng.uniform(-rules.start_shift, rules.start_shift, batch)
    return (start + shift * length)[:, None] + passed * (length * stretch / steps)[:, None]


def distort(frames: Frames, rules: Distortions, rng: Generator) -> Frames:
    """Apply every pitch and voicing rule to a batch, as a hummer and a tracker would.

    Args:
        frames: (B, L, 2) MIDI semitones (0 where unvoiced) and voiced.
        rules: strengths and chances.
        rng: the random generator; the same state gives the same result.

    Returns:
        (B, L, 2) float32; unvoiced frames have pitch 0; no contour loses all its voiced frames.

    Notebook: notebooks/03_contours.py
    """
    batch, steps = frames.shape[:2]
    given = frames[..., 1] > 0
    pitch, voiced = _fill(frames[..., 0], given, _chosen(rules.fill_chance, batch, rng))
    note = _note_index(pitch, voiced)
    pitch = pitch + _note_errors(note, rules, rng) + _slow_errors(batch, steps, rules, rng)
    pitch = _scale_range(pitch, voiced, rules, rng)
    voiced = _staccato(note, voiced, rules, rng)
    pitch = _smooth(pitch, voiced, _chosen(rules.smooth_chance, batch, rng), rng)
    pitch += rng.normal(0, 1, pitch.shape) * rng.uniform(0, rules.jitter_st, (batch, 1))
    pitch = _absurd(pitch, rules, rng)
    kept = voiced & ~_lost(batch, steps, rules, rng)
    voiced = np.where(kept.any(axis=1, keepdims=True), kept, given)
    return np.stack([np.where(voiced, pitch, 0.0), voiced], axis=-1).astype(np.float32)


def _chosen(chance: float, batch: int, rng: Generator) -> NDArray[np.bool_]:
    return rng.random((batch, 1)) < chance


def _slice_of_frame(slices: NDArray, steps: int) -> NDArray[np.int64]:
    """(B, L) index of the equal slice in which a frame lies, for (B,) numbers of slices."""
    return (np.arange(steps) * slices[:, None]) // steps


def _held(values: NDArray, present: NDArray[np.bool_]) -> NDArray:
    """Carry each present value forward until the next one; the first also backwards."""
    index = np.where(present, np.arange(values.shape[1]), -1)
    last = np.maximum.accumulate(index, axis=1)
    first = present.argmax(axis=1)[:, None]
    return np.take_along_axis(values, np.where(last < 0, first, last), axis=1)


def _fill(
    pitch: NDArray, voiced: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Give every frame a pitch; where chosen, sing through the pauses between voiced frames."""
    count = np.cumsum(voiced, axis=1)
    between = (count > 0) & (count < count[:, -1:])
    return _held(pitch, voiced), voiced | (chosen & between)


def _note_index(pitch: NDArray, voiced: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(B, L) number of the note a frame belongs to, counted from 0."""
    change = np.zeros(pitch.shape, bool)
    change[:, 1:] = (np.abs(np.diff(pitch, axis=1)) > 0.5) | (voiced[:, 1:] & ~voiced[:, :-1])
    return np.cumsum(change, axis=1)


def _note_errors(note: NDArray[np.int64], rules: Distortions, rng: Generator) -> NDArray:
    batch, steps = note.shape
    spread = np.where(
        _chosen(rules.note_chance, batch, rng), rng.uniform(0.2, 1.0, (batch, 1)), 0.0
    )
    error = rng.normal(0, rules.note_st, (batch, steps)) * spread
    wrong = rng.random((batch, steps)) < rules.wrong_note
    error += np.where(wrong, rng.choice([-4, -3, -2, -1, 1, 2, 3, 4], (batch, steps)), 0)
    return np.take_along_axis(error, note, axis=1)


def _slow_errors(batch: int, steps: int, rules: Distortions, rng: Generator) -> NDArray:
    """(B, L) key change, drift, offsets and octave jumps of slices."""
    total = np.repeat(rng.uniform(-rules.key_st, rules.key_st, (batch, 1)), steps, axis=1)
    drift = rng.uniform(-rules.drift_st, rules.drift_st, (batch, 1))
    total += np.where(_chosen(rules.drift_chance, batch, rng), drift, 0) * np.linspace(0, 1, steps)
    owner = _slice_of_frame(rng.integers(1, rules.most_slices + 1, batch), steps)
    offsets = rng.normal(0, rules.offset_st, (batch, rules.most_slices))
    offsets *= _chosen(rules.offset_chance, batch, rng)
    jumped = rng.integers(0, rules.most_slices, (batch, 1)) == np.arange(rules.most_slices)
    octave = rng.choice([-12.0, 12.0], (batch, 1)) * _chosen(rules.octave_chance, batch, rng)
    return total + np.take_along_axis(offsets + octave * jumped, owner, axis=1)


def _scale_range(
    pitch: NDArray, voiced: NDArray[np.bool_], rules: Distortions, rng: Generator
) -> NDArray:
    batch = len(pitch)
    scale = 1 + rng.uniform(-rules.range_scale, rules.range_scale, (batch, 1))
    scale = np.where(_chosen(rules.range_chance, batch, rng), scale, 1.0)
    centre = voiced_median(pitch, voiced)[:, None]
    return centre + (pitch - centre) * scale


def _staccato(
    note: NDArray[np.int64], voiced: NDArray[np.bool_], rules: Distortions, rng: Generator
) -> NDArray[np.bool_]:
    """Silence the last frame or two of some notes."""
    batch, steps = note.shape
    short = rng.random((batch, steps)) < rules.staccato_share
    short &= _chosen(rules.staccato_chance, batch, rng)
    ends = np.ones(note.shape, bool)
    ends[:, :-1] = note[:, 1:] != note[:, :-1]
    two = _chosen(0.5, batch, rng)
    ends[:, :-1] |= ends[:, 1:] & two
    return voiced & ~(ends & np.take_along_axis(short, note, axis=1))


def _smooth(
    pitch: NDArray, voiced: NDArray[np.bool_], chosen: NDArray[np.bool_], rng: Generator
) -> NDArray:
    """Glide from note to note: Savitzky-Golay or a running mean over the held pitch."""
    held = _held(pitch, voiced)
    savitzky = savgol_filter(held, 5, 2, axis=1, mode="nearest")
    mean = uniform_filter1d(held, 3, axis=1, mode="nearest")
    smooth = np.where(_chosen(0.5, len(pitch), rng), savitzky, mean)
    return np.where(chosen & voiced, smooth, pitch)


def _absurd(pitch: NDArray, rules: Distortions, rng: Generator) -> NDArray:
    """Replace single frames by far-off pitches, as a tracker does in noise."""
    batch = len(pitch)
    hit = rng.random(pitch.shape) < rng.uniform(0, rules.absurd_share, (batch, 1))
    hit &= _chosen(rules.absurd_chance, batch, rng)
    return np.where(hit, pitch + rng.uniform(-14, 14, pitch.shape), pitch)


def _lost(batch: int, steps: int, rules: Distortions, rng: Generator) -> NDArray[np.bool_]:
    """(B, L) frames that are cropped off the ends or drop out in one stretch."""
    at = np.arange(steps)
    share = rng.uniform(0, rules.crop_share, (batch, 1)) * _chosen(rules.crop_chance, batch, rng)
    front = rng.random((batch, 1))
    cropped = (at < share * front * steps) | (at >= steps - share * (1 - front) * steps)
    width = rng.uniform(0, rules.dropout_share, (batch, 1)) * steps
    width *= _chosen(rules.dropout_chance, batch, rng)
    begin = rng.uniform(0, steps, (batch, 1))
    return cropped | ((at >= begin) & (at < begin + width))
