"""Nearest windows of every song: exact search over unit vectors with NumPy."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.errors import QbhError

_BLOCK_ROWS = 16384  # half-precision rows turned to single at a time: 32 MB at 512
_MOST_QUERIES = 64  # at a time: all their dot products are held at once
_MOST_SINGLE_BYTES = 1 << 30  # smaller indexes are turned to single once: faster


class BestWindows(NamedTuple):
    """For each query vector and song: the highest cosine, and the row that reached it."""

    similarity: NDArray[np.float32]  # (Q, songs); -1 where a song has no admitted window
    row: NDArray[np.int64]  # (Q, songs)


class ExactIndex:
    """Search all windows exactly.

    Args:
        vectors: (W, D) float16 or float32, each of length 1, the windows of a song in a row.
        song: (W,) song number of each window, rising.
        songs: number of songs.

    Raises:
        QbhError: if the shapes do not fit or songs are not in order.
    """

    def __init__(self, vectors: NDArray, song: NDArray[np.int64], songs: int) -> None:
        if vectors.ndim != 2 or song.shape != vectors.shape[:1] or (np.diff(song) < 0).any():
            raise QbhError("An index needs (W, D) vectors and their rising song numbers (W,).")
        small = vectors.size * 4 <= _MOST_SINGLE_BYTES
        self.vectors = vectors.astype(np.float32) if small else vectors
        self.song, self.songs = song, songs

    def best_windows(
        self, queries: NDArray, admitted: NDArray[np.bool_] | None = None
    ) -> BestWindows:
        """Find the best window of every song for every query vector.

        Args:
            queries: (Q, D), each of length 1.
            admitted: (W,) windows that may be found; all by default.

        Returns:
            Similarities and rows (Q, songs).
        """
        if len(queries) > _MOST_QUERIES:
            parts = [
                self.best_windows(queries[begin : begin + _MOST_QUERIES], admitted)
                for begin in range(0, len(queries), _MOST_QUERIES)
            ]
            return BestWindows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        vectors, song = self.vectors, self.song
        if admitted is not None:
            vectors, song = vectors[admitted], song[admitted]
        similarity = np.full((len(queries), self.songs), -1.0, np.float32)
        best = np.zeros((len(queries), self.songs), np.int64)
        if not len(song):
            return BestWindows(similarity, best)
        dots = np.empty((len(queries), len(song)), np.float32)
        queries = queries.astype(np.float32)
        for begin in range(0, len(song), _BLOCK_ROWS):
            block = vectors[begin : begin + _BLOCK_ROWS].astype(np.float32, copy=False)
            dots[:, begin : begin + len(block)] = queries @ block.T
        present, first = np.unique(song, return_index=True)
        similarity[:, present] = np.maximum.reduceat(dots, first, axis=1)
        found = _first_hit(dots, first, similarity[:, present])
        best[:, present] = found if admitted is None else np.flatnonzero(admitted)[found]
        return BestWindows(similarity, best)


def _first_hit(dots: NDArray, first: NDArray, highest: NDArray) -> NDArray[np.int64]:
    """(Q, songs) column of the first dot product that equals its song's highest."""
    width = np.diff(np.append(first, dots.shape[1]))
    columns = np.arange(dots.shape[1])
    hit = np.where(dots == np.repeat(highest, width, axis=1), columns, dots.shape[1])
    return np.minimum.reduceat(hit, first, axis=1)
