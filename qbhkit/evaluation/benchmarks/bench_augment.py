"""Training pairs a second: the batch code against one item at a time: ``qbhkit bench augment``.

The rival applies the same rules with the same strengths to one pair at a time, slice by slice and
note by note, as one would write it for a data loader's worker. Both make anchor and positive, read
from the same songs and normalised. A check compares how strongly both distort, so that the rival
does neither more nor less.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import savgol_filter

from qbhkit.contour import Contour, normalise
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.sampling import ContourBank, PairBatch, SongPairs
from qbhkit.embedding.windows import WindowRange
from qbhkit.evaluation.benchmarks import common
from qbhkit.training_loop import generator

RULES, WINDOW = Distortions(), WindowRange()


def read(song: Contour, positions: NDArray) -> NDArray:
    """Read one song at fractional positions."""
    index = np.floor(positions).astype(int)
    inside = (index >= 0) & (index < len(song))
    out = np.zeros((len(positions), 2), np.float32)
    out[inside] = song.frames[index[inside]]
    return out


def warp(start: float, length: float, steps: int, rng: Generator) -> NDArray:
    """Draw the uneven reading of one window, slice by slice."""
    slices = rng.integers(1, RULES.most_slices + 1)
    rate = np.zeros(steps)
    for part in np.array_split(np.arange(steps), slices):
        rate[part] = 2 ** rng.uniform(-RULES.slice_tempo, RULES.slice_tempo)
    rate /= rate.mean()
    stretch = 2 ** rng.uniform(-RULES.tempo_octaves, RULES.tempo_octaves)
    shift = rng.uniform(-RULES.start_shift, RULES.start_shift) * length
    return start + shift + (np.cumsum(rate) - 0.5 * rate) * length * stretch / steps


def held(values: NDArray, present: NDArray) -> NDArray:
    """Carry each present value forward until the next one; the first also backwards."""
    where = np.flatnonzero(present)
    if not where.size:
        return values
    return values[np.maximum.accumulate(np.where(present, np.arange(len(values)), where[0]))]


def notes_of(pitch: NDArray, voiced: NDArray) -> list[slice]:
    """Split frames into notes where the pitch changes or the voice sets in."""
    change = np.abs(np.diff(pitch)) > 0.5
    change |= voiced[1:] & ~voiced[:-1]
    edges = [0, *(np.flatnonzero(change) + 1), len(pitch)]
    return [slice(a, b) for a, b in pairwise(edges)]


def legato(voiced: NDArray) -> None:
    """Sing through short rests, in place."""
    where = np.flatnonzero(voiced)
    for a, b in pairwise(where):
        if b - a - 1 <= RULES.legato_frames:
            voiced[a:b] = True


def leave_out(pitch: NDArray, voiced: NDArray, rng: Generator) -> NDArray:
    """Forget notes: rest instead (in place), or hold the note before."""
    present = np.ones(len(pitch), bool)
    for note in notes_of(pitch, voiced):
        draw = rng.random()
        if draw < RULES.left_out_share:
            present[note] = False
        if draw < RULES.left_out_share / 2:
            voiced[note] = False
    return held(pitch, present)


def add_notes(pitch: NDArray, voiced: NDArray, rng: Generator) -> NDArray:
    """Sing a passing note in the second half of some notes."""
    out = pitch.copy()
    for note in notes_of(pitch, voiced):
        if rng.random() < RULES.added_share:
            half = slice((note.start + note.stop + 1) // 2, note.stop)
            leap = pitch[min(note.stop, len(pitch) - 1)] - pitch[half]
            beside = rng.choice([-2, -1, 1, 2])
            out[half] += np.where(np.abs(leap) > 2.5, np.round(leap / 2), beside)
    return out


def glide(pitch: NDArray, voiced: NDArray, rng: Generator) -> NDArray:
    """Slide into notes from the one before."""
    out, longest = pitch.copy(), rng.integers(1, RULES.glide_frames + 1)
    for note in notes_of(pitch, voiced)[1:]:
        before = note.start - 1
        if voiced[before]:
            frames = min(longest, note.stop - note.start)
            part = slice(note.start, note.start + frames)
            left = 1 - np.arange(1, frames + 1) / (frames + 1)
            out[part] += (pitch[before] - pitch[part]) * left
    return out


def distort_one(frames: NDArray, rng: Generator) -> NDArray:
    """Apply every rule to one contour (L, 2)."""
    steps = len(frames)
    given = frames[:, 1] > 0
    if not given.any():
        return frames
    voiced = given.copy()

    def happens(chance: float) -> bool:
        return rng.random() < chance

    where = np.flatnonzero(given)
    pitch = held(frames[:, 0].astype(float), given)
    if happens(RULES.fill_chance):
        voiced[where[0] : where[-1] + 1] = True
    if happens(RULES.legato_chance):
        legato(voiced)
    if happens(RULES.left_out_chance):
        pitch = leave_out(pitch, voiced, rng)
    if happens(RULES.added_chance):
        pitch = add_notes(pitch, voiced, rng)
    notes = notes_of(pitch, voiced)
    spread = rng.uniform(0.2, 1) if happens(RULES.note_chance) else 0
    for note in notes:
        pitch[note] += rng.normal(0, RULES.note_st) * spread
        if happens(RULES.wrong_note):
            pitch[note] += rng.choice([-4, -3, -2, -1, 1, 2, 3, 4])
    pitch += rng.uniform(-RULES.key_st, RULES.key_st)
    if happens(RULES.drift_chance):
        pitch += rng.uniform(-RULES.drift_st, RULES.drift_st) * np.linspace(0, 1, steps)
    if happens(RULES.modulation_chance):
        moment = int(rng.uniform(0.2, 0.8) * steps)
        begin = next(note.start for note in notes if note.stop > moment)
        pitch[begin:] += rng.choice([-1, 1]) * rng.uniform(0.5, 1) * RULES.modulation_st
    parts = np.array_split(np.arange(steps), rng.integers(1, RULES.most_slices + 1))
    if happens(RULES.offset_chance):
        for part in parts:
            pitch[part] += rng.normal(0, RULES.offset_st)
    if happens(RULES.octave_chance):
        slot = rng.integers(0, RULES.most_slices)
        if slot < len(parts):
            pitch[parts[slot]] += rng.choice([-12, 12])
    if happens(RULES.range_chance):
        centre = np.median(pitch[voiced]) if voiced.any() else 0.0
        pitch = centre + (pitch - centre) * (1 + rng.uniform(-RULES.range_scale, RULES.range_scale))
    if happens(RULES.glide_chance):
        pitch = glide(pitch, voiced, rng)
    if happens(RULES.staccato_chance):
        cut = 2 if happens(0.5) else 1
        for note in notes:
            if rng.random() < RULES.staccato_share:
                voiced[max(note.start, note.stop - cut) : note.stop] = False
    if happens(RULES.smooth_chance):
        even = held(pitch, voiced)
        if happens(0.5):
            smooth = savgol_filter(even, 5, 2, mode="nearest")
        else:
            smooth = np.convolve(np.pad(even, 1, mode="edge"), np.ones(3) / 3, mode="valid")
        pitch = np.where(voiced, smooth, pitch)
    pitch += rng.normal(0, rng.uniform(0, RULES.jitter_st), steps)
    if happens(RULES.octave_note_chance):
        for note in notes:
            if happens(RULES.octave_note_share):
                pitch[note] += rng.choice([-12, 12])
    if happens(RULES.absurd_chance):
        hit = rng.random(steps) < rng.uniform(0, RULES.absurd_share)
        pitch[hit] += rng.uniform(-14, 14, hit.sum())
    kept = voiced.copy()
    if happens(RULES.crop_chance):
        share, front = rng.uniform(0, RULES.crop_share), rng.random()
        kept[: round(share * front * steps)] = False
        kept[steps - round(share * (1 - front) * steps) :] = False
    if happens(RULES.dropout_chance):
        begin = int(rng.uniform(0, steps))
        kept[begin : begin + round(rng.uniform(0, RULES.dropout_share) * steps)] = False
    if happens(RULES.lost_frame_chance):
        kept &= rng.random(steps) >= RULES.lost_frame_share
    voiced = kept if kept.any() else given
    return np.stack([np.where(voiced, pitch, 0), voiced], axis=1).astype(np.float32)


def naive_pairs(songs: Sequence[Contour], numbers: NDArray, rng: Generator) -> PairBatch:
    """Make a batch of these songs one pair at a time; every song is its own tune."""
    anchors, positives = [], []
    grid = (np.arange(WINDOW.frames) + 0.5) / WINDOW.frames
    for number in numbers:
        song = songs[number]
        length_s = 2 ** rng.uniform(np.log2(WINDOW.shortest_s), np.log2(WINDOW.longest_s))
        length = min(length_s / song.hop_s, len(song))
        start = np.floor(rng.random() * (len(song) - length + 1))
        if rng.random() < WINDOW.at_start:
            start = 0.0
        anchors.append(normalise(read(song, start + grid * length), "key"))
        hummed = distort_one(read(song, warp(start, length, WINDOW.frames, rng)), rng)
        positives.append(normalise(hummed, "key"))
    return PairBatch(np.stack(anchors), np.stack(positives), numbers)


def strength(pairs: PairBatch) -> dict[str, float]:
    """Summarise how far positives lie from anchors."""
    anchors, positives, _ = pairs
    both = (anchors[..., 1] > 0) & (positives[..., 1] > 0)
    return {
        "pitch_difference": float(np.abs(anchors[..., 0] - positives[..., 0])[both].mean()),
        "voiced_share": float(positives[..., 1].mean()),
    }


def main() -> None:
    options = common.parse(common.arguments(__doc__, pairs=512))
    songs = [song.contour() for song in songs_of(music21_collection("oneills1850"))]
    source = SongPairs(ContourBank(songs), WINDOW, RULES, "key")

    def batch() -> PairBatch:
        return source.draw(options.pairs, generator(0, 0, 0, 0))

    def single() -> PairBatch:
        rng = generator(0, 0, 0, 0)
        return naive_pairs(songs, rng.choice(len(songs), options.pairs, replace=False), rng)

    ours, rival = strength(batch()), strength(single())
    for key in ours:  # fewer pairs differ by chance
        tolerance = 0.15 if options.full else 0.5
        np.testing.assert_allclose(ours[key], rival[key], rtol=tolerance, err_msg=key)
    fast, slow = options.pairs / common.seconds(batch), options.pairs / common.seconds(single)
    result = {
        "pairs_per_s": {"vectorised": round(fast), "per_item": round(slow)},
        "ratio": round(fast / slow, 1),
        "strength": {"vectorised": ours, "per_item": rival},
    }
    print(result)
    common.save(options, "bench_augment", result)
