"""Nearest windows among unit vectors: a protocol, a lazy registry, and exact search with NumPy."""

import hashlib
import mmap
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.memmap import Vectors
from qbhkit.errors import QbhError

if TYPE_CHECKING:
    from qbhkit.catalogue.read import Catalogue

# name -> "module:Class", imported when first used
INDEXES = {
    "exact": "qbhkit.retrieval.index:ExactIndex",
    "faiss": "qbhkit.retrieval.index_faiss:FaissIndex",
    "postgres": "qbhkit.retrieval.index_postgres:PostgresIndex",
}
_BLOCK_ROWS = 4096  # converted to float32 at a time: 8 MB at 512 numbers, which the allocator keeps
_BLOCKS_HELD = 32  # of a memory map, before its pages are released
_HASHED_ROWS = 65536  # at a time
_MOST_QUERIES = 64  # at a time: all their dot products are in memory at once
_MOST_SINGLE_BYTES = 1 << 29  # smaller indexes are converted to float32 once, which is faster


class Nearest(NamedTuple):
    """For each query vector: its nearest windows, best first."""

    similarity: NDArray[np.float32]  # (Q, k) cosines; -1 where there are fewer windows
    row: NDArray[np.int64]  # (Q, k) of the catalogue; -1 where there are fewer windows


class WindowIndex(Protocol):
    """An index of windows: a name and one method."""

    name: str

    def nearest(self, queries: NDArray, k: int) -> Nearest:
        """Find the ``k`` nearest windows of each of (Q, D) vectors of length 1."""
        ...


def build_index(name: str, catalogue: "Catalogue", **options: Any) -> WindowIndex:
    """Build an index of a catalogue's windows and keep it where :func:`open_index` finds it.

    Args:
        name: ``exact``, ``faiss`` or ``postgres``.
        catalogue: holds the windows; an older index of them is replaced.
        options: as the ``build`` method of its class takes them.

    Raises:
        QbhError: if there is no such index, its package is missing, or it cannot be written.

    Notebook: notebooks/08_catalogue_and_index.py
    """
    built: WindowIndex = _class_of(name).build(catalogue, **options)
    return built


def open_index(name: str, catalogue: "Catalogue", **options: Any) -> WindowIndex:
    """Open the index of a catalogue's windows.

    Args:
        name: ``exact``, ``faiss`` or ``postgres``.
        catalogue: what it was built from.
        options: as the ``open`` method of its class takes them.

    Raises:
        QbhError: if there is no such index, it is damaged, or it was built from other windows.

    Notebook: notebooks/08_catalogue_and_index.py
    """
    opened: WindowIndex = _class_of(name).open(catalogue, **options)
    return opened


def _class_of(name: str) -> Any:
    if name not in INDEXES:
        raise QbhError(f"There is no index {name!r}: use one of {', '.join(INDEXES)}.")
    module, cls = INDEXES[name].split(":")
    return getattr(import_module(module), cls)


def checked_queries(queries: NDArray, k: int, size: int) -> NDArray[np.float32]:
    """Return queries as (Q, size) float32; raise QbhError for a wrong shape, NaN or ``k`` < 1."""
    queries = np.asarray(queries)
    if queries.ndim != 2 or queries.shape[1] != size:
        raise QbhError(f"This index takes queries of shape (Q, {size}), not {queries.shape}.")
    if not np.isfinite(queries).all():
        raise QbhError("A query vector holds NaN or infinite values: was it embedded from silence?")
    if k < 1:
        raise QbhError(f"Ask an index for 1 window or more, not {k}.")
    return np.ascontiguousarray(queries, np.float32)


def rescored(
    vectors: Vectors, queries: NDArray[np.float32], candidates: NDArray[np.int64], k: int
) -> Nearest:
    """Choose the ``k`` nearest of (Q, C) candidate rows by their exact cosines; -1 is no row."""
    similarity = np.empty(candidates.shape, np.float32)
    for begin in range(0, len(queries), _MOST_QUERIES):
        some = slice(begin, begin + _MOST_QUERIES)
        chosen = _to_float32(vectors[np.maximum(candidates[some], 0)])
        _release(vectors)
        similarity[some] = np.einsum("qcd,qd->qc", chosen, queries[some])
    similarity[candidates < 0] = -np.inf
    order = np.lexsort((candidates, -similarity))[:, :k]
    best = np.take_along_axis(similarity, order, axis=1)
    return _padded(Nearest(best, np.take_along_axis(candidates, order, axis=1)), k)


def _padded(found: Nearest, k: int) -> Nearest:
    """Fill up to ``k`` columns; where there is no row, the similarity is -1."""
    missing = ((0, 0), (0, k - found.row.shape[1]))
    row = np.pad(found.row, missing, constant_values=-1)
    return Nearest(np.where(row < 0, np.float32(-1), np.pad(found.similarity, missing)), row)


def checksum(vectors: Vectors) -> str:
    """Return the SHA-256 of (W, D) vectors as 64 hex digits: it identifies a set of windows."""
    digest = hashlib.sha256(str(vectors.shape[1]).encode())
    for begin in range(0, len(vectors), _HASHED_ROWS):
        digest.update(np.ascontiguousarray(vectors[begin : begin + _HASHED_ROWS]).data)
        _release(vectors)
    return digest.hexdigest()


class BestWindows(NamedTuple):
    """For each query vector and song: the highest cosine, and the row that reached it."""

    similarity: NDArray[np.float32]  # (Q, songs); -1 where a song has no window
    row: NDArray[np.int64]  # (Q, songs) of the catalogue


class ExactIndex:
    """Search windows exactly; a memory map is read block by block at every search.

    Args:
        vectors: (W, D) float16 or float32, each of length 1, song after song.
        song: (W,) song number of each window, rising.
        songs: number of songs.
        rows: (W,) row of the catalogue of each window; 0 to W - 1 by default.
    """

    name = "exact"

    def __init__(
        self,
        vectors: Vectors,
        song: NDArray[np.int64],
        songs: int,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        if vectors.ndim != 2 or song.shape != vectors.shape[:1] or (np.diff(song) < 0).any():
            raise QbhError("An index needs (W, D) vectors and their rising song numbers (W,).")
        self.vectors = vectors
        self.song, self.songs = song, songs
        self.rows = np.arange(len(song)) if rows is None else rows
        self._present, self._first = np.unique(song, return_index=True)

    @classmethod
    def open(cls, catalogue: "Catalogue") -> "ExactIndex":
        """Return the index of a catalogue: its vectors as they are."""
        return cls(_held(catalogue.vectors), catalogue.song, len(catalogue.songs))

    build = open

    def only(self, chosen: NDArray[np.bool_]) -> "ExactIndex":
        """Return the index of some windows, chosen by (W,) booleans; their rows stay the same."""
        vectors = _held(self.vectors[np.flatnonzero(chosen)])
        _release(self.vectors)
        return ExactIndex(vectors, self.song[chosen], self.songs, self.rows[chosen])

    def of_songs(self, songs: NDArray[np.int64]) -> "ExactIndex":
        """Return the index of all windows of some songs (C,)."""
        wanted = np.zeros(self.songs, bool)
        wanted[songs] = True
        return self.only(wanted[self.song])

    def nearest(self, queries: NDArray, k: int) -> Nearest:
        """Find the nearest windows, see :class:`WindowIndex`; ties are in the order of rows."""
        queries = checked_queries(queries, k, self.vectors.shape[1])
        similarity = np.full((len(queries), k), -np.inf, np.float32)
        row = np.full((len(queries), k), -1, np.int64)
        for begin, block in self._blocks():
            for q, dots in enumerate(queries @ block.T):
                nearer = np.flatnonzero(dots > similarity[q, -1])
                values = np.concatenate([similarity[q], dots[nearer]])
                best = np.argsort(-values, kind="stable")[:k]
                similarity[q] = values[best]
                row[q] = np.concatenate([row[q], self.rows[begin + nearer]])[best]
        return _padded(Nearest(similarity, row), k)

    def best_windows(self, queries: NDArray) -> BestWindows:
        """Find the nearest window of every song for each of (Q, D) vectors of length 1."""
        if len(queries) > _MOST_QUERIES:
            parts = [
                self.best_windows(queries[begin : begin + _MOST_QUERIES])
                for begin in range(0, len(queries), _MOST_QUERIES)
            ]
            return BestWindows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        similarity = np.full((len(queries), self.songs), -1.0, np.float32)
        best = np.zeros((len(queries), self.songs), np.int64)
        if not len(self.song):
            return BestWindows(similarity, best)
        dots = np.empty((len(queries), len(self.song)), np.float32)
        queries = queries.astype(np.float32)
        for begin, block in self._blocks():
            dots[:, begin : begin + len(block)] = queries @ block.T
        present, first = self._present, self._first
        similarity[:, present] = np.maximum.reduceat(dots, first, axis=1)
        best[:, present] = self.rows[_first_hit(dots, first, similarity[:, present])]
        return BestWindows(similarity, best)

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the first place and the vectors of each block; the next block overwrites them."""
        buffer = np.empty((_BLOCK_ROWS, self.vectors.shape[1]), np.float32)
        for number, begin in enumerate(range(0, len(self.song), _BLOCK_ROWS), 1):
            block = self.vectors[begin : begin + _BLOCK_ROWS]
            yield begin, _to_float32(block, buffer)
            if number % _BLOCKS_HELD == 0:
                _release(self.vectors)
        _release(self.vectors)


def _held(vectors: Vectors) -> Vectors:
    """Return vectors as float32, unless they would take too much memory."""
    small = vectors.size * 4 <= _MOST_SINGLE_BYTES
    return _to_float32(vectors[:]) if small else vectors


def best_of(near: Nearest, song: NDArray[np.int64], songs: int) -> BestWindows:
    """Return the best window of every song from lists of the nearest windows.

    A song that is not in the list gets the row -1 and, as an upper bound, the similarity of the
    list's last window.
    """
    last = near.similarity[:, -1:]
    best = BestWindows(np.repeat(last, songs, axis=1), np.full((len(last), songs), -1, np.int64))
    for q, (similarity, row) in enumerate(zip(*near, strict=True)):
        listed = row[row >= 0]
        found, place = np.unique(song[listed], return_index=True)  # a song's first is its best
        best.similarity[q, found] = similarity[row >= 0][place]
        best.row[q, found] = listed[place]
    return best


def _first_hit(dots: NDArray, first: NDArray, highest: NDArray) -> NDArray[np.int64]:
    """Return (Q, songs) the column of the first dot product that equals its song's highest."""
    width = np.diff(np.append(first, dots.shape[1]))
    columns = np.arange(dots.shape[1])
    hit = np.where(dots == np.repeat(highest, width, axis=1), columns, dots.shape[1])
    return np.minimum.reduceat(hit, first, axis=1)


def _to_float32(block: NDArray, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Convert an array to float32, in the first rows of ``out``; return float32 as it is.

    Torch converts float16 several times as fast as NumPy; ``out`` saves the allocation.
    """
    if block.dtype != np.float16 or not block.flags.writeable:  # torch warns of read-only arrays
        return block.astype(np.float32, copy=False)
    import torch

    found = np.empty(block.shape, np.float32) if out is None else out[: len(block)]
    torch.from_numpy(found).copy_(torch.from_numpy(block))
    return found


def _release(vectors: Vectors) -> None:
    """Release the pages of memory maps: they remain in the system's cache, not in the process."""
    for part in getattr(vectors, "parts", [vectors]):
        base = part
        while isinstance(base, np.ndarray):
            base = base.base
        saved = not part.flags.writeable  # pages of a writable map may not be saved yet
        if isinstance(base, mmap.mmap) and saved and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)
