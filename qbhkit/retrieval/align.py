"""Lay a hum along songs: dynamic time warping in the hum's own key, song by song.

Compiled with numba; songs are shared among threads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from qbhkit.contour import Contour, held_pitch

FARTHEST_ST = 3.0  # what is farther off counts as this far: one wrong note is one wrong note
# The key is first taken from the song's window that is most like the hum, which may hold a note
# more at either end; then from the path itself, until it stays.
_KEYS_ST = np.array([0.0, -1.5, 1.5])
_ROUNDS, _SAME_KEY_ST = 3, 0.05
_FAR = 1e9


class FlatSongs(NamedTuple):
    """Songs end to end: pitch of song k is ``pitch[offset[k] : offset[k + 1]]``."""

    pitch: NDArray[np.float32]
    offset: NDArray[np.int64]  # (songs + 1,)


class Alignments(NamedTuple):
    """How a hum runs through each of C songs."""

    distance_st: NDArray[np.float64]  # (C,) mean over the hum's frames; FARTHEST_ST without a path
    start: NDArray[np.int64]  # (C,) first frame of the song
    end: NDArray[np.int64]  # (C,) frame after the last; equal to start where there is no path
    transposition_st: NDArray[np.float64]  # (C,) how much higher than the song the hum is
    frames: NDArray[np.int64]  # (C,) of the hum


def flatten(pitches: Sequence[NDArray[np.float32]]) -> FlatSongs:
    """Put the pitches of songs, (N,) each, end to end."""
    offset = np.concatenate([[0], np.cumsum([len(pitch) for pitch in pitches])]).astype(np.int64)
    return FlatSongs(np.concatenate(pitches).astype(np.float32), offset)


class Aligner:
    """Find the stretch of a song that a hum follows, at half to double speed at every moment.

    The mean distance between the hum and its path through the song is least over paths and keys;
    a single frame counts for at most 3 semitones.

    Args:
        contours: the songs.

    Source: Mueller, "Fundamentals of music processing", 2015, section 7.2 (subsequence DTW with
    slope constraint).
    Notebook: notebooks/09_search_and_align.py
    """

    def __init__(self, contours: Sequence[Contour]) -> None:
        trimmed = [contour.trimmed() for contour in contours]
        self.lead = np.array([round(lead_s / sung.hop_s) for sung, lead_s in trimmed], np.int64)
        self._songs = flatten([held_pitch(sung) for sung, _ in trimmed])

    def align(
        self,
        hum: Contour,
        songs: NDArray[np.int64],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        from_start: bool = False,
    ) -> Alignments:
        """Align a hum with some of the songs.

        Args:
            hum: with at least one voiced frame.
            songs: (C,) their numbers.
            start: (C,) frames of the song where a stretch begins that is like the hum.
            end: (C,) where it ends: the key is looked for there, the path everywhere.
            from_start: whether paths begin at the songs' first notes.

        Returns:
            Paths in frames of the songs.
        """
        lead = self.lead[songs]
        pitch = held_pitch(hum)
        distance, begin, stop, key = _align(
            pitch, *self._songs, songs, start - lead, end - lead, _KEYS_ST, from_start
        ).T
        first, last = begin.astype(np.int64) + lead, stop.astype(np.int64) + lead
        frames = np.full(len(songs), len(pitch))
        return Alignments(np.minimum(distance, FARTHEST_ST), first, last, key, frames)

    def path(
        self, hum: Contour, song: int, transposition_st: float, from_start: bool = False
    ) -> NDArray[np.int64]:
        """Return which frame of a song each frame of a hum follows, in a key that is known.

        Args:
            hum: with at least one voiced frame.
            song: its number.
            transposition_st: as :meth:`align` gives it.
            from_start: whether the path begins at the song's first note.

        Returns:
            (N,) frames of the song, for those of the hum from its first to its last voiced one;
            empty where the song is too short for the hum.
        """
        pitch, (songs, offset) = held_pitch(hum), self._songs
        notes = songs[offset[song] : offset[song + 1]]
        back = np.empty((len(pitch), len(notes)), np.uint8)
        distance, last = _warp(pitch, notes, transposition_st, from_start, back)
        if distance > FARTHEST_ST:
            return np.zeros(0, np.int64)
        path = np.empty(len(pitch), np.int64)
        _follow(back, last, path)
        return path + self.lead[song]


@njit(parallel=True, cache=True)
def _align(hum, pitch, offset, songs, start, end, keys, from_start):  # type: ignore[no-untyped-def]
    """(C, 4): distance, first frame, frame after the last, hum over song in semitones."""
    found = np.zeros((len(songs), 4))
    middle = np.median(hum)
    for c in prange(len(songs)):
        song = pitch[offset[songs[c]] : offset[songs[c] + 1]]
        back = np.empty((len(hum), len(song)), np.uint8)
        path = np.empty(len(hum), np.int64)
        begin = min(max(start[c], 0), len(song) - 1)
        stop = max(min(end[c], len(song)), begin + 1)
        likely = middle - np.median(song[begin:stop])
        found[c, 0] = _FAR
        for k in range(len(keys)):
            key = likely + keys[k]
            for _ in range(_ROUNDS):
                distance, last = _warp(hum, song, key, from_start, back)
                if distance > FARTHEST_ST:
                    break  # the song is too short to hold the hum
                _follow(back, last, path)
                if distance < found[c, 0]:
                    found[c, 0], found[c, 1] = distance, path[0]
                    found[c, 2], found[c, 3] = last + 1, key
                on_path = np.median(hum - song[path])
                if abs(on_path - key) < _SAME_KEY_ST:
                    break
                key = on_path
    return found


@njit(cache=True)
def _warp(hum, song, key, from_start, back):  # type: ignore[no-untyped-def]
    """Cost a hum frame of the best path and its last frame; how it came there goes into ``back``.

    Steps in (hum, song) frames: 1 is (1, 1), 2 is (1, 2), 3 is (2, 1); 0 begins a path.
    """
    width = len(song)
    rows = np.full((3, width + 2), _FAR)  # two columns of padding on the left
    near = np.zeros((2, width))
    for i in range(len(hum)):
        new, row, before = rows[i % 3], rows[(i - 1) % 3], rows[(i - 2) % 3]
        here, earlier = near[i % 2], near[(i - 1) % 2]
        for j in range(width):
            here[j] = min(abs(hum[i] - song[j] - key), FARTHEST_ST)
            if i == 0:
                new[j + 2] = here[j] if j == 0 or not from_start else _FAR
                back[i, j] = 0
                continue
            best, step = row[j + 1] + here[j], 1
            double = row[j] + here[j]
            if double < best:
                best, step = double, 2
            half = before[j + 1] + earlier[j] + here[j]
            if half < best:
                best, step = half, 3
            new[j + 2] = best
            back[i, j] = step
    costs = rows[(len(hum) - 1) % 3][2:]
    last = np.argmin(costs)
    return costs[last] / len(hum), last


@njit(cache=True)
def _follow(back, last, path):  # type: ignore[no-untyped-def]
    """Fill ``path`` with the song's frame for every frame of the hum."""
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
