import numpy as np
import pytest
from safetensors.numpy import save_file

from qbhkit.catalogue.memmap import StackedArrays, map_float16
from qbhkit.retrieval.index import _release as release
from qbhkit.retrieval.index import _to_float32 as to_float32


@pytest.fixture
def stacked(tmp_path):
    """Three memory-mapped parts, and the same rows as one array."""
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float16)
    parts = []
    for number, part in enumerate(np.split(rows, [7, 8])):
        path = tmp_path / f"{number}.safetensors"
        save_file({"before": np.zeros(3, np.float32), "vectors": part}, path)
        parts.append(map_float16(path, "vectors"))
    return StackedArrays(parts), rows


def test_rows_are_read_as_from_one_array(stacked):
    found, rows = stacked
    for name in ("shape", "dtype", "ndim", "size"):
        assert getattr(found, name) == getattr(rows, name)
    assert len(found) == 30
    slices = [slice(None), slice(3, 9), slice(20, 99), slice(5, 5), slice(9, 3), slice(-3, None)]
    numbers = [np.array([29, 0, 7, 7, 8]), np.array([[1, 29], [6, 8]]), np.zeros(0, int), 17]
    for asked in (*slices, *numbers):
        np.testing.assert_array_equal(found[asked], rows[asked])
        assert found[asked].dtype == np.float16
        release(found)
        np.testing.assert_array_equal(found[asked], rows[asked])


def test_only_half_precision_is_mapped_and_cannot_be_written(stacked, tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        stacked[0].parts[0][0] = 0
    save_file({"vectors": np.zeros((2, 2), np.float32)}, tmp_path / "single.safetensors")
    with pytest.raises(ValueError, match="half precision"):
        map_float16(tmp_path / "single.safetensors", "vectors")


def test_every_half_precision_number_becomes_the_same_in_single():
    half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    locked = half.copy()
    locked.flags.writeable = False
    for block in (half, locked, half.astype(np.float32)):
        for room in (None, np.empty(1 << 17, np.float32)):
            found = to_float32(block, room)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, half.astype(np.float32))
