"""Cut songs and queries into windows, and read each window on the L frames that an encoder sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.config import check_range
from qbhkit.contour import STRAY_ST, Contour
from qbhkit.errors import QbhError

MatchFrom = Literal["start", "anywhere"]
Query = Contour | Sequence[Contour]  # a hum, or several takes of one tune
SHORTEST_QUERY_S = 1.0  # of voiced sound


def stretch(
    frames: NDArray,
    positions: NDArray,
    offset: int | NDArray = 0,
    length: int | NDArray | None = None,
) -> NDArray:
    """Read the nearest frames at fractional positions, and zeros (unvoiced) outside.

    Interpolation would invent glides between notes.

    Args:
        frames: (N,) or (N, C), of a contour C = 2.
        positions: (...,) in frames; 0.5 is the middle of frame 0.
        offset: frame from which positions are counted; an array if each has its own.
        length: number of frames from there that are inside; by default all.
    """
    index = np.floor(positions).astype(np.int64)
    inside = (index >= 0) & (index < (len(frames) if length is None else length))
    if not len(frames):
        return np.zeros((*index.shape, *frames.shape[1:]), frames.dtype)
    found = frames[np.where(inside, offset + index, 0)]
    found[~inside] = 0
    return found


@dataclass(frozen=True)
class Reading:
    """Say how a window of any length becomes the L frames that an encoder sees.

    None for ``window_s`` stretches every window to L frames. A number of seconds (published: 20)
    keeps the speed of a window, which then lies in the middle of L frames with silence around it;
    songs are cut into windows of this length.

    Notebook: notebooks/03_contours.py
    """

    frames: int = 80  # L
    window_s: float | None = None

    def shares(self, length: NDArray) -> NDArray[np.float64]:
        """Return which moments (B, L) of windows (B,) frames long are shown: 0 to 1 inside."""
        middles = np.arange(self.frames) + 0.5
        if self.window_s is None:
            return np.tile(middles / self.frames, (len(length), 1))
        around = np.floor((self.frames - np.round(length[:, None])) / 2)
        return (middles - around) / length[:, None]

    def positions(self, start: NDArray, length: NDArray) -> NDArray[np.float64]:
        """Return where :func:`stretch` reads windows (B,), in frames (B, L); -1 is outside."""
        share = self.shares(length)
        return inside_window(share, start[:, None] + share * length[:, None])


def read_whole(contour: Contour, reading: Reading) -> NDArray[np.float32]:
    """Read a contour, from its first voiced frame to its last, as one window: (L, 2)."""
    sung, _ = contour.trimmed()
    positions = reading.positions(np.zeros(1), np.array([len(sung)], float))
    return stretch(sung.frames, positions[0]).astype(np.float32)


def inside_window(share: NDArray, positions: NDArray) -> NDArray[np.float64]:
    """Return positions (B, L) where a share (B, L) lies in its window, and -1 elsewhere."""
    return np.where((share >= 0) & (share < 1), positions, -1.0)


class Window(NamedTuple):
    """A stretch of a contour: its start and end in seconds and in frames."""

    start_s: float
    end_s: float
    start_frame: int
    end_frame: int


def sliding_windows(
    contour: Contour, length_s: float, step_s: float, min_voiced: float = 0.5
) -> list[Window]:
    """Cut a contour into overlapping windows, and keep those that are voiced enough.

    The last window ends with the contour; a shorter contour is one window.

    Args:
        contour: the song or hum.
        length_s: of a window (published: 20).
        step_s: from one start to the next (published: 5).
        min_voiced: smallest voiced share of a window's own frames, 0 to 1.

    Source: fixed facts, "Contour".
    Notebook: notebooks/03_contours.py
    """
    length = max(1, round(length_s / contour.hop_s))
    step = max(1, round(step_s / contour.hop_s))
    last = max(0, len(contour) - length)
    starts = [*range(0, last, step), last]
    voiced = np.concatenate([[0], np.cumsum(contour.voiced)])
    kept = []
    for start in starts:
        end = min(start + length, len(contour))
        if end > start and voiced[end] - voiced[start] >= min_voiced * (end - start):
            kept.append(Window(start * contour.hop_s, end * contour.hop_s, start, end))
    return kept


@dataclass(frozen=True)
class WindowGrid:
    """Say which windows of a song are embedded.

    Raises:
        ValueError: if a length or the step is not positive.
    """

    # A hum is compared with windows of all lengths, so that a slower or faster one is found too.
    lengths_s: tuple[float, ...] = (4.0, 5.7, 8.0, 11.3, 16.0)
    step_share: float = 0.25  # from one start to the next, as a share of the length
    first_lengths_s: tuple[float, ...] = (4.8, 6.7, 9.5, 13.5, 19.0)  # more, at the first note
    min_voiced: float = 0.2  # smallest voiced share of a window: trackers lose much of a melody

    def __post_init__(self) -> None:
        for name in ("lengths_s", "first_lengths_s"):  # so that 20 and 20.0 are the same grid
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        sizes = np.array([*self.lengths_s, *self.first_lengths_s, self.step_share])
        if not self.lengths_s or not (np.isfinite(sizes) & (sizes > 0)).all():
            raise ValueError("windows need positive lengths and a positive step")


def grid_for(reading: Reading) -> WindowGrid:
    """Return the grid that suits a model: windows of several lengths, or of its one length.

    Source: fixed facts, "Contour" (windows of one length are voiced for at least half).
    """
    if reading.window_s is None:
        return WindowGrid()
    return WindowGrid((reading.window_s,), first_lengths_s=(), min_voiced=0.5)


class SongWindows(NamedTuple):
    """The W windows of one song, before embedding."""

    frames: NDArray[np.float32]  # (W, L, 2)
    start: NDArray[np.int32]  # (W,) first frame
    end: NDArray[np.int32]  # (W,) frame after the last
    at_start: NDArray[np.bool_]  # (W,) begins at the first note


def cut_song(contour: Contour, grid: WindowGrid, reading: Reading) -> SongWindows:
    """Cut a song, from its first note on, into the windows of a grid: at least one if it is voiced.

    Notebook: notebooks/03_contours.py, notebooks/08_catalogue_and_index.py
    """
    sung, lead_s = contour.trimmed()
    lead = round(lead_s / contour.hop_s)
    spans: set[tuple[int, int]] = set()
    for length_s in grid.lengths_s:
        for window in sliding_windows(sung, length_s, length_s * grid.step_share, grid.min_voiced):
            spans.add((window.start_frame, window.end_frame))
    for length_s in (*grid.lengths_s, *grid.first_lengths_s):
        if len(sung):
            spans.add((0, min(len(sung), round(length_s / contour.hop_s))))
    starts, ends = np.array(sorted(spans), np.int32).reshape(-1, 2).T
    positions = reading.positions(starts, ends - starts)  # (W, L)
    frames = stretch(sung.frames, positions).astype(np.float32)
    return SongWindows(frames, starts + lead, ends + lead, starts == 0)


@dataclass(frozen=True)
class QueryWindows:
    """Say how a hum is cut into query segments, and each segment into query windows that vote.

    Segments with less than 1 s of voice are left out, unless no segment has more.
    """

    segment_s: float = 14.0  # longer hums are cut into segments of this length
    segment_step_s: float = 7.0
    windows: tuple[tuple[float, float], ...] = (  # start and length as shares of the segment
        (0.0, 1.0), (0.0, 0.84), (0.0, 0.7), (0.0, 0.5), (0.15, 0.85), (0.3, 0.7), (0.5, 0.5),
    )  # the first is the whole segment  # fmt: skip
    stray_st: float = STRAY_ST  # a hum's frames that stray farther are taken as unvoiced
    sharpness: float = 4.0  # how much more the most similar windows count; 0 takes the mean


def is_long_enough(hum: Contour) -> bool:
    """Return whether a hum has the 1 s of voiced sound that a search needs."""
    return hum.voiced_s >= SHORTEST_QUERY_S - 1e-9


def query_windows_for(reading: Reading) -> QueryWindows:
    """Return how hums are cut for a model; segments stay whole if windows keep their speed."""
    if reading.window_s is None:
        return QueryWindows()
    whole = ((0.0, 1.0),)
    return QueryWindows(1.5 * reading.window_s, 0.75 * reading.window_s, whole, math.inf)


class QueryCut(NamedTuple):
    """The segments of a query, and the Q windows of all of them."""

    frames: NDArray[np.float32]  # (Q, L, 2), segment by segment
    begins_s: NDArray[np.float64]  # (Q,) seconds since the hum's first note
    segments: list[Contour]


def cut_query(hum: Query, match_from: MatchFrom, cut: QueryWindows, reading: Reading) -> QueryCut:
    """Cut a hum into segments and query windows; several takes of a tune are cut one by one.

    A query window without voiced frames is replaced by its whole segment.

    Args:
        hum: one contour, or several takes; unvoiced frames at the ends are ignored.
        match_from: ``start`` keeps the first segment only.
        cut: lengths of segments and windows.
        reading: how a window becomes L frames.

    Raises:
        QbhError: if less than 1 s of a take is voiced, or ``match_from`` is unknown.

    Notebook: notebooks/09_search_and_align.py
    """
    if match_from not in get_args(MatchFrom):
        raise QbhError(f"match_from must be 'start' or 'anywhere', not {match_from!r}.")
    if isinstance(hum, Sequence):
        takes = [cut_query(take, match_from, cut, reading) for take in hum]
        return QueryCut(
            np.concatenate([take.frames for take in takes]),
            np.concatenate([take.begins_s for take in takes]),
            [segment for take in takes for segment in take.segments],
        )
    sung, _ = hum.without_strays(cut.stray_st).trimmed()
    if not is_long_enough(sung):
        raise QbhError(
            f"only {sung.voiced_s:.1f} s of the hum is voiced, {SHORTEST_QUERY_S:.0f} s is "
            "needed: hum louder, longer, or closer to the microphone"
        )
    starts, length = _segments(sung, cut)
    windows = np.array(cut.windows)
    if match_from == "start":
        starts = starts[:1]
    begins = (starts[:, None] + windows[:, 0] * length).reshape(-1)  # (segments * windows,)
    lengths = np.tile(windows[:, 1] * length, len(starts))
    frames = stretch(sung.frames, reading.positions(begins, lengths))
    silent = ~np.any(frames[..., 1], axis=1)
    whole = np.repeat(np.arange(0, len(frames), len(windows)), len(windows))
    frames[silent] = frames[whole[silent]]
    begins = np.where(silent, begins[whole], begins)
    segments = [replace(sung, frames=sung.frames[at : at + length]) for at in starts]
    return QueryCut(frames.astype(np.float32), begins * sung.hop_s, segments)


def _segments(sung: Contour, cut: QueryWindows) -> tuple[NDArray[np.int64], int]:
    """Return the first frame of each segment with 1 s of voice, and their length in frames."""
    length = round(cut.segment_s / sung.hop_s)
    if len(sung) <= length:
        return np.zeros(1, np.int64), len(sung)
    step = round(cut.segment_step_s / sung.hop_s)
    starts = np.append(np.arange(0, len(sung) - length, step), len(sung) - length)
    voiced = np.concatenate([[0], np.cumsum(sung.voiced)])
    voiced_s = (voiced[starts + length] - voiced[starts]) * sung.hop_s
    enough = voiced_s >= min(SHORTEST_QUERY_S - 1e-9, voiced_s.max())
    return starts[enough], length


@dataclass(frozen=True)
class WindowRange:
    """Say which windows of songs an encoder is trained on.

    Raises:
        QbhError: if a number is out of its range.
    """

    shortest_s: float = 4.0
    longest_s: float = 16.0  # lengths are log-uniform
    frames: int = 80  # L
    stretched: bool = True  # to L frames; otherwise windows keep their speed
    step_s: float = 0.0  # windows begin at multiples of this; 0 lets them begin anywhere
    at_start: float = 0.25  # share of windows that begin with the song
    min_voiced: float = 0.5  # with a smaller voiced share they are drawn again, up to three times

    def __post_init__(self) -> None:
        if not 0 < self.shortest_s <= self.longest_s < math.inf:
            raise QbhError(
                "Windows need a shortest_s over 0, up to longest_s, not "
                f"{self.shortest_s} and {self.longest_s}."
            )
        check_range(self, 1, math.inf, "frames")
        check_range(self, 0, math.inf, "step_s")
        check_range(self, 0, 1, "at_start", "min_voiced")

    @property
    def reading(self) -> Reading:
        """Return how these windows become L frames."""
        return Reading(self.frames, None if self.stretched else self.longest_s)


def draw_windows(
    lengths: NDArray[np.int64], hop_s: float, window: WindowRange, rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw a window of each of B songs, (B,) frames long: (B,) first frames and lengths."""
    batch = len(lengths)
    length_s = np.exp2(rng.uniform(np.log2(window.shortest_s), np.log2(window.longest_s), batch))
    length = np.minimum(length_s / hop_s, lengths)
    start = np.floor(rng.uniform(0, 1, batch) * (lengths - length + 1))
    step = max(1, round(window.step_s / hop_s))
    start -= start % step
    start[rng.random(batch) < window.at_start] = 0
    return start, length
