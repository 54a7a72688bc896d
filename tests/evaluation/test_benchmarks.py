"""The frame of the benchmarks, from an installed package too, and the mutants that they make."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks import bench_mutants, common
from qbhkit.evaluation.benchmarks.bench_mutants import Run, mutant_of, places, sample
from qbhkit.storage import read_json

ROOT = Path(__file__).parents[2]


def parsed(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["qbhkit bench it", *words])
    return common.parse(common.arguments("It.", subset=0, sizes=(10, 100)))


def test_only_a_full_run_writes_into_the_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QbhError, match="--out DIR"):  # no checkout
        parsed(monkeypatch)
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    trial = parsed(monkeypatch, "--sizes", "10")
    assert not trial.full
    common.save(trial, "it", {"top1": 1})
    assert "nothing is written" in capsys.readouterr().out
    whole = parsed(monkeypatch, "--sizes", "10", "100")
    common.save(whole, "it", {"top1": 1, "machine": {"threads": 2}})
    written = read_json(tmp_path / "data" / "results" / "it.json", "")
    assert written["top1"] == 1
    assert {"python", "torch", "cores", "threads"} <= set(written["machine"])
    elsewhere = parsed(monkeypatch, "--subset", "3", "--out", "here")
    for n, inside in enumerate((["files", "abc"], ["files", "zip"], ["service"])):
        common.save(elsewhere, "it", {"n": n}, *inside)  # parts of a result are kept
    parts = read_json(tmp_path / "here" / "it.json", "")
    assert [parts["files"]["abc"]["n"], parts["files"]["zip"]["n"], parts["service"]["n"]] == [
        0,
        1,
        2,
    ]


def test_a_benchmark_runs_outside_the_checkout(tmp_path):
    """With the package somewhere else, as if it were installed; its help names what it measures."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "qbhkit", site / "qbhkit", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(site)}

    def bench(*words):
        command = [sys.executable, "-m", "qbhkit.cli", "bench", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert "one pair at a time" in bench("augment", "--help").stdout
    done = bench("augment", "--pairs", "64", "--out", "results")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "bench_augment.json").read_text())
    assert found["ratio"] > 0
    assert "needs a checkout" in bench("mutants", "--mutants", "1").stderr


SOURCE = '''"""Add 1."""
LIMIT: "int | None" = 3


@cache(maxsize=2)
def add(one: "int | None", other=True):
    if one < LIMIT and not (other == 1):
        raise ValueError(f"at least {LIMIT + 1}", 5)
    return -one + 2.5
'''


def test_mutants_change_one_thing_that_tests_can_see():
    mutants = [mutant_of("a.py", SOURCE, place) for place in places(SOURCE)]
    found = [mutant.change for mutant in mutants]
    assert 'LIMIT: "int | None" = 3 -> LIMIT: "int | None" = 4' in found
    line = "if one < LIMIT and not (other == 1):"
    for new in ("one <= LIMIT and", "one > LIMIT and", "one < LIMIT or"):
        assert f"{line} -> {line.replace('one < LIMIT and', new)}" in found
    assert f"{line} -> if one < LIMIT and  (other == 1):" in found
    assert "return -one + 2.5 -> return one + 2.5" in found
    assert "return -one + 2.5 -> return -one - 2.5" in found
    assert not any("at least" in change or "maxsize" in change for change in found)
    for mutant in mutants:
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(SOURCE))
        before, after = mutant.change.split(" -> ")
        assert SOURCE.splitlines()[mutant.line - 1].strip() == before
        assert mutant.source.splitlines()[mutant.line - 1].strip() == after


def test_a_sample_is_drawn_over_all_rooms():
    drawn = sample(ROOT, 300, 7)
    assert drawn == sample(ROOT, 300, 7) != sample(ROOT, 300, 8)
    rooms = {mutant.path.split("/")[1] for mutant in drawn}
    assert {"corpora", "synthesis", "pitch", "embedding", "catalogue", "retrieval", "cli"} <= rooms
    assert not any("benchmarks" in mutant.path for mutant in drawn)
    assert all(bench_mutants.tests_of(ROOT, path) for path in {mutant.path for mutant in drawn})


@pytest.mark.parametrize(
    ("module", "test"),
    [
        ("retrieval/align.py", "retrieval/test_align.py"),
        ("metrics.py", "test_metrics.py"),
        ("pitch/trackers/__init__.py", "pitch/test_trackers.py"),
    ],
)
def test_a_mutant_meets_the_tests_of_its_module_first(module, test):
    found = bench_mutants.tests_of(ROOT, f"qbhkit/{module}")
    assert found[0] == f"tests/{test}"
    if "/" in test:  # and all of its room
        room = ROOT / "tests" / Path(test).parent
        assert set(found) == {str(path.relative_to(ROOT)) for path in room.rglob("test_*.py")}


@pytest.fixture
def checkout(tmp_path):
    """A kit of one module and one test, which does not look at one of its lines."""
    root = tmp_path / "checkout"
    (root / "qbhkit" / "room").mkdir(parents=True)
    (root / "tests" / "room").mkdir(parents=True)
    (root / "qbhkit" / "__init__.py").touch()
    (root / "qbhkit" / "room" / "a.py").write_text("def one():\n    return 1\n\n\nUNSEEN = 5\n")
    (root / "tests" / "room" / "test_a.py").write_text(
        "from qbhkit.room.a import one\n\n\ndef test_one():\n    assert one() == 1\n"
    )
    return root


def test_a_run_tells_killed_from_survived_and_goes_on(checkout, tmp_path, monkeypatch):
    run = Run(tmp_path / "cache", checkout)
    drawn = sample(run.tree, 10, 0)
    assert len(drawn) == 4
    for mutant in drawn[::2]:
        run.meet(mutant)
    assert list(run.state["killed"].values()) == [True, False]
    again = Run(tmp_path / "cache", checkout)  # the state is there; nothing is tested anew
    monkeypatch.setattr(bench_mutants, "outcome", None)
    for mutant in drawn[::2]:
        again.meet(mutant)
    assert again.state == run.state
    after = Run(tmp_path / "cache", checkout, again=True)
    assert list(after.state["killed"].values()) == [True]


def test_tests_that_fail_without_a_change_are_named(checkout, tmp_path):
    (checkout / "tests" / "room" / "test_a.py").write_text("def test_one():\n    assert False\n")
    run = Run(tmp_path / "cache", checkout)
    with pytest.raises(QbhError, match=r"test_a\.py"):
        run.meet(sample(run.tree, 1, 0)[0])
