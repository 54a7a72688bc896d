"""Open a catalogue for searching: the contours, windows and vectors of many songs."""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.files import CURE, SongEntry, read_manifest, read_shard
from qbhkit.catalogue.memmap import StackedArrays, Vectors
from qbhkit.contour import CONTOUR_HOP_S, Contour
from qbhkit.embedding.windows import WindowGrid
from qbhkit.errors import QbhError

_MOST_IN_MEMORY = 1 << 18  # windows: 256 MB at 512 half-precision numbers each


@dataclass(frozen=True, eq=False)
class Catalogue:
    """An opened catalogue: its songs, their contours, and their W windows."""

    path: Path
    model: str  # identity of the weights that embedded it
    tracker: str  # identity of the tracker for recordings
    grid: WindowGrid
    songs: list[SongEntry]
    contours: list[Contour]
    vectors: Vectors  # (W, D) float16, memory-mapped if there are more than 262,144 windows
    song: NDArray[np.int64]  # (W,) song number
    start_s: NDArray[np.float64]  # (W,)
    end_s: NDArray[np.float64]  # (W,)
    at_start: NDArray[np.bool_]  # (W,) begins at the song's first note

    @cached_property
    def number(self) -> dict[str, int]:
        """The number of each song by its id."""
        return {entry["id"]: k for k, entry in enumerate(self.songs)}


def open_catalogue(path: str | PathLike[str]) -> Catalogue:
    """Open a catalogue for searching, and check all its files.

    Args:
        path: its folder.

    Raises:
        QbhError: if it is missing, unfinished, of another format, or a file is damaged.

    Notebook: notebooks/00_hum_to_song.py, notebooks/08_catalogue_and_index.py
    """
    path = Path(path)
    while True:
        manifest = read_manifest(path)
        mapped = manifest.windows > _MOST_IN_MEMORY
        try:
            shards = [read_shard(path, entry, mapped) for entry in manifest.shards]
            break
        except QbhError:
            if read_manifest(path) == manifest:
                raise
            # Another process replaced the catalogue meanwhile: read the new manifest.
    parts = [shard.vectors for shard in shards]
    if len({shard.vectors.shape[1] for shard in shards}) > 1:
        raise QbhError(f"{path} is damaged (its vectors differ in size): {CURE}.")
    firsts = np.cumsum([0, *(len(shard.songs) for shard in shards[:-1])])
    return Catalogue(
        path,
        manifest.model,
        manifest.tracker,
        manifest.grid,
        [entry for shard in shards for entry in shard.songs],
        [contour for shard in shards for contour in shard.contours],
        StackedArrays(parts) if mapped else np.concatenate(parts),
        np.concatenate([shard.song + first for shard, first in zip(shards, firsts, strict=True)]),
        np.concatenate([shard.start for shard in shards]) * CONTOUR_HOP_S,
        np.concatenate([shard.end for shard in shards]) * CONTOUR_HOP_S,
        np.concatenate([shard.at_start for shard in shards]),
    )
