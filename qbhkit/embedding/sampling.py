"""Pairs for training: windows of songs, and hummed readings of them, imagined or real."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.config import refuse_outside
from qbhkit.contour import CONTOUR_HOP_S, Contour, Normalisation, Reading, normalise
from qbhkit.corpora.pairs import Alignment
from qbhkit.embedding.augment import Distortions, Frames, after_warp, distort, warp_positions
from qbhkit.errors import QbhError


def gather(frames: NDArray, offsets: NDArray, lengths: NDArray, positions: NDArray) -> NDArray[Any]:
    """Read rows of frames at fractional positions, nearest frame, zeros outside of a row.

    Args:
        frames: (total,) or (total, C), the frames of all rows one after another.
        offsets: (B,) first frame of the rows that are read.
        lengths: (B,) their frames.
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
    """Keep the pitch of many contours in one array, so that a batch of windows is one gather.

    A frame is voiced where its pitch is not 0.

    Args:
        contours: the songs' contours, all on one grid.
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
        """Make a bank of arrays as they are: see :func:`qbhkit.embedding.shards.open_shards`.

        Args:
            pitch: (total,) float32 MIDI semitones of all songs, 0 where unvoiced.
            offsets: (songs,) first frame of each song.
            lengths: (songs,) its frames.
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
        """How many tunes there are: one more than the highest group."""
        return int(self.groups.max()) + 1

    def read(self, song: NDArray[np.int64], positions: NDArray) -> Frames:
        """Read songs at fractional frame positions, nearest frame, unvoiced outside.

        Args:
            song: (B,) song numbers.
            positions: (B, L) in frames.

        Returns:
            (B, L, 2).
        """
        pitch = gather(self.pitch, self.offsets[song], self.lengths[song], positions)
        return np.stack([pitch, pitch != 0], axis=-1)


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
        steps: L, the frames every window is read on.
        stretched: whether windows are stretched to L frames; otherwise they keep their speed.
        step_s: windows begin at multiples of so many seconds; 0: anywhere.
        at_start: share of windows that begin with the song.
        min_voiced: windows voiced for a smaller share are drawn again, up to three times.
    """

    shortest_s: float = 4.0
    longest_s: float = 16.0
    steps: int = 80
    stretched: bool = True
    step_s: float = 0.0
    at_start: float = 0.25
    min_voiced: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.shortest_s <= self.longest_s < math.inf:
            raise QbhError(
                "Windows need a shortest_s over 0, up to longest_s, not "
                f"{self.shortest_s} and {self.longest_s}."
            )
        refuse_outside(self, 1, math.inf, "steps")
        refuse_outside(self, 0, math.inf, "step_s")
        refuse_outside(self, 0, 1, "at_start", "min_voiced")

    @property
    def reading(self) -> Reading:
        """Return how these windows become L frames."""
        return Reading(self.steps, None if self.stretched else self.longest_s)


_REDRAWN = 3


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
    start, length = _windows(bank, song, window, rng)
    anchors = bank.read(song, window.reading.positions(start, length))
    for _ in range(_REDRAWN):
        shown = np.minimum(length, window.steps) if not window.stretched else window.steps
        sparse = np.flatnonzero(anchors[..., 1].sum(axis=1) < window.min_voiced * shown)
        if not sparse.size:
            break
        start[sparse], length[sparse] = _windows(bank, song[sparse], window, rng)
        read = window.reading.positions(start[sparse], length[sparse])
        anchors[sparse] = bank.read(song[sparse], read)
    positives = bank.read(song, warp_positions(start, length, window.reading, rules, rng))
    positives = distort(positives, after_warp(window.reading, rules), rng)
    return PairBatch(normalise(anchors, how), normalise(positives, how), bank.groups[song])


def _windows(
    bank: ContourBank, song: NDArray, window: WindowRange, rng: Generator
) -> tuple[NDArray, NDArray]:
    """Draw a window of each song: (B,) first frame and (B,) frames."""
    batch, whole = len(song), bank.lengths[song]
    length_s = np.exp2(rng.uniform(np.log2(window.shortest_s), np.log2(window.longest_s), batch))
    length = np.minimum(length_s / bank.hop_s, whole)
    start = np.floor(rng.uniform(0, 1, batch) * (whole - length + 1))
    step = max(1, round(window.step_s / bank.hop_s))
    start -= start % step
    start[rng.random(batch) < window.at_start] = 0
    return start, length


class PairSource(Protocol):
    """What gives training pairs."""

    tunes: int  # groups are numbered below it

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` pairs."""
        ...


class SongPairs:
    """Draw pairs by self-supervision: :func:`sample_pairs` of these songs.

    Args:
        bank: the songs.
        window: lengths and steps of the windows.
        rules: the humming distortions of the positives.
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


class Hummed(NamedTuple):
    """A real hum, and how it runs through its song."""

    hum: Contour
    song: int  # number of the song
    at: Alignment


# A real hum has the errors that the rules imitate; what is added to them stays small.
_MORE_OF_A_HUM = Distortions(
    start_shift=0.04, tempo_octaves=0.1, slice_tempo=0.1, key_st=3.0, offset_chance=0.1,
    drift_chance=0.2, note_st=0.2, wrong_note=0.005, jitter_st=0.1, absurd_chance=0.05,
    crop_chance=0.02,
    modulation_chance=0, left_out_chance=0, added_chance=0, glide_chance=0, legato_chance=0,
    octave_note_chance=0, lost_frame_chance=0,
)  # fmt: skip


@dataclass(frozen=True)
class HumConfig:
    """How real hums are drawn.

    Args:
        share: of each batch; the rest is drawn by self-supervision.
        farthest_st: hums further than this from their song, on average, teach nothing.
        shortest_s: shortest part of a hum; lengths are drawn log-uniformly up to all of it.
        at_start: share of the parts that begin with the hum.
        song_shift: largest shift of the song's window, as a share of it: a catalogue's windows
            do not begin where a hum does.
        song_octaves: its length times 2 ** uniform(-x, x). Windows that keep their speed are of
            the catalogue's length instead, and begin up to ``song_early_s`` before the hum.
        song_early_s: see above, seconds (published: windows every 5).
        plain: share of the hums that are left as they were sung.
        rules: distortions of the others.
    """

    share: float = 0.4
    farthest_st: float = 1.2
    shortest_s: float = 3.0
    at_start: float = 0.4
    song_shift: float = 0.05
    song_octaves: float = 0.12
    song_early_s: float = 5.0
    plain: float = 0.2
    rules: Distortions = field(default_factory=lambda: _MORE_OF_A_HUM)

    def __post_init__(self) -> None:
        refuse_outside(self, 0, 1, "share", "at_start", "plain")
        refuse_outside(self, 0, math.inf, "farthest_st", "song_shift", "song_octaves")
        refuse_outside(self, 0, math.inf, "song_early_s", "shortest_s")


class HumPairs:
    """Draw parts of real hums, and the windows of songs they run through (stage 2).

    Args:
        hums: recordings laid along their songs.
        songs: the songs, by number.
        config: how to draw.
        reading: onto L frames.
        how: normalisation.

    Raises:
        QbhError: if no hum is near enough to its song.

    Source: fixed facts, "Loss" (stage 2).
    Notebook: notebooks/07_train_supervised.py
    """

    def __init__(
        self,
        hums: Sequence[Hummed],
        songs: Sequence[Contour],
        config: HumConfig,
        reading: Reading,
        how: Normalisation,
    ) -> None:
        self._hums = [hum for hum in hums if hum.at.distance_st <= config.farthest_st]
        if not self._hums:
            raise QbhError(
                f"Not one of {len(hums)} hums lies within {config.farthest_st:g} semitones of its "
                "song: check song_id and start_s of the pairs."
            )
        self._sung = ContourBank([hum.hum for hum in self._hums])
        self._songs = ContourBank(songs)
        self._song = np.array([hum.song for hum in self._hums])
        self._config, self._reading, self._how = config, reading, how
        self.tunes = self._songs.tunes

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` parts of hums; a hum may come more than once."""
        config = self._config
        which = rng.integers(len(self._hums), size=count)
        part_s, window_s = self._parts(which, rng)  # (B, 2) beginning and length
        begin, length = part_s.T / self._sung.hop_s
        warped = warp_positions(begin, length, self._reading, config.rules, rng)
        straight = self._reading.positions(begin, length)
        plain = rng.random((count, 1)) < config.plain
        sung = self._sung.read(which, np.where(plain, straight, warped))
        rules = after_warp(self._reading, config.rules)
        sung = np.where(plain[..., None], sung, distort(sung, rules, rng))
        begin, length = self._windows(window_s, rng).T / self._songs.hop_s
        song = self._song[which]
        read = self._songs.read(song, self._reading.positions(begin, length))
        return PairBatch(
            normalise(read, self._how), normalise(sung, self._how), self._songs.groups[song]
        )

    def _windows(self, window_s: NDArray, rng: Generator) -> NDArray:
        """Move (B, 2) begin and length of the stretches hummed, as a catalogue's windows lie."""
        config, (begin_s, length_s) = self._config, window_s.T
        if self._reading.window_s is not None:
            begin_s = np.maximum(0, begin_s - rng.uniform(0, config.song_early_s, len(begin_s)))
            return np.stack([begin_s, np.full_like(begin_s, self._reading.window_s)], axis=1)
        shift = rng.uniform(-config.song_shift, config.song_shift, len(begin_s))
        octaves = rng.uniform(-config.song_octaves, config.song_octaves, len(begin_s))
        return np.stack([begin_s + shift * length_s, length_s * 2**octaves], axis=1)

    def _parts(self, which: NDArray, rng: Generator) -> tuple[NDArray, NDArray]:
        """Draw a part of each hum: (B, 2) begin and length in seconds, in hum and in song."""
        parts, windows = np.empty((2, len(which), 2))
        for row, number in enumerate(which):
            at = self._hums[number].at
            first_s, whole_s = at.hum_s[0], at.hum_s[-1] - at.hum_s[0]
            shortest = min(1.0, self._config.shortest_s / max(whole_s, 1e-6))
            length_s = whole_s * np.exp2(rng.uniform(np.log2(shortest), 0))
            late = rng.random() >= self._config.at_start
            begin_s = first_s + late * rng.random() * (whole_s - length_s)
            song_s = np.interp([begin_s, begin_s + length_s], at.hum_s, at.song_s)
            parts[row] = begin_s, length_s
            windows[row] = song_s[0], max(song_s[1] - song_s[0], CONTOUR_HOP_S)
        return parts, windows


class MixedPairs:
    """Draw from several sources at once.

    Args:
        sources: with the share of a batch that each gives; the shares sum to 1.
        same_tunes: whether all sources number the same tunes; otherwise tunes of different sources
            are different tunes.
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
        ]  # no pairs of a source whose share is 0
        return PairBatch(
            np.concatenate([part.anchors for part in parts]),
            np.concatenate([part.positives for part in parts]),
            np.concatenate(
                [part.groups + at for part, at in zip(parts, self._offsets, strict=True)]
            ),
        )
