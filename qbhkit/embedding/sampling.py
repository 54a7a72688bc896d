"""Pairs for training: windows of songs, and hummed readings of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.contour import CONTOUR_HOP_S, Contour, Normalisation, normalise
from qbhkit.embedding.augment import Distortions, Frames, distort, warp_positions
from qbhkit.errors import QbhError


class ContourBank:
    """Keep many contours in one array, so that a batch of windows is one gather.

    Args:
        contours: the songs' contours, all on the 100 ms grid.
        groups: (songs,) songs with the same number are variants of one tune and never serve as
            each other's negatives; by default every song is its own group.

    Raises:
        QbhError: if there is no contour with a voiced frame.
    """

    def __init__(self, contours: Sequence[Contour], groups: Sequence[int] | None = None) -> None:
        if not any(contour.voiced.any() for contour in contours):
            raise QbhError("There is no melody to train on: every contour is empty or unvoiced.")
        self.frames = np.concatenate([contour.frames for contour in contours])  # (total, 2)
        self.lengths = np.array([len(contour) for contour in contours])
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.groups = np.arange(len(contours)) if groups is None else np.asarray(groups)

    def read(self, song: NDArray[np.int64], positions: NDArray) -> Frames:
        """Read songs at fractional frame positions, nearest frame, unvoiced outside.

        Args:
            song: (B,) song numbers.
            positions: (B, L) in frames.

        Returns:
            (B, L, 2).
        """
        index = np.floor(positions).astype(np.int64)
        inside = (index >= 0) & (index < self.lengths[song][:, None])
        flat = self.offsets[song][:, None] + np.where(inside, index, 0)
        return np.where(inside[..., None], self.frames[flat], 0.0)


class PairBatch(NamedTuple):
    """Anchors, positives and the tune each row belongs to."""

    anchors: Frames  # (B, L, 2) normalised
    positives: Frames  # (B, L, 2) normalised
    groups: NDArray[np.int64]  # (B,)


@dataclass(frozen=True)
class WindowRange:
    """Which stretches of a song are shown to the encoder, and on how many steps.

    Args:
        shortest_s: shortest window, seconds.
        longest_s: longest window, seconds; lengths are drawn log-uniformly.
        steps: L, the frames every window is read on, whatever its length.
        at_start: share of windows that begin with the song.
    """

    shortest_s: float = 4.0
    longest_s: float = 16.0
    steps: int = 80
    at_start: float = 0.25


def sample_pairs(
    bank: ContourBank,
    batch: int,
    window: WindowRange,
    rules: Distortions,
    how: Normalisation,
    rng: Generator,
) -> PairBatch:
    """Draw self-supervised pairs: a window of a song, and the same window as hummed.

    Args:
        bank: the songs.
        batch: number of pairs, B; each from another song while there are enough.
        window: lengths and steps of the windows.
        rules: the humming distortions of the positives.
        how: normalisation of both.
        rng: the random generator.

    Returns:
        Anchors and positives (B, L, 2), and their tunes (B,).

    Source: fixed facts, "Loss" (stage 1).
    """
    songs = len(bank.lengths)
    song = rng.choice(songs, batch, replace=songs < batch)
    length_s = np.exp2(rng.uniform(np.log2(window.shortest_s), np.log2(window.longest_s), batch))
    length = np.minimum(length_s / CONTOUR_HOP_S, bank.lengths[song])
    start = np.floor(rng.uniform(0, 1, batch) * (bank.lengths[song] - length + 1))
    start[rng.random(batch) < window.at_start] = 0
    grid = (np.arange(window.steps) + 0.5) / window.steps
    anchors = bank.read(song, start[:, None] + grid * length[:, None])
    positives = bank.read(song, warp_positions(start, length, window.steps, rules, rng))
    positives = distort(positives, rules, rng)
    return PairBatch(normalise(anchors, how), normalise(positives, how), bank.groups[song])
