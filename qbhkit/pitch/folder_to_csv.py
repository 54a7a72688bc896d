"""Track many recordings on all cores; an interrupted run continues where it stopped."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from qbhkit.audio import load
from qbhkit.errors import Failure, QbhError, naming
from qbhkit.f0_csv import write_f0_csv
from qbhkit.parallel import parallel_map
from qbhkit.pitch.trackers import Tracker, get_tracker, identity_of
from qbhkit.storage import read_json, write_json


class Extraction(NamedTuple):
    """Count the recordings by outcome."""

    written: int
    reused: int  # results of the same tracker and recording were there
    failures: list[Failure]


def extract_all(
    outputs: Mapping[Path, Path], tracker: str, workers: int | None = None, progress: bool = True
) -> Extraction:
    """Write the f0 track of every recording as a CSV file.

    An existing result is kept if it was made by the same tracker (with the same weights) from the
    same recording, compared by size and time stamp.

    Args:
        outputs: recording to the CSV file of its f0 track; all CSV files in one folder.
        tracker: name of the tracker.
        workers: processes; by default one for each core.
        progress: show a bar on standard error.

    Raises:
        QbhError: if there is no such tracker.
        MissingPackageError: if its package is not installed.
    """
    if not outputs:
        return Extraction(0, 0, [])
    note = next(iter(outputs.values())).parent / "melody.json"
    made_by = read_json(note, f"delete {note}") if note.is_file() else {}
    if not isinstance(made_by, dict):
        raise QbhError(f"{note} is damaged: delete it.")
    identity = identity_of(tracker)
    stamps = {target.name: _stamp(identity, source) for source, target in outputs.items()}
    due = [
        (source, target)
        for source, target in outputs.items()
        if made_by.get(target.name) != stamps[target.name] or not target.is_file()
    ]
    if not due:
        return Extraction(0, len(outputs), [])
    get_tracker(tracker)  # before anything is deleted: it may be missing
    for _, target in due:  # after this, every file is a result of this tracker and recording
        target.unlink(missing_ok=True)
    write_json(note, made_by | {target.name: stamps[target.name] for _, target in due})
    results = parallel_map(_extract, due, workers or os.cpu_count() or 1, _prepare, (tracker,))
    bar = tqdm(results, "melody", len(due), unit="file", disable=not progress)
    failures = [failure for failure in bar if failure]
    return Extraction(len(due) - len(failures), len(outputs) - len(due), failures)


def _stamp(identity: str, source: Path) -> str:
    """Return what a result depends on. Clocks may be set back: test times for equality only."""
    try:
        found = source.stat()
    except OSError:  # tracking it will say what is wrong
        return identity
    return f"{identity}, {found.st_size} bytes of {found.st_mtime_ns}"


_tracker: Tracker  # of this process


def _prepare(tracker: str) -> None:
    global _tracker
    _tracker = get_tracker(tracker)


def _extract(pair: tuple[Path, Path]) -> Failure | None:
    source, target = pair
    try:
        audio = load(source, _tracker.rate_hz)
        with naming(source):
            track = _tracker.track(audio)
        write_f0_csv(track, target)
    except QbhError as error:
        return Failure(str(source), str(error))
    return None
