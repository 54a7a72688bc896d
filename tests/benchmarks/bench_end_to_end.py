"""The end-to-end path beside the contour path, on all real hums: ``qbhkit bench end_to_end``.

Every hum is searched among the 2,048 songs, embedded by the teacher, in three ways: by its contour
as the default tracker hears it, by its contour as ``crnn-lite`` hears it, and end to end from the
states of ``crnn-lite``. Neither encoder has learnt from a hum; ``crnn-lite`` was trained on
recordings of the training singers, so the other singers are counted apart. With ``--subset N``
every (423 / N)-th recording is taken and nothing is written to data/results.
"""

import argparse
from pathlib import Path
from typing import Any

from common import DATABASE, QbhError, database_folder, hums, machine, save
from numpy.typing import NDArray
from tqdm import tqdm

from qbhkit.audio import load
from qbhkit.cli import main as qbhkit
from qbhkit.contour import Contour, from_f0
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.encoders import ContourEmbedder
from qbhkit.embedding.end_to_end import AudioEmbedder
from qbhkit.melody.trackers import default_tracker, get_tracker
from qbhkit.retrieval.catalogue import open_catalogue
from qbhkit.retrieval.crossfold import ANCHORS
from qbhkit.retrieval.ears import LISTENER, ear_of
from qbhkit.retrieval.evaluate import (
    Query,
    Scorer,
    comparable_to,
    metrics,
    paired_difference,
    rank_queries,
    report,
)
from qbhkit.retrieval.queries import Anchor
from qbhkit.retrieval.search import Searcher


def scorer(searcher: Searcher, heard: dict[str, Contour], anchor: Anchor) -> Scorer:
    """Return what scores every song for the path of a hum; None where too little is voiced."""

    def score(path: str) -> NDArray | None:
        try:
            scores: NDArray = searcher.scores(heard[path], anchor).score
        except QbhError:
            return None
        return scores

    return score


def main() -> int:
    """Hear every hum once with each network, and search it in three ways from both anchors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--subset", type=int)
    parser.add_argument("--weights", default="end-to-end")
    parser.add_argument("--teacher", default="stage1", help="must never have heard these hums")
    options = parser.parse_args()
    found = hums()
    if options.subset:
        found = found[:: max(1, len(found) // options.subset)][: options.subset]
    queries = [Query(str(hum.path), hum.song_id, hum.singer) for hum in found]
    audio, teacher = AudioEmbedder(options.weights), ContourEmbedder(options.teacher)
    ear, tracker = ear_of(audio), get_tracker()
    folder = Path(f"{database_folder()}-{Path(options.teacher).stem}")
    build = ["catalogue", "build", *DATABASE, "--out", str(folder), "--weights", options.teacher]
    if code := qbhkit(build):
        return code
    catalogue = open_catalogue(folder)
    usual, by_states = f"contour, {default_tracker()}", "end-to-end"
    same = f"contour, {LISTENER}"
    heard: dict[str, dict[str, Contour]] = {usual: {}, same: {}, by_states: {}}
    for query in tqdm(queries, "melody", unit="hum"):
        path = Path(query.path)
        heard[usual][query.path] = from_f0(tracker.track(load(path, tracker.rate_hz)))
        states = ear.hear(load(path, ear.rate_hz))
        heard[same][query.path] = Contour(states.frames[:, :2])
        heard[by_states][query.path] = states
    searchers = {usual: Searcher(catalogue, teacher), same: Searcher(catalogue, teacher)}
    searchers[by_states] = Searcher(catalogue, audio)
    training = set(read_split("mir_qbsh")["training_singers"])
    others = [query.singer not in training for query in queries]
    result: dict[str, Any] = {
        "songs": len(catalogue.songs),
        "teacher": teacher.identity,
        "weights": audio.weights,
        "heard_by": audio.heard_by,
        "song_ids": [query.song_id for query in queries],
        "singers": [query.singer for query in queries],
        "machine": machine(),
    }
    for anchor in ANCHORS:
        ranks = {}
        for name, searcher in searchers.items():
            score = scorer(searcher, heard[name], anchor)
            listed = tqdm(queries, f"{anchor}, {name}", unit="hum")
            ranks[name] = rank_queries(listed, catalogue.number, score)
        blocks = {name: report(row, queries) for name, row in ranks.items()}
        for name, row in ranks.items():
            strange = [rank for rank, other in zip(row, others, strict=True) if other]
            blocks[name]["other_singers"] = metrics(strange)._asdict()
            cells = "  ".join(f"{key} {blocks[name][key]:.3f}" for key in ("top1", "top10", "mrr"))
            print(f"{anchor:10}{name:20}{cells}")
        result[anchor] = {
            "methods": blocks,
            "end_to_end_minus": {
                name: {f"top{k}": paired_difference(ranks[by_states], ranks[name], k)
                       for k in (1, 10)}
                for name in (usual, same)
            },
            "comparable_to": comparable_to(len(catalogue.songs), anchor),
        }  # fmt: skip
    if not options.subset:
        save("end_to_end", result)
    return 0


if __name__ == "__main__":
    if code := main():
        raise SystemExit(code)
