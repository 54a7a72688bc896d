import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from qbhkit.errors import QbhError
from qbhkit.weights import DEFAULT_EMBEDDING, load_weights, save_weights, weights_path


def test_round_trip_of_arrays_and_configuration(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "b": np.arange(6).reshape(2, 3).T,  # not contiguous
        "scalar": np.array(2.5),
    }
    config = {"widths": [16, 32], "note": "Ä"}
    save_weights(tmp_path / "new" / "w.safetensors", arrays, config)
    loaded = load_weights(str(tmp_path / "new" / "w.safetensors"))
    assert loaded.name == "w"
    assert loaded.config == config
    assert set(loaded.arrays) == set(arrays)
    for key, value in arrays.items():
        np.testing.assert_array_equal(loaded.arrays[key], value)
        assert loaded.arrays[key].dtype == value.dtype


def test_the_hash_is_of_what_makes_vectors(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.zeros((2, 3))}

    def hash_of(arrays, **config):
        save_weights(tmp_path / "w.safetensors", arrays, config)
        return load_weights(str(tmp_path / "w.safetensors")).sha256

    first = hash_of(arrays, widths=[16])
    assert first == hash_of(dict(reversed(arrays.items())), widths=[16])
    assert first == hash_of(arrays, widths=[16], calibration={"threshold": 0.4})
    others = [
        hash_of(arrays, widths=[32]),
        hash_of({**arrays, "a": arrays["a"] + 1}, widths=[16]),
        hash_of({**arrays, "a": arrays["a"].astype(np.float64)}, widths=[16]),
        hash_of({**arrays, "b": np.zeros((3, 2))}, widths=[16]),
    ]
    assert len({first, *others}) == 5


def test_the_shipped_embedding_loads_by_name():
    loaded = load_weights(DEFAULT_EMBEDDING)
    assert loaded.name == DEFAULT_EMBEDDING
    assert loaded.config
    assert loaded.arrays
    assert all(np.isfinite(array).all() for array in loaded.arrays.values())


def test_an_unknown_name_lists_the_shipped_sets():
    with pytest.raises(QbhError, match=rf"no weights 'nonsense'.*{DEFAULT_EMBEDDING}"):
        weights_path("nonsense")
    with pytest.raises(QbhError, match="no weights"):
        load_weights("nonsense")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_damaged_files_are_refused(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.zeros((20, 20))}, {"x": 1})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(QbhError, match=r"w\.safetensors is damaged"):
        load_weights(str(path))


def test_files_of_other_programs_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"a": np.zeros(3)}, path, metadata=metadata)
        with pytest.raises(QbhError, match="not written by this kit"):
            load_weights(str(path))
    save_file({"a": np.zeros(3)}, path, metadata={"qbhkit": "{"})
    with pytest.raises(QbhError, match="is damaged"):
        load_weights(str(path))


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_nothing_is_ever_unpickled(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(QbhError, match="is damaged"):
        load_weights(str(tmp_path / "w.safetensors"))
