"""Subsequence dynamic time warping between pitch curves: the kit's one implementation.

Steps in (query, song) frames are (1, 1), (1, 2) and (2, 1): half to double speed. Every frame of
the query costs its distance to the song in semitones, at most what the song's frame allows; a frame
of a song that is NaN costs just that.

Source: Mueller, "Fundamentals of music processing", 2015, section 7.2 (subsequence DTW with slope
constraint).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

NO_CAP_ST = 1000.0  # beyond any distance between two pitches
_FAR = 1e9  # cost of a path that does not exist
# The key is estimated again from the path until it moves by less than this, at most three times.
_ROUNDS, _SAME_KEY_ST = 3, 0.05


class FlatSongs(NamedTuple):
    """Songs end to end: the pitch of song k is ``pitch[offset[k] : offset[k + 1]]``."""

    pitch: NDArray[np.float32]
    cap_st: NDArray[np.float32]  # highest cost of each frame
    offset: NDArray[np.int64]  # (songs + 1,)


class WarpingPath(NamedTuple):
    """The alignment of a query with one song."""

    distance_st: float  # mean over the query's frames; infinite where there is no path
    key_st: float  # how much higher than the song the query is
    frames: NDArray[np.int64]  # (N,) frame of the song for each frame of the query; or empty


class SongPaths(NamedTuple):
    """The alignments of a query with each of C songs."""

    distance_st: NDArray[np.float64]  # (C,) mean over the query's frames; infinite without a path
    start: NDArray[np.int64]  # (C,) first frame of the song
    end: NDArray[np.int64]  # (C,) frame after the last; equal to start where there is no path
    key_st: NDArray[np.float64]  # (C,) how much higher than the song the query is


def flatten(
    pitches: Sequence[NDArray[np.float32]],
    cap_st: float | Sequence[NDArray[np.float32]] = NO_CAP_ST,
) -> FlatSongs:
    """Put songs end to end.

    Args:
        pitches: (N,) MIDI semitones of each song.
        cap_st: highest cost of a frame: of all, or (N,) of each song's frames.
    """
    pitch, offset = end_to_end(pitches)
    if isinstance(cap_st, int | float):
        return FlatSongs(pitch, np.full_like(pitch, cap_st), offset)
    return FlatSongs(pitch, np.concatenate(cap_st).astype(np.float32), offset)


def end_to_end(rows: Sequence[NDArray]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Concatenate arrays (N,), and return where each begins, and the end: (arrays + 1,)."""
    offset = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return np.concatenate(rows).astype(np.float32), offset


def warping_path(
    query: NDArray,
    song: NDArray,
    keys_st: Sequence[float],
    from_start: bool = False,
    cap_st: float | NDArray = NO_CAP_ST,
    step_cost_st: float = 0.0,
) -> WarpingPath:
    """Find the path of least mean distance between a query and one song, in the best key.

    Args:
        query: (N,) MIDI semitones, N >= 1.
        song: (M,) MIDI semitones, M >= 1.
        keys_st: keys to try: how much higher than the song the query is. The first wins a tie.
        from_start: whether the path begins at the song's first frame.
        cap_st: highest cost of a frame: of all, or (M,) of each of the song's frames.
        step_cost_st: cost of each step other than (1, 1).
    """
    query, song = np.asarray(query, np.float32), np.asarray(song, np.float32)
    caps = np.empty_like(song)
    caps[:] = cap_st
    best = WarpingPath(np.inf, 0.0, np.zeros(0, np.int64))
    back = np.empty((len(query), len(song)), np.uint8)
    for key_st in keys_st:
        distance, last = _warp(query, song, caps, key_st, from_start, step_cost_st, back)
        if distance < min(best.distance_st, _FAR / len(query)):
            frames = np.empty(len(query), np.int64)
            _follow(back, last, frames)
            best = WarpingPath(float(distance), float(key_st), frames)
    return best


def paths_through_songs(
    query: NDArray[np.float32],
    songs: FlatSongs,
    chosen: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    keys_st: NDArray[np.float64],
    from_start: bool,
) -> SongPaths:
    """Find the path and the key of least mean distance in each chosen song.

    Args:
        query: (N,) MIDI semitones, N >= 1.
        songs: all songs.
        chosen: (C,) numbers of songs, none of them empty.
        start: (C,) first frame of the stretch whose median suggests the key.
        end: (C,) frame after the last one of that stretch.
        keys_st: offsets from the suggested key; each sum is tried, and refined along its path.
        from_start: whether paths begin at the songs' first frames.
    """
    found = _paths(query, *songs, chosen, start, end, keys_st, from_start)
    distance, begin, stop, key = found.T
    distance = np.where(distance > NO_CAP_ST, np.inf, distance)
    return SongPaths(distance, begin.astype(np.int64), stop.astype(np.int64), key)


def distances_to_songs(
    query: NDArray[np.float32],
    songs: FlatSongs,
    keys_st: NDArray[np.float32],
    key_offset: NDArray[np.int64],
    from_start: bool,
    folded: bool = False,
    refined: bool = False,
) -> NDArray[np.float64]:
    """Return the least mean distance, (songs,) semitones, to every song over its own keys.

    Args:
        query: (N,) MIDI semitones, N >= 1.
        songs: all songs; the distance is infinite where there is no path.
        keys_st: (K,) keys to try, song after song: how much higher than the song the query is.
        key_offset: (songs + 1,) where the keys of each song begin.
        from_start: whether paths begin at the songs' first frames.
        folded: whether pitches an octave apart are the same.
        refined: whether the best key of each song is estimated again along its path.
    """
    found = _distances(query, *songs, keys_st, key_offset, from_start, folded, refined)
    return np.where(found < NO_CAP_ST, found, np.inf)


@njit(parallel=True, cache=True)
def _distances(query, pitch, caps, offset, keys, key_offset, from_start, folded, refined):  # type: ignore[no-untyped-def]
    best = np.full(len(offset) - 1, _FAR)
    for song in prange(len(offset) - 1):
        curve, most = pitch[offset[song] : offset[song + 1]], caps[offset[song] : offset[song + 1]]
        nothing = np.empty((0, 0), np.uint8)
        key = 0.0
        for k in range(key_offset[song], key_offset[song + 1]):
            distance, _ = _warp(query, curve, most, keys[k], from_start, 0.0, nothing, folded)
            if distance < best[song]:
                best[song], key = distance, keys[k]
        if not refined or best[song] > NO_CAP_ST:
            continue
        back = np.empty((len(query), len(curve)), np.uint8)
        path = np.empty(len(query), np.int64)
        for _ in range(_ROUNDS):
            distance, last = _warp(query, curve, most, key, from_start, 0.0, back, folded)
            best[song] = min(best[song], distance)
            _follow(back, last, path)
            rest = query - curve[path] - key
            if folded:
                rest -= 12 * np.rint(rest / 12)
            change = np.nanmedian(rest)
            if abs(change) < _SAME_KEY_ST:
                break
            key += change
    return best


@njit(parallel=True, cache=True)
def _paths(query, pitch, caps, offset, chosen, start, end, keys, from_start):  # type: ignore[no-untyped-def]
    """Return (C, 4): distance, first frame, frame after the last, key."""
    found = np.zeros((len(chosen), 4))
    middle = np.median(query)
    for c in prange(len(chosen)):
        first, after = offset[chosen[c]], offset[chosen[c] + 1]
        song, most = pitch[first:after], caps[first:after]
        back = np.empty((len(query), len(song)), np.uint8)
        path = np.empty(len(query), np.int64)
        begin = min(max(start[c], 0), len(song) - 1)
        stop = max(min(end[c], len(song)), begin + 1)
        likely = middle - np.nanmedian(song[begin:stop])
        found[c, 0] = _FAR
        for k in range(len(keys)):
            key = likely + keys[k]
            for _ in range(_ROUNDS):
                distance, last = _warp(query, song, most, key, from_start, 0.0, back)
                if distance > NO_CAP_ST:
                    break  # the song is too short to hold the query
                _follow(back, last, path)
                if distance < found[c, 0]:
                    found[c, 0], found[c, 1] = distance, path[0]
                    found[c, 2], found[c, 3] = last + 1, key
                on_path = np.nanmedian(query - song[path])
                if abs(on_path - key) < _SAME_KEY_ST:
                    break
                key = on_path
    return found


@njit(cache=True, error_model="numpy")
def _warp(query, song, caps, key, from_start, step_cost, back, folded=False):  # type: ignore[no-untyped-def]
    """Return the mean cost of a query's frame on the best path, and the path's last frame.

    ``back`` stores the step taken, for backtracking: 1 is (1, 1), 2 is (1, 2), 3 is (2, 1), and 0
    begins a path. An empty ``back`` stores nothing.
    """
    # Single precision and plain loops without a branch are compiled to vector instructions.
    width = len(song)
    rows = np.full((3, width + 2), np.float32(_FAR))  # two columns of padding on the left
    near = np.zeros((2, width), np.float32)
    unused = np.empty(width, np.uint8)
    bent, octave = np.float32(step_cost), np.float32(12)
    for i in range(len(query)):
        new, row, before = rows[i % 3], rows[(i - 1) % 3], rows[(i - 2) % 3]
        here, earlier = near[i % 2], near[(i - 1) % 2]
        steps = back[i] if len(back) else unused
        pitch = query[i] - np.float32(key)
        if folded:
            for j in range(width):
                apart = abs(pitch - song[j])
                apart = abs(apart - octave * np.rint(apart / octave))
                here[j] = apart if apart < caps[j] else caps[j]
        else:
            for j in range(width):
                apart = abs(pitch - song[j])
                here[j] = apart if apart < caps[j] else caps[j]  # NaN costs the cap too
        if i == 0:
            new[2:] = here
            if from_start:
                new[3:] = np.float32(_FAR)
            steps[:] = 0
            continue
        for j in range(width):
            double = row[j] + bent
            half = before[j + 1] + earlier[j] + bent
            best, step = row[j + 1], np.uint8(1)
            step = np.uint8(2) if double < best else step
            best = double if double < best else best
            step = np.uint8(3) if half < best else step
            best = half if half < best else best
            new[j + 2] = best + here[j]
            steps[j] = step
    costs = rows[(len(query) - 1) % 3][2:]
    last = np.argmin(costs)
    return costs[last] / len(query), last


@njit(cache=True)
def _follow(back, last, path):  # type: ignore[no-untyped-def]
    """Fill ``path`` with the song's frame for every frame of the query."""
    i, j = len(path) - 1, last
    while True:
        path[i] = j
        step = back[i, j]
        if step == 0:
            return
        if step == 3:
            path[i - 1] = j
            i -= 1
        i -= 1
        j -= 2 if step == 2 else 1
