import json
from dataclasses import replace

import numpy as np
import pytest
from test_cross_validation import small_data

from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.embedding.hum_pairs import HumConfig
from qbhkit.errors import QbhError
from qbhkit.evaluation import ablation
from qbhkit.evaluation.ablation import Grid, Row, ablate, recipe, table

ENCODER = {"widths": (8, 16), "convolutions": 1, "heads": 2, "embedding_dim": 32}
GRID = Grid(
    base={"loss": "infonce", "negatives": None, "threads": 1, "encoder": ENCODER},
    tune={"learning_rate": 3e-4, "warm_epochs": 0, "hums": {"share": 0.5}},
    rows=(
        Row("whole", seeds=2),
        Row("songs alone", stages="songs"),
        Row("hums alone", stages="hums"),
        Row("both at once", {"fine_tune": {"every": 1, "steps": 2}}, "combined"),
        Row("max", {"encoder": {"pooling": "max"}}),
    ),
    budgets={
        "small": {
            "songs": {"epochs": 2, "steps_per_epoch": 2, "batch": 16},
            "tune": {"epochs": 1, "steps_per_epoch": 3, "batch": 16},
        }
    },
)


def test_a_recipe_changes_what_its_row_says_and_nothing_else():
    songs, hums = recipe(GRID, GRID.rows[0], "small", 0)
    other, tuned = recipe(GRID, GRID.rows[4], "small", 0)
    assert other == replace(songs, encoder=replace(songs.encoder, pooling="max"))
    assert tuned == replace(hums, encoder=other.encoder)
    assert songs.hums is None
    assert hums.hums == HumConfig(share=0.5)
    assert (songs.steps_per_epoch, songs.epochs, hums.steps_per_epoch, hums.epochs) == (2, 2, 3, 1)
    assert (songs.learning_rate, hums.learning_rate) == (1e-3, 3e-4)
    assert recipe(GRID, GRID.rows[0], "small", 1)[0] == replace(songs, seed=1)


@pytest.mark.parametrize(
    ("rows", "tune", "message"),
    [
        ((), {"hums": {}}, "needs rows"),
        ((Row("a"), Row("a")), {"hums": {}}, "name of its own"),
        ((Row("a"),), {}, "how hums are drawn"),
    ],
)
def test_a_grid_that_compares_nothing_is_refused(rows, tune, message):
    with pytest.raises(QbhError, match=message):
        Grid({}, tune, rows, {})
    with pytest.raises(QbhError, match="row 'odd'"):
        recipe(GRID, Row("odd", {"speed": 3}), "small", 0)


@pytest.fixture(scope="module")
def cv_data():
    return small_data()


@pytest.fixture(scope="module")
def ablated(cv_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    out = folder / "table.json"
    return ablate(GRID, "small", lambda config: cv_data, folder, out, progress=False), folder


def test_every_row_is_scored_on_all_hums(ablated, cv_data):
    found, folder = ablated
    assert list(found["rows"]) == [
        "whole / 0", "songs alone / 0", "hums alone / 0", "both at once / 0", "max / 0",
        "whole / 1",
    ]  # fmt: skip
    for run in found["rows"].values():
        assert run["start"]["n"] == run["anywhere"]["n"] == len(cv_data.hums)
    assert found == json.loads((folder / "table.json").read_text())
    ranks = [run["anywhere"]["ranks"] for run in found["rows"].values()]
    assert len({tuple(row) for row in ranks}) > 3  # they are different models
    # Rows with the same first stage share it.
    logs = sorted(folder.glob("small/stage1-*/log.json"))
    seeds = [json.loads(log.read_text())["config"]["seed"] for log in logs]
    assert sorted(seeds) == [0, 0, 1]  # whole and songs alone share one; the other is of max


def test_a_stopped_table_goes_on_row_by_row(ablated, cv_data):
    found, folder = ablated
    out = folder / "part.json"
    part = {"budget": "small", "rows": dict(list(found["rows"].items())[:5])}
    out.write_text(json.dumps(part))
    asked = []

    def data_for(config):
        asked.append(config.encoder.pooling)
        return cv_data

    assert ablate(GRID, "small", data_for, folder, out, progress=False) == found
    assert asked == ["context"]  # the second seed of the first row comes last
    out.write_text(json.dumps(part | {"budget": "full"}))
    with pytest.raises(QbhError, match="not a table of the budget 'small'"):
        ablate(GRID, "small", None, folder, out)


def test_rows_are_made_again_when_they_or_what_they_share_have_changed(
    ablated, cv_data, monkeypatch
):
    found, folder = ablated
    asked = []
    monkeypatch.setattr(ablation, "_score", lambda *args: asked.append(args[1]) or {"start": {}})
    changed = replace(GRID.rows[4], change={"encoder": {"pooling": "gru"}})
    for grid in (
        replace(GRID, rows=(changed,)),
        replace(GRID, base=GRID.base | {"margin": 0.4}, rows=GRID.rows[4:]),
        replace(GRID, rows=GRID.rows[4:]),  # as it was: nothing is made
    ):
        out = folder / "changed.json"
        out.write_text(json.dumps(found))
        ablate(grid, "small", lambda config: cv_data, folder, out, progress=False)
    assert [(config.encoder.pooling, config.margin) for config in asked] == [
        ("gru", 0.5), ("max", 0.4),
    ]  # fmt: skip


def test_rows_that_are_not_asked_for_leave_the_file_and_the_first_stays_first(
    ablated, cv_data, monkeypatch
):
    found, folder = ablated
    out = folder / "fewer.json"
    out.write_text(json.dumps(found))
    monkeypatch.setattr(ablation, "_score", lambda *args: {"start": "anew"})
    first = replace(GRID.rows[0], change={"margin": 0.4}, seeds=1)
    grid = replace(GRID, rows=(first, GRID.rows[4]))
    left = ablate(grid, "small", lambda config: cv_data, folder, out, progress=False)
    assert json.loads(out.read_text()) == left
    assert list(left["rows"]) == ["whole / 0", "max / 0"]
    assert left["rows"]["whole / 0"]["start"] == "anew"
    assert left["rows"]["max / 0"] == found["rows"]["max / 0"]


def test_a_row_that_changes_a_list_is_known_again(cv_data, tmp_path, monkeypatch):
    scored = []
    monkeypatch.setattr(ablation, "_score", lambda *args: scored.append(args) or {"start": {}})
    grid = replace(GRID, rows=(Row("narrow", {"encoder": {"widths": (8, 8)}}),))
    for _ in range(2):
        ablate(grid, "small", lambda config: cv_data, tmp_path, tmp_path / "t.json", progress=False)
    assert len(scored) == 1


def test_the_table_has_means_spreads_and_paired_differences(ablated):
    lines = {line["row"]: line for line in table(ablated[0])}
    runs = ablated[0]["rows"]
    both = [runs[f"whole / {seed}"]["start"]["mrr"] for seed in (0, 1)]
    assert lines["whole"]["seeds"] == 2
    assert lines["whole"]["start mrr"] == pytest.approx(np.mean(both))
    assert lines["whole"]["start mrr spread"] == pytest.approx(abs(both[0] - both[1]) / 2)
    assert lines["whole"]["anywhere top1 against first"] == [0, 0, 0]
    gain, low, high = lines["max"]["anywhere top1 against first"]
    assert low <= gain <= high
    first = runs["whole / 0"]["anywhere"]["top1"]
    assert gain == pytest.approx(runs["max / 0"]["anywhere"]["top1"] - first)


def test_every_row_of_the_shipped_grid_can_be_built():
    path = config_path("ablation")
    grid = build_config(Grid, read_yaml(path), str(path))
    assert len(grid.rows) <= 12
    assert sum(row.seeds == 3 for row in grid.rows) == 4
    built = [
        recipe(grid, row, budget, seed)
        for budget in grid.budgets for row in grid.rows for seed in range(row.seeds)
    ]  # fmt: skip
    full = [songs for songs, _ in built if songs.epochs == 8]
    assert len({songs.epochs * songs.steps_per_epoch * songs.batch for songs in full}) == 1
