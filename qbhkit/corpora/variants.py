"""Find variants: melodies that hold a stretch of one another, sung differently.

The shared runs of :mod:`qbhkit.corpora.duplicates` end at every note that differs. Here they only
choose candidates, which are then aligned stretch by stretch, in any key, at half to double tempo.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import held_pitch
from qbhkit.corpora.songs import Song
from qbhkit.dtw import distances_to_songs, end_to_end, flatten

HOP_S = 0.2
# Chosen on ten known variants that the shared runs miss: nine lie below, the tenth at 0.099. 100
# distractors played backwards, which are nobody's tune, find 18 folk tunes below it, and forwards
# 172: about a tenth is chance. Of pop songs most may be (14 forwards, 17 backwards).
LIMIT = 0.07
_RUN = 5  # pitch changes
_CANDIDATES = 100  # by shared runs, and as many by their share
_KEYS = 2  # of each candidate: those in which most shared runs agree
_OPENING, _WINDOW, _STEP = 50, 60, 30  # frames: 10 s, 12 s, 6 s
_FEWEST_CHANGES, _MANY_CHANGES = 4, 8  # a stretch with few pitch changes is found in many songs
_FEW_COST = 0.01  # added to the distance for each pitch change that is missing to many
_CAP_ST = 3.0  # highest cost of a frame, as in search


class Variant(NamedTuple):
    """A melody that shares a stretch with another."""

    number: int
    distance: float  # along the path, over the stretch's mean distance from its median


class VariantFinder:
    """Find variants of a melody among many.

    Args:
        melodies: (N,) MIDI semitones each, every 0.2 s, from :func:`held`.
    """

    def __init__(self, melodies: Sequence[NDArray[np.float32]]) -> None:
        self._melodies = melodies
        runs = [_runs(melody) for melody in melodies]
        self._sizes = np.array([max(len(found.run), 1) for found in runs])
        song = np.repeat(np.arange(len(runs)), [len(found.run) for found in runs])
        run = np.concatenate([found.run for found in runs])
        order = np.argsort(run, kind="stable")
        self._run, self._song = run[order], song[order]
        self._pitch = np.concatenate([found.pitch for found in runs])[order]

    def near(self, melody: NDArray[np.float32], limit: float = LIMIT) -> list[Variant]:
        """Return the variants of a melody, nearest first.

        They hold its first 10 s or any of its 12 s (every 6 s), or it holds their first 10 s.

        Args:
            melody: (N,) MIDI semitones every 0.2 s.
            limit: highest distance, 0 to 1.
        """
        chosen, keys, offset = self._candidates(melody)
        distance = np.full(len(chosen), np.inf)
        songs = [self._melodies[number] for number in chosen]
        begins = range(0, len(melody) - _WINDOW + 1, _STEP)
        for stretch in [melody[:_OPENING], *(melody[k : k + _WINDOW] for k in begins)]:
            distance = np.minimum(distance, _distances(stretch, songs, keys, offset))
        for k, song in enumerate(songs):
            key = -keys[offset[k] : offset[k + 1]]
            found = _distances(song[:_OPENING], [melody], key, np.array([0, len(key)]))
            distance[k] = min(distance[k], found[0])
        order = np.argsort(distance, kind="stable")
        return [Variant(int(chosen[k]), float(distance[k])) for k in order if distance[k] <= limit]

    def _candidates(
        self, melody: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Return candidates (C,), keys to try song after song, and where those of each begin."""
        run, pitch = _runs(melody)
        first, last = (np.searchsorted(self._run, run, side) for side in ("left", "right"))
        count = last - first
        rows = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
        # a run that few songs hold says more
        weight = np.log1p(len(self._melodies) / np.maximum(count, 1))
        score = np.bincount(self._song[rows], np.repeat(weight, count), len(self._melodies))
        best = [
            np.argsort(-by, kind="stable")[:_CANDIDATES]
            for by in (score, score / np.sqrt(self._sizes))
        ]
        chosen = np.unique(np.concatenate(best))
        chosen = chosen[score[chosen] > 0]
        key = np.round(np.repeat(pitch, count) - self._pitch[rows])
        keys = []
        for number in chosen:
            values, votes = np.unique(key[self._song[rows] == number], return_counts=True)
            keys.append(values[np.argsort(-votes, kind="stable")[:_KEYS]])
        return chosen, *end_to_end(keys or [np.zeros(0)])


class _Runs(NamedTuple):
    run: NDArray[np.int64]  # (R,) each run of pitch changes once, as a number
    pitch: NDArray[np.float32]  # (R,) its first pitch


def held(song: Song) -> NDArray[np.float32]:
    """Return the pitch (N,) of a song every 0.2 s from its first to its last note, rests filled."""
    return held_pitch(song.contour(HOP_S))


def _runs(melody: NDArray[np.float32]) -> _Runs:
    notes = np.round(melody)
    notes = notes[np.flatnonzero(np.diff(notes, prepend=np.nan))]
    if len(notes) <= _RUN:
        return _Runs(np.zeros(0, np.int64), notes[:0])
    steps = np.clip(np.diff(notes), -31, 31).astype(np.int64) + 32
    windows = np.lib.stride_tricks.sliding_window_view(steps, _RUN)
    run, at = np.unique(windows @ 64 ** np.arange(_RUN), return_index=True)
    return _Runs(run, notes[at])


def _distances(
    stretch: NDArray[np.float32],
    songs: Sequence[NDArray[np.float32]],
    keys_st: NDArray[np.float32],
    offset: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the distance, (songs,), of a stretch to each song; infinite if it tells too little."""
    changes = int((np.diff(np.round(stretch)) != 0).sum())
    if not songs or changes < _FEWEST_CHANGES:
        return np.full(len(songs), np.inf)
    found = distances_to_songs(stretch, flatten(songs, _CAP_ST), keys_st, offset, False)
    movement_st = np.abs(stretch - np.median(stretch)).mean()
    return found / movement_st + _FEW_COST * max(0, _MANY_CHANGES - changes)
