"""Approximate search in memory with FAISS (MIT); its candidates are scored again exactly.

A few windows are all compared (flat). More are reduced by PCA and stored in a graph (HNSW), or, as
a graph of very many is slow to build, in inverted lists of product-quantised vectors (IVF-PQ).
"""

from dataclasses import asdict, dataclass
from math import gcd
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.files import sole_writer
from qbhkit.catalogue.memmap import Vectors
from qbhkit.catalogue.read import Catalogue
from qbhkit.config import build_config
from qbhkit.errors import QbhError, missing_package
from qbhkit.retrieval.index import Nearest, checked_queries, checksum, rescored
from qbhkit.storage import atomic_path, read_json, sha256_file, unwritten, write_json

FAISS_FORMAT = 1
_CURE = "build the index again with 'qbhkit catalogue index CATALOGUE'"
_BLOCK_ROWS = 65536  # added at a time: 128 MB as float32 at 512 numbers each
_POINTS_A_LIST = 39  # fewer make k-means unreliable
_FEWEST = 256  # windows that an index can be trained on
_CANDIDATES_A_WINDOW = 4

Kind = Literal["flat", "hnsw", "ivf-pq"]


@dataclass(frozen=True)
class FaissChoices:
    """How vectors are reduced, kept and searched."""

    kind: Kind | None = None  # flat compares all windows; by the number of windows if None
    flat_up_to: int = 10_000  # windows
    hnsw_up_to: int = 300_000  # windows; beyond, ivf-pq
    size: int = 128  # numbers that PCA keeps of a vector
    sample: int = 100_000  # windows to train PCA and quantisers on; at least 39 a list
    neighbours: int = 16  # of a window in the graph
    effort_build: int = 100  # candidates kept while the graph is built (efConstruction)
    effort: int = 400  # candidates kept while it is searched (efSearch)
    lists: int | None = None  # inverted lists; 4 times the root of the number of windows if None
    probes: int | None = None  # lists that are read; an eighth of them, and 512 at least, if None
    pq_parts: int = 64  # into which product quantisation divides a vector, half a byte each
    candidates: int = 400  # windows that are scored exactly; at least 4 for each one asked for

    def kind_for(self, windows: int) -> Kind:
        """Return the kind of index for a number of windows."""
        if self.kind is not None:
            return self.kind
        if windows <= self.flat_up_to:
            return "flat"
        return "hnsw" if windows <= self.hnsw_up_to else "ivf-pq"


class FaissIndex:
    """Search (W, D) windows approximately, by an index of FAISS over the same rows."""

    name = "faiss"

    def __init__(self, vectors: Vectors, index: Any, choices: FaissChoices) -> None:
        self.vectors, self.index, self.choices = vectors, index, choices

    @classmethod
    def build(
        cls, catalogue: Catalogue, folder: Path | None = None, choices: FaissChoices | None = None
    ) -> "FaissIndex":
        """Build the index of a catalogue and write it; an older one is replaced at the end.

        Args:
            catalogue: its vectors are read block by block.
            folder: ``faiss`` in the catalogue's folder if None.
            choices: the defaults if None.

        Raises:
            QbhError: if a vector is not finite, there are too few windows for the kind asked for,
                or another process writes an index there.
        """
        choices, vectors = choices or FaissChoices(), catalogue.vectors
        folder = folder or catalogue.path / "faiss"
        source = checksum(vectors)
        index = _trained(vectors, choices)
        file = folder / f"{token_hex(8)}.faiss"  # the older one stays until the manifest names this
        with sole_writer(folder):
            with atomic_path(file) as part:
                try:
                    _faiss().write_index(index, str(part))
                except RuntimeError as error:
                    raise unwritten(file, error) from None
            manifest = {
                "format": FAISS_FORMAT, "vectors": source, "choices": asdict(choices),
                "file": file.name, "sha256": sha256_file(file),
            }  # fmt: skip
            write_json(folder / "manifest.json", manifest)
            for old in set(folder.glob("*.faiss")) - {file}:
                old.unlink()
        return cls(vectors, index, choices)

    @classmethod
    def open(cls, catalogue: Catalogue, folder: Path | None = None) -> "FaissIndex":
        """Open what :meth:`build` wrote; QbhError if it is missing, damaged or of other windows."""
        folder = folder or catalogue.path / "faiss"
        where = folder / "manifest.json"
        manifest = read_json(where, _CURE)
        try:
            version, source = manifest["format"], manifest["vectors"]
            file, digest = folder / Path(manifest["file"]).name, manifest["sha256"]
            stored = manifest["choices"]
        except (KeyError, TypeError):
            raise QbhError(f"{where} is damaged: {_CURE}.") from None
        if version != FAISS_FORMAT:
            raise QbhError(f"{where} has format {version}, not {FAISS_FORMAT}: {_CURE}.")
        choices = build_config(FaissChoices, stored, str(where))
        if source != checksum(catalogue.vectors):
            raise QbhError(f"{where} was made from other windows than {catalogue.path}: {_CURE}.")
        if not file.is_file():
            raise QbhError(f"{file} is missing: {_CURE}.")
        if sha256_file(file) != digest:
            raise QbhError(f"{file} is damaged (its checksum differs): {_CURE}.")
        try:
            index = _faiss().read_index(str(file))
        except RuntimeError:
            raise QbhError(f"{file} is not a FAISS index: {_CURE}.") from None
        if (index.ntotal, index.d) != catalogue.vectors.shape:
            raise QbhError(f"{file} holds other windows than {catalogue.path}: {_CURE}.")
        return cls(catalogue.vectors, index, choices)

    def nearest(self, queries: NDArray, k: int) -> Nearest:
        """Find the nearest windows approximately, in the order of their exact cosines."""
        windows, size = self.vectors.shape
        queries = checked_queries(queries, k, size)
        asked = min(windows, max(self.choices.candidates, _CANDIDATES_A_WINDOW * k))
        _, candidates = self.index.search(queries, asked, params=self._parameters(asked))
        return rescored(self.vectors, queries, candidates, k)

    def _parameters(self, asked: int) -> Any:
        faiss = _faiss()
        kind = self.choices.kind_for(len(self.vectors))
        if kind == "flat":
            return None
        if kind == "hnsw":
            how = faiss.SearchParametersHNSW(efSearch=max(self.choices.effort, asked))
        else:
            lists = faiss.extract_index_ivf(self.index).nlist
            how = faiss.SearchParametersIVF(nprobe=self.choices.probes or max(512, lists // 8))
        return faiss.SearchParametersPreTransform(index_params=how)


def _trained(vectors: Vectors, choices: FaissChoices) -> Any:
    """Train an index on a sample of the vectors and add all of them."""
    faiss = _faiss()
    windows, full = vectors.shape
    kind, size = choices.kind_for(windows), min(choices.size, full)
    lists = choices.lists or round(4 * windows**0.5)
    if kind == "flat":
        index = faiss.index_factory(full, "SQfp16")
    elif windows < max(_FEWEST, size):
        raise QbhError(
            f"{windows} windows are too few for {kind}, which needs {max(_FEWEST, size)}: let the "
            "kind be chosen by size."
        )
    elif kind == "hnsw":
        index = faiss.index_factory(full, f"PCA{size},HNSW{choices.neighbours}_SQ8")
        faiss.downcast_index(index.index).hnsw.efConstruction = choices.effort_build
    else:
        lists = min(lists, windows // _POINTS_A_LIST)
        parts = gcd(size, choices.pq_parts)
        index = faiss.index_factory(full, f"PCA{size},IVF{lists},PQ{parts}x4fs")
    if not index.is_trained:
        sample = max(choices.sample, _POINTS_A_LIST * lists if kind == "ivf-pq" else 0)
        rows = np.random.default_rng(0).permutation(windows)[:sample]
        index.train(_finite(vectors[np.sort(rows)]))
    for begin in range(0, windows, _BLOCK_ROWS):
        index.add(_finite(vectors[begin : begin + _BLOCK_ROWS]))
    return index


def _finite(vectors: NDArray) -> NDArray[np.float32]:
    if not np.isfinite(vectors).all():
        raise QbhError("A window's vector holds NaN or infinite values: build the catalogue again.")
    return np.ascontiguousarray(vectors, np.float32)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise missing_package("The index faiss", "faiss-cpu") from None
    return faiss
