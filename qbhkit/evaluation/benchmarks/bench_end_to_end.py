"""The end-to-end path beside the contour path, on all real hums: ``qbhkit bench end_to_end``.

Every hum is searched among the 2,048 songs, embedded by the teacher, in three ways: by its contour
of the default tracker, by its contour of ``crnn-lite``, and end to end from the states of
``crnn-lite``. Neither encoder was trained on hums; ``crnn-lite`` was trained on recordings of the
training singers, so the other singers are counted apart. ``--subset N`` takes every (423 / N)-th
recording.
"""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from qbhkit.audio import load
from qbhkit.contour import Contour
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.distillation import StateEmbedder
from qbhkit.embedding.embedder import ContourEmbedder, Embedder
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.cross_validation import MATCH_FROM
from qbhkit.evaluation.evaluate import by_search, score_hums
from qbhkit.metrics import comparable_to, metrics, paired_difference, rank_of, summarise
from qbhkit.pitch.frontends import STATE_NETWORK, frontend_for
from qbhkit.pitch.trackers import default_tracker
from qbhkit.retrieval.searcher import Searcher


def main() -> None:
    # A teacher that was trained on these hums would know them.
    options = common.parse(
        common.arguments(__doc__, subset=0, weights="end-to-end", teacher="stage1")
    )
    queries = common.labelled_hums(options.subset)
    student, teacher = StateEmbedder(options.weights), ContourEmbedder(options.teacher)
    frontend, catalogue = frontend_for(student.states_of), common.database(teacher).catalogue
    states = [
        frontend.contour_of(load(Path(query.path), frontend.rate_hz))
        for query in tqdm(queries, "states", unit="hum")
    ]
    usual, same, by_states = (
        f"contour, {default_tracker()}",
        f"contour, {STATE_NETWORK}",
        "end-to-end",
    )
    ways: dict[str, tuple[Embedder, list[Contour]]] = {
        usual: (teacher, common.track_all(queries)),
        same: (teacher, [Contour(contour.frames[:, :2]) for contour in states]),
        by_states: (student, states),
    }
    truths = [catalogue.number[query.song_id] for query in queries]
    training = set(read_split("mir_qbsh")["training_singers"])
    result: dict[str, Any] = {
        "songs": len(catalogue.songs),
        "teacher": teacher.identity,
        "weights": student.weights,
        "heard_by": student.states_of,
        "song_ids": [query.song_id for query in queries],
        "singers": [query.singer for query in queries],
    }
    for match_from in MATCH_FROM:
        ranks, blocks = {}, {}
        for name, (embedder, contours) in ways.items():
            score = by_search(Searcher(catalogue, embedder), "full", match_from)
            cases = score_hums(score, contours, truths, f"{match_from}, {name}")
            row = ranks[name] = [case and rank_of(*case) for case in cases]
            others = [
                rank for rank, query in zip(row, queries, strict=True)
                if query.singer not in training
            ]  # fmt: skip
            block = blocks[name] = summarise(row, queries)
            block["other_singers"] = metrics(others)._asdict()
            cells = "  ".join(f"{key} {block[key]:.3f}" for key in ("top1", "top10", "mrr"))
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
    common.save(options, "end_to_end", result)
