"""The real hums among every tune there is: ``qbhkit bench distractors``.

The 48 songs of MIR-QBSH are searched among all folk tunes and POP909, and among the held-out fifth
of them alone, which no model was trained on. Some of those share half of their runs with one of the
48 (Twinkle has many names): a second rank counts them as right too. ``--subset N`` takes every
(423 / N)-th recording.
"""

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
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.cross_validation import MATCH_FROM
from qbhkit.metrics import LabelledQuery, rank_of, summarise
from qbhkit.retrieval.searcher import Searcher

CORPORA = (*MUSIC21_COLLECTIONS, "pop909")
SAME_TUNE = 0.5  # share of common runs, as in the training filter


def pools() -> tuple[list[Song], dict[str, list[Song]]]:
    everything, held_out = [], []
    for name in CORPORA:
        songs = common.read_corpora(name)
        watched = set(split_of(name)["held_out"])
        everything += songs
        held_out += [song for song in songs if song.id in watched]
    return common.read_corpora("mir-qbsh"), {"all": everything, "held out": held_out}


def same_tunes(true: Sequence[Song], others: Sequence[Song]) -> dict[str, list[str]]:
    """Return for each true song the distractors that are nearly the same tune."""
    melodies = [
        {song.id: song.notes[:, 2] for song in songs if song.notes is not None}
        for songs in (true, others)
    ]
    matcher = MelodyMatcher(melodies[1])
    return {key: sorted(matcher.near(melody, SAME_TUNE)) for key, melody in melodies[0].items()}


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
    scored = zip(queries, searcher.scores_many(contours, match_from), strict=True)
    for query, (scores, *_) in tqdm(scored, match_from, len(queries), unit="hum"):
        strict.append(rank_of(scores, number[query.song_id]))
        right = [number[key] for key in (query.song_id, *alike[query.song_id])]
        best = max(right, key=lambda song: float(scores[song]))
        others = [song for song in right if song != best]
        at = best - sum(song < best for song in others)
        lenient.append(rank_of(np.delete(scores, others), at))
    block = summarise(strict, queries) | {"same_tune": summarise(lenient, queries)}
    for part in (block, block["same_tune"]):
        del part["per_song"], part["per_singer"]
        print(f"{match_from:10}{common.brief(part)}")
    return block


def main() -> None:
    parser = common.arguments(__doc__, subset=0, weights="stage1")  # not trained on these hums
    options = common.parse(parser)
    queries, embedder = common.labelled_hums(options.subset), ContourEmbedder(options.weights)
    contours = common.track_all(query.path for query in queries)
    true, others = pools()
    result: dict[str, Any] = {"weights": embedder.identity}
    for name, distractors in others.items():
        folder = f"{name.replace(' ', '-')}-{Path(options.weights).stem}"
        searcher = common.searcher_of([*true, *distractors], folder, embedder)
        alike = same_tunes(true, distractors)
        result[name] = {
            "songs": len(searcher.catalogue.songs),
            "windows": len(searcher.catalogue.song),
            "near_duplicates": {key: len(ids) for key, ids in alike.items() if ids},
            **{way: ranked(searcher, queries, contours, alike, way) for way in MATCH_FROM},
        }
    common.save(options, "distractors", result)
