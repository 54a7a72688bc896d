"""Songs, as every corpus gives them: an id, a title, a source and a melody."""

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import AUDIO_SUFFIXES
from qbhkit.contour import CONTOUR_HOP_S, Contour, F0Track, from_f0, from_notes
from qbhkit.errors import QbhError

# A song id is the file name without one of these.
KNOWN_SUFFIXES = (".f0.csv", ".mid", ".midi", ".abc", *AUDIO_SUFFIXES)


def stem_of(path: Path) -> str:
    """Return the file name without its known suffix: ``00001.f0.csv`` gives ``00001``."""
    name = Path(path).name
    for suffix in KNOWN_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(path).stem


@dataclass(frozen=True, eq=False)
class Song:
    """Describe one song; exactly one of ``notes``, ``f0`` and ``audio`` is given.

    Raises:
        QbhError: if not exactly one of the three is given, or the notes are malformed.
    """

    id: str  # unique in its corpus
    title: str  # as printed in answers; the id where nothing better is known
    source: str  # the corpus or the file it was read from
    licence: str = "unknown"
    notes: NDArray[np.float64] | None = None  # (M, 3) onset and duration (s), MIDI pitch; sorted
    f0: F0Track | None = None
    audio: Path | None = None  # a recording from which the melody is still to be extracted

    def __post_init__(self) -> None:
        given = [value for value in (self.notes, self.f0, self.audio) if value is not None]
        if len(given) != 1:
            raise QbhError(f"Song {self.id} needs exactly one of notes, f0 and audio.")
        if self.notes is not None:
            notes = np.asarray(self.notes, float)
            if notes.ndim != 2 or notes.shape[1] != 3 or not np.isfinite(notes).all():
                raise QbhError(f"Song {self.id}: notes must be finite numbers of shape (M, 3).")
            if len(notes) and (np.diff(notes[:, 0]).min(initial=0) < 0 or notes[:, 1].min() <= 0):
                raise QbhError(f"Song {self.id}: notes must be sorted and last longer than 0 s.")

    def contour(self, hop_s: float = CONTOUR_HOP_S) -> Contour:
        """Return the contour of a song with notes or f0; raise QbhError if it is a recording."""
        if self.notes is not None:
            return from_notes(self.notes, hop_s)
        if self.f0 is not None:
            return from_f0(self.f0, hop_s)
        raise QbhError(f"{self.audio} is a recording: extract its melody with a tracker first.")


class Corpus(Protocol):
    """Protocol of all corpus readers."""

    @property
    def name(self) -> str:
        """Name of the corpus."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files in the order in which they are read."""

    def read(self, path: Path) -> Iterator[Song]:
        """Yield the songs of one of ``files``; raise QbhError if it is unreadable."""


def songs_of(corpus: Corpus) -> Iterator[Song]:
    """Yield all songs of a corpus in order; raise QbhError at the first unreadable file."""
    for path in corpus.files:
        yield from corpus.read(path)


def skyline(notes: NDArray) -> NDArray:
    """Reduce (M, 3) notes to the highest one at every moment; among equals, the latest.

    Source: Uitdenbogerd and Zobel, "Melodic matching techniques for large music databases", 1999.
    """
    if not len(notes):
        return np.zeros((0, 3))
    order = np.lexsort((-notes[:, 2], notes[:, 0]))
    begins, lengths, pitches = notes[order].T
    ends = begins + lengths
    times = np.unique(np.concatenate([begins, ends]))
    line: list[list[float]] = []  # onset, end, pitch, index of the note
    sounding: list[tuple[float, float, int]] = []  # (-pitch, -onset, index)
    upcoming = 0
    for now, later in pairwise(times):
        while upcoming < len(begins) and begins[upcoming] <= now:
            heapq.heappush(sounding, (-pitches[upcoming], -begins[upcoming], upcoming))
            upcoming += 1
        while sounding and ends[sounding[0][2]] <= now:
            heapq.heappop(sounding)
        if not sounding:
            continue
        top = sounding[0][2]
        if line and line[-1][3] == top and line[-1][1] == now:
            line[-1][1] = later
        else:
            line.append([now, later, pitches[top], top])
    table = np.array(line)[:, :3]
    return np.stack([table[:, 0], table[:, 1] - table[:, 0], table[:, 2]], axis=1)


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Return a sort key under which ``tune-2`` comes before ``tune-10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text)]
