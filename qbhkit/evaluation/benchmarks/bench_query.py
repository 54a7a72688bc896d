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
from qbhkit.embedding.windows import cut_query
from qbhkit.evaluation.benchmarks import common
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval.baselines import SubsequenceDtw


def main() -> None:
    options = common.parse(common.arguments(__doc__, hums=20))
    embedder, songs = ContourEmbedder(), common.read_corpora(*common.DATABASE)
    built: dict[str, float] = {}

    def build() -> None:
        with tempfile.TemporaryDirectory() as folder:
            report = build_catalogue(songs, Path(folder), embedder, progress=False)
            built.update(songs=report.songs, windows=report.windows)

    build_s = common.seconds(build, repeats=1)
    searcher = common.database(embedder)
    catalogue, dtw = searcher.catalogue, SubsequenceDtw(searcher.catalogue.contours)
    tracker, pyin = get_tracker("swift-f0"), get_tracker("pyin")
    audio = [load(Path(hum.path), tracker.rate_hz) for hum in common.labelled_hums(options.hums)]
    contours = [from_f0(tracker.track(sound)) for sound in audio]
    cuts = [cut_query(hum, "anywhere", searcher.windows, embedder.reading) for hum in contours]
    vectors = [embedder.embed(cut.frames) for cut in cuts]

    def per_query(work: Callable[[], object]) -> float:
        return 1000 * common.seconds(work) / len(audio)

    ms = {
        "tracker": per_query(lambda: [tracker.track(sound) for sound in audio]),
        "embedding": per_query(lambda: [embedder.embed(cut.frames) for cut in cuts]),
        "windows": per_query(lambda: [searcher.exact.best_windows(v) for v in vectors]),
        "search": per_query(lambda: [searcher.search(contour) for contour in contours]),
        "search, all at once": per_query(lambda: searcher.search_many(contours)),
        "pyin": per_query(lambda: [pyin.track(sound) for sound in audio]),
        "dtw": per_query(lambda: [dtw.scores(contour, "anywhere") for contour in contours]),
    }
    result = {
        "catalogue": {
            **built,
            "songs_per_s": round(built["songs"] / build_s, 1),
            "windows_per_s": round(built["windows"] / build_s),
            "times_real_time": round(sum(c.duration_s for c in catalogue.contours) / build_s),
        },
        "query_ms": {key: round(value, 1) for key, value in ms.items()}
        | {"total": round(ms["tracker"] + ms["search"], 1)},  # a search embeds too
        "ratios": {
            "pyin_over_swift_f0": round(ms["pyin"] / ms["tracker"], 1),
            "dtw_over_search": round(ms["dtw"] / ms["search"], 1),
            "one_by_one_over_all_at_once": round(ms["search"] / ms["search, all at once"], 2),
        },
    }
    print(result)
    common.save(options, "bench_query", result)
