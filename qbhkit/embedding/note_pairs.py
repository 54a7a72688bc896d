"""Training pairs rendered from notes: a phrase as written, and in the rhythm of a hummer.

The rules of :mod:`qbhkit.embedding.augment` change the tempo slice by slice. Here every note is
lengthened or shortened by itself, which needs the notes and not only the contour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.contour import Normalisation, normalise
from qbhkit.embedding.augment import Distortions, Frames, after_warp, distort, warp_positions
from qbhkit.embedding.sampling import PairBatch
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError


@dataclass(frozen=True)
class NotePairConfig:
    """Say how phrases are rendered from notes.

    Args:
        share: share of the self-supervised pairs; the others are windows of contours.
        fewest: notes of the shortest phrase.
        most: notes of the longest phrase; their number is drawn log-uniformly.
        rhythm_octaves: a hummed note lasts 2 ** normal(0, x) times as long as written.
        at_start: share of the phrases that begin with the song.

    Raises:
        QbhError: if a number is out of its range.
    """

    share: float = 0.25
    fewest: int = 6
    most: int = 40
    rhythm_octaves: float = 0.25
    at_start: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 2 <= self.fewest <= self.most:
            raise QbhError(
                "note_pairs need a share over 0 and, from 2 on, fewest notes up to most."
            )


class NotePairs:
    """Draw phrases of songs: their notes as written, and as hummed.

    Args:
        notes: (M, 3) of each song: onset s, duration s, MIDI pitch, without overlaps. A song with
            None is never drawn.
        groups: (songs,) tune of each song.
        config: how to draw.
        reading: how a window becomes L frames.
        rules: the other distortions of the hummed phrase.
        how: normalisation of both.
        hop_s: seconds between frames.

    Raises:
        QbhError: if no song has as many notes as the shortest phrase.
    """

    def __init__(
        self,
        notes: Sequence[NDArray | None],
        groups: Sequence[int],
        config: NotePairConfig,
        reading: Reading,
        rules: Distortions,
        how: Normalisation,
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
        self._config, self._reading, self._hop_s = config, reading, hop_s
        self._rules, self._how = rules, how

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs, each from another song while there are enough."""
        config, songs = self._config, len(self._count)
        song = rng.choice(songs, count, replace=songs < count)
        octaves = rng.uniform(np.log2(config.fewest), np.log2(config.most), count)
        length = np.minimum(np.round(np.exp2(octaves)).astype(int), self._count[song])
        begin = rng.integers(0, self._count[song] - length + 1)
        begin[rng.random(count) < config.at_start] = 0
        place = np.arange(config.most)
        inside = place < length[:, None]  # (B, K) which of K places hold a note
        at = (self._first[song] + begin)[:, None] + np.where(inside, place, length[:, None] - 1)
        onset, pitch = self._onset[at] - self._onset[at[:, :1]], self._pitch[at]
        duration = self._duration[at]
        anchors = self._read(onset, duration, pitch, length)
        # The time from one onset to the next, and the sounding part of it, are scaled alike.
        factor = np.exp2(rng.normal(0, config.rhythm_octaves, at.shape))
        gap = np.diff(onset, axis=1, append=onset[:, -1:]) * factor
        hummed = np.cumsum(gap, axis=1) - gap
        positives = self._read(hummed, duration * factor, pitch, length, rng)
        positives = distort(positives, after_warp(self._reading, self._rules), rng)
        return PairBatch(
            normalise(anchors, self._how), normalise(positives, self._how), self._group[song]
        )

    def _read(
        self,
        onset: NDArray,
        duration: NDArray,
        pitch: NDArray,
        length: NDArray,
        rng: Generator | None = None,
    ) -> Frames:
        """Render (B, K) notes, the first ``length`` of each row, on (B, L, 2) frames."""
        last = (length - 1)[:, None]
        end = np.take_along_axis(onset + duration, last, axis=1)[:, 0]
        start, frames = np.zeros(len(end)), end / self._hop_s
        if rng is None:
            positions = self._reading.positions(start, frames)
        else:
            positions = warp_positions(start, frames, self._reading, self._rules, rng)
        at_s = positions * self._hop_s  # (B, L)
        begun = onset[:, None] <= at_s[..., None] + 1e-9  # (B, L, K)
        owner = np.minimum(begun.sum(axis=2) - 1, last)  # -1 before the first note
        note = np.maximum(owner, 0)
        ends = np.take_along_axis(onset + duration, note, axis=1)
        sounding = (owner >= 0) & (at_s < ends)
        sung = np.where(sounding, np.take_along_axis(pitch, note, axis=1), 0.0)
        return np.stack([sung, sounding], axis=-1).astype(np.float32)
