"""The end-to-end path beside the contour path, on all real hums: ``qbhkit bench end_to_end``.

Every hum is searched among the 2,048 songs, embedded by the teacher, in three ways: by its contour
of the default tracker, by its contour of ``crnn-lite``, and end to end from the states of
``crnn-lite``. Neither encoder was trained on hums; ``crnn-lite`` was trained on recordings of the
training singers, so the other singers are counted apart. ``--subset N`` takes every (423 / N)-th
recording.
"""

from typing import Any

from qbhkit.embedding.distillation import StateEmbedder
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.cross_validation import MATCH_FROM
from qbhkit.evaluation.evaluate import evaluate
from qbhkit.metrics import metrics, summarise
from qbhkit.pitch.frontends import STATE_NETWORK
from qbhkit.pitch.trackers import default_tracker

TEACHER = "stage1"  # one that was trained on these hums would know them


def main() -> None:
    options = common.parse(common.arguments(__doc__, subset=0))
    queries, training = common.labelled_hums(options.subset), common.training_singers()
    teacher, student = ContourEmbedder(TEACHER), StateEmbedder("end-to-end")
    catalogue = common.database(teacher).catalogue
    result: dict[str, Any] = {
        "songs": len(catalogue.songs),
        "teacher": teacher.identity,
        "weights": student.weights,
        "heard_by": student.states_of,
        "song_ids": [query.song_id for query in queries],
        "singers": [query.singer for query in queries],
    }
    for match_from in MATCH_FROM:
        ranks = {}
        for tracker in (default_tracker(), STATE_NETWORK):
            found = evaluate(queries, catalogue, ["full"], match_from, TEACHER, tracker, True)
            ranks[f"contour, {tracker}"] = found.ranks["full"]
        found = evaluate(queries, catalogue, ["end-to-end"], match_from, TEACHER, progress=True)
        ranks |= found.ranks
        blocks = {name: summarise(row, queries) for name, row in ranks.items()}
        for name, block in blocks.items():
            pairs = zip(ranks[name], queries, strict=True)
            others = [rank for rank, query in pairs if query.singer not in training]
            block["other_singers"] = metrics(others)._asdict()
            print(f"{match_from:10}{name:20}{common.brief(block)}")
        result[match_from] = {"methods": blocks}
    common.save(options, "end_to_end", result)
