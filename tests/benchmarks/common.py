"""What the benchmarks share: where results go, the machine in words, the real recordings."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from qbhkit.audio import load
from qbhkit.contour import Contour, from_f0
from qbhkit.corpora.folders import Hum, MirQbsh
from qbhkit.errors import QbhError
from qbhkit.melody.trackers import Tracker
from qbhkit.retrieval.crossfold import YEAR
from qbhkit.retrieval.evaluate import Query
from qbhkit.storage import cache_dir, data_dir, read_json, write_json

RESULTS = Path(__file__).parents[2] / "data" / "results"
DATABASE = ("mir-qbsh", "mirex-essen-2000")  # the 2,048 songs of MIREX


def hums() -> list[Hum]:
    """Return the real hums of the year that everything is measured on."""
    return MirQbsh(data_dir() / "mir-qbsh").hums(YEAR)


def listen(queries: Sequence[Query], tracker: Tracker) -> list[Contour]:
    """Hear the contours of recordings, with a bar on standard error."""
    return [
        from_f0(tracker.track(load(Path(query.path), tracker.rate_hz)))
        for query in tqdm(queries, "melody", unit="hum")
    ]


def database_folder() -> Path:
    """Return the catalogue of the 2,048 songs in the cache."""
    return cache_dir() / "mirex-2048"


def machine() -> dict[str, Any]:
    """Describe the machine in words that say nothing of its paths."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "arch": platform.machine(),
    }


def bytes_in(folder: Path) -> int:
    """Return how much the files of a folder hold."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the median time of a few runs, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def save(name: str, result: dict[str, Any]) -> None:
    """Write a result to data/results and say where."""
    write_json(RESULTS / f"{name}.json", result)
    print(f"written: data/results/{name}.json")


def save_part(name: str, part: str, result: dict[str, Any]) -> None:
    """Write one part of a result that several benchmarks make together."""
    path = RESULTS / f"{name}.json"
    before = read_json(path, "measure again") if path.is_file() else {}
    save(name, before | {part: result})


def save_entry(name: str, part: str, kind: str, key: str, entry: dict[str, Any]) -> None:
    """Write one entry of a part, beside those of earlier runs."""
    path = RESULTS / f"{name}.json"
    before = read_json(path, "measure again").get(part, {}) if path.is_file() else {}
    save_part(name, part, {kind: before.get(kind, {}) | {key: entry}, "machine": machine()})


__all__ = [
    "DATABASE",
    "QbhError",
    "bytes_in",
    "database_folder",
    "hums",
    "listen",
    "machine",
    "save",
    "save_entry",
    "save_part",
    "seconds",
]
