"""Rows of vectors that may lie in files: memory maps, stacked as if they were one array."""

import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class StackedArrays:
    """Rows that lie in several arrays, memory maps for instance, read as if they lay in one.

    Args:
        parts: (W1, D), (W2, D) and so on, of one type.

    Attributes:
        shape, dtype, ndim, size: of all rows together.
    """

    ndim = 2

    def __init__(self, parts: Sequence[NDArray]) -> None:
        self.parts = list(parts)
        self._begin = np.cumsum([0, *(len(part) for part in parts)])
        self.shape = int(self._begin[-1]), parts[0].shape[1]
        self.size = self.shape[0] * self.shape[1]
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray:
        """Return a copy of the rows that a slice or an array of numbers names."""
        if isinstance(rows, slice):
            begin, end, step = rows.indices(len(self))
            if step != 1:
                return self[np.arange(begin, end, step)]
            spans = zip(self.parts, self._begin, strict=False)
            inside = [part[max(0, begin - at) : max(0, end - at)] for part, at in spans]
            return np.concatenate(inside)
        rows = np.asarray(rows)
        found = np.empty((*rows.shape, self.shape[1]), self.dtype)
        part = np.searchsorted(self._begin, rows, side="right") - 1
        for number in np.unique(part):
            here = part == number
            found[here] = self.parts[number][rows[here] - self._begin[number]]
        return found


class RowSubset:
    """Some rows of others, read when they are asked for.

    Args:
        rows: (W, D).
        places: (C,) numbers of rows.

    Attributes:
        shape, dtype, ndim, size: of the chosen rows.
        parts: the arrays in which they lie.
    """

    ndim = 2

    def __init__(self, rows: "Vectors", places: NDArray[np.int64]) -> None:
        self._rows, self._places = rows, places
        self.parts: list[NDArray] = getattr(rows, "parts", [rows])
        self.shape: tuple[int, int] = len(places), rows.shape[1]
        self.size = self.shape[0] * self.shape[1]
        self.dtype: np.dtype[Any] = rows.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray:
        """Return a copy of the rows that a slice or an array of numbers names."""
        return self._rows[self._places[rows]]


Vectors = NDArray | StackedArrays | RowSubset


def map_float16(path: Path, name: str) -> NDArray:
    """Map a half-precision tensor of a safetensors file, read-only.

    Args:
        path: a file that safetensors has opened without complaint.
        name: of the tensor.

    Returns:
        float16, shaped as it was stored.

    Raises:
        ValueError: if it is not in half precision.
    """
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        about = json.loads(stream.read(length))[name]
    if about["dtype"] != "F16":
        raise ValueError(f"{name} is not in half precision")
    offset = 8 + length + about["data_offsets"][0]
    return np.memmap(path, np.float16, "r", offset, tuple(about["shape"]))


def to_float32(block: NDArray, room: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return numbers in single precision.

    Torch turns half precision into single several times as fast as NumPy, and to the same bits;
    most of the time is then what fresh memory takes.

    Args:
        block: of any shape, in half or single precision.
        room: to write to, (R, ...) with at least as many rows; fresh memory if None.

    Returns:
        As many rows of ``room``, or an array of its own; the block itself if it is in single.
    """
    if block.dtype != np.float16 or not block.flags.writeable:  # torch warns of what is read-only
        return block.astype(np.float32, copy=False)
    import torch

    found = np.empty(block.shape, np.float32) if room is None else room[: len(block)]
    torch.from_numpy(found).copy_(torch.from_numpy(block))
    return found


def release(vectors: Vectors) -> None:
    """Let go of the pages of memory maps: they stay in the system's cache, not in the process."""
    for part in getattr(vectors, "parts", [vectors]):
        base = part
        while isinstance(base, np.ndarray):
            base = base.base
        if (
            isinstance(base, mmap.mmap)
            and not part.flags.writeable  # else pages may hold what is nowhere else
            and hasattr(mmap, "MADV_DONTNEED")
        ):
            base.madvise(mmap.MADV_DONTNEED)
