"""All real hums against the 2,048 songs, by every method: ``qbhkit bench hums``.

Hums are matched from the start of songs and anywhere, from the wav files with the default tracker.
``--subset N`` takes every (423 / N)-th recording.
"""

from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.evaluation import METHODS
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.cross_validation import MATCH_FROM
from qbhkit.evaluation.evaluate import evaluate
from qbhkit.metrics import metrics


def main() -> int:
    parser = common.arguments(__doc__, subset=0, weights="stage1")  # not trained on these hums
    parser.add_argument("--at-least", type=float, metavar="TOP10", help="fail below, full, start")
    options = common.parse(parser)
    queries, training = common.labelled_hums(options.subset), common.training_singers()
    catalogue = common.database(ContourEmbedder(options.weights)).catalogue
    for match_from in MATCH_FROM:
        found = evaluate(queries, catalogue, METHODS, match_from, options.weights, progress=True)
        result = found.as_json()
        for method, block in result["methods"].items():
            sides: dict[str, list[int | None]] = {"training_singers": [], "other_singers": []}
            for query, rank in zip(queries, block["ranks"], strict=True):
                side = "training_singers" if query.singer in training else "other_singers"
                sides[side].append(rank)
            block["by_split"] = {side: metrics(ranks)._asdict() for side, ranks in sides.items()}
            others = f"other singers top1 {block['by_split']['other_singers']['top1']:.3f}"
            print(f"{match_from:10}{method:16}{common.brief(block)}  {others}")
        common.save(options, f"hums_{match_from}", result)
        if match_from == "start" and options.at_least and result["top10"] < options.at_least:
            print(f"top-10 {result['top10']:.3f} from the start is under {options.at_least}")
            return 1
    return 0
