"""What every training run shares: its loop, a checkpoint that resumes, a curve, its seeds."""

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
    """What every training run has to say.

    Args:
        seed: of everything that is drawn.
        epochs: checkpoints and lines of the curve.
        steps_per_epoch: batches.
        batch: examples a batch.
        learning_rate: the highest; warmed up over the first epoch, then a cosine down to 0.
        weight_decay: of Adam (decoupled).
        max_grad_norm: larger gradients are scaled down to this norm.
        threads: of torch; the curve repeats exactly only at the same number.
        bfloat16: multiply in half precision on GPUs and processors made for it; others, where it
            would be eight times slower, multiply in single precision.
    """

    seed: int = 0
    epochs: int = 30
    steps_per_epoch: int = 100
    batch: int = 12
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    max_grad_norm: float = 1.0
    threads: int = 2
    bfloat16: bool = False

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "epochs", "steps_per_epoch", "batch", "threads")
        check_range(self, 0, math.inf, "seed", "learning_rate", "weight_decay")
        if self.max_grad_norm <= 0:
            raise QbhError(f"max_grad_norm must be more than 0, not {self.max_grad_norm}.")


class Loss(NamedTuple):
    """The loss of a batch, and what else its step shows; the log has the means of an epoch."""

    value: "Tensor"  # scalar
    shown: dict[str, float]


class Speed(NamedTuple):
    """How the log counts: so many units a step."""

    key: str  # for example pairs_per_s
    a_step: float


def initialise_vector_maths() -> None:
    """Call torch's vector maths (Intel MKL's) for the first time, in one thread.

    When two threads make the first call at once, one of them now and then computes otherwise: in
    one process of eight tanh was off by 5e-5 that once, so that vectors of the same song differed.
    Modules of networks call this when they are imported.
    """
    import torch

    torch.tanh(torch.zeros(64))


class Stream(IntEnum):
    """What a generator draws for.

    Recorded results depend on these numbers. Names may share one where no run uses both: a run of
    one kind never meets the draws of another kind.
    """

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
    """Return a generator that only these numbers determine, whatever was drawn before.

    Args:
        seed: of the run.
        counters: what tells this draw from all others: purpose, epoch, item. As many for every draw
            of a run: zeros at the end make no difference.

    Notebook: notebooks/06_train_self_supervised.py
    """
    return Generator(Philox(SeedSequence([seed, *counters])))


def make_fabric(config: RunConfig, device: str = "auto", devices: int = 1) -> "Fabric":
    """Return what carries a run: a processor or a GPU, alone or several of them.

    Args:
        config: says threads and precision; torch's generator is seeded.
        device: ``auto`` (a GPU if torch finds one), ``cpu`` or ``cuda``.
        devices: processes or GPUs that share every batch; with more than one, the program that
            runs starts itself again for each of the others.

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
    """Return in what a run multiplies on a device (``auto``, ``cpu`` or ``cuda``)."""
    import torch

    if not config.bfloat16:
        return "32-true"
    if device != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    knows = torch.cpu.get_capabilities()
    made_for_it = any(knows.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return "bf16-mixed" if made_for_it else "32-true"


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
    """Train a network: the one loop of the kit.

    Writes ``checkpoint.pt`` (weights, optimiser, curve) and the log (config, versions, a line an
    epoch) after every epoch, each atomically. A resumed run repeats what it would have done
    provided that ``batches`` depends on the epoch alone.

    Args:
        config: the run; seeds torch's generator anew every epoch.
        fabric: what carries the run.
        network: to train, in place.
        batches: takes the epoch and gives ``config.steps_per_epoch`` batches.
        loss_of: takes the network as Fabric wraps it, a batch and the epoch.
        folder: where the checkpoint is kept.
        log: JSON file of the curve.
        speed: what is counted.
        evaluate: called after every epoch with the network in evaluation mode and the epoch; the
            line of the curve gets what it returns.
        resume: go on from the checkpoint in ``folder``.
        progress: show a bar on standard error.

    Returns:
        The network in evaluation mode.

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
    wrapped, steered = fabric.setup(network, optimiser)
    total, done = config.epochs * config.steps_per_epoch, len(curve) * config.steps_per_epoch
    hidden = not (progress and fabric.is_global_zero)
    bar = tqdm(desc="train", total=total, initial=done, unit="step", disable=hidden)
    for epoch in range(len(curve), config.epochs):
        torch.manual_seed(config.seed + epoch)  # dropout goes on alike after a resume
        network.train()
        began = time.perf_counter()
        shown: list[dict[str, float]] = []
        for step, batch in enumerate(batches(epoch)):
            rate = scheduled_rate(config, epoch * config.steps_per_epoch + step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = loss_of(wrapped, batch, epoch)
            if not torch.isfinite(loss.value):
                raise QbhError(
                    "The loss is no longer finite: lower 'learning_rate' in the configuration."
                )
            steered.zero_grad()
            fabric.backward(loss.value)
            fabric.clip_gradients(wrapped, steered, max_norm=config.max_grad_norm)
            steered.step()
            shown.append({"loss": loss.value.item(), **loss.shown})
            bar.update()
        line = {key: float(np.mean([row[key] for row in shown])) for key in shown[0]}
        taken_s = time.perf_counter() - began
        line |= {"epoch": epoch, "rate": rate, speed.key: speed.a_step * len(shown) / taken_s}
        network.eval()
        if evaluate is not None:
            line |= evaluate(network, epoch)
        curve.append(line)
        bar.set_postfix({key: f"{value:.4g}" for key, value in line.items() if key != "epoch"})
        if fabric.is_global_zero:
            save_checkpoint(checkpoint, asdict(config), network, optimiser, curve)
            multiplied = precision(config, fabric.device.type)
            write_json(log, training_log(asdict(config), curve, multiplied))
        fabric.barrier()
    bar.close()
    return network.eval()


def scheduled_rate(config: RunConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up over the first epoch, then a cosine to 0."""
    warm = min(1.0, (step + 1) / config.steps_per_epoch)
    turn = math.pi * step / (config.epochs * config.steps_per_epoch)
    return config.learning_rate * warm * 0.5 * (1 + math.cos(turn))


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
    content = io.BytesIO()  # torch's own writer hides why a file cannot be written
    torch.save(state, content)
    with atomic_path(path) as part:
        part.write_bytes(content.getbuffer())


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
    if not isinstance(state, dict) or state.get("config") != config:
        raise QbhError(f"{path} belongs to another configuration: start without --resume.")
    try:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        return list(state["curve"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise QbhError(
            f"{path} is damaged ({type(error).__name__}): start without --resume."
        ) from None


def training_log(config: dict[str, Any], curve: Curve, precision: str) -> dict[str, Any]:
    """Return what the log of a run holds: configuration, versions (also of the code), curve."""
    return {"config": config, "versions": versions() | {"precision": precision}, "curve": curve}
