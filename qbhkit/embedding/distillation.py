"""State distillation: audio to the contour encoder's space without choosing a pitch.

A student encoder reads the states of the melody network, and learns to give the vectors that its
teacher, a trained contour encoder, gives for the song that is sung.

Source: fixed facts, "An end-to-end variant".
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qbhkit.config import check_range
from qbhkit.embedding.embedder import (
    ContourEmbedder,
    encoder_arrays,
    holding,
    load_encoder,
    run_encoder,
)
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.losses import make_loss
from qbhkit.embedding.rendered_pairs import PartBatch, PartConfig, RenderedBank
from qbhkit.embedding.training import Trainee, spread_of
from qbhkit.errors import QbhError
from qbhkit.metrics import pair_mrr
from qbhkit.training_loop import Loss, RunConfig, Speed, Stream, fit, generator, make_fabric
from qbhkit.weights import load_weights, save_weights

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DISTILLATION_KIND = "state-distillation"
_SHIPPED = "end-to-end"  # name of the configuration and of the weights that it gave
_HELD_BACK = 10  # every tenth tune is watched, not trained on
_BATCH = 1024


@dataclass(frozen=True)
class DistillationConfig(RunConfig):
    """Describe one training run; a batch holds parts of rendered hums.

    Raises:
        QbhError: if ``kind`` is wrong or a number is out of its range.
    """

    kind: str = DISTILLATION_KIND
    batch: int = 256
    teacher: str = "stage1"  # weights of the contour encoder whose vectors are learned
    bank: str = "rendered.safetensors"  # of rendered hums to learn from
    parts: PartConfig = field(default_factory=PartConfig)
    # Weight of InfoNCE between the batch's vectors and the teacher's, beside 1 - cosine.
    contrast: float = 0.5
    temperature: float = 0.05  # of InfoNCE at the start
    watched: int = 512  # parts of held-back hums, drawn once for validation
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(inputs=256))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != DISTILLATION_KIND:
            raise QbhError(f"kind must be {DISTILLATION_KIND!r}, not {self.kind!r}.")
        check_range(self, 0, math.inf, "contrast")
        check_range(self, 1, math.inf, "watched")


def train_student(
    config: DistillationConfig,
    bank: RenderedBank,
    folder: Path,
    log: Path,
    resume: bool = False,
    progress: bool = True,
    fabric: "Fabric | None" = None,
) -> ContourEncoder:
    """Train an encoder of states to give its teacher's vectors; the teacher stays as it is.

    Every tenth tune is held back. The log shows the mean cosine with the teacher's vectors,
    ``cosine`` in training and ``validation_cosine`` on held-back tunes, and how well the vectors of
    held-back parts find the teacher's, ``validation_mrr``.

    Further arguments are those of :func:`qbhkit.embedding.training.train_encoder`.

    Raises:
        QbhError: if bank, encoder and teacher do not fit, the bank has too few tunes, or there is
            more than one device.
    """
    fabric = fabric or make_fabric(config)
    if fabric.world_size > 1:
        raise QbhError("State distillation takes one device: leave --devices out.")
    teacher = ContourEmbedder(config.teacher)
    if config.encoder.inputs != bank.channels:
        raise QbhError(f"The bank has {bank.channels} states a frame: set encoder.inputs to it.")
    if config.encoder.embedding_dim != teacher.embedding_dim:
        raise QbhError(
            f"The teacher's vectors are {teacher.embedding_dim} long: "
            "set encoder.embedding_dim to it."
        )
    trained_on, held_back = bank.split(_HELD_BACK)
    if not len(trained_on):
        raise QbhError("There are too few tunes to hold some back: render more hums.")
    contrast = make_loss("infonce", "all", temperature=config.temperature)
    student, reading = Trainee(config.encoder, contrast), teacher.reading

    def batches(epoch: int) -> Iterator[PartBatch]:
        for step in range(config.steps_per_epoch):
            rng = generator(config.seed, Stream.PARTS, epoch, step)
            yield trained_on.draw(config.batch, reading, config.parts, rng)

    def loss_of(network: nn.Module, parts: PartBatch, epoch: int) -> Loss:
        wanted = torch.from_numpy(teacher.embed(parts.windows)).to(fabric.device)  # (B, D)
        found = network(torch.from_numpy(parts.states).to(fabric.device))  # (B, D)
        cosine = (found * wanted).sum(1).mean()
        value = 1 - cosine
        if config.contrast:
            tunes = torch.from_numpy(parts.tunes).to(fabric.device)
            value = value + config.contrast * contrast(found, wanted, tunes)
        return Loss(value, {"cosine": cosine.item(), "spread": spread_of(found)})

    watched = held_back.draw(
        config.watched, reading, config.parts, generator(config.seed, Stream.WATCHED_PARTS, 0, 0)
    )
    truth = teacher.embed(watched.windows)

    def after(trained: Trainee, epoch: int) -> dict[str, float]:
        found = run_encoder(trained.encoder, _batches(watched.states), fabric.device)
        cosine = float((found * truth).sum(axis=1).mean())
        return {"validation_cosine": cosine, "validation_mrr": pair_mrr(found, truth)}

    speed = Speed("parts_per_s", config.batch)
    return fit(
        config, fabric, student, batches, loss_of, folder, log, speed, after, resume, progress
    ).encoder


def _batches(states: NDArray) -> list[NDArray]:
    return [states[begin : begin + _BATCH] for begin in range(0, len(states), _BATCH)]


def export_student(
    encoder: ContourEncoder, path: Path, teacher: ContourEmbedder, states_of: str
) -> None:
    """Write a trained encoder of states, in half precision, with what is needed to use it.

    Args:
        encoder: trained.
        path: the ``.safetensors`` file.
        teacher: whose vectors it has learned.
        states_of: identity of the network whose states it reads.

    Raises:
        QbhError: if a weight is too large for float16.
    """
    config = {
        "kind": DISTILLATION_KIND,
        "encoder": asdict(encoder.config),
        **asdict(teacher.reading),
        "teacher": teacher.identity,
        "states_of": states_of,
    }
    save_weights(path, encoder_arrays(encoder), config, half=True)


class StateEmbedder:
    """Turn windows of states into vectors of the teacher's space.

    It takes the teacher's place in :class:`qbhkit.retrieval.searcher.Searcher`, whose queries are
    then :class:`~qbhkit.pitch.frontends.StateContour` instead of contours.

    ``identity`` is the teacher's, whose catalogues are searched; ``weights`` is the student's.

    Raises:
        QbhError: if the weights are missing, damaged, or of another kind.
    """

    def __init__(self, weights: str = _SHIPPED) -> None:
        stored = load_weights(weights)
        with holding(
            f"The weights {weights} do not hold an encoder of states: train one with "
            f"'qbhkit train {_SHIPPED}'."
        ):
            if stored.config["kind"] != DISTILLATION_KIND:
                raise KeyError
            self.encoder, self.reading = load_encoder(stored)
            self.identity = str(stored.config["teacher"])
            self.states_of: str | None = str(stored.config["states_of"])
        self.calibration: dict[str, float] | None = stored.config.get("calibration")
        self.weights = f"{stored.name}-{stored.sha256[:16]}"
        self.embedding_dim = self.encoder.config.embedding_dim

    def embed(self, frames: NDArray) -> NDArray[np.float32]:
        """Embed windows (B, L, 2 + C), of which only the C states are read, as unit vectors."""
        states = np.ascontiguousarray(frames[..., 2:], np.float32)
        return run_encoder(self.encoder, _batches(states))
