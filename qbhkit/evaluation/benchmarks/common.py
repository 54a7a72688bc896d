"""What the benchmarks share: options, the real hums and their songs, timing, results."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import Contour
from qbhkit.corpora import Song, open_corpus
from qbhkit.corpora.folders import EVALUATION_YEAR, HumRecording, MirQbsh
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.augment import Distortions, distort, warp_positions
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.windows import Reading, stretch
from qbhkit.errors import QbhError
from qbhkit.metrics import LabelledQuery
from qbhkit.pitch.frontends import query_loader
from qbhkit.pitch.trackers import get_tracker
from qbhkit.provenance import versions
from qbhkit.retrieval.searcher import Searcher
from qbhkit.storage import cache_dir, data_dir, read_json, write_json

ROOT = Path(__file__).parents[3]  # of the repository, if this is a checkout
RESULTS = Path("data", "results")  # in the current folder, if that is a checkout
DATABASE = ("mir-qbsh", "mirex-essen-2000")  # the 2,048 songs of MIREX
RECORDING = "Karissa_Hobbs_-_Lets_Go_Fishin.hq"
RECORDING_TITLE = "Karissa Hobbs, Let's Go Fishin' (CC BY 3.0)"
_VOICED = 0.5  # share of a rendered hum that is sung, at the least


def arguments(page: str, **full: Any) -> argparse.ArgumentParser:
    """Return a parser with the options of a full run; with any other value it is a trial run."""
    parser = argparse.ArgumentParser(
        description=page, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="folder for the results (default: data/results of a checkout; a trial run, which has "
        "other values than the defaults, writes nothing unless this is given)",
    )  # fmt: skip
    for name, value in full.items():
        one = value[0] if isinstance(value, tuple) else value
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(one), default=value, metavar="X",
            nargs="+" if isinstance(value, tuple) else None, help="(default: %(default)s)",
        )  # fmt: skip
    parser.set_defaults(full=full)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; ``full`` of the result says whether this is a full run."""
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in options.full}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    options.full = given == options.full
    if options.full and options.out is None:
        if not (RESULTS.is_dir() and Path("pyproject.toml").is_file()):
            raise QbhError(
                "This folder is no checkout of the repository: say with --out DIR where the "
                "results go."
            )
        options.out = RESULTS
    return options


def save(options: argparse.Namespace, name: str, result: dict[str, Any], *inside: str) -> None:
    """Write a result and what it was measured on; a trial run writes only where ``--out`` says.

    Keys lead to its place ``inside`` a file that several runs make together.
    """
    if options.out is None:
        print("A trial run: nothing is written without --out.")
        return
    path = options.out / f"{name}.json"
    about = {**versions(), "cores": os.cpu_count(), "arch": platform.machine()}
    result = {**result, "machine": about | result.get("machine", {})}
    if inside:
        whole = place = read_json(path, "measure again") if path.is_file() else {}
        for key in inside[:-1]:
            place = place.setdefault(key, {})
        place[inside[-1]] = result
    write_json(path, whole if inside else result)
    print(f"written: {path}")


def need_checkout(benchmark: str) -> None:
    if not (ROOT / "pyproject.toml").is_file():
        raise QbhError(
            f"The benchmark {benchmark} needs a checkout of the repository: clone it, "
            "'pip install -e .' there, and run it again."
        )


def hums() -> list[HumRecording]:
    return MirQbsh(data_dir() / "mir-qbsh").hums(EVALUATION_YEAR)


def training_singers() -> set[str]:
    return set(read_split("mir_qbsh")["training_singers"])


def labelled_hums(subset: int = 0) -> list[LabelledQuery]:
    """Return the real hums as queries: so many at equal distances, or (0) all of them."""
    found = hums()
    if subset:
        found = found[:: max(1, len(found) // subset)][:subset]
    return [LabelledQuery(str(hum.path), hum.song_id, hum.singer) for hum in found]


def available(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the trackers that can be had, and why the others cannot."""
    found, missing = [], {}
    for name in names:
        try:
            get_tracker(name)
            found.append(name)
        except QbhError as error:
            missing[name] = str(error).replace(str(data_dir()), "QBHKIT_DATA")
            print(f"{name} is left out: {missing[name]}")
    return found, missing


def track_all(paths: Iterable[str | Path]) -> list[Contour]:
    return [*map(query_loader(), tqdm(list(paths), "melody", unit="hum"))]


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
    return searcher_of(read_corpora(*DATABASE), f"mirex-2048-{embedder.identity}", embedder)


def brief(block: Mapping[str, Any]) -> str:
    return "  ".join(f"{key} {block[key]:.3f}" for key in ("top1", "top10", "mrr"))


def voiced_starts(melody: Contour, length: int) -> NDArray[np.int64]:
    """Return the frames where a voiced enough stretch of so many frames begins."""
    if len(melody) < length:
        return np.zeros(0, np.int64)
    share = np.convolve(melody.voiced, np.ones(length) / length, mode="valid")
    return np.flatnonzero(share >= _VOICED)


def hummed(
    melody: Contour, starts: NDArray, length: int, rng: Generator, rules: Distortions | None = None
) -> list[Contour]:
    """Render stretches of a melody as hums: another key, another speed, a singer's errors."""
    rules, count = rules or Distortions(), len(starts)
    positions = warp_positions(starts, np.full(count, length), Reading(length), rules, rng)
    sung = distort(stretch(melody.frames, positions), rules, rng)
    sung[..., 0] += np.where(sung[..., 1] > 0, rng.integers(-6, 7, (count, 1)), 0)
    return [Contour(frames) for frames in sung]


def qbhkit(*words: object) -> list[str]:
    """Return a command line of the kit."""
    return [sys.executable, "-m", "qbhkit.cli", *map(str, words)]


def memory_mb(field: str, process: int | str = "self") -> float:
    """Return a field of a process's status, such as ``VmRSS``, in MB."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the median time of a few runs, after one that warms up."""
    work()
    return median(timed(work) for _ in range(repeats))


def percentiles_ms(times_s: Sequence[float]) -> dict[str, float]:
    if not times_s:
        return {}
    return {f"p{k}": round(1000 * float(np.percentile(times_s, k)), 2) for k in (50, 95)}


def in_a_process(
    work: Callable[..., dict[str, Any]], *arguments: object, **environment: str
) -> dict[str, Any]:
    """Call a module's function of plain values, in a process of its own; paths become text."""
    code = (
        f"import json, sys; from {work.__module__} import {work.__name__} as work; "
        "print(json.dumps(work(*json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(arguments, default=str)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    if done.returncode:
        raise RuntimeError(f"{work.__name__}{arguments} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
