"""Where the time goes: building the catalogue of 2,048 songs, and a query from wav to answer.

``qbhkit bench query``. Rivals in the same run: pYIN for the tracker, key-invariant DTW for
embedding and search.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from qbhkit.audio import load
from qbhkit.catalogue.build import build_catalogue
from qbhkit.contour import from_f0
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.evaluation.benchmarks import common
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval.baselines import SubsequenceDtw


def main() -> None:
    options = common.parse(common.arguments(__doc__, hums=20))
    embedder, songs = ContourEmbedder(), common.read_corpora(*common.DATABASE)

    def build() -> None:
        with tempfile.TemporaryDirectory() as folder:
            build_catalogue(songs, Path(folder), embedder, progress=False)

    build_s = common.seconds(build, repeats=1)
    searcher = common.database(embedder)
    catalogue, dtw = searcher.catalogue, SubsequenceDtw(searcher.catalogue.contours)
    count, windows = len(catalogue.songs), len(catalogue.song)
    tracker, pyin = get_tracker("swift-f0"), get_tracker("pyin")
    audio = [load(Path(hum.path), tracker.rate_hz) for hum in common.labelled_hums(options.hums)]
    contours = [from_f0(tracker.track(sound)) for sound in audio]

    def per_query(work: Callable[[], object]) -> float:
        return 1000 * common.seconds(work) / len(audio)

    ms = {
        "tracker": per_query(lambda: [tracker.track(sound) for sound in audio]),
        "search": per_query(lambda: [searcher.search(contour) for contour in contours]),
        "search, all at once": per_query(lambda: searcher.search_many(contours)),
        "pyin": per_query(lambda: [pyin.track(sound) for sound in audio]),
        "dtw": per_query(lambda: [dtw.scores(contour, "anywhere") for contour in contours]),
    }
    ms["total"] = ms["tracker"] + ms["search"]
    result = {
        "catalogue": {
            "songs": count,
            "windows": windows,
            "songs_per_s": round(count / build_s, 1),
            "windows_per_s": round(windows / build_s),
            "times_real_time": round(sum(c.duration_s for c in catalogue.contours) / build_s),
        },
        "query_ms": {key: round(value, 1) for key, value in ms.items()},
        "ratios": {
            "pyin_over_swift_f0": round(ms["pyin"] / ms["tracker"], 1),
            "dtw_over_search": round(ms["dtw"] / ms["search"], 1),
            "one_by_one_over_all_at_once": round(ms["search"] / ms["search, all at once"], 2),
        },
    }
    print(result)
    common.save(options, "bench_query", result)
