"""Training pairs of songs: a window of a song, and the same window as if it were hummed."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.contour import Contour, Normalisation, normalise
from qbhkit.embedding.augment import Distortions, Frames, after_warp, distort, warp_positions
from qbhkit.embedding.windows import WindowRange, draw_windows
from qbhkit.errors import QbhError


def gather(frames: NDArray, offsets: NDArray, lengths: NDArray, positions: NDArray) -> NDArray[Any]:
    """Read the nearest frames at fractional positions of rows, and zeros outside of a row.

    Args:
        frames: (total,) or (total, C), the frames of all rows one after another.
        offsets: (B,) first frame of each row that is read.
        lengths: (B,) its length in frames.
        positions: (B, L) in frames; 0.5 is the middle of a row's frame 0.

    Returns:
        (B, L) or (B, L, C).
    """
    index = np.floor(positions).astype(np.int64)
    inside = (index >= 0) & (index < lengths[:, None])
    found = frames[np.where(inside, offsets[:, None] + index, 0)]
    found[~inside] = 0
    return found


class ContourBank:
    """Keep the pitch of many contours in one array, from which a batch of windows is gathered.

    A frame is voiced where its pitch is not 0.

    Args:
        contours: the songs' contours, all with the same hop.
        groups: (songs,) songs with the same number are variants of one tune and never serve as
            each other's negatives; by default every song is its own group.

    Raises:
        QbhError: if there is no contour with a voiced frame, or their hops differ.
    """

    def __init__(self, contours: Sequence[Contour], groups: Sequence[int] | None = None) -> None:
        if not any(contour.voiced.any() for contour in contours):
            raise QbhError("There is no melody to train on: every contour is empty or unvoiced.")
        hop_s, *others = {contour.hop_s for contour in contours}
        if others:
            raise QbhError("The contours of a bank must all have the same hop.")
        lengths = np.array([len(contour) for contour in contours])
        self._hold(
            np.concatenate([contour.pitch_st for contour in contours]),
            np.concatenate([[0], np.cumsum(lengths)[:-1]]),
            lengths,
            np.arange(len(contours)) if groups is None else np.asarray(groups),
            hop_s,
        )

    @classmethod
    def over(
        cls, pitch: NDArray, offsets: NDArray, lengths: NDArray, groups: NDArray, hop_s: float
    ) -> "ContourBank":
        """Make a bank of arrays without copying them, as ``contour_shards.open_shards`` does.

        Args:
            pitch: (total,) float32 MIDI semitones of all songs, 0 where unvoiced.
            offsets: (songs,) first frame of each song.
            lengths: (songs,) its length in frames.
            groups: (songs,) its tune.
            hop_s: seconds between frames.
        """
        bank = cls.__new__(cls)
        bank._hold(pitch, offsets, lengths, groups, hop_s)
        return bank

    def _hold(
        self, pitch: NDArray, offsets: NDArray, lengths: NDArray, groups: NDArray, hop_s: float
    ) -> None:
        self.pitch, self.offsets, self.lengths, self.groups = pitch, offsets, lengths, groups
        self.hop_s = hop_s

    @property
    def tunes(self) -> int:
        """Return how many tunes there are: one more than the highest group."""
        return int(self.groups.max()) + 1

    def read(self, song: NDArray[np.int64], positions: NDArray) -> Frames:
        """Read the nearest frames of songs at fractional positions, unvoiced outside.

        Args:
            song: (B,) song numbers.
            positions: (B, L) in frames.

        Returns:
            (B, L, 2).
        """
        pitch = gather(self.pitch, self.offsets[song], self.lengths[song], positions)
        return np.stack([pitch, pitch != 0], axis=-1)


class PairBatch(NamedTuple):
    """Anchors and positives of B pairs, and the tune of each."""

    anchors: Frames  # (B, L, 2) normalised
    positives: Frames  # (B, L, 2) normalised
    groups: NDArray[np.int64]  # (B,)


_REDRAWN = 3  # times that a window with too little voice is drawn again


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
        batch: number of pairs, B, each from another song while there are enough.
        window: lengths of the windows, and where they begin.
        rules: humming distortions of the positives.
        how: normalisation of both.
        rng: the random generator.

    Returns:
        Anchors and positives (B, L, 2), and their tunes (B,).

    Source: fixed facts, "Loss" (stage 1).
    """
    songs = len(bank.lengths)
    song = rng.choice(songs, batch, replace=songs < batch)
    start, length = draw_windows(bank.lengths[song], bank.hop_s, window, rng)
    anchors = bank.read(song, window.reading.positions(start, length))
    for _ in range(_REDRAWN):
        shown = np.minimum(length, window.frames) if not window.stretched else window.frames
        sparse = np.flatnonzero(anchors[..., 1].sum(axis=1) < window.min_voiced * shown)
        if not sparse.size:
            break
        start[sparse], length[sparse] = draw_windows(
            bank.lengths[song[sparse]], bank.hop_s, window, rng
        )
        read = window.reading.positions(start[sparse], length[sparse])
        anchors[sparse] = bank.read(song[sparse], read)
    positives = bank.read(song, warp_positions(start, length, window.reading, rules, rng))
    positives = distort(positives, after_warp(window.reading, rules), rng)
    return PairBatch(normalise(anchors, how), normalise(positives, how), bank.groups[song])


class PairSource(Protocol):
    """Anything that gives training pairs.

    Attributes:
        tunes: number of tunes; groups are numbered from 0.
    """

    tunes: int

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs."""
        ...


class SongPairs:
    """Draw self-supervised pairs of songs: see :func:`sample_pairs`.

    Args:
        bank: the songs.
        window: lengths of the windows, and where they begin.
        rules: humming distortions of the positives.
        how: normalisation.

    Notebook: notebooks/05_encoder_and_loss.py
    """

    def __init__(
        self, bank: ContourBank, window: WindowRange, rules: Distortions, how: Normalisation
    ) -> None:
        self.tunes = bank.tunes
        self._drawn_from = (bank, window, rules, how)

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs."""
        bank, window, rules, how = self._drawn_from
        return sample_pairs(bank, count, window, rules, how, rng)


class MixedPairs:
    """Draw from several sources at once.

    Args:
        sources: each with its share of a batch; the shares sum to 1.
        same_tunes: whether a number means the same tune in all sources; otherwise tunes of
            different sources are different tunes.
    """

    def __init__(
        self, sources: Sequence[tuple[PairSource, float]], same_tunes: bool = False
    ) -> None:
        self._sources = [source for source, _ in sources]
        self._upto = np.cumsum([share for _, share in sources])
        tunes = [source.tunes for source in self._sources]
        self._offsets = [0] * len(tunes) if same_tunes else [0, *np.cumsum(tunes[:-1])]
        self.tunes = int(max(tunes) if same_tunes else sum(tunes))

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs, source by source."""
        counts = np.diff(np.round(self._upto * count).astype(int), prepend=0)
        parts = [
            source.draw(number, rng) for source, number in zip(self._sources, counts, strict=True)
        ]  # a source whose share is 0 gives no pairs
        return PairBatch(
            np.concatenate([part.anchors for part in parts]),
            np.concatenate([part.positives for part in parts]),
            np.concatenate(
                [part.groups + at for part, at in zip(parts, self._offsets, strict=True)]
            ),
        )
