"""Find near-duplicates: melodies with the same notes, in any key and at any tempo.

A melody is reduced to its pitch changes. Repeated notes are merged, so that a melody on a 100 ms
grid can be compared with one in notes. Two melodies are near-duplicates if they share at least half
of the shorter one's runs of ``RUN`` changes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

RUN = 6
NEAR = 0.5
_FEWEST_RUNS = 4


def pitch_changes(pitches_st: Sequence[float] | NDArray) -> tuple[int, ...]:
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

    def __init__(self, melodies: Mapping[str, Sequence[float] | NDArray]) -> None:
        self.runs: dict[str, frozenset[tuple[int, ...]]] = {}
        self._where: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for key, pitches in melodies.items():
            self.add(key, pitches)

    def add(self, key: str, pitches_st: Sequence[float] | NDArray) -> None:
        """Add one more melody, (N,) pitches in semitones, rests left out, under a new id."""
        self.runs[key] = runs_of(pitch_changes(pitches_st))
        for run in self.runs[key]:
            self._where[run].append(key)

    def near(self, pitches_st: Sequence[float] | NDArray, share: float = NEAR) -> dict[str, float]:
        """Return the melodies that share at least ``share`` of the shorter one's runs.

        Args:
            pitches_st: (N,) pitches in semitones, rests left out.
            share: 0 to 1.

        Returns:
            id to shared part. Melodies with fewer than four different runs never match: they are
            too short to tell.
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
        """Return the groups of two or more near-duplicates, largest first.

        A melody belongs to a group if it is a near-duplicate of any member.
        """
        leader = {key: key for key in self.runs}

        def find(key: str) -> str:
            while leader[key] != key:
                leader[key] = leader[leader[key]]
                key = leader[key]
            return key

        for key, runs in self.runs.items():
            for other in self._near(runs, share):
                leader[find(other)] = find(key)
        members: dict[str, list[str]] = defaultdict(list)
        for key in self.runs:
            members[find(key)].append(key)
        return sorted((g for g in members.values() if len(g) > 1), key=lambda g: (-len(g), g))


MelodyKey = tuple[tuple[int, ...], tuple[float, ...]]


def melody_key(notes: NDArray) -> MelodyKey | None:
    """Return what a melody has in any key and tempo: its pitch steps and its rhythm.

    Args:
        notes: (M, 3) onset, duration, MIDI pitch.

    Returns:
        M - 1 steps in semitones, and as many intervals between onsets, relative to their median;
        None for fewer than two notes.
    """
    if len(notes) < 2:
        return None
    steps = np.diff(notes[:, 0])
    rhythm = np.round(steps / max(float(np.median(steps)), 1e-6), 1)
    melody = np.diff(np.round(notes[:, 2])).astype(int)
    return tuple(melody.tolist()), tuple(rhythm.tolist())


def same_melodies(notes: Mapping[str, NDArray]) -> list[list[str]]:
    """Return groups of songs that differ only in key and tempo, largest first.

    Args:
        notes: id to (M, 3) onset, duration, MIDI pitch; a song of fewer than two notes is skipped.
    """
    members: dict[MelodyKey, list[str]] = defaultdict(list)
    for key, table in notes.items():
        if melody := melody_key(table):
            members[melody].append(key)
    return sorted((g for g in members.values() if len(g) > 1), key=lambda g: (-len(g), g))


def training_filter(
    melodies: Mapping[str, Sequence[float] | NDArray],
    protected: Mapping[str, Sequence[float] | NDArray],
    share: float,
) -> dict[str, str]:
    """Return the melodies that may not be trained on: near-duplicates of a protected one.

    Args:
        melodies: candidates, id to (N,) pitches in semitones.
        protected: the melodies of evaluation songs and distractors, in the same form.
        share: 0 to 1; a lower one drops more.

    Returns:
        Dropped id to the id of the nearest protected melody.
    """
    matcher = MelodyMatcher(protected)
    dropped = {}
    for key, pitches in melodies.items():
        near = matcher.near(pitches, share)
        if near:
            dropped[key] = max(near, key=lambda other: (near[other], other))
    return dropped


def note_pitches(contour_pitch_st: Iterable[float]) -> NDArray[np.float64]:
    """Return the pitches of a contour's (N,) frames without rests (0)."""
    pitch = np.asarray(list(contour_pitch_st), float)
    return pitch[pitch > 0]
