"""The training loop of the kit: checkpoints to resume from, a log with a curve, random streams."""

import io
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator, Philox, SeedSequence
from tqdm.auto import tqdm

from qbhkit.config import check_range
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.provenance import versions
from qbhkit.storage import atomic_path, write_json

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor, nn, optim

    Network = TypeVar("Network", bound=nn.Module)

Batch = TypeVar("Batch")
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class RunConfig:
    """Hold what all training runs have in common.

    Raises:
        QbhError: if a number is out of its range.
    """

    seed: int = 0  # of all random numbers
    epochs: int = 30  # each writes a checkpoint and a line of the curve
    steps_per_epoch: int = 100
    batch: int = 12  # examples
    learning_rate: float = 1e-3  # a cosine from this to 0, with warm-up in the first epoch
    weight_decay: float = 1e-6  # of Adam, decoupled
    max_grad_norm: float = 1.0  # larger gradients are scaled down to it
    threads: int = 2  # of torch; only with the same number does a run repeat exactly
    bfloat16: bool = False  # multiply in half precision where the hardware supports it

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "epochs", "steps_per_epoch", "batch", "threads")
        check_range(self, 0, math.inf, "seed", "learning_rate", "weight_decay")
        if self.max_grad_norm <= 0:
            raise QbhError(f"max_grad_norm must be more than 0, not {self.max_grad_norm}.")


class Loss(NamedTuple):
    """The loss of a batch, and further values, which are logged as means over each epoch."""

    value: "Tensor"  # scalar
    logged: dict[str, float]


class Speed(NamedTuple):
    """What the log counts per second, and how many a step processes."""

    key: str  # for example pairs_per_s
    per_step: float


def initialise_vector_maths() -> None:
    """Call torch's vector maths (Intel MKL's) for the first time, in one thread.

    If two threads make the first call at once, its tanh is sometimes wrong by 5e-5. Modules that
    define networks call this function when they are imported.
    """
    import torch

    torch.tanh(torch.zeros(64))


class Stream(IntEnum):
    """Number the streams of random numbers of a run; recorded results depend on the numbers."""

    EXCERPTS = 0  # of the bank for crnn-lite, then (item,)
    MIXTURES = 1  # to train crnn-lite on, then (epoch, item)
    WATCHED_MIXTURES = 2  # then (0, item)
    SPEECH = 3  # words of the speech synthesiser, then (voice, utterance)
    TRANSCRIPTION = 4  # songs rendered and transcribed, then (song id,)
    PAIRS = 0  # to train an encoder on: (epoch, PAIRS, step)
    WATCHED_PAIRS = 1  # (0, WATCHED_PAIRS, 0)
    PARTS = 0  # of rendered hums, to distil from, then (epoch, step)
    WATCHED_PARTS = 1  # then (0, 0)


def generator(seed: int, *counters: int) -> Generator:
    """Return a generator that depends on these numbers only, not on what was drawn before.

    Args:
        seed: of the run.
        counters: identify the draw: stream, epoch, item. Every draw of a run needs the same number
            of counters, because trailing zeros make no difference.

    Notebook: notebooks/06_train_self_supervised.py
    """
    return Generator(Philox(SeedSequence([seed, *counters])))


def make_fabric(config: RunConfig, device: str = "auto", devices: int = 1) -> "Fabric":
    """Return the Lightning Fabric of a run; set torch's threads and seed its generator.

    Args:
        config: has the threads, the precision and the seed.
        device: ``auto`` (a GPU if torch finds one), ``cpu`` or ``cuda``.
        devices: number of processes or GPUs that share every batch; the program is started again
            for each one but the first.

    Raises:
        QbhError: if there is no such device.
        MissingPackageError: if Lightning Fabric is not installed.
    """
    import torch

    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise MissingPackageError(
            "Training needs Lightning Fabric: pip install 'qbhkit[training]'."
        ) from None
    torch.set_num_threads(config.threads)
    try:
        fabric = Fabric(
            accelerator=device,
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            precision=precision(config, device),
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise QbhError(f"This machine cannot train on {devices} x {device} ({reason}).") from None
    fabric.launch()
    torch.manual_seed(config.seed)
    return fabric


def precision(config: RunConfig, device: str) -> Literal["bf16-mixed", "32-true"]:
    """Return the precision of a run on a device (``auto``, ``cpu`` or ``cuda``)."""
    import torch

    if not config.bfloat16:
        return "32-true"
    if device != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    capabilities = torch.cpu.get_capabilities()
    supported = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return "bf16-mixed" if supported else "32-true"


def fit(
    config: RunConfig,
    fabric: "Fabric",
    network: "Network",
    batches: Callable[[int], Iterable[Batch]],
    loss_of: Callable[["nn.Module", Batch, int], Loss],
    folder: Path,
    log: Path,
    speed: Speed,
    evaluate: Callable[["Network", int], dict[str, float]] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> "Network":
    """Train a network in place; return it in evaluation mode.

    After every epoch the checkpoint and the log are written, each atomically. A resumed run gives
    the result of an uninterrupted one if ``batches`` depends on the epoch only.

    Args:
        config: the run.
        fabric: its devices.
        network: to train.
        batches: takes the epoch and gives ``config.steps_per_epoch`` batches.
        loss_of: takes the network as Fabric wraps it, a batch and the epoch.
        folder: of ``checkpoint.pt``: weights, optimiser and curve.
        log: JSON file of configuration, versions and curve.
        speed: what is counted per second.
        evaluate: takes the network in evaluation mode and the epoch; what it returns is added to
            the epoch's line of the curve.
        resume: go on from the checkpoint.
        progress: show a bar on standard error.

    Raises:
        QbhError: if ``resume`` finds no checkpoint, or one of another configuration; if the loss
            is no longer finite.
    """
    import torch

    network.to(fabric.device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    curve: Curve = []
    checkpoint = folder / "checkpoint.pt"
    if resume:
        curve = load_checkpoint(checkpoint, asdict(config), network, optimiser)
    wrapped, wrapped_optimiser = fabric.setup(network, optimiser)
    total, done = config.epochs * config.steps_per_epoch, len(curve) * config.steps_per_epoch
    hidden = not (progress and fabric.is_global_zero)
    bar = tqdm(desc="train", total=total, initial=done, unit="step", disable=hidden)
    for epoch in range(len(curve), config.epochs):
        torch.manual_seed(config.seed + epoch)  # so that dropout repeats after a resume
        network.train()
        began = time.perf_counter()
        rows: list[dict[str, float]] = []
        for step, batch in enumerate(batches(epoch)):
            rate = scheduled_rate(config, epoch * config.steps_per_epoch + step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = loss_of(wrapped, batch, epoch)
            if not torch.isfinite(loss.value):
                raise QbhError(
                    "The loss is no longer finite: lower 'learning_rate' in the configuration."
                )
            wrapped_optimiser.zero_grad()
            fabric.backward(loss.value)
            fabric.clip_gradients(wrapped, wrapped_optimiser, max_norm=config.max_grad_norm)
            wrapped_optimiser.step()
            rows.append({"loss": loss.value.item(), **loss.logged})
            bar.update()
        line = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        taken_s = time.perf_counter() - began
        line |= {"epoch": epoch, "rate": rate, speed.key: speed.per_step * len(rows) / taken_s}
        network.eval()
        if evaluate is not None:
            line |= evaluate(network, epoch)
        curve.append(line)
        bar.set_postfix({key: f"{value:.4g}" for key, value in line.items() if key != "epoch"})
        if fabric.is_global_zero:
            save_checkpoint(checkpoint, asdict(config), network, optimiser, curve)
            used = versions() | {"precision": precision(config, fabric.device.type)}
            write_json(log, {"config": asdict(config), "versions": used, "curve": curve})
        fabric.barrier()
    bar.close()
    return network.eval()


def scheduled_rate(config: RunConfig, step: int) -> float:
    """Return the learning rate of a step: a cosine to 0 times a linear warm-up over one epoch."""
    warm_up = min(1.0, (step + 1) / config.steps_per_epoch)
    angle = math.pi * step / (config.epochs * config.steps_per_epoch)
    return config.learning_rate * warm_up * 0.5 * (1 + math.cos(angle))


def save_checkpoint(
    path: Path,
    config: dict[str, Any],
    network: "nn.Module",
    optimiser: "optim.Optimizer",
    curve: Curve,
) -> None:
    """Write all that a run needs to resume, atomically."""
    import torch

    state = {
        "config": config,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "curve": curve,
    }
    content = io.BytesIO()  # torch's own writer does not tell why a file cannot be written
    torch.save(state, content)
    with atomic_path(path) as part:
        part.write_bytes(content.getbuffer())


def load_checkpoint(
    path: Path, config: dict[str, Any], network: "nn.Module", optimiser: "optim.Optimizer"
) -> Curve:
    """Load network and optimiser from a checkpoint, and return the curve.

    Raises:
        QbhError: if there is no checkpoint, it is damaged, or belongs to another configuration.
    """
    import torch

    def damaged(error: Exception) -> QbhError:
        return QbhError(f"{path} is damaged ({type(error).__name__}): start without --resume.")

    if not path.is_file():
        raise QbhError(f"{path} does not exist: start without --resume.")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        raise damaged(error) from None
    if not isinstance(state, dict) or state.get("config") != config:
        raise QbhError(f"{path} belongs to another configuration: start without --resume.")
    try:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        return list(state["curve"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise damaged(error) from None
