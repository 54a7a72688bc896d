"""All real hums against the 2,048 songs, every method, both anchors: ``qbhkit bench hums``.

Works from the wav files with the default tracker, through the public command line. With
``--subset N`` every (423 / N)-th recording is taken and nothing is written to data/results.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

from common import DATABASE, RESULTS, database_folder, hums

from qbhkit.cli import main as qbhkit
from qbhkit.cli.hums import METHODS
from qbhkit.corpora.training_songs import read_split
from qbhkit.retrieval.evaluate import metrics
from qbhkit.storage import atomic_path, cache_dir, write_json


def write_queries(path: Path, subset: int | None) -> list[str]:
    """Write the query list and return the singer of each line."""
    found = hums()
    if subset:
        found = found[:: max(1, len(found) // subset)][:subset]
    with atomic_path(path) as part, open(part, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "song_id", "singer"])
        writer.writerows([hum.path, hum.song_id, hum.singer] for hum in found)
    return [hum.singer for hum in found]


def main() -> int:
    """Build the catalogue if need be, and evaluate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--subset", type=int)
    parser.add_argument("--weights", default="stage1", help="must never have heard these hums")
    parser.add_argument("--at-least", type=float, metavar="TOP10", help="fail below, full, start")
    options = parser.parse_args()
    weights = ["--weights", options.weights]
    folder = cache_dir() / "bench"
    singers = write_queries(folder / "hums.csv", options.subset)
    training = set(read_split("mir_qbsh")["training_singers"])
    catalogue = f"{database_folder()}-{Path(options.weights).stem}"
    if code := qbhkit(["catalogue", "build", *DATABASE, "--out", catalogue, *weights]):
        return code
    for anchor in ("start", "anywhere"):
        out = folder / f"hums_{anchor}.json" if options.subset else RESULTS / f"hums_{anchor}.json"
        methods = [word for name in METHODS for word in ("--method", name)]
        arguments = ["--queries", str(folder / "hums.csv"), "--catalogue", catalogue]
        arguments += ["--anchor", anchor, *methods, "--out", str(out), *weights]
        if code := qbhkit(["evaluate", *arguments]):
            return code
        if anchor == "start" and options.at_least:
            top10 = json.loads(out.read_text("utf-8"))["top10"]
            if top10 < options.at_least:
                print(f"top-10 {top10:.3f} from the start is under {options.at_least}")
                return 1
        if options.subset:
            continue
        result = json.loads(out.read_text("utf-8"))
        for block in result["methods"].values():
            sides: dict[str, list[int | None]] = {"training_singers": [], "other_singers": []}
            for singer, rank in zip(singers, block["ranks"], strict=True):
                sides["training_singers" if singer in training else "other_singers"].append(rank)
            block["by_split"] = {side: metrics(ranks)._asdict() for side, ranks in sides.items()}
        write_json(out, result)
        print(
            {side: round(m["top1"], 3) for side, m in result["methods"]["full"]["by_split"].items()}
        )
    return 0


if __name__ == "__main__":
    if code := main():
        sys.exit(code)
