"""Training pairs of songs: a window of a song, and the same window as if it were hummed."""

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.contour import Contour, Normalisation, normalise
from qbhkit.embedding.augment import Distortions, Frames, after_warp, distort, warp_positions
from qbhkit.embedding.song_faults import AS_WRITTEN, SongFaults, as_heard
from qbhkit.embedding.windows import Reading, WindowRange, draw_windows, stretch
from qbhkit.errors import QbhError

if TYPE_CHECKING:
    from qbhkit.embedding.hum_errors import HumErrors

_REDRAWN = 3  # times that a window with too few voiced frames is drawn again


class ContourBank:
    """Keep the pitch of many contours in one array, from which a batch of windows is gathered.

    A frame is voiced where its pitch is not 0.

    Args:
        contours: the songs' contours, all with the same hop.
        groups: (songs,) tune of each song; by default every song is its own.

    Raises:
        QbhError: if there is no contour with a voiced frame, or their hops differ.
    """

    def __init__(self, contours: Sequence[Contour], groups: Sequence[int] | None = None) -> None:
        if not any(contour.voiced.any() for contour in contours):
            raise QbhError("There is no melody to train on: every contour is empty or unvoiced.")
        self.hop_s, *others = {contour.hop_s for contour in contours}
        if others:
            raise QbhError("The contours of a bank must all have the same hop.")
        self.pitch = np.concatenate([contour.pitch_st for contour in contours])
        self.lengths = np.array([len(contour) for contour in contours])
        self.offsets = np.cumsum(self.lengths) - self.lengths
        self.groups = np.arange(len(contours)) if groups is None else np.asarray(groups)

    @classmethod
    def over(
        cls, pitch: NDArray, offsets: NDArray, lengths: NDArray, groups: NDArray, hop_s: float
    ) -> "ContourBank":
        """Make a bank of arrays without copying them.

        Args:
            pitch: (total,) float32 MIDI semitones of all songs, 0 where unvoiced.
            offsets: (songs,) first frame of each song; likewise ``lengths`` and ``groups``.
            lengths: in frames.
            groups: tunes.
            hop_s: seconds between frames.
        """
        bank = cls.__new__(cls)
        bank.pitch, bank.offsets, bank.lengths, bank.groups = pitch, offsets, lengths, groups
        bank.hop_s = hop_s
        return bank

    @property
    def tunes(self) -> int:
        """Return how many tunes there are: one more than the highest group."""
        return int(self.groups.max()) + 1

    def read(self, song: NDArray[np.int64], positions: NDArray) -> Frames:
        """Read songs (B,) at positions (B, L) in frames, unvoiced outside: (B, L, 2)."""
        offset, length = self.offsets[song][:, None], self.lengths[song][:, None]
        pitch = stretch(self.pitch, positions, offset, length)
        return np.stack([pitch, pitch != 0], axis=-1)


class PairBatch(NamedTuple):
    """Anchors and positives of B pairs, and the tune of each."""

    anchors: Frames  # (B, L, 2) normalised
    positives: Frames  # (B, L, 2) normalised
    groups: NDArray[np.int64]  # (B,)


class PairSource(Protocol):
    """Anything that gives training pairs."""

    tunes: int  # how many; groups are numbered from 0

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs."""
        ...


class Humming(NamedTuple):
    """How the windows of pairs are read, and the positives distorted: as if they were hummed."""

    reading: Reading
    rules: Distortions
    how: Normalisation
    faults: SongFaults = AS_WRITTEN

    def positions(self, start: NDArray, length: NDArray, rng: Generator) -> NDArray:
        """Return where the hummed version of windows (B,) is read: see :func:`warp_positions`."""
        return warp_positions(start, length, self.reading, self.rules, rng)

    def distorted(self, frames: Frames, rng: Generator) -> Frames:
        """Distort what was read at these positions, (B, L, 2)."""
        return distort(frames, after_warp(self.reading, self.rules), rng)

    def batch(
        self, anchors: Frames, positives: Frames, groups: NDArray, rng: Generator
    ) -> PairBatch:
        """Return pairs of (B, L, 2) semitones as a batch, the anchors as a tracker hears them."""
        if self.faults.heard:
            anchors = as_heard(anchors, self.faults, rng)
        return PairBatch(normalise(anchors, self.how), normalise(positives, self.how), groups)


class SongPairs:
    """Draw self-supervised pairs of songs (stage 1): a window, and the same window as hummed.

    Args:
        bank: the songs.
        window: lengths of the windows, and where they begin.
        rules: humming distortions of the positives.
        how: normalisation of both.
        faults: of the trackers that heard the songs.

    Source: fixed facts, "Loss" (stage 1).
    Notebook: notebooks/05_encoder_and_loss.py
    """

    def __init__(
        self,
        bank: ContourBank,
        window: WindowRange,
        rules: Distortions,
        how: Normalisation,
        faults: SongFaults = AS_WRITTEN,
    ) -> None:
        self.tunes = bank.tunes
        self._bank, self._window = bank, window
        self._humming = Humming(window.reading, rules, how, faults)
        self._errors: HumErrors | None = None
        self._share = 0.0

    def borrowing(self, errors: "HumErrors", share: float) -> Self:
        """Return a source in which a share of the pairs is hummed with the errors of real hums."""
        other = copy(self)
        other._errors, other._share = errors, share
        return other

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs, each from a different song if there are enough."""
        bank, window, reading = self._bank, self._window, self._window.reading
        songs = len(bank.lengths)
        song = rng.choice(songs, count, replace=songs < count)
        start, length = draw_windows(bank.lengths[song], bank.hop_s, window, rng)
        anchors = bank.read(song, reading.positions(start, length))
        for _ in range(_REDRAWN):
            shown = window.frames if window.stretched else np.minimum(length, window.frames)
            sparse = np.flatnonzero(anchors[..., 1].sum(axis=1) < window.min_voiced * shown)
            if not sparse.size:
                break
            again = draw_windows(bank.lengths[song[sparse]], bank.hop_s, window, rng)
            start[sparse], length[sparse] = again
            anchors[sparse] = bank.read(song[sparse], reading.positions(*again))
        positives = bank.read(song, self._humming.positions(start, length, rng))
        positives = self._humming.distorted(positives, rng)
        if self._errors is not None:
            some = slice(round(self._share * count))  # songs come in random order
            begin, size = self._misread(start[some], length[some], rng)
            positives[some] = self._errors.hum(bank, song[some], begin, size, reading, rng)
        return self._humming.batch(anchors, positives, bank.groups[song], rng)

    def _misread(self, start: NDArray, length: NDArray, rng: Generator) -> tuple[NDArray, NDArray]:
        """Shift and stretch windows (B,) as the rules of time do."""
        rules = self._humming.rules
        shift = rng.uniform(-rules.start_shift, rules.start_shift, len(start))
        octaves = rng.uniform(-rules.tempo_octaves, rules.tempo_octaves, len(start))
        return start + shift * length, length * np.exp2(octaves)


class MixedPairs:
    """Draw from several sources at once.

    Args:
        sources: each with its share of a batch; the shares sum to 1.
    """

    def __init__(self, sources: Sequence[tuple[PairSource, float]]) -> None:
        self._sources = [source for source, _ in sources]
        self._upto = np.cumsum([share for _, share in sources])
        tunes = [source.tunes for source in self._sources]
        self._offsets = [0, *np.cumsum(tunes[:-1])]  # a tune is in one source only
        self.tunes = sum(tunes)

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs, source by source; a source whose share is 0 gives none."""
        counts = np.diff(np.round(self._upto * count).astype(int), prepend=0)
        parts = []
        for source, number, first in zip(self._sources, counts, self._offsets, strict=True):
            part = source.draw(number, rng)
            parts.append(part._replace(groups=part.groups + first))
        return PairBatch(*map(np.concatenate, zip(*parts, strict=True)))
