import json
from dataclasses import replace

import faiss
import numpy as np
import pytest
from conftest import catalogue_of, clustered

from qbhkit.catalogue.files import sole_writer
from qbhkit.errors import QbhError
from qbhkit.retrieval.index import build_index, open_index
from qbhkit.retrieval.index_faiss import FaissChoices, FaissIndex

# Few windows want few lists, or k-means has nothing to learn from.
SMALL = FaissChoices(size=32, sample=2000, lists=16, probes=16, pq_parts=32)


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    catalogue = catalogue_of(clustered(3000, 48))
    return replace(catalogue, path=tmp_path_factory.mktemp("windows"))


@pytest.fixture(scope="module")
def queries():
    return clustered(40, 48, seed=1).astype(np.float32)


def recall(found, exact):
    """Windows as near as the last of the true ones count as found, whichever they are."""
    return (found.similarity >= exact.similarity[:, -1:] - 1e-5).mean()


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("hnsw", 0.98), ("ivf-pq", 0.95)])
def test_every_kind_finds_what_exact_search_finds(kind, least, windows, queries, tmp_path):
    index = FaissIndex.build(windows, tmp_path, replace(SMALL, kind=kind))
    found = index.nearest(queries, 10)
    exact = open_index("exact", windows).nearest(queries, 10)
    assert recall(found, exact) >= least
    dots = queries @ windows.vectors.astype(np.float32).T
    np.testing.assert_allclose(
        found.similarity, np.take_along_axis(dots, found.row, axis=1), atol=1e-5
    )
    assert (np.diff(found.similarity) <= 0).all()
    assert all(len(set(row)) == 10 for row in found.row.tolist())
    if kind != "flat":
        inner = faiss.downcast_index(index.index.index)
        assert isinstance(inner, {"hnsw": faiss.IndexHNSW, "ivf-pq": faiss.IndexIVF}[kind])
        assert (index.index.d, inner.d, index.index.ntotal) == (48, 32, 3000)


def test_the_kind_follows_the_number_of_windows():
    choices = FaissChoices(flat_up_to=10, hnsw_up_to=20)
    assert [choices.kind_for(count) for count in (0, 10, 11, 20, 21)] == [
        "flat", "flat", "hnsw", "hnsw", "ivf-pq",
    ]  # fmt: skip
    assert replace(choices, kind="flat").kind_for(10**9) == "flat"


def test_tiny_indexes(tmp_path):
    catalogue = replace(catalogue_of(clustered(5, 48)), path=tmp_path)
    for index in (build_index("faiss", catalogue), open_index("faiss", catalogue)):
        found = index.nearest(clustered(3, 48, seed=2), 7)
        assert found.row.shape == (3, 7)
        assert (np.sort(found.row[:, :5]) == np.arange(5)).all()
        assert (found.row[:, 5:] == -1).all()
        assert (found.similarity[:, 5:] == -1).all()
        assert index.nearest(np.zeros((0, 48)), 7).row.shape == (0, 7)


def test_more_is_asked_for_than_a_graph_keeps_in_sight(windows, queries, tmp_path):
    choices = replace(SMALL, kind="hnsw", effort=10, candidates=10)
    found = FaissIndex.build(windows, tmp_path, choices).nearest(queries[:2], 400)
    exact = open_index("exact", windows).nearest(queries[:2], 400)
    assert recall(found, exact) > 0.98


@pytest.fixture
def built(windows, tmp_path):
    """A catalogue with an index beside its vectors."""
    catalogue = replace(windows, path=tmp_path)
    build_index("faiss", catalogue, choices=replace(SMALL, kind="hnsw"))
    return catalogue


def test_an_opened_index_answers_as_the_one_that_was_built(built, queries, tmp_path):
    index = open_index("faiss", built)
    assert index.choices == replace(SMALL, kind="hnsw")
    exact = open_index("exact", built).nearest(queries, 5)
    assert recall(index.nearest(queries, 5), exact) >= 0.98
    np.save(tmp_path / "vectors.npy", built.vectors)
    mapped = replace(built, vectors=np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    again = open_index("faiss", mapped)
    for one, other in zip(index.nearest(queries, 5), again.nearest(queries, 5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_windows_are_refused(built):
    changed = built.vectors.copy()
    changed[17] = changed[18]
    for vectors in (changed, built.vectors[:-1]):
        with pytest.raises(QbhError, match=r"made from other windows .* build the index again"):
            open_index("faiss", replace(built, vectors=vectors))


def test_damage_is_found(built):
    (file,) = (built.path / "faiss").glob("*.faiss")
    whole = file.read_bytes()
    for damaged in (bytes([whole[0] ^ 1]) + whole[1:], whole[:-100]):
        file.write_bytes(damaged)
        with pytest.raises(QbhError, match=f"{file.name} is damaged .* build the index again"):
            open_index("faiss", built)
    file.unlink()
    with pytest.raises(QbhError, match=f"{file.name} is missing: build the index again"):
        open_index("faiss", built)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99, not 1: build the index again"),
        ({"choices": {"effort": "much"}}, "effort"),
        ({"file": None}, "is damaged: build the index again"),
        ({"file": "../../other.faiss"}, r"faiss/other.faiss is missing"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(change, message, built):
    where = built.path / "faiss" / "manifest.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | change))
    with pytest.raises(QbhError, match=message):
        open_index("faiss", built)
    where.unlink()
    with pytest.raises(QbhError, match="does not exist: build the index again"):
        open_index("faiss", built)


def test_a_build_that_fails_leaves_the_older_index(built, monkeypatch):
    broken = built.vectors.copy()
    broken[2999, 3] = np.nan
    with pytest.raises(QbhError, match="NaN or infinite values: build the catalogue again"):
        build_index("faiss", replace(built, vectors=broken))
    monkeypatch.setattr(faiss, "write_index", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        build_index("faiss", built)
    folder = built.path / "faiss"
    with sole_writer(folder), pytest.raises(QbhError, match="is being written by another process"):
        build_index("faiss", built)
    assert open_index("faiss", built).index.ntotal == 3000
    assert len(list(folder.iterdir())) == 2


def test_a_new_build_takes_the_place_of_the_older_one(built):
    fewer = replace(built, vectors=built.vectors[:900])
    build_index("faiss", fewer)
    assert open_index("faiss", fewer).choices == FaissChoices()
    assert len(list((built.path / "faiss").iterdir())) == 2


def test_too_few_windows_to_learn_from(tmp_path):
    with pytest.raises(QbhError, match="200 windows are too few for hnsw, which needs 256"):
        FaissIndex.build(catalogue_of(clustered(200, 48)), tmp_path, replace(SMALL, kind="hnsw"))
