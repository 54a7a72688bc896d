"""Pairs of a hum and the section of a song that it hums, as a plain CSV file."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qbhkit.errors import QbhError
from qbhkit.storage import atomic_path, read_rows

PAIRS_HEADER = ["hum_path", "song_id", "start_s", "end_s"]


@dataclass(frozen=True)
class Pair:
    """Say which section of which song a recording hums.

    Raises:
        QbhError: if the section is empty or begins before the song.
    """

    hum: Path
    song_id: str
    start_s: float  # in the song
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
    pairs = []
    for line, row in enumerate(read_rows(path, PAIRS_HEADER), 2):
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
