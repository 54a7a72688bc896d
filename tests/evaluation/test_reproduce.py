"""The reduced reproduction, and that a number which came out otherwise would be noticed."""

import sys

import pytest

from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks import bench_reproduce
from qbhkit.evaluation.benchmarks.bench_reproduce import (
    ALLOWED,
    GOLDEN,
    Step,
    bare,
    compared,
    numbers,
    read_json,
    work,
)

GOLD = read_json(GOLDEN, "make it again")


def test_the_reduced_recipe_gives_the_recorded_numbers(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["bench", "--profile", "tiny", "--folder", str(tmp_path)])
    assert bench_reproduce.main() == 0, capfd.readouterr().out
    again = bench_reproduce.read_results(tmp_path / "results")
    assert set(again) == set(GOLD)
    assert all(row["numbers"] > 0 for row in compared(GOLD, again).values())


def test_a_number_out_of_bounds_is_named():
    again = read_json(GOLDEN, "")
    again["train_tiny"]["curve"][1]["loss"] += ALLOWED["loss"] * 1.5
    again["hums_start"]["methods"]["vote"]["top1"] -= ALLOWED["top1"] + 4 / 12 + 0.01
    found = compared(GOLD, again)
    assert [row["name"] for row in found["train_tiny"]["outside"]] == ["curve/1/loss"]
    assert [row["name"] for row in found["hums_start"]["outside"]] == ["methods/vote/top1"]
    assert found["hums_anywhere"]["outside"] == found["train_tuned"]["outside"] == []


def test_a_number_that_did_not_come_out_again_is_named():
    again = read_json(GOLDEN, "")
    del again["hums_start"]["methods"]["full"]
    again["hums_anywhere"]["methods"]["vote"]["top1"] = None
    found = compared(GOLD, again)
    names = [row["name"] for row in found["hums_start"]["outside"]]
    assert "methods/full/top1" in names
    assert all(name.startswith("methods/full/") for name in names)
    assert [row["name"] for row in found["hums_anywhere"]["outside"]] == ["methods/vote/top1"]
    with pytest.raises(QbhError, match="no recorded surprise"):
        compared(GOLD, again | {"surprise": {}})


def test_four_hums_of_a_few_may_be_found_otherwise():
    for n, wanted in ((20, 0.03 + 4 / 20), (400, 0.03)):
        result = {"n": n, "top1": 0.5, "refusal": {"kept": 0.5}}
        allowed = [far for name, _, far in numbers(result) if name != "n"]
        assert allowed == pytest.approx([wanted] * 2)
    with pytest.raises(KeyError, match="surprise"):  # nobody has bounded it
        list(numbers({"surprise": 1.0}))


def test_steps_that_are_done_are_not_taken_again(tmp_path):
    taken = []

    def step(name, breaks=False):
        def run():
            taken.append(name)
            if breaks:
                raise KeyboardInterrupt
            (tmp_path / name).touch()

        return Step(name, run, tmp_path / name)

    with pytest.raises(KeyboardInterrupt):
        work([step("a"), step("b", breaks=True)], tmp_path)
    spent = work([step("a"), step("b")], tmp_path)
    assert taken == ["a", "b", "b"]
    assert set(spent) == {"a", "b"}


def test_what_is_recorded_names_no_folder():
    assert bare({"config": {"start": "/x"}, "curve": [{"loss": 1, "pairs_per_s": 3}]}) == {
        "curve": [{"loss": 1}]
    }
    assert "/" not in GOLDEN.read_text("utf-8").replace("/s", "")
