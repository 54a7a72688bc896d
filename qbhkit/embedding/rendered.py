"""Recordings as the melody network's states know them, and the songs that they perform.

A bank is one file. Of every rendered_hum it holds the states of each 100 ms, the stretch of the song
that each 100 ms performs, and the whole song's pitch; so any part of a recording can be drawn
together with the part of the song it performs. Who renders and hears recordings is no business of
this room: :mod:`qbhkit.embedding.render` does.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.config import RENAMED_VALUES, renamed_keys
from qbhkit.contour import CONTOUR_HOP_S, Contour, Floats
from qbhkit.embedding.augment import Distortions, Frames, warp_positions
from qbhkit.embedding.sampling import ContourBank, gather
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.storage import write_arrays

RENDERED_KIND = "rendered-hums"
_CURE = "make it with 'qbhkit data render'"
# How a part is timed; whoever performed it made the other errors.
_TIMING = Distortions(start_shift=0.04, tempo_octaves=0.1, slice_tempo=0.15)


class RenderedHum(NamedTuple):
    """One recording of a stretch of a song.

    Args:
        states: (N, C) every 100 ms.
        spans: (N, 2) where in the song each of them begins and ends, in frames of the song.
        song: the whole song.
        tune: songs of the same number are variants of one tune.
    """

    states: NDArray[Any]
    spans: NDArray[Any]
    song: Contour
    tune: int


@dataclass(frozen=True)
class PartConfig:
    """Which parts of a rendered_hum are shown to the encoder.

    Args:
        shortest_s: shortest part; lengths are drawn log-uniformly up to the whole rendered_hum.
        at_start: share of the parts that begin with the rendered_hum.
        timing: how unevenly a part is read; its rules of time are used, and no others.
    """

    shortest_s: float = 3.0
    at_start: float = 0.25
    timing: Distortions = field(default_factory=lambda: _TIMING)


class PartBatch(NamedTuple):
    """Parts of rendered_hums, the windows of songs they perform, and the tunes of these."""

    states: Floats  # (B, L, C)
    windows: Frames  # (B, L, 2) MIDI semitones and voiced
    tunes: NDArray[np.int64]  # (B,)


def write_rendered(
    path: Path, rendered_hums: Sequence[RenderedHum], made_of: dict[str, Any]
) -> None:
    """Write a bank, atomically; states are kept in half precision.

    Args:
        path: of the file.
        rendered_hums: at least one.
        made_of: plain values, returned by :func:`read_rendered`.
    """
    arrays: dict[str, NDArray[Any]] = {
        "states": np.concatenate([one.states for one in rendered_hums]).astype(np.float16),
        "spans": np.concatenate([one.spans for one in rendered_hums]).astype(np.float32),
        "frames": np.array([len(one.states) for one in rendered_hums], np.int64),
        "pitch": np.concatenate([one.song.pitch_st for one in rendered_hums]),
        "song_frames": np.array([len(one.song) for one in rendered_hums], np.int64),
        "tunes": np.array([one.tune for one in rendered_hums], np.int64),
    }
    _save(arrays, path, made_of)


def join_rendered(parts: Sequence[Path], path: Path, made_of: dict[str, Any]) -> None:
    """Write what several files hold as one, atomically: see :func:`write_rendered`."""
    found = [read_rendered(part).arrays for part in parts]
    _save({key: np.concatenate([one[key] for one in found]) for key in found[0]}, path, made_of)


def _save(arrays: dict[str, NDArray[Any]], path: Path, made_of: dict[str, Any]) -> None:
    write_arrays(path, arrays, {"qbhkit": json.dumps({"kind": RENDERED_KIND, **made_of})})


class StoredBank(NamedTuple):
    """The arrays of a bank as :func:`write_rendered` names them, and what it was made of."""

    arrays: dict[str, NDArray[Any]]
    made_of: dict[str, Any]


def read_rendered(path: Path) -> StoredBank:
    """Map a bank into memory; only what is drawn is read.

    Raises:
        QbhError: if the file is missing, damaged, or something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise QbhError(f"{path} does not exist: {_CURE}.")
    try:
        with safe_open(path, framework="pt") as stored:  # torch maps, numpy would read it all
            made_of = json.loads((stored.metadata() or {}).get("qbhkit", "{}"))
            made_of = renamed_keys("RenderedBank", made_of)
            arrays = {key: stored.get_tensor(key).numpy() for key in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise QbhError(f"{path} is damaged ({error}): {_CURE} again.") from None
    try:
        frames, song_frames = arrays["frames"].sum(), arrays["song_frames"].sum()
        count, states = len(arrays["frames"]), arrays["states"]
        whole = (
            RENAMED_VALUES.get(kind := made_of.pop("kind"), kind) == RENDERED_KIND
            and states.ndim == 2
            and len(states) == frames
            and arrays["spans"].shape == (frames, 2)
            and arrays["pitch"].shape == (song_frames,)
            and len(arrays["song_frames"]) == len(arrays["tunes"]) == count > 0
        )
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise QbhError(f"{path} holds no rendered_hums: {_CURE}.")
    return StoredBank(arrays, made_of)


class RenderedBank:
    """Draw parts of rendered_hums with the windows of songs that they perform.

    Args:
        stored: of :func:`read_rendered`.
        rows: (R,) numbers of the rendered_hums to draw from; by default all.

    Attributes:
        channels: C, of the states.
        states_of: identity of the network whose states they are.
    """

    def __init__(self, stored: StoredBank, rows: NDArray[np.int64] | None = None) -> None:
        arrays = stored.arrays
        self.channels = arrays["states"].shape[1]
        self.states_of = str(stored.made_of.get("states_of", ""))
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

    def parted(self, every: int) -> tuple["RenderedBank", "RenderedBank"]:
        """Hold every so manieth tune back: no tune is in both banks.

        Returns:
            The rendered_hums of the other tunes, and those of the tunes held back.
        """
        tunes = self._songs.groups[self._rows]
        held = np.isin(tunes, np.unique(tunes)[::every])
        return (
            RenderedBank(self._stored, self._rows[~held]),
            RenderedBank(self._stored, self._rows[held]),
        )

    def draw(self, count: int, reading: Reading, config: PartConfig, rng: Generator) -> PartBatch:
        """Draw parts.

        Args:
            count: B; no rendered_hum comes twice while there are enough.
            reading: of parts and windows, onto L frames.
            config: which parts.
            rng: the random generator.
        """
        row = rng.choice(self._rows, count, replace=len(self._rows) < count)
        whole, offset = self._lengths[row], self._offsets[row]
        shortest = np.minimum(config.shortest_s / CONTOUR_HOP_S, whole)
        length = np.exp2(rng.uniform(np.log2(shortest), np.log2(whole)))
        length = np.clip(np.round(length), 1, whole).astype(np.int64)
        first = np.floor(rng.random(count) * (whole - length + 1)).astype(np.int64)
        first[rng.random(count) < config.at_start] = 0
        read = warp_positions(first, length, reading, config.timing, rng)  # (B, L)
        states = gather(self._states, offset, whole, read).astype(np.float32)
        begin = self._spans[offset + first, 0]
        end = self._spans[offset + first + length - 1, 1]
        windows = self._songs.read(row, reading.positions(begin, end - begin))
        return PartBatch(states, windows, self._songs.groups[row])
