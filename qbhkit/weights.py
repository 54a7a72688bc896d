"""Trained weights: safetensors with their configuration inside, and a model card beside them."""

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.config import former_names, present_names
from qbhkit.errors import QbhError, naming
from qbhkit.storage import asset, cache_dir, data_dir, write_arrays

DEFAULT_EMBEDDING = "best"

Arrays = dict[str, NDArray]


@dataclass(frozen=True, eq=False)
class Weights:
    """Arrays by name, the configuration they need, and the hash that identifies them."""

    name: str
    arrays: Arrays
    config: dict[str, Any]
    sha256: str  # of what makes vectors: neither a calibration nor the renaming of a key changes it


def save_weights(path: Path, arrays: Arrays, config: dict[str, Any], half: bool = False) -> None:
    """Write arrays and their configuration as one safetensors file, atomically.

    Args:
        path: to write.
        arrays: by name.
        config: what is needed to use them.
        half: write float32 as float16, about 3 digits.

    Raises:
        QbhError: if a value is too large for float16.
    """
    if half:
        arrays = {key: _halved(key, value) for key, value in arrays.items()}
    plain = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    write_arrays(path, plain, {"qbhkit": json.dumps(config)})


def _halved(key: str, array: NDArray) -> NDArray:
    """Return float32 as float16, and any other type (such as counters) unchanged."""
    if array.dtype != np.float32:
        return array
    if np.abs(array).max() > np.finfo(np.float16).max:
        raise QbhError(f"{key} holds values too large for half precision: export without half.")
    return array.astype(np.float16)


def weights_path(name: str) -> Path:
    """Return the file of weights, given by its path, a shipped name or the name of a training run.

    Raises:
        QbhError: if there is no such file.
    """
    trained = cache_dir() / "runs" / name / f"{name}.safetensors"
    for path in (Path(name), asset(f"weights/{name}.safetensors"), trained):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in asset("weights").glob("*.safetensors")))
    raise QbhError(f"There are no weights {name!r}: give a .safetensors file or one of {shipped}.")


def crnn_path() -> Path:
    """Return where the kit looks for the published melody network, once it is converted."""
    return data_dir() / "weights" / "crnn.safetensors"


def load_weights(name: str) -> Weights:
    """Read weights, see :func:`weights_path`; names of version 1.0 become the present ones.

    Raises:
        QbhError: if the file is missing, damaged, or not written by this kit.
    """
    from safetensors import SafetensorError, safe_open

    path = weights_path(name)
    try:
        with safe_open(path, framework="numpy") as stored:
            config = json.loads((stored.metadata() or {})["qbhkit"])
            arrays = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        if not isinstance(config, dict):
            raise KeyError
    except KeyError:
        raise QbhError(f"{path} was not written by this kit: convert it first.") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise QbhError(f"{path} is damaged ({error}): fetch or train it again.") from None
    with naming(path):
        present = _renamed(arrays, config, present_names)
    former = _renamed(arrays, config, former_names)  # catalogues know weights by this hash
    return Weights(path.stem, *present, _content_hash(*former))


@contextmanager
def holding(refusal: str) -> Iterator[None]:
    """Raise QbhError with this message if weights lack what the block reads from them."""
    try:
        yield
    except QbhError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise QbhError(refusal) from None


def read_torch(path: Path, cure: str) -> Any:
    """Read what ``torch.save`` wrote: tensors and plain values; nothing in the file can run.

    Args:
        path: to read.
        cure: what to do instead if the file is refused, without a full stop.

    Raises:
        QbhError: if the file is missing, damaged, or holds anything else.
    """
    import torch

    if not path.is_file():
        raise QbhError(f"{path} does not exist: {cure}.")
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # damaged bytes may raise anything
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise not_plain(path, refused[1], cure) from None
        raise QbhError(f"{path} is damaged or no PyTorch file: {cure}.") from None


def not_plain(path: Path, name: str, cure: str) -> QbhError:
    """Return the error that a pickle holds an object of a class or function of this name."""
    return QbhError(
        f"{path} holds {name[:80]!r}, which is not a plain value and could run code, so it was not "
        f"read: {cure}, or save only its numbers and texts."
    )


def is_plain_tensor(value: Any) -> bool:
    """Tell whether a value is a tensor of real numbers in memory: not sparse, quantized, ..."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and not (value.is_nested or value.is_quantized or value.is_complex())
        and value.layout == torch.strided
        and value.device.type == "cpu"
    )


def _renamed(
    arrays: Arrays, config: dict[str, Any], rename: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> tuple[Arrays, dict[str, Any]]:
    """Rename the keys and the layers of an encoder; no other network has former names."""
    if not isinstance(config.get("encoder"), dict):
        return arrays, config
    config = rename("Weights", config) | {"encoder": rename("EncoderConfig", config["encoder"])}
    renamed = {}
    for key, array in arrays.items():
        layer, *rest = key.split(".")
        (layer,) = rename("EncoderConfig", {layer: None})
        renamed[".".join([layer, *rest])] = array
    return renamed, config


def _content_hash(arrays: Arrays, config: dict[str, Any]) -> str:
    makes_vectors = {key: value for key, value in config.items() if key != "calibration"}
    digest = hashlib.sha256(json.dumps(makes_vectors, sort_keys=True).encode())
    for key, array in sorted(arrays.items()):
        digest.update(json.dumps([key, str(array.dtype), array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
