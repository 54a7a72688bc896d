"""Every method on every set, at home and away: ``qbhkit bench sets``.

The model is that of the first fold of ``qbhkit cross-validate best``, so the hums of MIR-QBSH that
it is asked are of songs and singers that it has not learnt from. Real recordings are searched by
hums made by rule of their typed notes; their melodies come from trackers. Among some 40,000
melodies, variants of a song (data/splits) count as right too. ``--rivals N`` takes only every k-th
hum of a set, N of them, for the methods without training, which are slow; ``--large 0`` leaves the
large catalogue out. It takes hours; a run that was stopped goes on after the last method.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from qbhkit.contour import CONTOUR_HOP_S, Contour
from qbhkit.corpora.abc import MUSIC21_COLLECTIONS
from qbhkit.corpora.folders import MirQbsh
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.windows import MatchFrom
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.benchmarks.bench_real_songs import all_hums, heard_by, read_songs
from qbhkit.evaluation.cross_validation import ioacas_test
from qbhkit.evaluation.evaluate import by_baseline, by_search, score_hums
from qbhkit.metrics import grouped, intervals, metrics, rank_of
from qbhkit.retrieval.confidence import Calibration, Case
from qbhkit.retrieval.searcher import METHODS, Searcher
from qbhkit.storage import cache_dir, data_dir, read_json, write_json

RIVALS = ("linear-scaling", "dtw-folded", "alignment")
TRACKERS = ("crnn-lite-lead", "melodia")
LARGE = (*MUSIC21_COLLECTIONS, "pop909", "lmd-vocals", "hooktheory")
FOLD = "cross-validation/best/fold-0/encoder.safetensors"
HUMS = 20  # of each real recording


class QuerySet(NamedTuple):
    """Hums, the songs that they are searched among, and where a match may begin."""

    name: str
    searcher: Searcher
    match_from: MatchFrom
    hums: list[Contour]
    truths: list[str]  # ids
    variants: dict[str, list[str]]  # ids that are right too


def variants() -> dict[str, list[str]]:
    """Return the songs that hold a stretch of an evaluation song, by its id."""
    found: dict[str, list[str]] = {}
    for name in ("folk", "pop909", "lmd_vocals", "hooktheory"):  # of LARGE
        near = read_split(name)["dropped"] | read_split("evaluation_variants").get(name, {})
        for song_id, of in near.items():
            found.setdefault(of.split("/", 1)[1], []).append(song_id)
    return found


def ranks(cases: Sequence[Case | None], alike: Sequence[Sequence[int]]) -> list[int | None]:
    """Return the rank of the best among each true song and its variants."""
    found: list[int | None] = []
    for case, others in zip(cases, alike, strict=True):
        if case is None:
            found.append(None)
            continue
        right = np.array([case.truth, *others])
        best = right[case.scores[right].argmax()]
        wrong = np.delete(case.scores, right)
        found.append(rank_of(np.append(wrong, case.scores[best]), len(wrong)))
    return found


def scored(asked: QuerySet, method: str, rivals: int) -> dict[str, Any]:
    """Return the metrics of one method on one set."""
    number, match_from = asked.searcher.catalogue.number, asked.match_from
    hums, names = asked.hums, asked.truths
    if method in RIVALS:
        step = max(1, len(hums) // rivals)
        hums, names = hums[::step][:rivals], names[::step][:rivals]
        score = by_baseline(asked.searcher.catalogue, method, match_from)
    else:
        score = by_search(asked.searcher, method, match_from)
    cases = score_hums(score, hums, [number[name] for name in names], method)
    alike = [[number[key] for key in asked.variants.get(name, ())] for name in names]
    found = ranks(cases, alike)
    return {
        **metrics(found)._asdict(),
        "intervals_by_song": intervals(found, groups=names),
        "per_song": grouped(found, names),
        "ranks": found,
    }


def sets(embedder: ContourEmbedder, large: bool) -> Iterator[QuerySet]:
    """Yield the sets; the hums of MIR-QBSH are those of the first song fold and singer fold."""
    data, split = data_dir(), read_split("mir_qbsh")
    songs, singers = split["song_folds"][0], split["singer_folds"][0]
    asked = [
        hum
        for hum in MirQbsh(data / "mir-qbsh").hums()
        if hum.song_id in songs and hum.singer in singers
    ]
    hums, truths = common.track_all(hum.path for hum in asked), [hum.song_id for hum in asked]
    others = common.read_corpora(*common.DATABASE)
    place = f"sets-{embedder.identity}"
    home = common.searcher_of(others, place, embedder)
    yield QuerySet("MIR-QBSH, start", home, "start", hums, truths, {})
    yield QuerySet("MIR-QBSH, anywhere", home, "anywhere", hums, truths, {})
    away = ioacas_test(embedder.reading, CONTOUR_HOP_S, data, others)
    named = [query.song_id for query in away.queries]
    yield QuerySet("IOACAS", away.songs.searcher(embedder), "anywhere", away.contours, named, {})
    recordings = read_songs(data / "ultrastar")
    named, by_rule = ([*column] for column in zip(*all_hums(recordings, HUMS), strict=True))
    heard = {tracker: heard_by(recordings, tracker) for tracker in common.available(TRACKERS)[0]}
    for tracker, melodies in heard.items():
        among = common.searcher_of([*others, *melodies], place, embedder)
        yield QuerySet(f"recordings, {tracker}", among, "anywhere", by_rule, named, {})
    if large:
        everything = [*others, *common.read_corpora(*LARGE), *heard[TRACKERS[0]]]
        among = common.searcher_of(everything, f"{place}-large", embedder)
        ids = among.catalogue.number
        alike = {key: [one for one in near if one in ids] for key, near in variants().items()}
        yield QuerySet("MIR-QBSH, large", among, "anywhere", hums, truths, alike)
        yield QuerySet("recordings, large", among, "anywhere", by_rule, named, alike)


def main() -> None:
    weights = str(cache_dir() / FOLD)
    options = common.parse(common.arguments(__doc__, weights=weights, rivals=100, large=1))
    embedder = ContourEmbedder(options.weights)
    made_of = [embedder.identity, options.rivals, options.large, asdict(Calibration.of(embedder))]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    kept = cache_dir() / f"sets-{key}.json"
    found: dict[str, dict[str, Any]] = {}
    if kept.is_file():
        found = read_json(kept, f"delete {kept}")
    for asked in sets(embedder, bool(options.large)):
        catalogue = asked.searcher.catalogue
        size = {"songs": len(catalogue.songs), "windows": len(catalogue.song), "methods": {}}
        methods = found.setdefault(asked.name, size)["methods"]
        for method in (*RIVALS, *METHODS):
            if method not in methods:
                methods[method] = scored(asked, method, options.rivals)
                write_json(kept, found)
            print(f"{asked.name:28}{method:16}{common.brief(methods[method])}", flush=True)
    common.save(options, "sets", {"weights": embedder.identity, "sets": found})
    kept.unlink()  # the next run measures again
