"""Find near-duplicates: melodies with the same notes, in any key and at any tempo.

They share many runs of pitch changes. Repeated notes are merged, so that a melody on a 100 ms grid
can be compared with one in notes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

RUN = 6
NEAR = 0.5
_FEWEST_RUNS = 4
Pitches = Sequence[float] | NDArray


def pitch_changes(pitches_st: Pitches) -> tuple[int, ...]:
    """Return the non-zero steps between (N,) successive pitches, in whole semitones."""
    steps = np.diff(np.round(np.asarray(pitches_st, float))).astype(int)
    return tuple(int(step) for step in steps if step)


def runs_of(changes: Sequence[int], run: int = RUN) -> frozenset[tuple[int, ...]]:
    """Return the set of all runs of ``run`` successive pitch changes."""
    return frozenset(tuple(changes[k : k + run]) for k in range(len(changes) - run + 1))


def too_short_to_tell(changes: Sequence[int]) -> bool:
    """Return whether a melody has too few runs to be recognised as a near-duplicate."""
    return len(runs_of(changes)) < _FEWEST_RUNS


class MelodyMatcher:
    """Find near-duplicates of a melody among many by shared runs.

    Args:
        melodies: id to (N,) pitches in semitones, rests left out.

    Notebook: notebooks/06_train_self_supervised.py
    """

    def __init__(self, melodies: Mapping[str, Pitches]) -> None:
        self.runs: dict[str, frozenset[tuple[int, ...]]] = {}
        self._where: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for key, pitches in melodies.items():
            self.add(key, pitches)

    def add(self, key: str, pitches_st: Pitches) -> None:
        """Add one more melody, (N,) pitches in semitones, rests left out, under a new id."""
        self.runs[key] = runs_of(pitch_changes(pitches_st))
        for run in self.runs[key]:
            self._where[run].append(key)

    def near(self, pitches_st: Pitches, share: float = NEAR) -> dict[str, float]:
        """Return which melodies share at least ``share`` of the shorter one's runs, and how much.

        Melodies with fewer than four different runs never match: they are too short to tell.
        """
        return self._near(runs_of(pitch_changes(pitches_st)), share)

    def _near(self, runs: frozenset[tuple[int, ...]], share: float) -> dict[str, float]:
        if len(runs) < _FEWEST_RUNS:
            return {}
        shared = Counter(key for run in runs for key in self._where.get(run, ()))
        parts = {
            key: count / min(len(runs), len(self.runs[key]))
            for key, count in shared.items()
            if len(self.runs[key]) >= _FEWEST_RUNS
        }
        return {key: part for key, part in parts.items() if part >= share}

    def groups(self, share: float = NEAR) -> list[list[str]]:
        """Return groups of melodies in which each is a near-duplicate of another, largest first."""
        number = {key: k for k, key in enumerate(self.runs)}
        near = [
            (number[key], number[other])
            for key, runs in self.runs.items()
            for other in self._near(runs, share)
        ]
        ends = np.array(near, int).reshape(-1, 2).T
        graph = coo_array((np.ones(len(near)), tuple(ends)), (len(number), len(number)))
        _, labels = connected_components(graph, directed=False)
        return _grouped(zip(labels, self.runs, strict=True))


def _grouped(members: Iterable[tuple[Any, str]]) -> list[list[str]]:
    """Return the ids that share a label with others, largest group first."""
    groups = defaultdict(list)
    for label, key in members:
        groups[label].append(key)
    return sorted((g for g in groups.values() if len(g) > 1), key=lambda g: (-len(g), g))


MelodyKey = tuple[tuple[int, ...], tuple[float, ...]]


def melody_key(notes: NDArray) -> MelodyKey | None:
    """Return the pitch steps (M - 1) and rhythm of (M, 3) notes: the same in any key and tempo.

    The rhythm is relative to its median. Fewer than two notes give None.
    """
    if len(notes) < 2:
        return None
    steps = np.diff(notes[:, 0])
    rhythm = np.round(steps / max(float(np.median(steps)), 1e-6), 1)
    melody = np.diff(np.round(notes[:, 2])).astype(int)
    return tuple(melody.tolist()), tuple(rhythm.tolist())


def same_melodies(notes: Mapping[str, NDArray]) -> list[list[str]]:
    """Return groups of songs, by their (M, 3) notes, that differ only in key and tempo."""
    return _grouped((key, name) for name, table in notes.items() if (key := melody_key(table)))


def training_filter(
    melodies: Mapping[str, Pitches], protected: Mapping[str, Pitches], share: float
) -> dict[str, str]:
    """Return the melodies that may not be trained on: near-duplicates of a protected one.

    Args:
        melodies: id to (N,) pitches in semitones.
        protected: the same of evaluation songs and distractors.
        share: 0 to 1; a lower one drops more.

    Returns:
        Dropped id to the id of the nearest protected melody.
    """
    matcher = MelodyMatcher(protected)
    found = {key: matcher.near(pitches, share) for key, pitches in melodies.items()}
    return {
        key: max(near, key=lambda other: (near[other], other))
        for key, near in found.items()
        if near
    }


def note_pitches(contour_pitch_st: Iterable[float]) -> NDArray[np.float64]:
    """Return the pitches of a contour's (N,) frames without rests (0)."""
    pitch = np.asarray(list(contour_pitch_st), float)
    return pitch[pitch > 0]
