"""F0 tracks as CSV files: ``time_s,frequency_hz,voicing``, one row per frame."""

import csv
from pathlib import Path

import numpy as np

from qbhkit.contour import F0Track
from qbhkit.errors import QbhError, naming
from qbhkit.storage import atomic_path

_HEADER = ["time_s", "frequency_hz", "voicing"]
_SHORTEST_HOP_S, _LONGEST_S = 1e-4, 6 * 3600.0


def write_f0_csv(track: F0Track, path: Path) -> None:
    """Write an f0 track as CSV, atomically."""
    with atomic_path(Path(path)) as part, open(part, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_HEADER)
        rows = zip(track.frequency_hz, track.voicing, strict=True)
        for k, (frequency, voicing) in enumerate(rows):
            writer.writerow([f"{k * track.hop_s:.10g}", f"{frequency:.3f}", f"{voicing:.3f}"])


def read_f0_csv(path: Path) -> F0Track:
    """Read an f0 track from CSV of any constant hop; the time before its first row is unvoiced.

    Raises:
        QbhError: if the file is missing or malformed, or its times begin after 1 hour, end after 6
            hours, or do not rise in equal steps of at least 0.1 ms.
    """
    path = Path(path)
    expected = ",".join(_HEADER)
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except FileNotFoundError:
        raise QbhError(f"{path} does not exist: check the path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise QbhError(f"{path} is not a readable CSV file ({error}).") from None
    if not rows or [cell.strip() for cell in rows[0]] != _HEADER:
        raise QbhError(f"{path} must begin with the header {expected}.")
    try:
        table = np.array([[float(cell) for cell in row] for row in rows[1:]], float)
    except ValueError:
        raise QbhError(f"{path} holds a row that is not three numbers ({expected}).") from None
    if table.ndim != 2 or table.shape[1] != 3 or len(table) < 2:
        raise QbhError(f"{path} needs at least two rows of three numbers ({expected}).")
    if not np.isfinite(table).all():
        raise QbhError(f"{path} holds NaN or infinite values: write 0 Hz where unvoiced.")
    steps_s = np.diff(table[:, 0])
    hop_s = float(np.median(steps_s))
    if hop_s <= 0 or np.abs(steps_s - hop_s).max() > 0.01 * hop_s + 1e-3:
        raise QbhError(f"{path} needs times that rise in equal steps: resample it to a fixed hop.")
    hop_s = float((table[-1, 0] - table[0, 0]) / (len(table) - 1))
    if hop_s < _SHORTEST_HOP_S or table[-1, 0] + hop_s > _LONGEST_S:
        raise QbhError(
            f"{path} claims a frame every {hop_s:g} s up to {table[-1, 0]:g} s: its first column "
            "must be in seconds."
        )
    lead = max(0, int(float(table[0, 0]) / hop_s + 1e-6))  # frames before the first row
    if lead * hop_s > 3600:
        raise QbhError(f"{path} begins at {table[0, 0]:g} s: its times must start within an hour.")
    frequency_hz, voicing = np.concatenate([np.zeros((lead, 2)), table[:, 1:]]).T
    with naming(path):
        return F0Track(frequency_hz, voicing, hop_s)
