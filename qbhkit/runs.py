"""What every training run shares: its loop, a checkpoint that resumes, a curve, its seeds."""

import math
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator, Philox, SeedSequence
from tqdm.auto import tqdm

from qbhkit.errors import QbhError
from qbhkit.storage import atomic_path, write_json

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    Network = TypeVar("Network", bound=nn.Module)

Batch = TypeVar("Batch")
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class RunConfig:
    """What every training run has to say.

    Args:
        seed: of everything that is drawn.
        epochs: checkpoints and lines of the curve.
        steps: batches an epoch.
        batch: examples a batch.
        rate: highest learning rate; warmed up over the first epoch, then a cosine down to 0.
        weight_decay: of Adam (decoupled).
        clip: largest norm of the gradient.
        threads: of torch; the curve repeats exactly only at the same number.
    """

    seed: int = 0
    epochs: int = 30
    steps: int = 100
    batch: int = 12
    rate: float = 1e-3
    weight_decay: float = 1e-6
    clip: float = 1.0
    threads: int = 2


class Loss(NamedTuple):
    """The loss of a batch, and what else its step shows; the log has the means of an epoch."""

    value: "Tensor"  # scalar
    shown: dict[str, float]


class Speed(NamedTuple):
    """How the log counts: so many units a step."""

    key: str  # for example pairs_per_s
    a_step: float


def generator(seed: int, *counters: int) -> Generator:
    """Return a generator that only these numbers determine, whatever was drawn before.

    Args:
        seed: of the run.
        counters: what tells this draw from all others: purpose, epoch, item. As many for every draw
            of a run: zeros at the end make no difference.
    """
    return Generator(Philox(SeedSequence([seed, *counters])))


def fit(
    config: RunConfig,
    network: "Network",
    batches: Callable[[int], Iterable[Batch]],
    loss_of: Callable[[Batch, int], Loss],
    folder: Path,
    log: Path,
    speed: Speed,
    evaluate: Callable[["Network"], dict[str, float]] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> "Network":
    """Train a network: the one loop of the kit.

    Writes ``checkpoint.pt`` (weights, optimiser, curve) and the log (config, versions, a line an
    epoch) after every epoch, each atomically. A resumed run repeats what it would have done
    provided that ``batches`` depends on the epoch alone.

    Args:
        config: the run; seeds torch's generator anew every epoch.
        network: to train, in place, on the device where it lies.
        batches: takes the epoch and gives ``config.steps`` batches.
        loss_of: takes a batch and the epoch.
        folder: where the checkpoint is kept.
        log: JSON file of the curve.
        speed: what is counted.
        evaluate: called with the network in evaluation mode after every epoch; the line of the
            curve gets what it returns.
        resume: go on from the checkpoint in ``folder``.
        progress: show a bar on standard error.

    Returns:
        The network in evaluation mode.

    Raises:
        QbhError: if ``resume`` finds no checkpoint, or one of another configuration; if the loss
            is no longer finite.
    """
    import torch

    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.rate, weight_decay=config.weight_decay
    )
    curve: Curve = []
    checkpoint = folder / "checkpoint.pt"
    if resume:
        curve = load_checkpoint(checkpoint, asdict(config), network, optimiser)
    total, done = config.epochs * config.steps, len(curve) * config.steps
    bar = tqdm(desc="train", total=total, initial=done, unit="step", disable=not progress)
    for epoch in range(len(curve), config.epochs):
        torch.manual_seed(config.seed + epoch)  # dropout goes on alike after a resume
        network.train()
        began = time.perf_counter()
        shown: list[dict[str, float]] = []
        for step, batch in enumerate(batches(epoch)):
            rate = learning_rate(config, epoch * config.steps + step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = loss_of(batch, epoch)
            if not torch.isfinite(loss.value):
                raise QbhError("The loss is no longer finite: lower 'rate' in the configuration.")
            optimiser.zero_grad()
            loss.value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            optimiser.step()
            shown.append({"loss": loss.value.item(), **loss.shown})
            bar.update()
        line = {key: float(np.mean([row[key] for row in shown])) for key in shown[0]}
        taken_s = time.perf_counter() - began
        line |= {"epoch": epoch, "rate": rate, speed.key: speed.a_step * len(shown) / taken_s}
        network.eval()
        if evaluate is not None:
            line |= evaluate(network)
        curve.append(line)
        bar.set_postfix({key: f"{value:.4g}" for key, value in line.items() if key != "epoch"})
        save_checkpoint(checkpoint, asdict(config), network, optimiser, curve)
        write_json(log, report(asdict(config), curve))
    bar.close()
    return network.eval()


def learning_rate(config: RunConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up over the first epoch, then a cosine to 0."""
    warm = min(1.0, (step + 1) / config.steps)
    turn = math.pi * step / (config.epochs * config.steps)
    return config.rate * warm * 0.5 * (1 + math.cos(turn))


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
