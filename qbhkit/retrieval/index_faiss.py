"""Approximate search in memory with FAISS (MIT); its candidates are scored again exactly.

Vectors are reduced by PCA and stored with a byte a number in a graph (HNSW). Of very many windows,
where a graph is slow to build, inverted lists of product-quantised vectors (IVF-PQ) are searched.
The full vectors are read for the best candidates only, so they may be memory-mapped.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
    """How vectors are reduced, kept and searched.

    Args:
        kind: ``flat`` compares all windows, in half precision; by the number of windows if None.
        flat_up_to: number of windows up to which the kind is ``flat``.
        hnsw_up_to: number of windows up to which it is ``hnsw``; beyond, ``ivf-pq``.
        size: numbers that PCA keeps of a vector.
        sample: windows that PCA and quantisers are trained on.
        neighbours: of a window in the graph; twice as many in its lowest layer.
        effort_build: candidates kept while the graph is built (``efConstruction``).
        effort: candidates kept while it is searched (``efSearch``).
        lists: inverted lists; 4 times the root of the number of windows if None.
        probes: lists that are read; an eighth of them, and 512 at least, if None.
        pq_parts: into which product quantisation divides a vector; each takes half a byte.
        candidates: windows of a query that are scored exactly; 4 for each window asked for if that
            is more.
    """

    kind: Kind | None = None
    flat_up_to: int = 10_000
    hnsw_up_to: int = 300_000
    size: int = 128
    sample: int = 100_000
    neighbours: int = 16
    effort_build: int = 100
    effort: int = 400
    lists: int | None = None
    probes: int | None = None
    pq_parts: int = 64
    candidates: int = 400

    def kind_for(self, windows: int) -> Kind:
        """Return the kind of index for a number of windows."""
        if self.kind is not None:
            return self.kind
        if windows <= self.flat_up_to:
            return "flat"
        return "hnsw" if windows <= self.hnsw_up_to else "ivf-pq"


class FaissIndex:
    """Search windows approximately.

    Args:
        vectors: (W, D) in half precision, each of length 1; may be memory-mapped.
        index: of FAISS, over the same rows.
        choices: how it was built and is searched.
        threads: of a search; OpenMP's number if None.
    """

    name = "faiss"

    def __init__(
        self, vectors: Vectors, index: Any, choices: FaissChoices, threads: int | None = None
    ) -> None:
        self.vectors, self.index, self.choices, self.threads = vectors, index, choices, threads

    @classmethod
    def build(
        cls,
        catalogue: Catalogue,
        folder: Path | None = None,
        choices: FaissChoices | None = None,
        threads: int | None = None,
    ) -> "FaissIndex":
        """Build the index of a catalogue and write it; an older one is replaced at the end.

        Args:
            catalogue: its vectors are read block by block.
            folder: ``faiss`` in the catalogue's folder if None.
            choices: the defaults if None.
            threads: of the build and of later searches.

        Raises:
            QbhError: if a vector holds NaN, there are too few windows for the kind that is asked
                for, or another process writes an index there.
            MissingPackageError: if faiss is not installed.
        """
        choices, vectors = choices or FaissChoices(), catalogue.vectors
        folder = folder or catalogue.path / "faiss"
        source = checksum(vectors)
        with _threads(threads):
            index = _trained(vectors, choices)
        file = folder / f"{token_hex(8)}.faiss"  # the older one stays until the manifest names this
        with sole_writer(folder):
            with atomic_path(file) as part:
                try:
                    _faiss().write_index(index, str(part))
                except RuntimeError as error:
                    raise unwritten(file, error) from None
            head = {"format": FAISS_FORMAT, "vectors": source, "choices": asdict(choices)}
            manifest = head | {"file": file.name, "sha256": sha256_file(file)}
            write_json(folder / "manifest.json", manifest)
            for old in set(folder.glob("*.faiss")) - {file}:
                old.unlink()
        return cls(vectors, index, choices, threads)

    @classmethod
    def open(
        cls, catalogue: Catalogue, folder: Path | None = None, threads: int | None = None
    ) -> "FaissIndex":
        """Open what :meth:`build` wrote; arguments as there.

        Raises:
            QbhError: if it is missing or damaged, or was built from other vectors.
            MissingPackageError: if faiss is not installed.
        """
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
        return cls(catalogue.vectors, index, choices, threads)

    def nearest(self, queries: NDArray, k: int) -> Nearest:
        """Find about the ``k`` nearest windows of each of (Q, D) vectors of length 1.

        Returns:
            Windows in the order of their exact cosines; a nearer one may have been missed.

        Raises:
            QbhError: if the queries have another shape or are not finite, or ``k`` is under 1.
        """
        windows, size = self.vectors.shape
        queries = checked_queries(queries, k, size)
        asked = min(windows, max(self.choices.candidates, _CANDIDATES_A_WINDOW * k))
        if not windows:
            return rescored(self.vectors, queries, np.empty((len(queries), 0), np.int64), k)
        with _threads(self.threads):
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


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set the number of threads that FAISS uses in the block."""
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
