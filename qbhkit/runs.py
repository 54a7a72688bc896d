"""What every training run shares: a checkpoint that resumes, a curve that is logged, its seeds."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator, Philox, SeedSequence

from qbhkit.errors import QbhError
from qbhkit.storage import atomic_path

if TYPE_CHECKING:
    from torch import nn, optim

Curve = list[dict[str, float]]


def generator(seed: int, *counters: int) -> Generator:
    """Return a generator that only these numbers determine, whatever was drawn before.

    Args:
        seed: of the run.
        counters: what tells this draw from all others: purpose, epoch, item. As many for every draw
            of a run: zeros at the end make no difference.
    """
    return Generator(Philox(SeedSequence([seed, *counters])))


def save_checkpoint(
    path: Path,
    config: dict[str, Any],
    network: "nn.Module",
    optimiser: "optim.Optimizer",
    curve: Curve,
) -> None:
    """Write everything that a run needs to go on, atomically."""
    import torch

    state = {
        "config": config,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "curve": curve,
    }
    with atomic_path(path) as part:
        torch.save(state, part)


def load_checkpoint(
    path: Path, config: dict[str, Any], network: "nn.Module", optimiser: "optim.Optimizer"
) -> Curve:
    """Put a run back where it was, and return its curve.

    Raises:
        QbhError: if there is no checkpoint, it is damaged, or belongs to another configuration.
    """
    import torch

    if not path.is_file():
        raise QbhError(f"{path} does not exist: start without --resume.")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise QbhError(
            f"{path} is damaged ({type(error).__name__}): start without --resume."
        ) from None
    if state.get("config") != config or "network" not in state:
        raise QbhError(f"{path} belongs to another configuration: start without --resume.")
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return list(state["curve"])


def report(config: dict[str, Any], curve: Curve) -> dict[str, Any]:
    """Return what the log of a run holds: configuration, versions, curve."""
    import torch

    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return {"config": config, "versions": versions, "curve": curve}
