"""How a hum is cut: pieces of a long one, and parts of each piece, which vote."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import Contour, Reading, stretch
from qbhkit.errors import QbhError

Anchor = Literal["start", "anywhere"]
Query = Contour | Sequence[Contour]  # a hum, or several takes of one tune
SHORTEST_QUERY_S = 1.0  # of voiced sound


@dataclass(frozen=True)
class QueryWindows:
    """How a hum is cut: parts of it vote, so that one wrong bar does not spoil the whole.

    Args:
        piece_s: longer hums are cut into pieces of this length, seconds; those with less than 1 s
            of voice are left out, and ``anchor start`` uses the first of them only.
        piece_step_s: from one piece to the next.
        parts: (start, length) of the windows of a piece, as shares of it.
        sharpness: how much more the likest windows count than the others: 0 takes their mean.
    """

    piece_s: float = 14.0
    piece_step_s: float = 7.0
    parts: tuple[tuple[float, float], ...] = (
        (0.0, 1.0),
        (0.0, 0.84),
        (0.0, 0.7),
        (0.0, 0.5),
        (0.15, 0.85),
        (0.3, 0.7),
        (0.5, 0.5),
    )
    sharpness: float = 4.0


def cut_of(reading: Reading) -> QueryWindows:
    """Return how hums are cut for a model: in parts, or whole where windows keep their speed."""
    if reading.window_s is None:
        return QueryWindows()
    return QueryWindows(1.5 * reading.window_s, 0.75 * reading.window_s, ((0.0, 1.0),))


class QueryCut(NamedTuple):
    """A query cut into pieces and windows of them."""

    frames: NDArray[np.float32]  # (Q, L, 2), piece by piece
    begins_s: NDArray[np.float64]  # (Q,) from the hum's first note
    pieces: list[Contour]


def cut_up(hum: Query, anchor: Anchor, cut: QueryWindows, reading: Reading) -> QueryCut:
    """Cut a hum, or several takes of a tune one after the other.

    Args:
        hum: silence around it is cut off.
        anchor: ``start`` keeps the first piece alone.
        cut: how.
        reading: onto L frames.

    Raises:
        QbhError: if less than 1 s of a take is voiced.
    """
    if isinstance(hum, Sequence):
        takes = [cut_up(take, anchor, cut, reading) for take in hum]
        return QueryCut(
            np.concatenate([take.frames for take in takes]),
            np.concatenate([take.begins_s for take in takes]),
            [piece for take in takes for piece in take.pieces],
        )
    sung, _ = hum.trimmed()
    if sung.voiced_s < SHORTEST_QUERY_S - 1e-9:
        raise QbhError(
            f"only {sung.voiced_s:.1f} s of the hum is voiced, {SHORTEST_QUERY_S:.0f} s is "
            "needed: hum louder, longer, or closer to the microphone"
        )
    starts, length = _pieces(sung, cut)
    parts = np.array(cut.parts)
    if anchor == "start":
        starts = starts[:1]
    begins = (starts[:, None] + parts[:, 0] * length).reshape(-1)  # (pieces * parts,)
    lengths = np.tile(parts[:, 1] * length, len(starts))
    frames = stretch(sung.frames, reading.positions(begins, lengths))
    silent = ~np.any(frames[..., 1], axis=1)
    whole = np.repeat(np.arange(0, len(frames), len(parts)), len(parts))
    frames[silent] = frames[whole[silent]]  # a part that is a pause votes as its whole piece
    begins = np.where(silent, begins[whole], begins)
    pieces = [replace(sung, frames=sung.frames[at : at + length]) for at in starts]
    return QueryCut(frames.astype(np.float32), begins * sung.hop_s, pieces)


def _pieces(sung: Contour, cut: QueryWindows) -> tuple[NDArray[np.int64], int]:
    """Return the first frame of each piece with 1 s of voice, and their length in frames."""
    length = round(cut.piece_s / sung.hop_s)
    if len(sung) <= length:
        return np.zeros(1, np.int64), len(sung)
    step = round(cut.piece_step_s / sung.hop_s)
    starts = np.append(np.arange(0, len(sung) - length, step), len(sung) - length)
    voiced = np.concatenate([[0], np.cumsum(sung.voiced)])
    voiced_s = (voiced[starts + length] - voiced[starts]) * sung.hop_s
    enough = voiced_s >= min(SHORTEST_QUERY_S - 1e-9, voiced_s.max())
    return starts[enough], length
