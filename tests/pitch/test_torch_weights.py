"""The published PyTorch weights, against the published network written out with plain functions."""

import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional

from qbhkit.cli import main
from qbhkit.errors import QbhError
from qbhkit.pitch.crnn import CLASSES, PATCH, load_crnn
from qbhkit.pitch.keras_weights import convert_crnn, published_files
from qbhkit.weights import load_weights

FILES = ("melody_extractor_weights.pt", "x_data_mean_total_31.npy", "x_data_std_total_31.npy")


DAMAGED = "is damaged or no PyTorch file"
FLOATS = r"conv3\.bn\.running_var must hold floats in the shape \(192,\)"


def published_state():
    """Random arrays under the names and in the shapes of the published file."""
    random = torch.Generator().manual_seed(3)

    def drawn(*shape, low=-0.3, high=0.3):
        return torch.rand(shape, generator=random) * (high - low) + low

    state = {}
    for block, (inputs, width) in enumerate(((1, 64), (64, 128), (128, 192), (192, 256))):
        for number, size in ((1, 1), (2, 3), (3, 3), (4, 1)):
            name, fan = f"block.{block}.conv{number}", (inputs if number == 1 else width)
            spread = (6 / (fan * size * size)) ** 0.5
            state[f"{name}.conv.weight"] = drawn(width, fan, size, size, low=-spread, high=spread)
            state[f"{name}.bn.weight"] = drawn(width, low=0.7, high=1.3)
            state[f"{name}.bn.bias"] = drawn(width)
            state[f"{name}.bn.running_mean"] = drawn(width)
            state[f"{name}.bn.running_var"] = drawn(width, low=0.5, high=1.5)
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    for side in ("", "_reverse"):
        state[f"lstm.weight_ih_l0{side}"] = drawn(1024, 512, low=-0.1, high=0.1)
        state[f"lstm.weight_hh_l0{side}"] = drawn(1024, 256, low=-0.1, high=0.1)
        for bias in ("ih", "hh"):
            state[f"lstm.bias_{bias}_l0{side}"] = drawn(1024)
    state["final.weight"] = drawn(CLASSES, 512)
    state["final.bias"] = drawn(CLASSES)
    return state


def posteriors(state, patches):
    """(B, 31, 442) probabilities of (B, 31, 513) patches: convolutions and gates spelled out."""

    def convolve(x, name):
        x = functional.conv2d(x, state[f"{name}.conv.weight"], padding="same")
        mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        weight, bias = state[f"{name}.bn.weight"], state[f"{name}.bn.bias"]
        return functional.batch_norm(x, mean, variance, weight, bias, eps=1e-3)

    x = patches[:, None]  # (B, 1, T, F)
    for block in range(4):
        name = f"block.{block}.conv"
        shortcut = x = convolve(x, f"{name}1")
        for number in "234":
            x = convolve(functional.leaky_relu(x, 0.01), f"{name}{number}")
        x = functional.max_pool2d(functional.leaky_relu(x + shortcut, 0.01), (1, 4))
    x = x.permute(0, 2, 3, 1).flatten(2)  # (B, 31, 2 x 256)
    both = []
    for side, order in (("", 1), ("_reverse", -1)):
        steps = range(31)[::order]
        output, cell, found = torch.zeros(len(x), 256), torch.zeros(len(x), 256), {}
        for step in steps:
            gates = x[:, step] @ state[f"lstm.weight_ih_l0{side}"].T
            gates = gates + output @ state[f"lstm.weight_hh_l0{side}"].T
            gates = gates + state[f"lstm.bias_ih_l0{side}"] + state[f"lstm.bias_hh_l0{side}"]
            add, forget, new, show = gates.chunk(4, 1)
            cell = forget.sigmoid() * cell + add.sigmoid() * new.tanh()
            found[step] = output = show.sigmoid() * cell.tanh()
        both.append(torch.stack([found[step] for step in range(31)], 1))
    scores = torch.cat(both, 2) @ state["final.weight"].T + state["final.bias"]
    return scores.softmax(2)


@pytest.fixture(scope="module")
def state():
    return published_state()


@pytest.fixture
def folder(state, tmp_path):
    """The three files as the published code has them."""
    rng = np.random.default_rng(1)
    torch.save(state, tmp_path / FILES[0])
    np.save(tmp_path / FILES[1], rng.uniform(-50, -20, PATCH))
    np.save(tmp_path / FILES[2], rng.uniform(8, 16, PATCH))
    return tmp_path


def test_a_folder_is_converted_and_gives_the_published_posteriors(folder, state, capsys):
    assert main(["weights", "convert", str(folder), "--out", str(folder / "out")]) == 0
    assert "weights: " in capsys.readouterr().out
    extractor = load_crnn(folder / "out" / "crnn.safetensors")
    mean, std = (np.load(folder / name) for name in FILES[1:])
    rng = np.random.default_rng(2)
    level_db = rng.uniform(-80, 0, (2, *PATCH)).astype(np.float32)
    patches = torch.from_numpy(((level_db - mean) / (std + 1e-4)).astype(np.float32))
    wanted = posteriors(state, patches).numpy().reshape(-1, CLASSES)
    found = extractor._classify(level_db.reshape(-1, PATCH[1]))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert len(set(wanted.argmax(1))) > 10  # the comparison says something
    sources = load_weights(str(folder / "out" / "crnn.safetensors")).config["sources"]
    assert sources["weights"]["file"] == FILES[0]


def spoil(state, name):
    key = "block.2.conv3.bn.running_var"
    changed = {
        "a missing array": {k: v for k, v in state.items() if k != key},
        "another array": state | {"spec_layer.window": torch.ones(3)},
        "another shape": state | {key: torch.ones(5)},
        "NaN": state | {key: torch.full((192,), torch.nan)},
        "a negative variance": state | {key: -torch.ones(192)},
        "a number": state | {key: 5},
        "whole numbers": state | {key: torch.ones(192, dtype=torch.int64)},
        "complex numbers": state | {key: torch.ones(192, dtype=torch.complex64)},
        "too large for single precision": state | {key: torch.ones(192).double() * 1e300},
        "a sparse array": state | {key: torch.ones(192).to_sparse()},
        "no memory behind it": state | {key: torch.ones(192, device="meta")},
        "a name of two lines": state | {"block\n2": torch.ones(3)},
        "no state dict": [1, 2],
        "numbers for names": {1: torch.ones(3)},
    }
    return changed[name]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a missing array", r"it has no 'block\.2\.conv3\.bn\.running_var'"),
        ("another array", "the network has no 'spec_layer"),
        ("another shape", FLOATS),
        ("NaN", "holds NaN"),
        ("a negative variance", "negative values"),
        ("a number", FLOATS),
        ("whole numbers", FLOATS),
        ("complex numbers", FLOATS),
        ("too large for single precision", "holds NaN, infinite"),
        ("a sparse array", FLOATS),
        ("no memory behind it", FLOATS),
        ("a name of two lines", r"the network has no 'block\\n2'"),
        ("no state dict", "holds no state dict"),
        ("numbers for names", "holds no state dict"),
    ],
)
def test_foreign_weights_get_one_sentence(folder, state, name, says):
    torch.save(spoil(state, name), folder / FILES[0])
    refuse(folder, says)


class Attack:
    """Would make a folder if it were unpickled."""

    def __reduce__(self):
        import os

        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", DAMAGED),
        (b"words", DAMAGED),
        (pickle.dumps({"block": 1}), "the network has no 'block'|is damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", DAMAGED),  # called without arguments
        (b"\x80\x02t.", DAMAGED),
        (b"\x80\x02j\x01", DAMAGED),
        (pickle.dumps(Attack(), 2), r"holds '\w+.mkdir', which is not a plain value"),
    ],
    ids=["empty", "text", "pickle", "call", "stack", "cut", "attack"],
)
def test_damaged_and_dangerous_files_are_refused(folder, content, says, monkeypatch, recwarn):
    monkeypatch.chdir(folder)
    (folder / FILES[0]).write_bytes(content)
    text = refuse(folder, says)
    assert "trust" not in text  # torch's advice to read the file all the same
    assert not (folder / "unpickled").exists()
    assert not recwarn.list


def test_a_file_cut_short_is_refused(folder):
    whole = (folder / FILES[0]).read_bytes()
    (folder / FILES[0]).write_bytes(whole[: len(whole) // 2])
    refuse(folder, "is damaged")


def refuse(folder, says):
    with pytest.raises(QbhError, match=says) as caught:
        convert_crnn(*published_files(folder), folder / "out")
    assert str(folder / FILES[0]) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "out").exists()
    return str(caught.value)


def test_a_folder_without_weights(tmp_path, capsys):
    assert main(["weights", "convert", str(tmp_path)]) == 2
    assert "melody_extractor_weights.pt" in capsys.readouterr().err
    assert main(["weights", "convert", str(tmp_path / "gone.pt")]) == 2
    assert "give the weights, MEAN.npy and STD.npy" in capsys.readouterr().err
