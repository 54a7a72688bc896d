import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import catalogue_of, clustered

from qbhkit.catalogue.memmap import StackedArrays
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.retrieval import index as index_module
from qbhkit.retrieval.index import ExactIndex, Nearest, best_of, build_index, open_index


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


@pytest.mark.parametrize(
    ("dtype", "share", "most_single_bytes", "block_rows"),
    [
        (np.float32, 1.0, 1 << 30, 4096),
        (np.float16, 0.5, 1 << 30, 7),
        (np.float32, 0.1, 0, 7),
        (np.float16, 0.0, 0, 4096),
    ],
)
def test_best_windows_equal_a_naive_loop(dtype, share, most_single_bytes, block_rows, monkeypatch):
    monkeypatch.setattr(index_module, "_MOST_SINGLE_BYTES", most_single_bytes)
    monkeypatch.setattr(index_module, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(index_module, "_MOST_QUERIES", 3)  # of five, at a time
    rng = np.random.default_rng(3)
    song = np.sort(rng.integers(0, 12, 60))
    vectors, queries = unit_rows(rng, 60, dtype=dtype), unit_rows(rng, 5)
    admitted = rng.random(60) < share
    found = ExactIndex(vectors, song, 12).only(admitted).best_windows(queries)
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


def test_some_windows_keep_their_names():
    rng = np.random.default_rng(4)
    vectors, queries = unit_rows(rng, 20), unit_rows(rng, 3)
    index = ExactIndex(vectors, np.repeat(np.arange(4), 5), 4)
    songs = index.of_songs(np.array([3, 1]))
    assert songs.rows.tolist() == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]
    whole, some = index.best_windows(queries), songs.best_windows(queries)
    np.testing.assert_array_equal(some.similarity[:, [1, 3]], whole.similarity[:, [1, 3]])
    np.testing.assert_array_equal(some.row[:, [1, 3]], whole.row[:, [1, 3]])
    assert (some.similarity[:, [0, 2]] == -1).all()
    np.testing.assert_array_equal(songs.nearest(vectors[5:6], 1).row, [[5]])
    assert songs.only(songs.rows % 7 == 5).rows.tolist() == [5, 19]
    assert len(index.of_songs(np.zeros(0, int)).rows) == 0


def test_the_best_of_a_list_bounds_the_songs_that_it_does_not_name():
    near = Nearest(
        np.array([[0.9, 0.8, 0.7], [0.6, -1, -1]], np.float32),
        np.array([[4, 5, 0], [2, -1, -1]]),
    )
    best = best_of(near, np.array([0, 0, 1, 2, 2, 2]), 4)
    np.testing.assert_allclose(best.similarity, [[0.7, 0.7, 0.9, 0.7], [-1, 0.6, -1, -1]])
    assert best.row.tolist() == [[0, -1, 4, -1], [-1, 2, -1, -1]]


def test_of_equal_windows_the_first_is_named():
    vector = unit_rows(np.random.default_rng(9), 1)
    vectors = np.repeat(vector, 6, axis=0)
    found = ExactIndex(vectors, np.array([0, 0, 0, 1, 1, 1]), 2).best_windows(vector)
    assert found.row.tolist() == [[0, 3]]
    assert found.similarity[0, 0] == found.similarity[0, 1]
    later = np.array([False, True, True, False, False, True])
    some = ExactIndex(vectors, np.array([0, 0, 0, 1, 1, 1]), 2).only(later)
    assert some.best_windows(vector).row.tolist() == [[1, 5]]
    assert some.nearest(vector, 2).row.tolist() == [[1, 2]]


@pytest.mark.parametrize("song", [np.zeros(2, int), np.array([0, 2, 1])])
def test_malformed_input_is_refused(song):
    with pytest.raises(QbhError, match="rising song numbers"):
        ExactIndex(np.zeros((3, 2)), song, 3)


def naive_nearest(vectors, queries, k):
    """Sort all windows for every query."""
    dots = queries.astype(np.float32) @ vectors.astype(np.float32).T
    order = np.argsort(-dots, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(dots, order, axis=1), order


@pytest.mark.parametrize(
    ("dtype", "block_rows", "most_single_bytes"),
    [(np.float16, 7, 0), (np.float16, 1000, 1 << 30), (np.float32, 7, 1 << 30)],
)
def test_nearest_equals_a_naive_sort(dtype, block_rows, most_single_bytes, monkeypatch):
    monkeypatch.setattr(index_module, "_MOST_SINGLE_BYTES", most_single_bytes)
    monkeypatch.setattr(index_module, "_BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(10)
    vectors, queries = unit_rows(rng, 50, dtype=dtype), unit_rows(rng, 6)
    found = ExactIndex(vectors, np.arange(50), 50).nearest(queries, 9)
    similarity, row = naive_nearest(vectors, queries, 9)
    assert (found.similarity.dtype, found.row.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(found.row, row)
    np.testing.assert_allclose(found.similarity, similarity, atol=1e-6)


def test_more_windows_asked_for_than_there_are_or_nothing_asked():
    vectors = unit_rows(np.random.default_rng(11), 3)
    index = ExactIndex(vectors, np.arange(3), 3)
    found = index.nearest(vectors[:2], 5)
    assert found.row.shape == (2, 5)
    assert sorted(found.row[0, :3]) == [0, 1, 2]
    assert found.row[:, 3:].tolist() == found.similarity[:, 3:].tolist() == [[-1, -1]] * 2
    assert index.nearest(np.zeros((0, 8)), 3).row.shape == (0, 3)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.zeros((2, 7)), 1, r"queries of shape \(Q, 8\), not \(2, 7\)"),
        (np.zeros(8), 1, r"queries of shape \(Q, 8\), not \(8,\)"),
        (np.full((1, 8), np.inf), 1, "NaN or infinite"),
        (np.zeros((1, 8)), 0, "1 window or more, not 0"),
    ],
)
def test_queries_that_are_none_are_refused(queries, k, message):
    index = ExactIndex(unit_rows(np.random.default_rng(15), 4), np.arange(4), 4)
    with pytest.raises(QbhError, match=message):
        index.nearest(queries, k)


def mapped(path, vectors, mode="r"):
    np.save(path, vectors)
    return np.load(path, mmap_mode=mode)


def resident_kb(path):
    """What a process holds of a file that it has mapped, as Linux tells."""
    blocks = Path("/proc/self/smaps").read_text().split(str(path))[1:]
    return sum(int(block.split("Rss:")[1].split()[0]) for block in blocks)


def test_a_memory_map_is_searched_but_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "_MOST_SINGLE_BYTES", 0)
    monkeypatch.setattr(index_module, "_BLOCK_ROWS", 1000)
    vectors = unit_rows(np.random.default_rng(16), 20_000, 32, np.float16)
    file = tmp_path / "vectors.npy"
    index = ExactIndex(mapped(file, vectors), np.arange(20_000), 20_000)
    found = index.nearest(vectors[:3], 4)
    np.testing.assert_array_equal(found.row, naive_nearest(vectors, vectors[:3], 4)[1])
    candidates = np.arange(0, 15_000, 5).reshape(3, 1000)
    some = index_module.rescored(index.vectors, vectors[:3].astype(np.float32), candidates, 4)
    assert (some.row % 5 == 0).all()
    if sys.platform == "linux":
        assert resident_kb(file) < 100  # of 1280
        index.vectors.sum()
        assert resident_kb(file) > 1000  # so it can be seen


def test_changes_to_a_private_memory_map_are_not_lost(tmp_path):
    rows = unit_rows(np.random.default_rng(17), 20, dtype=np.float16)
    vectors = mapped(tmp_path / "vectors.npy", rows, "c")
    vectors[0] = vectors[5]
    index_module.checksum(vectors)
    np.testing.assert_array_equal(vectors[0], vectors[5])


def test_candidates_are_scored_again_and_none_is_invented():
    rng = np.random.default_rng(18)
    vectors, queries = unit_rows(rng, 30, dtype=np.float16), unit_rows(rng, 2)
    candidates = np.array([[3, 9, -1, 4], [-1, -1, -1, -1]])
    found = index_module.rescored(vectors, queries, candidates, 5)
    stacked = index_module.rescored(
        StackedArrays([vectors[:9], vectors[9:]]), queries, candidates, 5
    )
    np.testing.assert_array_equal(stacked.row, found.row)
    dots = {row: float(queries[0] @ vectors[row].astype(np.float32)) for row in (3, 9, 4)}
    best = sorted(dots, key=lambda row: -dots[row])
    assert found.row.tolist() == [[*best, -1, -1], [-1] * 5]
    np.testing.assert_allclose(found.similarity[0, :3], [dots[row] for row in best], atol=1e-6)
    assert (found.similarity[found.row < 0] == -1).all()


def test_the_registry_builds_and_opens():
    catalogue = catalogue_of(clustered(30, 16))
    for index in (build_index("exact", catalogue), open_index("exact", catalogue)):
        assert index.name == "exact"
        assert index.nearest(catalogue.vectors[4:5], 1).row.tolist() == [[4]]
    with pytest.raises(QbhError, match="no index 'annoy': use one of exact, faiss, postgres"):
        open_index("annoy", catalogue)


@pytest.mark.parametrize(("name", "package"), [("faiss", "faiss"), ("postgres", "psycopg")])
def test_a_missing_package_is_named(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=f"The index {name} is not installed: pip"):
        build_index(name, catalogue_of(clustered(30, 16)))
