"""Open a catalogue for searching: the contours, windows and vectors of many songs.

A catalogue is a folder. Its ``manifest.json`` names the model, the tracker and the windows that it
was built with, and lists immutable shards of up to 256 songs (a recording has a shard of its own),
each named by a hash of its bytes. :mod:`~qbhkit.catalogue.build` builds catalogues,
:mod:`~qbhkit.catalogue.edit` adds and removes songs, merges and verifies.
"""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.files import CURE, read_manifest, read_shard
from qbhkit.catalogue.memmap import StackedArrays, Vectors
from qbhkit.contour import CONTOUR_HOP_S, Contour
from qbhkit.embedding.windows import WindowGrid
from qbhkit.errors import QbhError

_MOST_IN_MEMORY = 1 << 18  # windows: 256 MB at 512 half-precision numbers each


@dataclass(frozen=True, eq=False)
class Catalogue:
    """An opened catalogue: all songs with their contours and windows.

    Attributes:
        path: its folder.
        model: identity of the weights that embedded it.
        tracker: identity of the tracker for recordings.
        grid: its windows.
        songs: id, title, source and licence of each song, and hashes of its content.
        contours: the contour of each song.
        vectors: (W, D) float16, memory-mapped if there are more than 262,144 windows.
        song: (W,) song number of each window.
        start_s, end_s: (W,) seconds.
        at_start: (W,) whether a window begins at the song's first note.
        number: the number of each song by its id.
    """

    path: Path
    model: str
    tracker: str
    grid: WindowGrid
    songs: list[dict[str, str]]
    contours: list[Contour]
    vectors: Vectors
    song: NDArray[np.int64]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    at_start: NDArray[np.bool_]
    number: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        ids = {entry["id"]: k for k, entry in enumerate(self.songs)}
        object.__setattr__(self, "number", ids)


def open_catalogue(path: str | PathLike[str]) -> Catalogue:
    """Open a catalogue and check all its files.

    Args:
        path: folder of the catalogue.

    Returns:
        Its songs with their contours, and the window vectors (W, 512) float16.

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
