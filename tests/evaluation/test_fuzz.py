"""Two thousand damaged files, and the worst ones by name: a reader refuses them in one sentence."""

import sys

import pytest

from qbhkit.evaluation.benchmarks import bench_fuzz
from qbhkit.evaluation.benchmarks.bench_fuzz import attacked, runs
from qbhkit.evaluation.benchmarks.fuzz_targets import TARGETS, Target
from qbhkit.evaluation.benchmarks.fuzzing import edited

INPUTS = 150  # a reader: 2,250 in all


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_are_refused_in_one_sentence(target):
    counts = attacked(target, INPUTS, seed=0)
    assert counts["inputs"] >= INPUTS
    assert 0 < counts["refused"] <= counts["inputs"]


def test_a_traceback_a_hang_and_a_glutton_would_be_found(tmp_path, monkeypatch):
    """The attack itself, on readers that fail."""
    readers = {
        "traceback": "int(path.read_bytes()[:3])",
        "wait": "__import__('time').sleep(60)",
        "hang": "sum(iter(int, 1))",
        "glutton": "bytes(2 << 30)",
        "crash": "__import__('os').abort()",
    }
    for name, body in readers.items():
        script = tmp_path / f"{name}.py"
        script.write_text(
            "from qbhkit.evaluation.benchmarks import fuzzing\n"
            "fuzzing.LONGEST_S = 0.5\n"
            "fuzzing.PATIENCE_S = 2\n"
            "calls = []\n"
            "def read(path):\n"
            "    calls.append(path)\n"
            f"    return len(calls) > 1 and {body}\n"
            "seeds = lambda folder: {'a': b'123'}\n"
            "fuzzing.TARGETS = {'bad': fuzzing.Target(seeds, read, 'x')}\n"
            "fuzzing.main()\n"
        )
        monkeypatch.setattr(bench_fuzz, "ATTACKER", [sys.executable, str(script)])
        with pytest.raises(AssertionError, match="died of"):
            attacked("bad", 50, 0)


def test_the_long_run_shares_its_inputs_among_all_readers():
    plan = list(runs(100_000))
    assert sum(count for _, count, _, _ in plan) >= 100_000
    assert {name for name, _, _, _ in plan} == set(TARGETS)
    assert any(guided for _, _, _, guided in plan)


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (("byte", 0.0, 0.0, 65), b"A123456789"),
        (("word", 0.5, 0.0, b"xy"), b"01234xy56789"),
        (("word", 0.5, 0.9, b"xy"), b"01234xy789"),
        (("cut", 0.0, 0.8, None), b"56789"),
        (("double", 0.0, 0.8, 1), b"0123401234" + b"56789"),
        (("swap", 0.0, 0.8, None), b"abcde56789"),
        (("end", 0.5, 0.0, None), b"01234"),
    ],
)
def test_edits(edit, wanted):
    assert edited(b"0123456789", b"abcdefghij", [edit]) == wanted


def test_words_are_those_of_the_format_and_the_common_ones():
    words = Target(lambda folder: {}, lambda path: None, r"a\x20b \xff").vocabulary()
    assert words[:2] == (b"a b", b"\xff")
    assert b"../../x" in words
