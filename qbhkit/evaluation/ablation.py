"""What each part of the method gains: recipes that differ in one part, scored on the same hums.

A grid is a YAML file: a base configuration of stage 1, what stage 2 changes in it, and rows that
change one part each. Every row is trained with the same budget and scored by cross-validation.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qbhkit.config import build_config, merged
from qbhkit.embedding.embedder import export_encoder
from qbhkit.embedding.training import TrainConfig, train_encoder
from qbhkit.errors import QbhError
from qbhkit.evaluation.cross_validation import (
    EXTERNAL,
    MATCH_FROM,
    CrossValidationData,
    cross_validate,
)
from qbhkit.metrics import paired_difference
from qbhkit.storage import read_json, write_json

Values = dict[str, Any]
Stages = Literal["songs", "hums", "both", "combined"]
MEASURES = ("top1", "top10", "mrr")


@dataclass(frozen=True)
class Row:
    """One recipe.

    Args:
        name: of the row.
        change: what it changes in the base configuration, in both stages.
        stages: ``songs`` is stage 1 alone, ``hums`` stage 2 from random weights, ``both`` one after
            the other, ``combined`` the best of several fine-tuned copies.
        seeds: number of runs, with seeds 0, 1, ...
    """

    name: str
    change: Values = field(default_factory=dict)
    stages: Stages = "both"
    seeds: int = 1


@dataclass(frozen=True)
class Grid:
    """Rows to compare.

    Args:
        base: configuration of stage 1.
        tune: what stage 2 changes in it; must hold ``hums``.
        rows: the others are compared with the first.
        budgets: by name, ``{songs: change, tune: change}`` of the two stages.
    """

    base: Values
    tune: Values
    rows: tuple[Row, ...]
    budgets: dict[str, dict[str, Values]]

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if not names or len(set(names)) < len(names):
            raise QbhError("A grid needs rows, each with a name of its own.")
        if "hums" not in self.tune:
            raise QbhError("A grid's 'tune' must say how hums are drawn: 'hums: {share: 0.4}'.")


def recipe(grid: Grid, row: Row, budget: str, seed: int) -> tuple[TrainConfig, TrainConfig]:
    """Return the configurations of stage 1 and of stage 2.

    Raises:
        QbhError: if there is no such budget, or a value is wrong.
    """
    if budget not in grid.budgets:
        raise QbhError(f"There is no budget {budget!r}: use one of {', '.join(grid.budgets)}.")
    spent = grid.budgets[budget]
    songs = merged(merged(grid.base, spent.get("songs", {})), {**row.change, "seed": seed})
    hums = merged(merged(songs, grid.tune), merged(spent.get("tune", {}), row.change))
    songs.pop("fine_tune", None)  # of combined training: stage 1 has no hums
    return (
        build_config(TrainConfig, songs, f"row {row.name!r}"),
        build_config(TrainConfig, hums, f"row {row.name!r}"),
    )


def ablate(
    grid: Grid,
    budget: str,
    data_for: Callable[[TrainConfig], CrossValidationData],
    folder: Path,
    out: Path,
    progress: bool = True,
) -> dict[str, Any]:
    """Train and score every row; results of the same recipe in ``out`` are kept.

    Args:
        grid: the rows.
        budget: one of the grid's budgets.
        data_for: returns what a configuration is scored on.
        folder: of the models and checkpoints.
        out: JSON file, written after every run of a row. Results of rows that are no longer in the
            grid, or have changed, are removed from it.
        progress: show bars on standard error.

    Returns:
        What ``out`` holds: for each row and seed what :func:`cross_validate` returns.

    Raises:
        QbhError: if there is no such budget, or ``out`` is of another budget or damaged.
    """
    asked = {  # the whole table first, then the further seeds
        f"{row.name} / {seed}": (row, *recipe(grid, row, budget, seed))
        for seed in range(max(row.seeds for row in grid.rows))
        for row in grid.rows
        if seed < row.seeds
    }
    rows: dict[str, Any] = {}
    if out.is_file():
        stored = read_json(out, f"delete {out}")
        if not isinstance(stored, dict) or stored.get("budget") != budget:
            raise QbhError(f"{out} is not a table of the budget {budget!r}: delete it.")
        rows = stored["rows"]
    made_of = {key: _made_of(*runs) for key, runs in asked.items()}
    rows = {
        key: rows[key]
        for key, made in made_of.items()
        if key in rows and all(rows[key].get(name, value) == value for name, value in made.items())
    }

    def saved() -> dict[str, Any]:
        found = {"budget": budget, "rows": {key: rows[key] for key in asked if key in rows}}
        write_json(out, found)
        return found

    for key, (row, songs, hums) in asked.items():
        if key not in rows:
            saved()
            run = folder / budget / _plain(row.name) / str(songs.seed)
            scored = _score(row.stages, songs, hums, data_for(songs), run, progress)
            rows[key] = made_of[key] | scored
    return saved()


def _made_of(row: Row, songs: TrainConfig, hums: TrainConfig) -> dict[str, Any]:
    """Return what a run is known by, as JSON holds it."""
    described = {"stages": row.stages, "change": row.change, "seed": songs.seed}
    made = {"row": described, "recipes": _hash([asdict(songs), asdict(hums)])}
    return dict(json.loads(json.dumps(made)))  # tuples count as lists


def _score(
    stages: Stages,
    songs: TrainConfig,
    hums: TrainConfig,
    cv_data: CrossValidationData,
    folder: Path,
    progress: bool,
) -> dict[str, Any]:
    # Rows with the same stage 1 share it.
    first = folder.parents[1] / f"stage1-{_hash(asdict(songs))[:12]}"
    weights = first / "songs.safetensors"
    if stages in ("songs", "both") and not weights.is_file():
        resume = (first / "checkpoint.pt").is_file()
        encoder = train_encoder(
            songs, cv_data.source, first, first / "log.json", resume=resume, progress=progress
        )
        export_encoder(encoder, weights, songs.window.reading, songs.normalisation)
    configs = {
        "songs": replace(songs, init_from=str(weights), hums=None),
        "both": replace(hums, init_from=str(weights)),
        "hums": hums,
        "combined": replace(songs, hums=hums.hums, fine_tune=hums.fine_tune),
    }
    return cross_validate(configs[stages], cv_data, folder, progress=progress)


def _plain(name: str) -> str:
    """Return a folder name for a row's name; no two names share one."""
    return "".join(letter if letter.isalnum() else "-" for letter in name) + f"-{_hash(name)[:6]}"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def table(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each row: means over seeds, their spread, and the gain over the first row.

    Args:
        found: what :func:`ablate` returns.

    Returns:
        Lines with ``row`` and ``seeds``; for ``start``, ``anywhere`` and an external corpus, if
        there is one, the mean of each measure, the largest distance from it (``spread``), and the
        paired difference in top-1 to the first row, by seed 0, with its 95% interval over hums.

    Notebook: notebooks/07_train_supervised.py
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for key, run in found["rows"].items():
        runs.setdefault(key.rpartition(" / ")[0], []).append(run)
    first = next(iter(runs.values()))[0]
    lines = []
    for name, seeds in runs.items():
        line: dict[str, Any] = {"row": name, "seeds": len(seeds)}
        for searched in (*MATCH_FROM, EXTERNAL) if EXTERNAL in first else MATCH_FROM:
            for measure in MEASURES:
                values = np.array([run[searched][measure] for run in seeds])
                line[f"{searched} {measure}"] = float(values.mean())
                line[f"{searched} {measure} spread"] = float(np.abs(values - values.mean()).max())
            ranks = (run[searched]["ranks"] for run in (seeds[0], first))
            line[f"{searched} top1 against first"] = paired_difference(*ranks)
        lines.append(line)
    return lines
