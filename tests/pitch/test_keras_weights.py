"""The converter against Keras itself: run as a script, this file writes what Keras makes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from qbhkit.cli import main
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.pitch.crnn import CLASSES, PATCH, MelodyCrnn
from qbhkit.pitch.keras_weights import convert_crnn
from qbhkit.storage import sha256_file
from qbhkit.weights import crnn_path, load_weights


def keras_network():
    """The network as its authors wrote it, in Keras 3; half of the layers under made-up names."""
    from keras import Model, layers

    def block(x, number, width):
        def convolve(x, size, name=None):
            x = layers.Conv2D(width, size, padding="same", use_bias=False, name=name)(x)
            return layers.BatchNormalization()(x)

        shortcut = convolve(x, 1, f"conv_s{number}_1x1")
        x = layers.LeakyReLU(negative_slope=0.01)(shortcut)
        x = layers.LeakyReLU(negative_slope=0.01)(convolve(x, 3))
        x = layers.LeakyReLU(negative_slope=0.01)(convolve(x, 3))
        x = layers.add([convolve(x, 1, f"conv_f{number}_1x1"), shortcut])
        x = layers.LeakyReLU(negative_slope=0.01)(x)
        return layers.MaxPooling2D((1, 4))(x)

    x = given = layers.Input((*PATCH, 1))
    for number, width in enumerate((64, 128, 192, 256), 1):
        x = block(x, number, width)
    x = layers.Dropout(0.5)(x)
    x = layers.Reshape((31, 512))(x)
    lstm = layers.LSTM(256, return_sequences=True, dropout=0.3, recurrent_dropout=0.3)
    x = layers.Bidirectional(lstm)(x)
    x = layers.TimeDistributed(layers.Dense(CLASSES))(x)
    return Model(given, layers.TimeDistributed(layers.Activation("softmax"))(x))


def randomise(network, rng):
    """Give each array values that no other arrangement of it would leave the output alone with."""
    for layer in network.layers:
        arrays = layer.get_weights()
        if len(arrays) == 4:  # gamma, beta, moving mean, moving variance
            low, high = zip((0.7, 1.3), (-0.3, 0.3), (-0.3, 0.3), (0.5, 1.5), strict=True)
            arrays = [rng.uniform(a, b, x.shape) for a, b, x in zip(low, high, arrays, strict=True)]
        elif len(arrays) == 1:
            arrays = [rng.normal(0, np.sqrt(2 / np.prod(arrays[0].shape[:3])), arrays[0].shape)]
        elif arrays:
            scale = 0.1 if len(arrays) == 6 else 0.4
            arrays = [rng.normal(0, scale, x.shape) for x in arrays]
        layer.set_weights(arrays)


def write_keras2(path, layers):
    """Write (name, [(array's name, array)]) in the layout of Keras 2's save_weights."""
    with h5py.File(path, "w") as out:
        out.attrs["layer_names"] = [name.encode() for name, _ in layers]
        out.attrs["backend"] = b"tensorflow"
        out.attrs["keras_version"] = b"2.3.0"
        for name, arrays in layers:
            group = out.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key, _ in arrays]
            for key, array in arrays:
                group.create_dataset(key, data=array)


KERAS_2_NAMES = {
    1: ["kernel:0"],
    2: ["kernel:0", "bias:0"],
    4: ["gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"],
    6: [
        f"{side}_lstm_1/{key}:0"
        for side in ("forward", "backward")
        for key in ("kernel", "recurrent_kernel", "bias")
    ],
}


def write_reference(folder: Path) -> None:
    """Write weights in both layouts, the normalisation, patches, and what Keras makes of them."""
    rng = np.random.default_rng(7)
    network = keras_network()
    randomise(network, rng)
    network.save(folder / "whole.h5")
    layers = []
    for layer in network.layers:
        arrays = layer.get_weights()
        names = KERAS_2_NAMES.get(len(arrays), [])
        keys = [f"{layer.name}/{name}" for name in names]
        layers.append((layer.name, list(zip(keys, arrays, strict=True))))
    write_keras2(folder / "weights.hdf5", layers)
    np.save(folder / "mean.npy", rng.uniform(-50, -20, PATCH))
    np.save(folder / "std.npy", rng.uniform(8, 16, PATCH))
    patches = rng.normal(size=(3, *PATCH)).astype(np.float32)
    patches[1] = np.cumsum(patches[1], axis=1) / 10  # one with neighbours that are alike
    np.save(folder / "patches.npy", patches)
    np.save(folder / "posteriors.npy", network.predict(patches[..., None], verbose=0))


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory) -> Path:
    """What :func:`write_reference` writes, in a process of its own: Keras changes global state."""
    folder = tmp_path_factory.mktemp("keras")
    done = subprocess.run(
        [sys.executable, __file__, folder],
        env={**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "home")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def convert(folder: Path, out: Path, weights: str = "weights.hdf5") -> Path:
    return convert_crnn(folder / weights, folder / "mean.npy", folder / "std.npy", out)


@pytest.fixture(scope="module")
def converted(keras_files, tmp_path_factory) -> Path:
    return convert(keras_files, tmp_path_factory.mktemp("converted"))


def posteriors_of(arrays, patches):
    network = MelodyCrnn().eval()
    network.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    with torch.inference_mode():
        return network(torch.from_numpy(patches)).softmax(2).numpy()


@pytest.fixture(scope="module")
def arrays(converted):
    """The converted network's parameters."""
    found = dict(load_weights(str(converted)).arrays)
    return {key: found[key] for key in found if key not in ("mean", "std")}


class TestAgainstKeras:
    def test_probabilities_are_those_of_keras(self, keras_files, arrays):
        patches = np.load(keras_files / "patches.npy")
        wanted = np.load(keras_files / "posteriors.npy")
        found = posteriors_of(arrays, patches)
        assert found.shape == wanted.shape == (3, 31, CLASSES)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        # the comparison says something: frames differ, and many classes win
        assert len(set(wanted.reshape(-1, CLASSES).argmax(1))) > 10

    def test_a_whole_model_as_keras_saves_it_gives_the_same(self, keras_files, arrays, tmp_path):
        again = load_weights(str(convert(keras_files, tmp_path, "whole.h5"))).arrays
        for key, array in arrays.items():
            np.testing.assert_array_equal(again[key], array)

    def test_the_file_names_its_sources(self, keras_files, converted):
        config = load_weights(str(converted)).config
        assert config["kind"] == "crnn"
        for name, file in (("weights", "weights.hdf5"), ("mean", "mean.npy"), ("std", "std.npy")):
            digest = sha256_file(keras_files / file)
            assert config["sources"][name] == {"file": file, "sha256": digest}

    def test_hard_gates_are_refused(self, sources, keras_files):
        shutil.copy(keras_files / "whole.h5", sources / "whole.h5")
        with h5py.File(sources / "whole.h5", "a") as stored:
            plain = '"recurrent_activation": "sigmoid"'
            config = stored.attrs["model_config"]
            assert plain in config
            stored.attrs["model_config"] = config.replace(plain, plain.replace("sig", "hard_sig"))
        with pytest.raises(QbhError, match=r"whole\.h5 uses hard_sigmoid"):
            convert(sources, sources / "out", "whole.h5")


@pytest.fixture
def sources(keras_files, tmp_path) -> Path:
    """Copies of the files that a test may damage."""
    for name in ("weights.hdf5", "mean.npy", "std.npy"):
        shutil.copy(keras_files / name, tmp_path / name)
    return tmp_path


def layer_group(stored, number):
    names = [
        name for name in stored.attrs["layer_names"] if len(stored[name].attrs["weight_names"])
    ]
    group = stored[names[number]]
    return group, group.attrs["weight_names"]


def replace(stored, number, index, change):
    """Change one array of the number-th layer with weights; return the layer's name."""
    group, keys = layer_group(stored, number)
    array = change(group[keys[index]][...])
    del group[keys[index]]
    group.create_dataset(keys[index], data=array)
    return group.name.strip("/")


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("number", "index", "change", "says"),
        [
            (0, 0, lambda x: x[..., :32], r"blocks\.0\.shortcut\.conv wants .*\(1, 1, 1, 64\)"),
            (32, 2, lambda x: np.tile(x, 2), r"lstm wants .*\(1024,\), not .*\(2048,\)"),
            (5, 1, lambda x: x * np.nan, "holds NaN"),
            (7, 3, lambda x: -x, "negative variance"),
        ],
    )
    def test_the_first_layer_that_does_not_fit_is_named(self, sources, number, index, change, says):
        with h5py.File(sources / "weights.hdf5", "a") as stored:
            name = replace(stored, number, index, change)
        with pytest.raises(QbhError, match=rf"weights\.hdf5, layer {name}: .*{says}.*: give the"):
            convert(sources, sources / "out")
        assert not (sources / "out").exists()

    def test_a_missing_layer_is_named(self, sources):
        with h5py.File(sources / "weights.hdf5", "a") as stored:
            group, keys = layer_group(stored, 32)
            group.attrs["weight_names"] = keys[:3]
        with pytest.raises(QbhError, match="has no bidirectional LSTM for lstm"):
            convert(sources, sources / "out")

    @pytest.mark.parametrize("arrays", [1, 3])
    def test_a_layer_too_many_is_named(self, sources, arrays):
        with h5py.File(sources / "weights.hdf5", "a") as stored:
            stored.attrs["layer_names"] = [*map(str, stored.attrs["layer_names"]), "auxiliary"]
            group = stored.create_group("auxiliary")
            group.attrs["weight_names"] = [f"w{number}" for number in range(arrays)]
            for number in range(arrays):
                group.create_dataset(f"w{number}", data=np.zeros((64, 2)))
        with pytest.raises(QbhError, match="layer auxiliary: the network has no such"):
            convert(sources, sources / "out")

    def test_weights_in_which_the_library_goes_in_circles(self, sources):
        with h5py.File(sources / "weights.hdf5", "w") as file:
            file.attrs["layer_names"] = ["conv_1", "conv_2"]  # of any length: kept in a heap
        content = (sources / "weights.hdf5").read_bytes()
        size = content.index(b"GCOL") + 16 + 8  # of its first object, after its number and the rest
        endless = (2**64 - 16).to_bytes(8, "little")  # and 16 of the head: it is its own successor
        (sources / "weights.hdf5").write_bytes(content[:size] + endless + content[size + 8 :])
        with pytest.raises(QbhError, match=r"weights\.hdf5 is damaged \(reading it crashes or"):
            convert(sources, sources)

    def test_truncated_and_other_files_for_weights(self, sources):
        path = sources / "weights.hdf5"
        whole = path.read_bytes()
        for content in (b"", whole[:2000], whole[:-1000], b"\x93NUMPY" * 100):
            path.write_bytes(content)
            with pytest.raises(QbhError, match=r"weights\.hdf5 is damaged or holds no Keras we"):
                convert(sources, sources / "out")
        with h5py.File(path, "w") as stored:
            stored["x"] = np.zeros(3)
        with pytest.raises(QbhError, match="layer_names"):
            convert(sources, sources / "out")
        path.unlink()
        with pytest.raises(QbhError, match="does not exist"):
            convert(sources, sources / "out")

    @pytest.mark.parametrize("name", ["mean.npy", "std.npy"])
    def test_normalisation(self, sources, name):
        path = sources / name
        good = np.load(path)
        for array in (good.T, good.astype(int)):
            np.save(path, array)
            with pytest.raises(QbhError, match=rf"{name} must hold \(31, 513\) numbers"):
                convert(sources, sources / "out")
        if name == "std.npy":
            np.save(path, -good)
            with pytest.raises(QbhError, match=r"std\.npy holds negative values"):
                convert(sources, sources / "out")
        np.save(path, np.where(np.arange(513) == 9, np.nan, good))
        with pytest.raises(QbhError, match=rf"{name} holds NaN"):
            convert(sources, sources / "out")
        np.save(path, np.array([{"a": 1}]), allow_pickle=True)
        with pytest.raises(QbhError, match=rf"{name} is damaged"):
            convert(sources, sources / "out")
        np.save(path, good)
        for content in (b"", path.read_bytes()[:-8], b"PK\3\4" * 100):
            path.write_bytes(content)
            with pytest.raises(QbhError, match=rf"{name} is damaged or no \.npy file"):
                convert(sources, sources / "out")
        path.unlink()
        with pytest.raises(QbhError, match=rf"{name} does not exist"):
            convert(sources, sources / "out")

    def test_h5py_may_be_missing(self, sources, monkeypatch):
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(MissingPackageError, match=r"pip install 'qbhkit\[keras\]'"):
            convert(sources, sources / "out")


class TestCommand:
    def test_what_the_command_writes_is_found(self, keras_files, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("QBHKIT_DATA", str(tmp_path))
        assert not crnn_path().is_file()
        files = [str(keras_files / name) for name in ("weights.hdf5", "mean.npy", "std.npy")]
        assert main(["weights", "convert", *files]) == 0
        assert crnn_path() == tmp_path / "weights" / "crnn.safetensors"
        assert crnn_path().is_file()
        assert capsys.readouterr() == (f"weights: {crnn_path()}\n", "")
        assert main(["weights", "convert", *files, "--out", str(tmp_path / "other")]) == 0
        written = tmp_path / "other" / "crnn.safetensors"
        assert written.read_bytes() == crnn_path().read_bytes()
        assert f"looks for these weights at {crnn_path()}" in capsys.readouterr().err


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]))
