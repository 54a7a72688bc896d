import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from qbhkit.embedding.distillation import StateEmbedder, export_student
from qbhkit.embedding.embedder import ContourEmbedder, export_encoder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.storage import asset
from qbhkit.weights import DEFAULT_EMBEDDING, load_weights, save_weights

# What version 1.0 called the shipped weights, and what catalogues built with it still do.
IDENTITIES = {
    "best": "best-ba9c10bafd2af4b5",
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


def test_an_unknown_name_lists_the_shipped_sets():
    with pytest.raises(QbhError, match=rf"no weights 'nonsense'.*{DEFAULT_EMBEDDING}"):
        load_weights("nonsense")


@pytest.mark.parametrize("keep", [0, 100, -1])
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

    def test_loaded_weights_have_present_names_only(self):
        for name in (*IDENTITIES, "end-to-end"):
            stored = load_weights(name)
            assert {"embedding_dim", "pooling"} <= set(stored.config["encoder"])
            assert not {"size", "summary"} & set(stored.config["encoder"])
            assert not {"steps", "heard_by"} & set(stored.config)
            assert not any(key.startswith("summary.") for key in stored.arrays)
            assert {"pooling.context", "pooling.project.bias"} <= set(stored.arrays)

    def test_layers_of_other_networks_keep_their_names(self):
        stored = load_weights("crnn-lite")
        _, layers = written(asset("weights/crnn-lite.safetensors"))
        assert "summary" in layers
        assert {key.split(".")[0] for key in stored.arrays} == layers

    @pytest.mark.parametrize("name", ["published", "end-to-end"])
    def test_saving_again_writes_present_names_and_keeps_the_hash(self, name, tmp_path):
        before = load_weights(name)
        path = tmp_path / f"{name}.safetensors"
        save_weights(path, before.arrays, before.config)
        config, layers = written(path)
        assert config == before.config
        assert "pooling" in layers
        assert "summary" not in layers
        after = load_weights(str(path))
        assert after.sha256 == before.sha256
        assert after.config == before.config

    def test_what_is_exported_has_present_names_only(self, tmp_path):
        torch.manual_seed(0)
        path = tmp_path / "a.safetensors"
        encoder = ContourEncoder(EncoderConfig((8,), heads=2, embedding_dim=12))
        export_encoder(encoder, path, Reading(40), "key")
        config, layers = written(path)
        assert set(config) == {"encoder", "frames", "window_s", "normalisation"}
        assert layers == {"stages", "pooling", "output"}
        assert not {"size", "summary"} & set(config["encoder"])
        student = ContourEncoder(EncoderConfig((8,), heads=2, embedding_dim=12, inputs=5))
        teacher = ContourEmbedder(str(path))
        export_student(student, tmp_path / "b.safetensors", teacher, "somebody")
        config, _ = written(tmp_path / "b.safetensors")
        assert set(config) == {"kind", "encoder", "frames", "window_s", "teacher", "states_of"}
        assert config["kind"] == "state-distillation"
        assert StateEmbedder(str(tmp_path / "b.safetensors")).states_of == "somebody"

    def test_a_key_under_both_names_is_refused(self, tmp_path):
        path = tmp_path / "mine.safetensors"
        shutil.copy(asset("weights/stage1.safetensors"), path)
        stored = load_weights(str(path))
        for wrong in ({"steps": 80}, {"encoder": {**stored.config["encoder"], "size": 512}}):
            save_weights(path, stored.arrays, stored.config | wrong)
            with pytest.raises(QbhError, match=r"mine\.safetensors: \w+ is the former name of"):
                load_weights(str(path))
