"""Convert the published weights of the melody network, of Keras or PyTorch, to a file of the kit.

Keras 2 writes HDF5: arrays by layer, no code. From PyTorch's file only tensors are loaded.
"""

import json
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbhkit.errors import QbhError, missing_package
from qbhkit.pitch.crnn import PATCH, MelodyCrnn, export_crnn
from qbhkit.storage import map_array, sha256_file
from qbhkit.weights import is_plain_tensor, read_torch

_CURE = "give the authors' own file, such as ResNet_NS.hdf5 or melody_extractor_weights.pt"
_PATCH_CURE = "give the authors' x_data_mean_total_31.npy and x_data_std_total_31.npy"
_LONGEST_S = 3.0  # of processor time; the published file takes 0.1 s
_KINDS = {1: "convolution", 2: "dense layer", 4: "batch norm", 6: "bidirectional LSTM"}  # by arrays
_NOT_IN_KERAS = ("num_batches_tracked", "bias_hh")  # PyTorch's LSTM adds two biases
_TORCH_NAME = "melody_extractor_weights.pt"
# Our names, and those in that file.
_TORCH_PARTS = {
    "blocks": "block", "shortcut": "conv1", "first": "conv2", "second": "conv3", "last": "conv4",
    "norm": "bn", "output": "final",
}  # fmt: skip

_Layers = dict[str, dict[str, tuple[int, ...]]]
_Arrays = dict[str, list[NDArray]]


def keras_layers() -> _Layers:
    """Return the network's layers: the shapes in Keras by PyTorch's names, in the order of Keras.

    Kernels are (height, width, in, out) in Keras, (out, in, height, width) in PyTorch. The order of
    an LSTM's gates is the same: input, forget, cell, output.
    """
    layers: _Layers = {}
    for name, value in MelodyCrnn().state_dict().items():
        layer, key = name.rsplit(".", 1)
        if not key.startswith(_NOT_IN_KERAS):
            layers.setdefault(layer, {})[key] = (*value.shape[2:], *value.shape[1::-1])
    return layers


def torch_names() -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the arrays in the published PyTorch file."""
    return {_torch_name(name): tuple(v.shape) for name, v in MelodyCrnn().state_dict().items()}


def _torch_name(name: str) -> str:
    return ".".join(_TORCH_PARTS.get(part, part) for part in name.split("."))


def published_files(folder: Path) -> tuple[Path, Path, Path]:
    """Return the files of weights, mean and deviation in a folder of the published code.

    Raises:
        QbhError: if the folder holds no weights.
    """
    found = [folder / _TORCH_NAME, *sorted(folder.glob("*.hdf5"))]
    weights = next((path for path in found if path.is_file()), None)
    if weights is None:
        raise QbhError(f"{folder} holds neither {_TORCH_NAME} nor .hdf5: {_CURE}.")
    return weights, folder / "x_data_mean_total_31.npy", folder / "x_data_std_total_31.npy"


def convert_crnn(weights: Path, mean: Path, std: Path, folder: Path) -> Path:
    """Convert published weights to ``crnn.safetensors`` in a folder; return its path.

    Args:
        weights: ``.pt`` file of PyTorch (a state dict), or HDF5 file of Keras 2 (``save_weights``,
            or a whole model).
        mean: ``.npy`` file of (31, 513) dB.
        std: ``.npy`` file of (31, 513) dB.
        folder: made if missing.

    Raises:
        QbhError: if a file is missing, damaged, holds NaN, or has a layer or shape that does not
            fit; names the file and the first layer.
        MissingPackageError: if h5py is not installed, for HDF5.

    Source: fixed facts, "Melody network".
    """
    level, spread = _patch(mean), _patch(std)
    if spread.min() < 0:
        raise QbhError(f"{std} holds negative values: give the standard deviation there.")
    network = MelodyCrnn()
    if weights.suffix == ".pt":
        network.load_state_dict(_read_torch(weights, network.state_dict()))
    else:
        _load_keras(weights, network)
    given = {"weights": weights, "mean": mean, "std": std}
    sources = {
        name: {"file": path.name, "sha256": sha256_file(path)} for name, path in given.items()
    }
    target = folder / "crnn.safetensors"
    export_crnn(network, level, spread, target, sources=sources)
    return target


def _load_keras(weights: Path, network: MelodyCrnn) -> None:
    layers, state = keras_layers(), network.state_dict()
    for layer, arrays in _read_apart(weights, layers).items():
        for key, array in zip(layers[layer], arrays, strict=True):
            turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            state[f"{layer}.{key}"].copy_(torch.from_numpy(np.ascontiguousarray(turned)))
    for side in ("", "_reverse"):
        state[f"lstm.bias_hh_l0{side}"].zero_()


def _read_torch(path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of a published file by the names of this kit's network."""
    stored = read_torch(path, _CURE)
    if not isinstance(stored, dict) or not all(isinstance(key, str) for key in stored):
        raise QbhError(f"{path} holds no state dict: {_CURE}.")
    names = {name: _torch_name(name) for name in wanted}
    for name in sorted(stored.keys() ^ set(names.values())):
        what = "the network has no" if name in stored else "it has no"
        raise QbhError(f"{path}: {what} {name[:80]!r}: {_CURE}.")
    return {ours: _fitting(path, name, stored[name], wanted[ours]) for ours, name in names.items()}


def _fitting(path: Path, name: str, found: Any, like: Tensor) -> Tensor:
    """Return a tensor of a file, if it can take the place of the network's."""
    if (
        not is_plain_tensor(found)
        or found.shape != like.shape
        or found.is_floating_point() != like.is_floating_point()
    ):
        shape, kind = tuple(like.shape), "floats" if like.is_floating_point() else "integers"
        raise QbhError(f"{path}: {name} must hold {kind} in the shape {shape}: {_CURE}.")
    found = found.to(like.dtype)
    if not found.isfinite().all() or (name.endswith("running_var") and found.min() < 0):
        raise QbhError(f"{path}: {name} holds NaN, infinite or negative values: {_CURE}.")
    return found


def _patch(path: Path) -> NDArray:
    try:
        array = map_array(path)
    except FileNotFoundError:
        raise QbhError(f"{path} does not exist: check the path.") from None
    except (OSError, ValueError):
        raise QbhError(f"{path} is damaged or no .npy file of numbers: {_PATCH_CURE}.") from None
    if array.shape != PATCH or array.dtype.kind != "f":
        raise QbhError(f"{path} must hold (31, 513) numbers, not {array.shape}: {_PATCH_CURE}.")
    if not np.isfinite(array).all():
        raise QbhError(f"{path} holds NaN or infinite values: {_PATCH_CURE}.")
    return np.array(array, np.float32)


def _read_apart(path: Path, wanted: _Layers) -> _Arrays:
    """Read a Keras file in a process of its own: on a damaged one HDF5 may crash or never end.

    Forking is safe, because that process does not use torch.
    """
    try:
        import h5py  # noqa: F401
    except ImportError:
        raise missing_package("h5py", "'qbhkit[keras]'") from None
    if not path.is_file():
        raise QbhError(f"{path} does not exist: check the path.")
    fork = get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    reader = fork.Process(target=_send, args=(path, wanted, sender))
    reader.start()
    sender.close()
    try:
        answer: _Arrays | str = receiver.recv()
    except EOFError:
        answer = " is damaged (reading it crashes or never ends)"
    reader.join()
    if isinstance(answer, str):
        raise QbhError(f"{path}{answer}: {_CURE}.")
    return answer


def _send(path: Path, wanted: _Layers, sender: Connection) -> None:
    """Send what a file holds, or what is wrong with it, within a time limit."""
    signal.setitimer(signal.ITIMER_PROF, _LONGEST_S)
    try:
        sender.send(_read(path, wanted))
    except QbhError as error:
        sender.send(str(error))
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip("'\"").rstrip(".")
        sender.send(f" is damaged or holds no Keras weights ({reason})")


def _read(path: Path, wanted: _Layers) -> _Arrays:
    """Match stored layers to the network's by kind and order, and read their arrays.

    Names (``conv2d_7``) differ between Keras sessions.

    Raises:
        QbhError: says what is wrong, as it follows the path.
    """
    import h5py

    layers = {}
    with h5py.File(path, "r") as stored:
        # Only a whole model tells; the published system runs on Keras 2.3 with plain sigmoids.
        if "hard_sigmoid" in json.dumps(json.loads(_text(stored.attrs.get("model_config", "0")))):
            raise QbhError(" uses hard_sigmoid gates, the published network plain ones")
        root = stored.get("model_weights", stored)
        left: dict[str, list[Any]] = {}
        for name in map(_text, root.attrs["layer_names"]):
            left[name] = [root[name][_text(key)] for key in root[name].attrs["weight_names"]]
        for layer, keys in wanted.items():
            shapes = list(keys.values())
            alike = [name for name, arrays in left.items() if len(arrays) == len(shapes)]
            if not alike:
                raise QbhError(f" has no {_KINDS[len(shapes)]} for {layer}")
            name, arrays = alike[0], left.pop(alike[0])
            if [array.shape for array in arrays] != shapes:
                given = _listed([array.shape for array in arrays])
                raise QbhError(
                    f", layer {name}: {layer} wants arrays of shapes {_listed(shapes)}, not {given}"
                )
            layers[layer] = [np.asarray(array, np.float32) for array in arrays]
            if not all(np.isfinite(array).all() for array in layers[layer]):
                raise QbhError(f", layer {name}: holds NaN or infinite values")
            if len(arrays) == 4 and layers[layer][3].min() < 0:
                raise QbhError(f", layer {name}: holds a negative variance")
        for name in filter(left.get, left):
            raise QbhError(f", layer {name}: the network has no such layer")
    return layers


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " ".join(map(str, dict.fromkeys(shapes)))
