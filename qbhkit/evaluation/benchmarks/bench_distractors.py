"""The real hums among every tune there is: ``qbhkit bench distractors``.

The 48 songs of MIR-QBSH are searched among all folk tunes and POP909, and among the held-out fifth
of them alone, which no model was trained on. Some of those share half of their runs with one of the
48 (Twinkle has many names): a second rank counts them as right too. The weights must not have been
trained on hums. With ``--subset N`` every (423 / N)-th recording is taken and nothing is written to
data/results.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from qbhkit.contour import Contour
from qbhkit.corpora import Song
from qbhkit.corpora.abc import MUSIC21_COLLECTIONS
from qbhkit.corpora.duplicates import MelodyMatcher
from qbhkit.corpora.training_songs import split_of
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.windows import MatchFrom
from qbhkit.evaluation.benchmarks.common import (
    labelled_hums,
    machine,
    read_corpora,
    save,
    searcher_of,
    track_all,
)
from qbhkit.evaluation.cross_validation import MATCH_FROM
from qbhkit.metrics import LabelledQuery, rank_of, summarise
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval.index import build_index
from qbhkit.retrieval.searcher import Searcher

CORPORA = (*MUSIC21_COLLECTIONS, "pop909")
SAME_TUNE = 0.5  # share of common runs, as in the training filter


def pools() -> tuple[list[Song], dict[str, list[Song]]]:
    """Return the 48 songs, and the distractors by name."""
    everything, held_out = [], []
    for name in CORPORA:
        songs = read_corpora(name)
        watched = set(split_of(name)["held_out"])
        everything += songs
        held_out += [song for song in songs if song.id in watched]
    return read_corpora("mir-qbsh"), {"all": everything, "held out": held_out}


def same_tunes(true: Sequence[Song], others: Sequence[Song]) -> dict[str, list[str]]:
    """Return for each true song the distractors that are nearly the same tune."""
    matcher = MelodyMatcher(
        {song.id: song.notes[:, 2] for song in others if song.notes is not None}
    )
    return {
        song.id: sorted(matcher.near(song.notes[:, 2], SAME_TUNE))
        for song in true
        if song.notes is not None
    }


def main() -> None:
    """Search every hum in both catalogues."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--subset", type=int)
    parser.add_argument("--weights", default="stage1", help="must not be trained on these hums")
    options = parser.parse_args()
    queries = labelled_hums(options.subset)
    embedder, contours = ContourEmbedder(options.weights), track_all(queries, get_tracker())
    true, others = pools()
    result: dict[str, Any] = {"weights": embedder.identity, "machine": machine()}
    for name, distractors in others.items():
        folder = f"{name.replace(' ', '-')}-{Path(options.weights).stem}"
        searcher = searcher_of([*true, *distractors], folder, embedder)
        alike = same_tunes(true, distractors)
        result[name] = {
            "songs": len(searcher.catalogue.songs),
            "windows": len(searcher.catalogue.song),
            "near_duplicates": {key: len(ids) for key, ids in alike.items() if ids},
            **{
                match_from: ranked(searcher, queries, contours, alike, match_from)
                for match_from in MATCH_FROM
            },
        }
        searcher.index = build_index("faiss", searcher.catalogue)
        result[name]["anywhere, faiss"] = ranked(searcher, queries, contours, alike, "anywhere")
        if not options.subset:
            save("distractors", result)


def ranked(
    searcher: Searcher,
    queries: Sequence[LabelledQuery],
    contours: Sequence[Contour],
    alike: dict[str, list[str]],
    match_from: MatchFrom,
) -> dict[str, Any]:
    """Return metrics of the true songs, and of the best among each and its near-duplicates."""
    number = searcher.catalogue.number
    strict: list[int | None] = []
    lenient: list[int | None] = []
    found = searcher.scores_many(contours, match_from)
    for query in tqdm(queries, match_from, unit="hum"):
        scores = next(found).score
        strict.append(rank_of(scores, number[query.song_id]))
        right = [number[key] for key in (query.song_id, *alike[query.song_id])]
        best = max(right, key=lambda song: float(scores[song]))
        others = np.delete(scores, [song for song in right if song != best])
        at = best - sum(song < best for song in right if song != best)
        lenient.append(rank_of(others, at))
    block = summarise(strict, queries) | {"same_tune": summarise(lenient, queries)}
    for part in (block, block["same_tune"]):
        del part["per_song"], part["per_singer"]
    cells = (
        f"{part[key]:.3f}" for part in (block, block["same_tune"]) for key in ("top1", "top10")
    )
    print(f"{searcher.index.name:8}{match_from:10}", *cells)
    return block
