"""Train an encoder of contours: mixed pairs in, a checkpoint and a curve out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
from qbhkit.runs import Loss, RunConfig, Speed, fit, generator

Evaluator = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """One training run; a batch is of pairs.

    Args:
        kind: ``embedding``.
        corpora: names of the corpora to learn from.
        margin: of the hinge, in cosine.
        negatives: nearest negatives a row; null for all of the batch.
        warm_epochs: epochs at the beginning that use all negatives: the nearest ones alone make
            an untrained encoder collapse into one vector (measured, DECISIONS.md).
        normalisation: ``key`` or ``published``.
    """

    kind: str = "embedding"
    corpora: tuple[str, ...] = (
        "essenFolksong",
        "oneills1850",
        "airdsAirs",
        "ryansMammoth",
        "miscFolk",
    )
    epochs: int = 60
    batch: int = 512
    margin: float = 0.5
    negatives: int | None = 16
    warm_epochs: int = 1
    normalisation: Normalisation = "key"
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

    Checkpoint and log are those of :func:`qbhkit.runs.fit`; the log shows the embedding spread.
    Batches are drawn from generators seeded by (seed, epoch, worker, item), so that a resumed run
    goes on with the very batches it would have seen.

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

    def batches(epoch: int) -> Iterator[PairBatch]:
        for step in range(config.steps):
            rng = generator(config.seed, epoch, 0, step)
            yield sample_pairs(
                bank, config.batch, config.window, config.rules, config.normalisation, rng
            )

    def loss_of(pairs: PairBatch, epoch: int) -> Loss:
        both = torch.from_numpy(np.concatenate([pairs.anchors, pairs.positives]))  # (2B, L, 2)
        embeddings = encoder(both)  # (2B, D)
        negatives = None if epoch < config.warm_epochs else config.negatives
        groups = torch.from_numpy(pairs.groups)
        anchors, positives = embeddings.chunk(2)
        loss = triplet_hinge(anchors, positives, groups, config.margin, negatives)
        return Loss(loss, {"spread": spread_of(embeddings)})

    speed = Speed("pairs_per_s", config.batch)
    return fit(config, encoder, batches, loss_of, folder, log, speed, evaluate, resume, progress)


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


def spread_of(embeddings: Tensor) -> float:
    """Return 1 - |mean of the unit vectors|: 0 when all embeddings have collapsed into one."""
    return 1.0 - float(embeddings.detach().mean(0).norm())
