import json
import pickle

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from qbhkit.embedding.distillation import StateEmbedder
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.storage import asset
from qbhkit.weights import DEFAULT_EMBEDDING, load_weights, save_weights

# What version 1.0 called the shipped weights, and what catalogues built with it still do.
IDENTITIES = {
    "stage1": "stage1-7ff71b67e364c039",
    "published": "published-1233b0464c94b98f",
}


def written(path):
    """The metadata of a weights file, and the first parts of its arrays' names, as they stand."""
    with safe_open(path, framework="numpy") as stored:
        names = {key.split(".")[0] for key in stored.keys()}  # noqa: SIM118
        return json.loads(stored.metadata()["qbhkit"]), names


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
    arrays = {"a": np.arange(20_000, dtype=np.float32), "b": np.zeros((2, 3))}

    def hash_of(arrays, **config):
        save_weights(tmp_path / "w.safetensors", arrays, config)
        return load_weights(str(tmp_path / "w.safetensors")).sha256

    first = hash_of(arrays, widths=[16])
    assert first == hash_of(dict(reversed(arrays.items())), widths=[16])
    assert first == hash_of(arrays, widths=[16], calibration={"threshold": 0.4})
    others = [
        hash_of(arrays, widths=[32]),
        hash_of({**arrays, "a": np.append(arrays["a"][:-1], np.float32(0))}, widths=[16]),
        hash_of({**arrays, "a": arrays["a"].astype(np.float64)}, widths=[16]),
        hash_of({**arrays, "b": np.zeros((3, 2))}, widths=[16]),
    ]
    assert len({first, *others}) == 5


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_damaged_files_are_refused_and_none_is_ever_unpickled(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.zeros((20, 20))}, {"x": 1})
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-1], pickle.dumps(Bomb())):
        path.write_bytes(content)
        with pytest.raises(QbhError, match=r"w\.safetensors is damaged"):
            load_weights(str(path))


def test_files_of_other_programs_and_unknown_names_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"a": np.zeros(3)}, path, metadata=metadata)
        with pytest.raises(QbhError, match="not written by this kit"):
            load_weights(str(path))
    save_file({"a": np.zeros(3)}, path, metadata={"qbhkit": "{"})
    with pytest.raises(QbhError, match="is damaged"):
        load_weights(str(path))
    with pytest.raises(QbhError, match=rf"no weights 'nonsense'.*{DEFAULT_EMBEDDING}"):
        load_weights("nonsense")


class TestFormerNames:
    @pytest.mark.parametrize("name", IDENTITIES)
    def test_shipped_weights_of_version_1_keep_their_identity(self, name):
        config, layers = written(asset(f"weights/{name}.safetensors"))
        assert {"size", "summary"} <= set(config["encoder"])
        assert "steps" in config
        assert "summary" in layers
        embedder = ContourEmbedder(name)
        assert embedder.identity == IDENTITIES[name]
        assert embedder.reading == Reading(config["steps"], config["window_s"])
        assert embedder.calibration == config["calibration"]

    def test_shipped_weights_of_states_keep_theirs_too(self):
        config, _ = written(asset("weights/end-to-end.safetensors"))
        assert (config["kind"], "heard_by" in config) == ("end-to-end", True)
        embedder = StateEmbedder()
        assert embedder.weights == "end-to-end-44e73bdb17e33acd"
        assert embedder.identity == IDENTITIES["stage1"]
        assert embedder.states_of == config["heard_by"]
        with pytest.raises(QbhError, match="train one with 'qbhkit train end-to-end'"):
            StateEmbedder("best")

    def test_layers_of_other_networks_keep_their_names(self):
        stored = load_weights("crnn-lite")
        _, layers = written(asset("weights/crnn-lite.safetensors"))
        assert "summary" in layers
        assert {key.split(".")[0] for key in stored.arrays} == layers

    def test_saving_again_writes_present_names_and_keeps_the_hash(self, tmp_path):
        before = load_weights("end-to-end")
        path = tmp_path / "end-to-end.safetensors"
        save_weights(path, before.arrays, before.config)
        config, layers = written(path)
        assert config == before.config
        assert {"embedding_dim", "pooling"} <= set(config["encoder"])
        assert "pooling" in layers
        assert "summary" not in layers
        after = load_weights(str(path))
        assert after.sha256 == before.sha256
        assert after.config == before.config
