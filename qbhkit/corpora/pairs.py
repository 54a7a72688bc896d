"""Hums paired with the stretch of a song that they hum: a plain CSV; ends found by alignment."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import Contour, held_pitch
from qbhkit.errors import QbhError
from qbhkit.storage import atomic_path

PAIRS_HEADER = ["hum_path", "song_id", "start_s", "end_s"]

# Steps of a path (frames of the hum, frames of the song): a hum is half to twice as fast.
_STEPS = np.array([[1, 1], [1, 2], [2, 1]])
_STEP_WEIGHTS = np.array([1.0, 1.0, 2.0])  # frames of the hum, so that every path weighs the same
_STEP_COSTS = np.array([0.0, 0.01, 0.01])  # within a held note the straight path is the likely one
_TEMPI = (0.5, 0.7, 1.0, 1.4, 2.0)
_KEY_STEPS_ST = (-1.0, -0.5, 0.0, 0.5, 1.0)
_FARTHEST_ST = 4.0  # a frame further off counts no more


@dataclass(frozen=True)
class Pair:
    """Say which stretch of which song a recording hums.

    Args:
        hum: the recording.
        song_id: of the song.
        start_s: where the hum begins in the song, seconds.
        end_s: where it ends in the song, seconds.

    Raises:
        QbhError: if the stretch is empty or does not lie in a song.
    """

    hum: Path
    song_id: str
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s < float("inf"):
            raise QbhError(
                f"{self.hum} cannot be a hum of {self.start_s:g} to {self.end_s:g} s of "
                f"{self.song_id}: start_s must be at least 0 and end_s greater."
            )


def read_pairs(path: Path) -> list[Pair]:
    """Read ``hum_path,song_id,start_s,end_s``; hum paths are relative to the file's folder.

    Raises:
        QbhError: if the file is missing, has another header, no rows, or a row that is wrong.

    Notebook: notebooks/07_train_supervised.py
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not set(PAIRS_HEADER) <= set(reader.fieldnames or ()):
                raise QbhError(f"{path} must begin with the header {','.join(PAIRS_HEADER)}.")
            rows = list(reader)
    except FileNotFoundError:
        raise QbhError(f"{path} does not exist: check the path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise QbhError(f"{path} is not a readable CSV file ({error}).") from None
    pairs = []
    for line, row in enumerate(rows, 2):
        try:
            seconds = float(row["start_s"]), float(row["end_s"])
            pairs.append(Pair(path.parent / row["hum_path"], row["song_id"], *seconds))
        except (TypeError, ValueError) as error:
            raise QbhError(f"{path}, line {line}: {error}") from None
    if not pairs:
        raise QbhError(f"{path} holds no pairs: add lines {','.join(PAIRS_HEADER)}.")
    return pairs


def write_pairs(pairs: Iterable[Pair], path: Path) -> None:
    """Write pairs as CSV, atomically."""
    with atomic_path(Path(path)) as part, open(part, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(PAIRS_HEADER)
        for pair in pairs:
            writer.writerow([pair.hum, pair.song_id, f"{pair.start_s:.2f}", f"{pair.end_s:.2f}"])


class Alignment(NamedTuple):
    """How a hum runs through a song."""

    hum_s: NDArray[np.float64]  # (P,) seconds in the hum, rising from its first voiced frame
    song_s: NDArray[np.float64]  # (P,) seconds in the song
    key_st: float  # how much higher the hum is than the song
    distance_st: float  # mean distance of a frame, each counted as 4 semitones at most


def align(hum: Contour, song: Contour, start_s: float | None = None) -> Alignment:
    """Lay a hum along a song from a known beginning; where it ends is found.

    The path of least distance in pitch, at half to twice the song's tempo, in the best of the keys
    that put the medians of hum and song near each other. Rests hold the pitch before them.

    Args:
        hum: its voiced frames are aligned.
        song: with the same hop.
        start_s: where the hum begins in the song; None for the song's first note.

    Raises:
        QbhError: if hum or song has no voiced frame (the song: from there on).

    Source: Müller, "Fundamentals of music processing", 2015, chapter 3 (dynamic time warping).
    Notebook: notebooks/04_augmentation.py, notebooks/07_train_supervised.py
    """
    import librosa

    if start_s is not None:
        skipped = round(start_s / song.hop_s)
        rest, lead_s = Contour(song.frames[skipped:], song.hop_s).trimmed()
        song_from_s = skipped * song.hop_s + lead_s
    else:
        rest, song_from_s = song.trimmed()
    sung, hum_from_s = hum.trimmed()
    if not len(sung) or not len(rest):
        raise QbhError("there is nothing voiced to align")
    pitch = held_pitch(sung).astype(float)
    tune = held_pitch(rest)[: 2 * len(pitch)].astype(float)
    best: tuple[float, float, NDArray, int] | None = None
    for key_st in _keys(pitch, tune):
        cost = np.minimum(np.abs(pitch[:, None] - key_st - tune), _FARTHEST_ST)  # (hum, song)
        total, steps = librosa.sequence.dtw(
            C=cost, step_sizes_sigma=_STEPS, weights_mul=_STEP_WEIGHTS, weights_add=_STEP_COSTS,
            backtrack=False, return_steps=True,
        )  # fmt: skip
        last = int(np.argmin(total[-1]))
        distance_st = float(total[-1, last]) / len(pitch)
        if best is None or distance_st < best[0]:
            best = distance_st, key_st, steps, last
    assert best is not None  # there is at least one key
    distance_st, key_st, steps, last = best
    if not np.isfinite(distance_st):
        raise QbhError("the song is less than half as long as the hum")
    path = librosa.sequence.dtw_backtracking(
        steps, step_sizes_sigma=_STEPS, subseq=True, start=last
    )[::-1]
    middles_s = (path + 0.5) * [hum.hop_s, song.hop_s]
    return Alignment(
        middles_s[:, 0] + hum_from_s, middles_s[:, 1] + song_from_s, key_st, distance_st
    )


def _keys(pitch: NDArray, tune: NDArray) -> list[float]:
    keys = set()
    for tempo in _TEMPI:
        middle = np.median(pitch) - np.median(tune[: max(1, int(len(pitch) * tempo))])
        keys |= {round(2 * (middle + step)) / 2 for step in _KEY_STEPS_ST}
    return sorted(keys)
