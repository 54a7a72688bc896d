"""Where results come from: a JSON note beside files that were built, and versions for a log."""

import json
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import qbhkit
from qbhkit.errors import QbhError
from qbhkit.storage import read_json, write_json


def made_from(note: Path, recipe: dict[str, Any]) -> bool:
    """Return whether a note written by :func:`record` holds this recipe."""
    try:
        return bool(read_json(note, "") == _plain(recipe))
    except QbhError:
        return False  # missing or damaged, so the files are made again


def record(note: Path, recipe: dict[str, Any]) -> None:
    """Write a note of what files were made from, atomically."""
    write_json(note, _plain(recipe))


def _plain(recipe: dict[str, Any]) -> Any:
    return json.loads(json.dumps(recipe))  # tuples count as lists


def versions() -> dict[str, Any]:
    """Return the versions that a result depends on: Python, NumPy, torch, and the kit's code."""
    import numpy as np
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "revision": _revision(),
    }


@cache
def _revision() -> str:
    """Return the commit of the running package, or its version if it is installed."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return qbhkit.__version__
