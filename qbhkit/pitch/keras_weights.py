"""Convert the published Keras weights of the melody network to a file of the kit.

The authors' files are HDF5 as Keras 2 writes it: arrays by layer, no code; nothing is unpickled.
The conversion needs h5py (the extra ``keras``), but neither Keras nor TensorFlow.
"""

import json
import signal
from collections import deque
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from qbhkit.errors import QbhError, missing_package
from qbhkit.pitch.crnn import CLASSES, PATCH, STATES, WIDTHS, MelodyCrnn, export_crnn
from qbhkit.storage import map_array, sha256_file

_CURE = "give the authors' own file, such as ResNet_NS.hdf5"
_PATCH_CURE = "give the authors' x_data_mean_total_31.npy and x_data_std_total_31.npy"
_KINDS = {
    1: "convolution",
    4: "batch norm",
    6: "two-way LSTM",
    2: "dense layer",
}  # number of arrays
_LONGEST_S = 3.0  # of processor time; the published file takes 0.1 s
_NORM = ("weight", "bias", "running_mean", "running_var")  # gamma, beta, moving mean and variance
_BRANCHES = (("shortcut", 1), ("first", 3), ("second", 3), ("last", 1))  # of a block; kernel size


class _Layer(NamedTuple):
    """Hold a layer of a Keras file or of the network: arrays and shapes in the order of Keras."""

    name: str
    shapes: list[tuple[int, ...]]
    arrays: list[Any]

    @property
    def kind(self) -> str:
        return _KINDS.get(len(self.shapes), "unknown layer")


def convert_crnn(weights: Path, mean: Path, std: Path, folder: Path) -> Path:
    """Convert published Keras weights of the melody network to ``crnn.safetensors``.

    Layers are matched by kind, order and shape, since their names (``conv2d_7``) differ between
    Keras sessions.

    Args:
        weights: HDF5 file of Keras 2 (``save_weights``, or a whole model).
        mean: ``.npy`` file of (31, 513) dB.
        std: ``.npy`` file of (31, 513) dB.
        folder: where ``crnn.safetensors`` is written, atomically; made if missing.

    Returns:
        The path of the new file.

    Raises:
        QbhError: if a file is missing, damaged, holds NaN, or has a layer or shape that does not
            fit; names the file and the first layer.
        MissingPackageError: if h5py is not installed.

    Source: fixed facts, "Melody network".
    """
    level, spread = _patch(Path(mean)), _patch(Path(std))
    if spread.min() < 0:
        raise QbhError(f"{std} holds negative values: give the standard deviation there.")
    network = MelodyCrnn()
    network.load_state_dict(dict(_tensors(_read_layers(Path(weights)))))
    given = {"weights": weights, "mean": mean, "std": std}
    sources = {
        name: {"file": Path(path).name, "sha256": sha256_file(path)} for name, path in given.items()
    }
    target = Path(folder) / "crnn.safetensors"
    export_crnn(network, level, spread, target, sources=sources)
    return target


def _patch(path: Path) -> NDArray:
    """Read a (31, 513) array."""
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


def _expected() -> Iterator[_Layer]:
    """Yield the network's layers in order, with the names of PyTorch and the shapes of Keras."""
    inputs = 1
    for number, width in enumerate(WIDTHS):
        for branch, kernel in _BRANCHES:
            name = f"blocks.{number}.{branch}"
            yield _Layer(f"{name}.conv", [(kernel, kernel, inputs, width)], [])
            yield _Layer(f"{name}.norm", [(width,)] * 4, [])
            inputs = width
    units = STATES // 2
    yield _Layer("lstm", [(STATES, 4 * units), (units, 4 * units), (4 * units,)] * 2, [])
    yield _Layer("output", [(STATES, CLASSES), (CLASSES,)], [])


def _read_layers(path: Path) -> list[_Layer]:
    """Read a file's layers and match them to the network's; return them under its names.

    On a damaged file the HDF5 library may crash or never end. So a forked process reads it, which
    does not use torch.
    """
    try:
        import h5py  # noqa: F401
    except ImportError:
        raise missing_package("h5py", "'qbhkit[keras]'") from None
    if not path.is_file():
        raise QbhError(f"{path} does not exist: check the path.")
    fork = get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    reader = fork.Process(target=_send_layers, args=(path, sender))
    reader.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        raise QbhError(f"{path} is damaged (reading it crashes or never ends): {_CURE}.") from None
    finally:
        reader.join()
    if isinstance(answer, QbhError):
        raise answer
    layers: list[_Layer] = answer
    return layers


def _send_layers(path: Path, sender: Connection) -> None:
    """Read the layers, and send them or the error; the timer ends a process that takes too long."""
    signal.setitimer(signal.ITIMER_PROF, _LONGEST_S)
    try:
        sender.send(_layers_of(path))
    except QbhError as error:
        sender.send(error)


def _layers_of(path: Path) -> list[_Layer]:
    import h5py

    try:
        with h5py.File(path, "r") as stored:
            _refuse_hard_sigmoid(path, stored.attrs.get("model_config"))
            return _matched(path, _stored(stored.get("model_weights", stored)))
    except QbhError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip("'\"").rstrip(".")
        raise QbhError(
            f"{path} is damaged or holds no Keras weights ({reason}): {_CURE}."
        ) from None


def _stored(root: Any) -> list[_Layer]:
    """Return the layers that have weights, in order; their arrays are not read yet."""
    layers = []
    for name in map(_text, root.attrs["layer_names"]):
        group = root[name]
        arrays = [group[_text(key)] for key in group.attrs["weight_names"]]
        if arrays:
            layers.append(_Layer(name, [array.shape for array in arrays], arrays))
    return layers


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _matched(path: Path, stored: list[_Layer]) -> list[_Layer]:
    """Match stored layers to the network's, kind by kind and in order, and read their arrays."""
    waiting = {kind: deque(s for s in stored if s.kind == kind) for kind in _KINDS.values()}
    left = {layer.name for layer in stored}
    layers = []
    for wanted in _expected():
        if not waiting[wanted.kind]:
            raise QbhError(f"{path} has no {wanted.kind} for {wanted.name}: {_CURE}.")
        found = waiting[wanted.kind].popleft()
        left.discard(found.name)
        if found.shapes != wanted.shapes:
            raise QbhError(
                f"{path}, layer {found.name}: {wanted.name} wants arrays of shapes "
                f"{_listed(wanted)}, not {_listed(found)}: {_CURE}."
            )
        arrays = [np.asarray(array, np.float32) for array in found.arrays]
        if not all(np.isfinite(array).all() for array in arrays):
            raise QbhError(f"{path}, layer {found.name}: holds NaN or infinite values: {_CURE}.")
        if wanted.kind == "batch norm" and arrays[3].min() < 0:
            raise QbhError(f"{path}, layer {found.name}: holds a negative variance: {_CURE}.")
        layers.append(_Layer(wanted.name, wanted.shapes, arrays))
    for layer in stored:
        if layer.name in left:
            raise QbhError(f"{path}, layer {layer.name}: the network has no such layer: {_CURE}.")
    return layers


def _listed(layer: _Layer) -> str:
    return " ".join(map(str, dict.fromkeys(layer.shapes)))


def _refuse_hard_sigmoid(path: Path, config: Any) -> None:
    """Refuse a whole model whose LSTM has hard gates, which PyTorch does not offer.

    A file of weights alone does not tell. The published system runs on Keras 2.3, whose gates are
    plain sigmoids.
    """
    if config is not None and "hard_sigmoid" in json.dumps(json.loads(_text(config))):
        raise QbhError(
            f"{path} uses hard_sigmoid gates, the published network plain ones: {_CURE}."
        )


def _tensors(layers: list[_Layer]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters of the PyTorch network by name.

    Kernels are (height, width, in, out) in Keras and (out, in, height, width) in PyTorch. The
    order of gates is the same: input, forget, cell, output. PyTorch's LSTM adds two biases; the
    second is zero here.
    """
    for name, _, arrays in layers:
        if len(arrays) == 1:
            named = {"weight": arrays[0].transpose(3, 2, 0, 1)}
        elif len(arrays) == 4:
            named = dict(zip(_NORM, arrays, strict=True))
        elif len(arrays) == 2:
            named = {"weight": arrays[0].T, "bias": arrays[1]}
        else:
            named = {}
            for side, (kernel, recurrent, bias) in (("", arrays[:3]), ("_reverse", arrays[3:])):
                named[f"weight_ih_l0{side}"] = kernel.T
                named[f"weight_hh_l0{side}"] = recurrent.T
                named[f"bias_ih_l0{side}"] = bias
                named[f"bias_hh_l0{side}"] = np.zeros_like(bias)
        for key, array in named.items():
            yield f"{name}.{key}", torch.from_numpy(np.ascontiguousarray(array))
