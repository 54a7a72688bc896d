"""Run notebook 10 over several catalogues by papermill, and make one table of what the runs found.

Each catalogue is a list of music21's collections. The output folder gets the executed copies, one per
catalogue, and ``table.csv``.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
import pandas as pd
import papermill

EVALUATION = Path(__file__).with_name("10_evaluation.ipynb")
SCORES = "application/vnd.qbhkit.scores+json"  # the type of output in which a run stores its scores
# The hums are the same in all runs: tunes of the first book. Each catalogue has one book more than the one before.
CATALOGUES = ("oneills1850", "oneills1850 ryansMammoth", "oneills1850 ryansMammoth airdsAirs")


def scores_of(executed: Path) -> list[dict]:
    """Return the scores stored in an executed copy of notebook 10, a line for each method."""
    cells = nbformat.read(executed, as_version=4).cells
    found = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return next(data[SCORES] for data in found if SCORES in data)


def compare(catalogues: Iterable[str], out: Path, **parameters: object) -> pd.DataFrame:
    """Execute notebook 10 once for each catalogue and return all their scores.

    Args:
        catalogues: names of collections, separated by spaces.
        out: folder of the executed copies and of ``table.csv``.
        parameters: other parameters of the notebook, such as ``profile``, ``seed`` or ``hum_count``.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for catalogue in catalogues:
        executed = out / f"{catalogue.replace(' ', '-')}.ipynb"
        papermill.execute_notebook(
            EVALUATION,
            executed,
            {"collections": catalogue, "hums_of": catalogue.split()[0], **parameters},
            cwd=EVALUATION.parent,
            progress_bar=sys.stderr.isatty(),
        )
        lines += scores_of(executed)
    table = pd.DataFrame(lines).set_index(["catalogue", "songs", "hums", "method"])
    table.to_csv(out / "table.csv")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogues", nargs="*", default=CATALOGUES)
    parser.add_argument("--profile", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data/cache/notebooks/catalogues"))
    options = parser.parse_args()
    print(
        compare(options.catalogues, options.out, profile=options.profile, seed=options.seed)
        .round(3)
        .to_string()
    )
