import json
from types import SimpleNamespace

import numpy as np
import pytest

from qbhkit.evaluation.benchmarks import bench_sets
from qbhkit.evaluation.benchmarks.bench_sets import QuerySet, ranks, variants
from qbhkit.retrieval.confidence import Case


def test_the_best_of_a_song_and_its_variants_is_ranked_among_the_wrong_songs():
    scores = np.array([0.3, 0.9, 0.8, 0.5, 0.5])
    cases = [Case(scores, 0), Case(scores, 0), Case(scores, 3), None]
    assert ranks(cases, [[], [2], [1, 4], []]) == [5, 2, 1, None]
    assert ranks([Case(scores, 3)], [[]]) == [4]  # a tie counts as better


def test_variants_are_those_that_both_filters_found():
    found = variants()
    assert "airdsAirs-book2-0369" in found["00014"]  # by alignment
    assert "essenFolksong-altdeu10-1" in found["00716"]  # by shared runs
    assert all(len(ids) == len(set(ids)) for ids in found.values())


def test_a_run_that_was_stopped_goes_on_after_the_last_method(tmp_path, monkeypatch):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path / "cache"))
    catalogue = SimpleNamespace(songs=["a", "b"], song=[0, 0, 1])
    asked = QuerySet("set", SimpleNamespace(catalogue=catalogue), "start", [], [], {})
    measured = []

    def scored(_asked, method, _rivals):
        if method == stopped_at:
            raise KeyboardInterrupt
        measured.append(method)
        return {"top1": 0.5, "top10": 1.0, "mrr": 0.7}

    monkeypatch.setattr(bench_sets, "sets", lambda *_: iter([asked]))
    monkeypatch.setattr(bench_sets, "scored", scored)
    words = ["sets", "--weights", "stage1", "--large", "0", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    every = [*bench_sets.RIVALS, *bench_sets.METHODS]
    stopped_at = every[2]
    with pytest.raises(KeyboardInterrupt):
        bench_sets.main()
    stopped_at = None
    bench_sets.main()
    assert measured == every  # each once
    found = json.loads((tmp_path / "sets.json").read_text())["sets"]["set"]
    assert (found["songs"], found["windows"], [*found["methods"]]) == (2, 3, every)
    bench_sets.main()
    assert measured == every * 2  # another run measures again
