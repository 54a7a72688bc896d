"""The training loop: mixed pairs in, a checkpoint and a curve out, resumable at every epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from qbhkit.contour import Contour, Normalisation
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.encoders import ConvEncoder, EncoderConfig
from qbhkit.embedding.losses import triplet_hinge
from qbhkit.embedding.sampling import (
    ContourBank,
    PairBatch,
    WindowRange,
    sample_pairs,
)
from qbhkit.errors import QbhError
from qbhkit.runs import Curve, generator, load_checkpoint, report, save_checkpoint
from qbhkit.storage import write_json

Evaluator = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Args:
        kind: ``embedding``.
        seed: of weights, songs and distortions.
        corpora: names of the corpora to learn from.
        epochs: checkpoints and lines of the curve.
        steps: batches an epoch.
        batch: pairs a batch.
        rate: highest learning rate; warmed up over the first epoch, then a cosine down to 0.
        weight_decay: of Adam (decoupled).
        clip: largest norm of the gradient.
        margin: of the hinge, in cosine.
        negatives: nearest negatives a row; null for all of the batch.
        warm_epochs: epochs at the beginning that use all negatives: the nearest ones alone make
            an untrained encoder collapse into one vector (measured, DECISIONS.md).
        normalisation: ``key`` or ``published``.
        threads: of torch; the curve repeats exactly only at the same number.
    """

    kind: str = "embedding"
    seed: int = 0
    corpora: tuple[str, ...] = (
        "essenFolksong",
        "oneills1850",
        "airdsAirs",
        "ryansMammoth",
        "miscFolk",
    )
    epochs: int = 60
    steps: int = 100
    batch: int = 512
    rate: float = 1e-3
    weight_decay: float = 1e-6
    clip: float = 1.0
    margin: float = 0.5
    negatives: int | None = 16
    warm_epochs: int = 1
    normalisation: Normalisation = "key"
    threads: int = 2
    window: WindowRange = field(default_factory=WindowRange)
    rules: Distortions = field(default_factory=Distortions)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        if self.kind != "embedding":
            raise QbhError(f"kind must be 'embedding', not {self.kind!r}.")


def train(
    config: TrainConfig,
    bank: ContourBank,
    folder: Path,
    log: Path,
    evaluate: Evaluator | None = None,
    resume: bool = False,
    progress: bool = True,
) -> ConvEncoder:
    """Train an encoder by self-supervision (stage 1).

    Writes ``checkpoint.pt`` (weights, optimiser, curve) and the log (config, versions, a line an
    epoch with loss, learning rate, embedding spread, pairs/s and what ``evaluate`` gives) after
    every epoch, each atomically. Batches are drawn from generators seeded by (seed, epoch,
    worker, item), so that a resumed run goes on with the very batches it would have seen.

    Args:
        config: the run.
        bank: the songs to learn from.
        folder: where the checkpoint is kept.
        log: JSON file of the curve.
        evaluate: called with the encoder in evaluation mode after every epoch.
        resume: go on from the checkpoint in ``folder``.
        progress: show a bar on standard error.

    Returns:
        The trained encoder in evaluation mode.

    Raises:
        QbhError: if ``resume`` finds no checkpoint, or one of another configuration; if the loss
            is no longer finite.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    encoder = ConvEncoder(config.encoder)
    optimiser = torch.optim.AdamW(
        encoder.parameters(), lr=config.rate, weight_decay=config.weight_decay
    )
    curve: Curve = []
    checkpoint = folder / "checkpoint.pt"
    if resume:
        curve = load_checkpoint(checkpoint, asdict(config), encoder, optimiser)
    bar = tqdm(
        total=config.epochs * config.steps,
        initial=len(curve) * config.steps,
        desc="train",
        unit="step",
        disable=not progress,
    )
    for epoch in range(len(curve), config.epochs):
        torch.manual_seed(config.seed + epoch)  # dropout goes on alike after a resume
        encoder.train()
        began = time.perf_counter()
        losses, spreads = [], []
        negatives = None if epoch < config.warm_epochs else config.negatives
        for step in range(config.steps):
            rng = generator(config.seed, epoch, 0, step)
            pairs = sample_pairs(
                bank, config.batch, config.window, config.rules, config.normalisation, rng
            )
            rate = learning_rate(config, epoch * config.steps + step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss, spread = _step(encoder, optimiser, pairs, config, negatives)
            losses.append(loss)
            spreads.append(spread)
            bar.update()
        line = {
            "epoch": epoch,
            "loss": float(np.mean(losses)),
            "rate": rate,
            "spread": float(np.mean(spreads)),
            "pairs_per_s": config.batch * config.steps / (time.perf_counter() - began),
        }
        encoder.eval()
        if evaluate is not None:
            line |= evaluate(encoder)
        curve.append(line)
        bar.set_postfix({key: f"{value:.4g}" for key, value in line.items() if key != "epoch"})
        save_checkpoint(checkpoint, asdict(config), encoder, optimiser, curve)
        write_json(log, report(asdict(config), curve))
    bar.close()
    encoder.eval()
    return encoder


def pair_evaluator(
    config: TrainConfig,
    contours: list[Contour],
    score: Callable[[NDArray, NDArray], float],
) -> Evaluator | None:
    """Return an evaluator that hums held-out songs once and finds them again.

    Args:
        config: of the run; its distortions make the hums.
        contours: held-out songs; with fewer than two there is nothing to evaluate. Variants of a
            tune among them count as wrong answers.
        score: takes (N, D) hums and (N, D) songs, row by row the same tune.

    Returns:
        A function from encoder to ``{"validation_mrr": ...}``, or None.
    """
    if len(contours) < 2:
        return None
    pairs = sample_pairs(
        ContourBank(contours),
        len(contours),
        config.window,
        config.rules,
        config.normalisation,
        generator(config.seed, 0, 1, 0),  # worker 1: training is worker 0
    )

    def evaluate(encoder: nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            hums = encoder(torch.from_numpy(pairs.positives)).numpy()
            songs = encoder(torch.from_numpy(pairs.anchors)).numpy()
        return {"validation_mrr": score(hums, songs)}

    return evaluate


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up over the first epoch, then a cosine to 0."""
    warm = min(1.0, (step + 1) / config.steps)
    return (
        config.rate * warm * 0.5 * (1 + math.cos(math.pi * step / (config.epochs * config.steps)))
    )


def spread_of(embeddings: Tensor) -> float:
    """Return 1 - |mean of the unit vectors|: 0 when all embeddings have collapsed into one."""
    return 1.0 - float(embeddings.detach().mean(0).norm())


def _step(
    encoder: nn.Module,
    optimiser: torch.optim.Optimizer,
    pairs: PairBatch,
    config: TrainConfig,
    negatives: int | None,
) -> tuple[float, float]:
    both = torch.from_numpy(np.concatenate([pairs.anchors, pairs.positives]))  # (2B, L, 2)
    embeddings = encoder(both)  # (2B, D)
    anchors, positives = embeddings.chunk(2)
    groups = torch.from_numpy(pairs.groups)
    loss = triplet_hinge(anchors, positives, groups, config.margin, negatives)
    if not torch.isfinite(loss):
        raise QbhError("The loss is no longer finite: lower 'rate' in the configuration.")
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(encoder.parameters(), config.clip)
    optimiser.step()
    return loss.item(), spread_of(embeddings)
