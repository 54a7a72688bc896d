import numpy as np
import pytest

from qbhkit.errors import QbhError
from qbhkit.retrieval import index as index_module
from qbhkit.retrieval.index import ExactIndex


def unit_rows(rng, count, size=8, dtype=np.float32):
    rows = rng.normal(size=(count, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def naive(vectors, song, songs, queries, admitted):
    """Loop over queries and windows; the first of equal windows wins."""
    best = {}
    for q, query in enumerate(queries):
        for row, vector in enumerate(vectors):
            if not admitted[row]:
                continue
            dot = float(np.float32(query) @ np.float32(vector))
            key = (q, int(song[row]))
            if key not in best or dot > best[key][0] + 1e-7:
                best[key] = (dot, row)
    return best


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("most_single_bytes", [0, 1 << 30])
def test_best_windows_equal_a_naive_loop(dtype, share, most_single_bytes, monkeypatch):
    monkeypatch.setattr(index_module, "_MOST_SINGLE_BYTES", most_single_bytes)
    rng = np.random.default_rng(3)
    song = np.sort(rng.integers(0, 12, 60))
    vectors, queries = unit_rows(rng, 60, dtype=dtype), unit_rows(rng, 5)
    admitted = rng.random(60) < share
    found = ExactIndex(vectors, song, 12).best_windows(queries, admitted)
    expected = naive(vectors, song, 12, queries, admitted)
    assert found.similarity.shape == found.row.shape == (5, 12)
    for q in range(5):
        for s in range(12):
            if (q, s) in expected:
                dot, row = expected[q, s]
                assert found.similarity[q, s] == pytest.approx(dot, abs=1e-6)
                assert found.row[q, s] == row
            else:
                assert found.similarity[q, s] == -1


def test_all_windows_are_admitted_by_default():
    rng = np.random.default_rng(4)
    vectors, queries = unit_rows(rng, 20), unit_rows(rng, 3)
    index = ExactIndex(vectors, np.repeat(np.arange(4), 5), 4)
    plain, masked = index.best_windows(queries), index.best_windows(queries, np.ones(20, bool))
    np.testing.assert_array_equal(plain.similarity, masked.similarity)
    np.testing.assert_array_equal(plain.row, masked.row)


def test_a_window_finds_itself():
    vectors = unit_rows(np.random.default_rng(5), 30)
    song = np.repeat(np.arange(10), 3)
    found = ExactIndex(vectors, song, 10).best_windows(vectors)
    rows = np.arange(30)
    np.testing.assert_array_equal(found.row[rows, song], rows)
    np.testing.assert_allclose(found.similarity[rows, song], 1.0, atol=1e-6)
    np.testing.assert_array_equal(found.similarity.argmax(axis=1), song)


def test_blocks_do_not_change_the_answer(monkeypatch):
    rng = np.random.default_rng(6)
    vectors, queries = unit_rows(rng, 50), unit_rows(rng, 4)
    index = ExactIndex(vectors, np.sort(rng.integers(0, 9, 50)), 9)
    whole = index.best_windows(queries)
    monkeypatch.setattr(index_module, "_BLOCK_ROWS", 7)
    blocks = index.best_windows(queries)
    np.testing.assert_allclose(blocks.similarity, whole.similarity, atol=1e-6)
    np.testing.assert_array_equal(blocks.row, whole.row)


def test_no_admitted_window_at_all():
    vectors = unit_rows(np.random.default_rng(7), 6)
    index = ExactIndex(vectors, np.repeat([0, 1], 3), 2)
    found = index.best_windows(vectors[:2], np.zeros(6, bool))
    np.testing.assert_array_equal(found.similarity, np.full((2, 2), -1))


def test_songs_without_windows_get_minus_one():
    vectors = unit_rows(np.random.default_rng(8), 4)
    found = ExactIndex(vectors, np.array([1, 1, 3, 3]), 5).best_windows(vectors[:1])
    assert found.similarity[0, [0, 2, 4]].tolist() == [-1, -1, -1]
    assert found.similarity[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_of_equal_windows_the_first_is_named():
    vector = unit_rows(np.random.default_rng(9), 1)
    vectors = np.repeat(vector, 6, axis=0)
    found = ExactIndex(vectors, np.array([0, 0, 0, 1, 1, 1]), 2).best_windows(vector)
    assert found.row.tolist() == [[0, 3]]
    assert found.similarity[0, 0] == found.similarity[0, 1]
    later = ExactIndex(vectors, np.array([0, 0, 0, 1, 1, 1]), 2).best_windows(
        vector, np.array([False, True, True, False, False, True])
    )
    assert later.row.tolist() == [[1, 5]]


@pytest.mark.parametrize(
    ("vectors", "song"),
    [
        (np.zeros(4), np.zeros(4, int)),
        (np.zeros((4, 2)), np.zeros(3, int)),
        (np.zeros((3, 2)), np.array([0, 2, 1])),
    ],
)
def test_malformed_input_is_refused(vectors, song):
    with pytest.raises(QbhError, match="rising song numbers"):
        ExactIndex(vectors, song, 3)


def test_many_queries_are_searched_in_parts_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(3)
    index = ExactIndex(rng.normal(size=(40, 8)).astype(np.float32), np.repeat(np.arange(8), 5), 8)
    queries = rng.normal(size=(11, 8))
    whole = index.best_windows(queries)
    monkeypatch.setattr("qbhkit.retrieval.index._MOST_QUERIES", 3)
    parts = index.best_windows(queries)
    np.testing.assert_allclose(parts.similarity, whole.similarity, rtol=1e-6)
    np.testing.assert_array_equal(parts.row, whole.row)
