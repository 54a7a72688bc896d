import numpy as np

from qbhkit.evaluation.benchmarks.bench_sets import ranks, variants
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
