"""The end-to-end path beside the contour path, on all real hums: ``qbhkit bench end_to_end``.

Every hum is searched among the 2,048 songs, embedded by the teacher, in three ways: by its contour
of the default tracker, by its contour of ``crnn-lite``, and end to end from the states of
``crnn-lite``. Neither encoder was trained on hums; ``crnn-lite`` was trained on recordings of the
training singers, so the other singers are counted apart. With ``--subset N`` every (423 / N)-th
recording is taken and nothing is written to data/results.
"""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qbhkit.audio import load
from qbhkit.contour import Contour, from_f0
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.distillation import StateEmbedder
from qbhkit.embedding.embedder import ContourEmbedder, Embedder
from qbhkit.evaluation.benchmarks.common import database, labelled_hums, machine, save
from qbhkit.evaluation.cross_validation import MATCH_FROM
from qbhkit.evaluation.evaluate import by_search, score_hums
from qbhkit.metrics import comparable_to, metrics, paired_difference, rank_of, summarise
from qbhkit.pitch.frontends import STATE_NETWORK, frontend_for
from qbhkit.pitch.trackers import default_tracker, get_tracker
from qbhkit.retrieval.searcher import Searcher


def main() -> None:
    """Track every hum once with each network, and search it in three ways."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--subset", type=int)
    parser.add_argument("--weights", default="end-to-end")
    parser.add_argument("--teacher", default="stage1", help="must not be trained on these hums")
    options = parser.parse_args()
    queries = labelled_hums(options.subset)
    student, teacher = StateEmbedder(options.weights), ContourEmbedder(options.teacher)
    frontend, tracker = frontend_for(student.states_of), get_tracker()
    catalogue = database(teacher).catalogue
    usual, by_states = f"contour, {default_tracker()}", "end-to-end"
    same = f"contour, {STATE_NETWORK}"
    contours: dict[str, list[Contour]] = {usual: [], same: [], by_states: []}
    for query in tqdm(queries, "melody", unit="hum"):
        path = Path(query.path)
        contours[usual].append(from_f0(tracker.track(load(path, tracker.rate_hz))))
        states = frontend.contour_of(load(path, frontend.rate_hz))
        contours[same].append(Contour(states.frames[:, :2]))
        contours[by_states].append(states)
    embedders: dict[str, Embedder] = {usual: teacher, same: teacher, by_states: student}
    truths = [catalogue.number[query.song_id] for query in queries]
    training = set(read_split("mir_qbsh")["training_singers"])
    others = [query.singer not in training for query in queries]
    result: dict[str, Any] = {
        "songs": len(catalogue.songs),
        "teacher": teacher.identity,
        "weights": student.weights,
        "heard_by": student.states_of,
        "song_ids": [query.song_id for query in queries],
        "singers": [query.singer for query in queries],
        "machine": machine(),
    }
    for match_from in MATCH_FROM:
        ranks = {}
        for name, embedder in embedders.items():
            score = by_search(Searcher(catalogue, embedder), "full", match_from)
            cases = score_hums(score, contours[name], truths, f"{match_from}, {name}")
            ranks[name] = [case and rank_of(*case) for case in cases]
        blocks = {name: summarise(row, queries) for name, row in ranks.items()}
        for name, row in ranks.items():
            unknown = [rank for rank, other in zip(row, others, strict=True) if other]
            blocks[name]["other_singers"] = metrics(unknown)._asdict()
            cells = "  ".join(f"{key} {blocks[name][key]:.3f}" for key in ("top1", "top10", "mrr"))
            print(f"{match_from:10}{name:20}{cells}")
        result[match_from] = {
            "methods": blocks,
            "end_to_end_minus": {
                name: {f"top{k}": paired_difference(ranks[by_states], ranks[name], k)
                       for k in (1, 10)}
                for name in (usual, same)
            },
            "comparable_to": comparable_to(len(catalogue.songs), match_from),
        }  # fmt: skip
    if not options.subset:
        save("end_to_end", result)
