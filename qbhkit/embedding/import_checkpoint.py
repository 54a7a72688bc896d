"""Convert checkpoints of the published PyTorch code to weights of the kit.

That code (github.com/jdasam/qbh_project) writes two files into a folder: ``hparams.dat``, a pickled
object of plain values, and ``checkpoint_best.pt``, with the ``state_dict`` of the network. This is
the only module of the kit that reads a pickle, and it accepts plain values only.
"""

import io
import pickle
import pickletools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from qbhkit.embedding.embedder import export_encoder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError, naming
from qbhkit.weights import is_plain_tensor, not_plain, read_torch

_CURE = "give a folder that the original code trained into"
_HPARAMS_BYTES = 16 << 10  # at most, for the original's 70 values or so
_REPEATS = 8  # of values in it, at most: each can double the memory that is taken
_LARGEST = 4096  # of the sizes in it
_READING = Reading(200, 20.0)  # windows of 20 s as they are
_POOLINGS = {"context_attention": "context", "simple_attention": "attention", "rnn": "gru"}
_RESIDUAL = {
    "body.0": "conv_1", "body.1": "bn_1", "body.3": "conv_2", "body.4": "bn_2",
    "shortcut.0": "conv_3", "shortcut.1": "bn_3",
}  # fmt: skip


def import_checkpoint(folder: Path, out: Path) -> Path:
    """Convert a checkpoint of the original code to ``original.safetensors``.

    The biases of its convolutions are folded into the batch norms that follow, since this kit's
    convolutions have none. Of an end-to-end checkpoint only the contour encoder is converted.

    Args:
        folder: holds ``hparams.dat`` and ``checkpoint_best.pt``.
        out: folder for ``original.safetensors``, which is written atomically; created if missing.

    Returns:
        The path of the new file, which ContourEmbedder reads.

    Raises:
        QbhError: if a file is missing or damaged, holds NaN or more than plain values and tensors,
            or has a layer or shape that does not fit; names the file and the first such layer.

    Source: fixed facts, "Embedding network" and "Contour" (windows of 20 s).
    """
    hparams, checkpoint = Path(folder) / "hparams.dat", Path(folder) / "checkpoint_best.pt"
    for path in (hparams, checkpoint):
        if not path.is_file():
            raise _error(f"{path} does not exist")
    config = _config(hparams, _read_hparams(hparams))
    with torch.device("meta"):  # names and shapes, no memory yet
        network = ContourEncoder(config)
    tensors = _tensors(checkpoint, _read_state(checkpoint), network)
    network.load_state_dict(tensors, assign=True)
    target = Path(out) / "original.safetensors"
    export_encoder(network, target, _READING, "published")
    return target


def _error(problem: str) -> QbhError:
    return QbhError(f"{problem}: {_CURE}.")


class _PlainUnpickler(pickle.Unpickler):
    """Read plain values; an object becomes a namespace of its attributes, no class is imported."""

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return a harmless stand-in for a class of plain values; refuse all other classes."""
        if name == "HParams" or (module, name) == ("argparse", "Namespace"):
            return SimpleNamespace  # in whatever module: HParams was moved several times
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise not_plain(self._path, f"{module}.{name}", _CURE)


def _read_hparams(path: Path) -> dict[str, Any]:
    """Read pickled hyper-parameters: a dict, or an object's attributes."""
    with open(path, "rb") as stream:
        data = stream.read(_HPARAMS_BYTES + 1)
    if len(data) > _HPARAMS_BYTES:
        raise _error(f"{path} is larger than {_HPARAMS_BYTES >> 10} KiB")
    try:
        # Small pickles can take all memory, or years to read: by a far slot of the memo, which is a
        # list, or by nested tuples that hold the same tuple twice, all of which a dict would hash.
        codes = [(code.name, value) for code, value, _ in pickletools.genops(data)]
        slots = [int(value or 0) for name, value in codes if "PUT" in name]
        repeats = sum("GET" in name or name == "DUP" for name, _ in codes)
        if max(slots, default=0) > len(data) or repeats > _REPEATS:
            raise _error(f"{path} is no plain list of hyper-parameters")
        found = _PlainUnpickler(path, data).load()
    except QbhError:
        raise
    except Exception:  # damaged bytes may raise anything
        raise _error(f"{path} is damaged or no pickle") from None
    if isinstance(found, SimpleNamespace):
        found = vars(found)
    if not isinstance(found, dict):
        raise _error(f"{path} must hold hyper-parameters, not {type(found).__name__}")
    return found


def _config(path: Path, hparams: dict[str, Any]) -> EncoderConfig:
    """Return the hyper-parameters as a configuration of the kit's encoder."""

    def get(name: str, kind: type) -> Any:
        if name not in hparams:
            raise _error(f"{path} has no {name}")
        value = hparams[name]
        if type(value) is not kind or (kind is int and value not in range(1, _LARGEST + 1)):
            wanted = f"a whole number from 1 to {_LARGEST}" if kind is int else f"a {kind.__name__}"
            raise _error(f"{path}: {name} must be {wanted}")
        return value

    hidden, layers, residual = get("hidden_size", int), get("num_layers", int), get("use_res", bool)
    if get("input_size", int) != 2 or layers < 2:
        raise _error(f"{path}: input_size must be 2 and num_layers at least 2")
    values = {
        "widths": _widths(layers, hidden, get("use_gradual_size", bool)),
        "convolutions": 2 if residual else 1,
        "kernel": get("kernel_size", int),
        "heads": get("num_head", int),
        "embedding_dim": get("embed_size", int),
        "block": "residual" if residual else "plain",
        "compression": _pools(layers, get("compression_ratio", int)),
        "linear": hidden if get("use_pre_encoder", bool) else 0,
        "pooling": _POOLINGS.get(get("summ_type", str), "max"),
    }
    with naming(path):
        return EncoderConfig(**values)


def _widths(layers: int, hidden: int, gradual: bool) -> tuple[int, ...]:
    """Return each layer's channels: ``hidden``; if gradual, 0.5, 1 and 2 times it by thirds."""
    first, second = layers // 3, layers * 2 // 3
    growing = [hidden // 2] * first + [hidden] * (second - first) + [hidden * 2] * (layers - second)
    return tuple(growing) if gradual else (hidden,) * layers


def _pools(layers: int, ratio: int) -> tuple[int, ...]:
    """Spread a compression of about ``ratio`` over all layers but the last: 160 over 4 is 6 5 5 1.

    Computed in floats as in the original, where the third root of 125 is less than 5.
    """
    mean = ratio ** (1 / (layers - 1))
    least = int(mean)
    larger = int((mean - least) * (layers - 1))
    return (*[least + 1] * larger, *[least] * (layers - 1 - larger), 1)


def _read_state(path: Path) -> dict[str, Any]:
    """Read the tensors of a checkpoint by name."""
    found = read_torch(path, _CURE)
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise _error(f"{path} has no state_dict")
    for prefix in ("module.", "contour_encoder."):  # data-parallel, end-to-end
        inner = [key for key in state if key.startswith(prefix)]
        state = {key.removeprefix(prefix): state[key] for key in inner} or state
    return dict(state)


def _tensors(path: Path, state: dict[str, Any], network: ContourEncoder) -> dict[str, Tensor]:
    """Return the network's tensors by name; every tensor of the state must be used."""

    def take(name: str, like: Tensor) -> Tensor:
        if name not in state:
            raise _error(f"{path} has no {name}, which its hparams.dat wants")
        found, layer = state.pop(name), f"{path}, layer {name}"
        if not is_plain_tensor(found) or not found.is_contiguous():
            raise _error(f"{layer}: must be a plain tensor")
        if found.shape != like.shape or found.is_floating_point() != like.is_floating_point():
            raise _error(f"{layer}: hparams.dat wants {_kind_of(like)}, not {_kind_of(found)}")
        found = found.to(like.dtype)
        if not found.isfinite().all():
            raise _error(f"{layer}: holds NaN or infinite values")
        if name.endswith("running_var") and found.min() < 0:
            raise _error(f"{layer}: holds a negative variance")
        return found

    names = _names(network.config)
    tensors = {}
    for key, wanted in network.state_dict().items():
        layer, _, part = key.rpartition(".")
        if key == "pooling.context":
            vectors = take("final_attention.context_vector", wanted.unsqueeze(2))
            tensors[key] = vectors.squeeze(2)  # (heads, channels)
            continue
        tensors[key] = take(f"{names[layer]}.{part}", wanted)
        if wanted.ndim == 3:
            convolution = names[layer]
        elif part == "running_mean":  # of the norm that follows, which absorbs the bias
            tensors[key] = tensors[key] - take(f"{convolution}.bias", wanted)
    if network.config.pooling == "attention":
        state.pop("final_attention.attention_net.bias", None)  # cancelled by the softmax
    for name in state:
        raise _error(f"{path}, layer {name}: the network of its hparams.dat has no such one")
    return tensors


def _kind_of(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _names(config: EncoderConfig) -> dict[str, str]:
    """Return the name of each layer in the original, by its name in this kit."""
    names = {
        "linear": "pre_encoder",
        "pooling.project": "final_attention.attention_net",
        "pooling.score": "final_attention.attention_net",
        "pooling.gru": "final_rnn",
        "output": "fc",
    }
    for number in range(len(config.widths)):
        name = f"encoder.conv_{number}"
        if config.block == "residual":  # and its pool
            names |= {f"stages.{2 * number}.{a}": f"{name}.{b}" for a, b in _RESIDUAL.items()}
        else:  # convolution, norm, rectifier, pool
            names[f"stages.{4 * number}"] = f"{name}.conv_norm.0"
            names[f"stages.{4 * number + 1}"] = f"{name}.conv_norm.1"
    return names
