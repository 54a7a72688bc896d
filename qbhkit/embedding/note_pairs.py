"""Training pairs rendered from notes: a phrase as written, and in the rhythm of a hummer.

Every note is lengthened or shortened by itself, which a contour does not allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.embedding.augment import Frames
from qbhkit.embedding.sampling import Humming, PairBatch
from qbhkit.errors import QbhError


@dataclass(frozen=True)
class NotePairConfig:
    """Say how phrases are rendered from notes.

    Raises:
        QbhError: if ``share``, ``fewest`` or ``most`` is out of its range.
    """

    share: float = 0.25  # of the self-supervised pairs; the others are windows of contours
    fewest: int = 6  # notes of a phrase; their number is log-uniform
    most: int = 40
    rhythm_octaves: float = 0.25  # a hummed note lasts 2 ** normal(0, x) times as long as written
    at_start: float = 0.25  # share of the phrases that begin with the song

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 2 <= self.fewest <= self.most:
            raise QbhError(
                "note_pairs need a share over 0, up to 1, and notes with 2 <= fewest <= most."
            )


class NotePairs:
    """Draw phrases of songs: their notes as written, and as hummed.

    Args:
        notes: of each song, without overlaps; a song with None is never drawn.
        groups: (songs,) tune of each song.
        config: how to draw.
        humming: the other distortions of the hummed phrase.
        hop_s: seconds between frames.

    Raises:
        QbhError: if no song has as many notes as the shortest phrase.
    """

    def __init__(
        self,
        notes: Sequence[NDArray | None],
        groups: Sequence[int],
        config: NotePairConfig,
        humming: Humming,
        hop_s: float,
    ) -> None:
        pairs = zip(notes, groups, strict=True)
        kept = [(k, g) for k, g in pairs if k is not None and len(k) >= config.fewest]
        if not kept:
            raise QbhError(f"No song has {config.fewest} notes: leave 'note_pairs' out.")
        self._count = np.array([len(song) for song, _ in kept])
        self._first = np.cumsum(self._count) - self._count
        self._onset, self._duration, self._pitch = np.concatenate([song for song, _ in kept]).T
        self._group = np.array([group for _, group in kept])
        self.tunes = int(self._group.max()) + 1
        self._config, self._humming, self._hop_s = config, humming, hop_s

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs, each from a different song if there are enough."""
        config, songs = self._config, len(self._count)
        song = rng.choice(songs, count, replace=songs < count)
        octaves = rng.uniform(np.log2(config.fewest), np.log2(config.most), count)
        length = np.minimum(np.round(np.exp2(octaves)).astype(int), self._count[song])
        begin = rng.integers(0, self._count[song] - length + 1)
        begin[rng.random(count) < config.at_start] = 0
        place = np.arange(config.most)
        inside = place < length[:, None]  # (B, K) which of K places hold a note
        at = (self._first[song] + begin)[:, None] + np.where(inside, place, length[:, None] - 1)
        onset, duration, pitch = self._onset[at], self._duration[at], self._pitch[at]
        onset = onset - onset[:, :1]
        last = length[:, None] - 1
        anchors = self._read(onset, onset + duration, pitch, last)
        # The time from one onset to the next, and the sounding part of it, are scaled alike.
        factor = np.exp2(rng.normal(0, config.rhythm_octaves, at.shape))
        gap = np.diff(onset, axis=1, append=onset[:, -1:]) * factor
        hummed = np.cumsum(gap, axis=1) - gap
        positives = self._read(hummed, hummed + duration * factor, pitch, last, rng)
        positives = self._humming.distorted(positives, rng)
        return self._humming.batch(anchors, positives, self._group[song])

    def _read(
        self,
        onset: NDArray,
        end: NDArray,
        pitch: NDArray,
        last: NDArray,
        rng: Generator | None = None,
    ) -> Frames:
        """Render (B, K) notes, in each row up to the ``last``, on (B, L, 2) frames."""
        length = np.take_along_axis(end, last, axis=1)[:, 0] / self._hop_s
        start = np.zeros(len(length))
        if rng is None:
            positions = self._humming.reading.positions(start, length)
        else:
            positions = self._humming.positions(start, length, rng)
        at_s = positions * self._hop_s  # (B, L)
        begun = onset[:, None] <= at_s[..., None] + 1e-9  # (B, L, K)
        owner = np.minimum(begun.sum(axis=2) - 1, last)  # -1 before the first note
        note = np.maximum(owner, 0)
        sounding = (owner >= 0) & (at_s < np.take_along_axis(end, note, axis=1))
        sung = np.where(sounding, np.take_along_axis(pitch, note, axis=1), 0.0)
        return np.stack([sung, sounding], axis=-1).astype(np.float32)
