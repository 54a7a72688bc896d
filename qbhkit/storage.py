"""Atomic writes, checksums, and the folders of the kit."""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EIO, ENOSPC
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbhkit.errors import QbhError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FULL_BYTES = 1 << 20  # a disk with less free space counts as full


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path of the same suffix that replaces ``target`` only if the block succeeds.

    Args:
        target: the file to write; its folder is created if it is missing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-", suffix=target.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        os.umask(mask := os.umask(0))  # the mask can only be read by setting another
        part.chmod(0o666 & ~mask)  # mkstemp creates files that only their owner can read
        os.replace(part, target)
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(target)  # errors of a full disk lack it
        raise
    finally:
        part.unlink(missing_ok=True)


def write_arrays(target: Path, arrays: "dict[str, NDArray[Any]]", metadata: dict[str, str]) -> None:
    """Write arrays as a safetensors file, atomically."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with atomic_path(Path(target)) as part:
        try:
            save_file(arrays, part, metadata=metadata)
        except SafetensorError as error:
            raise unwritten(Path(target), error) from None


def unwritten(target: Path, error: Exception) -> OSError:
    """Return the OSError behind the error of a library that could not write a file."""
    free_bytes = shutil.disk_usage(target.parent).free
    full = "No space left" in str(error) or free_bytes < _FULL_BYTES
    return OSError(ENOSPC if full else EIO, str(error).rstrip("."), str(target))


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically, with keys in their order."""
    with atomic_path(Path(target)) as part:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        part.write_text(text, "utf-8", "backslashreplace")  # file names may hold any bytes


def read_json(path: Path, cure: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        cure: what to do if it is missing or damaged; ends the error message.

    Raises:
        QbhError: if it is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise QbhError(f"{path} does not exist: {cure}.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise QbhError(f"{path} is damaged ({error}): {cure}.") from None


def read_rows(path: Path, columns: Sequence[str], further: str = "") -> list[dict[str, str]]:
    """Read the rows of a CSV file with these columns; ``further`` ends the header in the error.

    Raises:
        QbhError: if the file is missing or damaged, or has another header.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise QbhError(f"{path} must begin with the header {','.join(columns)}{further}.")
            return list(reader)
    except FileNotFoundError:
        raise QbhError(f"{path} does not exist: check the path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise QbhError(f"{path} is not a readable CSV file ({reason}).") from None


def map_array(path: Path) -> "NDArray[Any]":
    """Map a ``.npy`` file of numbers into memory, read-only.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is damaged or does not hold one array.
    """
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header may raise anything, such as TokenError
        raise ValueError(str(error)) from None
    if not isinstance(found, np.ndarray):
        raise ValueError("it is an archive")
    return found


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def asset(name: str) -> Path:
    """Return the path of a file inside the package, for example ``hums/demo.json``."""
    return Path(str(files("qbhkit") / "assets" / name))


def cache_dir() -> Path:
    """Return the folder of built and fetched files: ``QBHKIT_CACHE``, else the user's cache."""
    if value := os.environ.get("QBHKIT_CACHE"):
        return Path(value)
    from platformdirs import user_cache_path

    return user_cache_path("qbhkit", appauthor=False)


def data_dir() -> Path:
    """Return the folder of the user's corpora: ``QBHKIT_DATA``, else ``corpora`` in the cache."""
    if value := os.environ.get("QBHKIT_DATA"):
        return Path(value)
    return cache_dir() / "corpora"
