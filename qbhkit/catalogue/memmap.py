"""Read vectors from memory-mapped files as if they were one array."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class StackedArrays:
    """Several arrays, such as memory maps, read as if their rows were stacked in one.

    Args:
        parts: (W1, D), (W2, D) and so on, of one dtype.

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
        """Return a copy of the rows in a slice (of step 1) or an array of row numbers."""
        if isinstance(rows, slice):
            begin, end, _ = rows.indices(len(self))
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


Vectors = NDArray | StackedArrays


def map_float16(path: Path, name: str) -> NDArray:
    """Map a float16 tensor of an intact safetensors file into memory, read-only.

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
