"""Banks of rendered hums: network states of recordings, and the stretches of songs that they sing.

A bank is one file. :mod:`qbhkit.embedding.render_hums` makes it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.config import check_range, present_names
from qbhkit.contour import CONTOUR_HOP_S, Contour, Floats
from qbhkit.embedding.augment import Distortions, Frames, warp_positions
from qbhkit.embedding.sampling import ContourBank
from qbhkit.embedding.windows import Reading, stretch
from qbhkit.errors import QbhError, naming
from qbhkit.storage import write_arrays

RENDERED_KIND = "rendered-hums"
_CURE = "make it with 'qbhkit data render'"
# How a part is timed; the other errors were made when it was rendered.
_TIMING = Distortions(start_shift=0.04, tempo_octaves=0.1, slice_tempo=0.15)


class RenderedHum(NamedTuple):
    """One recording of a stretch of a song."""

    states: NDArray[Any]  # (N, C) every 100 ms
    spans: NDArray[Any]  # (N, 2) where each of them begins and ends, in frames of the song
    song: Contour  # all of it
    tune: int  # songs of the same number are variants of one tune


@dataclass(frozen=True)
class PartConfig:
    """Say which parts of a rendered hum are shown to the encoder.

    Raises:
        QbhError: if a number is out of its range.
    """

    shortest_s: float = 3.0  # lengths are log-uniform up to the whole hum
    at_start: float = 0.25  # share of the parts that begin with the hum
    timing: Distortions = field(default_factory=lambda: _TIMING)  # as ``warp_positions`` uses them

    def __post_init__(self) -> None:
        check_range(self, CONTOUR_HOP_S, math.inf, "shortest_s")
        check_range(self, 0, 1, "at_start")


class PartBatch(NamedTuple):
    """Parts of rendered hums, the windows of songs that they sing, and the tunes of these."""

    states: Floats  # (B, L, C)
    windows: Frames  # (B, L, 2) MIDI semitones and voiced
    tunes: NDArray[np.int64]  # (B,)


def write_rendered(path: Path, hums: Sequence[RenderedHum], recipe: dict[str, Any]) -> None:
    """Write a bank of hums, atomically; the recipe, plain values, says how they were made."""
    arrays: dict[str, NDArray[Any]] = {
        "states": np.concatenate([hum.states for hum in hums]).astype(np.float16),
        "spans": np.concatenate([hum.spans for hum in hums]).astype(np.float32),
        "frames": np.array([len(hum.states) for hum in hums], np.int64),
        "pitch": np.concatenate([hum.song.pitch_st for hum in hums]),
        "song_frames": np.array([len(hum.song) for hum in hums], np.int64),
        "tunes": np.array([hum.tune for hum in hums], np.int64),
    }
    _save(arrays, path, recipe)


def join_rendered(parts: Sequence[Path], path: Path, recipe: dict[str, Any]) -> None:
    """Join the hums of several files in one file, atomically."""
    found = [read_rendered(part).arrays for part in parts]
    _save({key: np.concatenate([one[key] for one in found]) for key in found[0]}, path, recipe)


def _save(arrays: dict[str, NDArray[Any]], path: Path, recipe: dict[str, Any]) -> None:
    write_arrays(path, arrays, {"qbhkit": json.dumps({"kind": RENDERED_KIND, **recipe})})


class StoredBank(NamedTuple):
    """The arrays of a bank as :func:`write_rendered` names them, and how they were made."""

    arrays: dict[str, NDArray[Any]]
    recipe: dict[str, Any]


def read_rendered(path: Path) -> StoredBank:
    """Map a bank into memory, so that only what is drawn is read.

    Raises:
        QbhError: if the file is missing, damaged, or something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise QbhError(f"{path} does not exist: {_CURE}.")
    try:
        with safe_open(path, framework="pt") as stored:  # torch maps, numpy would read it all
            recipe = json.loads((stored.metadata() or {}).get("qbhkit", "{}"))
            arrays = {key: stored.get_tensor(key).numpy() for key in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise QbhError(f"{path} is damaged ({error}): {_CURE} again.") from None
    try:
        with naming(path):
            recipe = present_names("RenderedBank", recipe)
            if "drawn" in recipe:
                recipe["drawn"] = present_names("RenderConfig", recipe["drawn"])
        frames, song_frames = arrays["frames"].sum(), arrays["song_frames"].sum()
        count, states = len(arrays["frames"]), arrays["states"]
        whole = (
            recipe.pop("kind") == RENDERED_KIND
            and states.ndim == 2
            and len(states) == frames
            and arrays["spans"].shape == (frames, 2)
            and arrays["pitch"].shape == (song_frames,)
            and len(arrays["song_frames"]) == len(arrays["tunes"]) == count > 0
        )
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise QbhError(f"{path} holds no rendered hums: {_CURE}.")
    return StoredBank(arrays, recipe)


class RenderedBank:
    """Draw parts of rendered hums with the windows of songs that they sing.

    Args:
        stored: what :func:`read_rendered` returns.
        rows: (R,) numbers of the hums to draw from; by default all.
    """

    def __init__(self, stored: StoredBank, rows: NDArray[np.int64] | None = None) -> None:
        arrays = stored.arrays
        self.channels = arrays["states"].shape[1]
        self.states_of = str(stored.recipe.get("states_of", ""))  # identity of their network
        self._stored, self._states, self._spans = stored, arrays["states"], arrays["spans"]
        self._lengths = arrays["frames"]
        self._offsets = np.cumsum(self._lengths) - self._lengths
        songs = arrays["song_frames"]
        self._songs = ContourBank.over(
            arrays["pitch"], np.cumsum(songs) - songs, songs, arrays["tunes"], CONTOUR_HOP_S
        )
        self._rows = np.arange(len(songs)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def split(self, every: int) -> tuple["RenderedBank", "RenderedBank"]:
        """Return the hums of most tunes, and those of every k-th tune; k is ``every``."""
        tunes = self._songs.groups[self._rows]
        held = np.isin(tunes, np.unique(tunes)[::every])
        learnt, held_back = self._rows[~held], self._rows[held]
        return RenderedBank(self._stored, learnt), RenderedBank(self._stored, held_back)

    def draw(self, count: int, reading: Reading, config: PartConfig, rng: Generator) -> PartBatch:
        """Draw ``count`` parts, each of a different hum if there are enough."""
        row = rng.choice(self._rows, count, replace=len(self._rows) < count)
        whole, offset = self._lengths[row], self._offsets[row]
        shortest = np.minimum(config.shortest_s / CONTOUR_HOP_S, whole)
        length = np.exp2(rng.uniform(np.log2(shortest), np.log2(whole)))
        length = np.clip(np.round(length), 1, whole).astype(np.int64)
        first = np.floor(rng.random(count) * (whole - length + 1)).astype(np.int64)
        first[rng.random(count) < config.at_start] = 0
        read = warp_positions(first, length, reading, config.timing, rng)  # (B, L)
        states = stretch(self._states, read, offset[:, None], whole[:, None]).astype(np.float32)
        begin = self._spans[offset + first, 0]
        end = self._spans[offset + first + length - 1, 1]
        windows = self._songs.read(row, reading.positions(begin, end - begin))
        return PartBatch(states, windows, self._songs.groups[row])
