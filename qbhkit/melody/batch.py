"""The melodies of many recordings: all cores busy, each result whole, a stopped run goes on."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from qbhkit.audio import load
from qbhkit.errors import Failure, QbhError, naming
from qbhkit.f0_csv import write_f0_csv
from qbhkit.melody.trackers import Tracker, get_tracker, identity_of
from qbhkit.storage import read_json, write_json

_NOTE = "melody.json"  # beside the results: which tracker made each


class Extraction(NamedTuple):
    """What became of the recordings."""

    written: int
    reused: int  # were there already, by the same tracker from the same recording
    failures: list[Failure]


def extract_all(
    outputs: Mapping[Path, Path], tracker: str, workers: int | None = None, progress: bool = True
) -> Extraction:
    """Write the f0 track of every recording as a CSV file.

    A result that is there already is kept if the same tracker (with the same weights) made it after
    the recording was last changed.

    Args:
        outputs: recording to the CSV file of its melody; all files in one folder.
        tracker: name of the tracker.
        workers: processes; by default one for each core, and never more than recordings.
        progress: show a bar on standard error.

    Raises:
        QbhError: if there is no such tracker.
        MissingPackageError: if its package is not installed.
    """
    if not outputs:
        return Extraction(0, 0, [])
    note = next(iter(outputs.values())).parent / _NOTE
    made_by = read_json(note, f"delete {note}") if note.is_file() else {}
    if not isinstance(made_by, dict):
        raise QbhError(f"{note} is damaged: delete it.")
    identity = identity_of(tracker)
    stamps = {source: _stamp(identity, source) for source in outputs}
    due = {
        source: target
        for source, target in outputs.items()
        if made_by.get(target.name) != stamps[source] or not target.is_file()
    }
    failures: list[Failure] = []
    if due:
        listener = get_tracker(tracker)  # before anything is deleted: it may be missing
        for target in due.values():  # what is there from now on is of this tracker and recording
            target.unlink(missing_ok=True)
        write_json(note, made_by | {target.name: stamps[source] for source, target in due.items()})
        workers = min(workers or os.cpu_count() or 1, len(due))
        results = _together(due, tracker, workers) if workers > 1 else _in_turn(due, listener)
        for failure in tqdm(results, "melody", len(due), unit="file", disable=not progress):
            failures += [failure] if failure else []
    order = {str(source): number for number, source in enumerate(outputs)}
    failures.sort(key=lambda failure: order[failure.name])
    return Extraction(len(due) - len(failures), len(outputs) - len(due), failures)


def _stamp(identity: str, source: Path) -> str:
    """Say who listened to which state of a recording: clocks go back, so no times are compared."""
    try:
        found = source.stat()
    except OSError:  # listening to it will say what is wrong
        return identity
    return f"{identity}, {found.st_size} bytes of {found.st_mtime_ns}"


def _in_turn(due: Mapping[Path, Path], listener: Tracker) -> Iterator[Failure | None]:
    return (_extract(source, target, listener) for source, target in due.items())


def _together(due: Mapping[Path, Path], tracker: str, workers: int) -> Iterator[Failure | None]:
    # fork would copy torch's threads in a state in which they can hang
    with ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (tracker,)) as pool:
        tasks = [pool.submit(_extract_here, *pair) for pair in due.items()]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BrokenProcessPool:
            raise QbhError(
                "A worker process died, perhaps for lack of memory: run it again with --workers 1."
            ) from None
        finally:  # a stop must not wait for the rest of the list
            pool.shutdown(wait=True, cancel_futures=True)


_listener: Tracker  # of a worker process


def _prepare(tracker: str) -> None:
    global _listener
    import torch

    torch.set_num_threads(1)  # the other cores have workers of their own
    _listener = get_tracker(tracker)


def _extract_here(source: Path, target: Path) -> Failure | None:
    return _extract(source, target, _listener)


def _extract(source: Path, target: Path, listener: Tracker) -> Failure | None:
    try:
        audio = load(source, listener.rate_hz)
        with naming(source):
            track = listener.track(audio)
        write_f0_csv(track, target)
    except QbhError as error:
        return Failure(str(source), str(error))
    return None
