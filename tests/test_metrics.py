import json

import numpy as np
import pytest

from qbhkit.metrics import (
    LabelledQuery,
    comparable_to,
    intervals,
    metrics,
    pair_mrr,
    paired_difference,
    rank_of,
    summarise,
)

RANKS = [1, 2, 5, 6, 10, 11, None, 1]


@pytest.mark.parametrize(
    ("scores", "ranks"),
    [
        ([0.1, 0.9, 0.5], [3, 1, 2]),
        ([0.5, 0.5, 0.5, 0.1], [3, 3, 3, 4]),  # ties count against us
        ([np.nan, -np.inf, 0.2, -3.0], [None, None, 1, 2]),
    ],
)
def test_the_rank_of_each_song(scores, ranks):
    assert [rank_of(np.array(scores), song) for song in range(len(scores))] == ranks


def test_metrics_against_hand_numbers():
    *found, mrr = metrics(RANKS)
    assert found == [8, 2 / 8, 4 / 8, 6 / 8]
    assert mrr == pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 10 + 1 / 11 + 0 + 1) / 8)
    assert metrics([]) == (0, 0, 0, 0, 0)
    assert metrics([None, None]) == (2, 0, 0, 0, 0)
    assert intervals([]) == {}


def bootstrap(values, seed):
    """The definition of the interval: resample, resample by resample."""
    values, rng = np.array(values, float), np.random.default_rng(seed)
    draws = rng.integers(0, len(values), (2000, len(values)))
    return pytest.approx(np.quantile([values[draw].mean() for draw in draws], [0.025, 0.975]))


def test_intervals_equal_a_naive_loop():
    for seed, found in ((3, intervals(RANKS, 3)), (0, intervals(RANKS))):
        for k in (1, 5, 10):
            assert found[f"top{k}"] == bootstrap([bool(r and r <= k) for r in RANKS], seed)
        assert found["mrr"] == bootstrap([1 / r if r else 0 for r in RANKS], seed)


@pytest.mark.parametrize(("k", "gain"), [(1, 1 / 8), (5, 2 / 8), (10, 2 / 8)])
def test_a_paired_difference_equals_a_naive_loop(k, gain):
    others = [1, 9, 12, 6, 2, 11, None, 20]
    differences = [
        bool(one and one <= k) - bool(other and other <= k)
        for one, other in zip(RANKS, others, strict=True)
    ]
    found = paired_difference(RANKS, others, k, seed=4)
    assert found[0] == gain == np.mean(differences)
    assert found[1:] == bootstrap(differences, 4)
    assert paired_difference(RANKS, others) == paired_difference(RANKS, others, 1, 0)


def test_pair_mrr_leaves_out_ignored_references():
    rng = np.random.default_rng(2)
    references = rng.normal(size=(30, 6))
    queries = references[:25] + rng.normal(size=(25, 6))
    ignored = rng.random((25, 30)) < 0.3  # some rows ignore their own: it counts all the same
    total = 0.0
    for k in range(25):
        others = [j for j in range(30) if j != k and not ignored[k, j]]
        total += 1 / (
            1 + sum(queries[k] @ references[j] >= queries[k] @ references[k] for j in others)
        )
    found = pair_mrr(queries, references, ignored)
    assert found == pytest.approx(total / 25)
    assert found > pair_mrr(queries, references) == pair_mrr(queries, references, ignored & False)
    assert pair_mrr(np.eye(4), np.eye(4)) == 1
    assert pair_mrr(np.ones((4, 3)), np.ones((4, 3))) == 0.25  # all tied: all last


def test_hums_of_one_singer_are_drawn_together():
    """Two singers, of whom one is always found: the share is 0, a half or 1."""
    ranks, singers = [1] * 50 + [None] * 50, ["a"] * 50 + ["b"] * 50
    low, high = intervals(ranks)["top1"]
    assert 0.35 < low < 0.5 < high < 0.65
    assert intervals(ranks, groups=singers)["top1"] == [0, 1]
    alone = intervals(ranks, groups=[str(k) for k in range(100)])
    assert alone["mrr"] == pytest.approx([low, high], abs=0.03)
    queries = [LabelledQuery(f"{k}.wav", "s", singer) for k, singer in enumerate(singers)]
    assert summarise(ranks, queries)["intervals_by_singer"]["mrr"] == [0, 1]


def test_the_summary_is_plain_json():
    queries = [LabelledQuery(f"{k}.wav", "ab"[k % 2], None) for k in range(8)]
    block = summarise(RANKS, queries)
    assert set(block) == {
        "n", "top1", "top5", "top10", "mrr", "intervals", "ranks", "per_song",
    }  # fmt: skip
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    assert block["ranks"] == RANKS
    assert block["intervals"] == intervals(RANKS)
    assert block["per_song"]["a"]["n"] == 4
    assert block["per_song"]["b"]["top1"] == 1 / 4


def test_the_summary_groups_by_singer_where_singers_are_known():
    queries = [LabelledQuery("x.wav", "a", singer) for singer in (None, "ann", "ann")]
    singers = summarise([2, 1, None], queries)["per_singer"]
    assert list(singers) == ["ann", "unknown"]
    assert (singers["ann"]["top1"], singers["unknown"]["mrr"]) == (0.5, 0.5)


def test_the_sentence_names_songs_and_where_matches_may_begin():
    assert "at the beginning of the songs, in a closed set of 48" in comparable_to(48, "start")
    assert "anywhere in the songs, in a closed set of 48" in comparable_to(48, "anywhere")
