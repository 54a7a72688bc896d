"""What the benchmarks share: where results go, the real hums and their songs, child processes."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from qbhkit.audio import load
from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import Contour, from_f0
from qbhkit.corpora import Song, open_corpus
from qbhkit.corpora.folders import EVALUATION_YEAR, HumRecording, MirQbsh
from qbhkit.embedding.augment import Distortions, distort, warp_positions
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.windows import Reading, stretch
from qbhkit.errors import QbhError
from qbhkit.metrics import LabelledQuery
from qbhkit.pitch.trackers import Tracker
from qbhkit.retrieval.searcher import Searcher
from qbhkit.storage import cache_dir, data_dir, read_json, write_json

ROOT = Path(__file__).parents[3]  # of the repository, if this is a checkout
IN_CHECKOUT = (ROOT / "pyproject.toml").is_file()
RESULTS = (ROOT if IN_CHECKOUT else Path()) / "data" / "results"
DATABASE = ("mir-qbsh", "mirex-essen-2000")  # the 2,048 songs of MIREX
_VOICED = 0.5  # share of a rendered hum that is sung, at the least


def need_checkout(benchmark: str) -> None:
    """Raise QbhError unless the package lies in a checkout of the repository."""
    if not IN_CHECKOUT:
        raise QbhError(
            f"The benchmark {benchmark} needs a checkout of the repository: clone it, "
            "'pip install -e .' there, and run it again."
        )


def hums() -> list[HumRecording]:
    """Return the real hums of the year that everything is measured on."""
    return MirQbsh(data_dir() / "mir-qbsh").hums(EVALUATION_YEAR)


def labelled_hums(subset: int | None = None) -> list[LabelledQuery]:
    """Return the real hums as queries: all of them, or so many at equal distances."""
    found = hums()
    if subset:
        found = found[:: max(1, len(found) // subset)][:subset]
    return [LabelledQuery(str(hum.path), hum.song_id, hum.singer) for hum in found]


def track_all(queries: Sequence[LabelledQuery], tracker: Tracker) -> list[Contour]:
    """Return the contours of recordings, with a bar on standard error."""
    return [
        from_f0(tracker.track(load(Path(query.path), tracker.rate_hz)))
        for query in tqdm(queries, "melody", unit="hum")
    ]


def read_corpora(*names: str) -> list[Song]:
    """Return the songs of some corpora; files that cannot be read are left out."""
    songs, _ = read_sources(open_corpus(name, data_dir()) for name in names)
    return songs


def searcher_of(
    songs: Sequence[Song], name: str, embedder: ContourEmbedder, tracker: str | None = None
) -> Searcher:
    """Return what searches these songs; their catalogue is kept in the cache under a name."""
    folder = cache_dir() / name
    build_catalogue(songs, folder, embedder, tracker)
    return Searcher(open_catalogue(folder), embedder)


def database(embedder: ContourEmbedder) -> Searcher:
    """Return what searches the 2,048 songs."""
    return searcher_of(read_corpora(*DATABASE), f"mirex-2048-{embedder.identity}", embedder)


def voiced_starts(melody: Contour, length: int) -> NDArray[np.int64]:
    """Return the frames where a voiced enough stretch of so many frames begins."""
    if len(melody) < length:
        return np.zeros(0, np.int64)
    share = np.convolve(melody.voiced, np.ones(length) / length, mode="valid")
    return np.flatnonzero(share >= _VOICED)


def hummed(melody: Contour, starts: NDArray, length: int, rng: Generator) -> list[Contour]:
    """Render stretches of a melody as hums: another key, another speed, a singer's errors."""
    rules, count = Distortions(), len(starts)
    positions = warp_positions(starts, np.full(count, length), Reading(length), rules, rng)
    sung = distort(stretch(melody.frames, positions), rules, rng)
    sung[..., 0] += np.where(sung[..., 1] > 0, rng.integers(-6, 7, (count, 1)), 0)
    return [Contour(frames) for frames in sung]


def machine() -> dict[str, Any]:
    """Describe the machine in words that say nothing of its paths."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "arch": platform.machine(),
    }


def memory_mb(field: str, process: int | str = "self") -> float:
    """Return a field of a process's status, such as ``VmRSS``, in MB."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


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


def in_a_process(benchmark: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """Run the module of a benchmark in a process of its own; return the last line that it prints.

    Args:
        benchmark: name of the module beside this one; its last line is JSON.
        arguments: of its command line.
        environment: variables to set.

    Raises:
        RuntimeError: if it fails; holds what it wrote on standard error.
    """
    command = [sys.executable, "-m", f"{__package__}.{benchmark}", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    if done.returncode:
        raise RuntimeError(f"{benchmark} {' '.join(command[3:])} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


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
