"""Audio to the contour encoder's space without choosing a pitch.

A second encoder reads the states of the melody network instead of a contour, and learns to land
where a trained contour encoder, its teacher, puts the song that is performed. What it embeds is
searched in the catalogues of that teacher.

Source: fixed facts, "An end-to-end variant".
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qbhkit.config import build_config
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.losses import make_loss
from qbhkit.embedding.rendered import PartBatch, PartConfig, RenderedBank
from qbhkit.embedding.training import spread_of
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.metrics import pair_mrr
from qbhkit.training import Loss, RunConfig, Speed, Stream, fit, generator, make_fabric
from qbhkit.weights import load_weights, save_weights

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DISTILLATION_KIND = "state-distillation"
_HELD_BACK = 10  # every tenth tune is watched, not trained on
_BATCH = 1024


@dataclass(frozen=True)
class DistillationConfig(RunConfig):
    """One training run; a batch is of parts of rendered_hums.

    Args:
        kind: ``end-to-end``.
        teacher: weights of the contour encoder whose vectors are learnt.
        bank: rendered_hums to learn from, a file.
        parts: which parts of them.
        contrast: weight of InfoNCE between the vectors of the batch and the teacher's, beside
            1 - cosine of each with its own; 0 for none.
        temperature: of InfoNCE at the start.
        watched: parts of held-back rendered_hums that are drawn once for validation.
        encoder: its ``inputs`` are the channels of the states.
    """

    kind: str = DISTILLATION_KIND
    batch: int = 256
    teacher: str = "stage1"
    bank: str = "rendered.safetensors"
    parts: PartConfig = field(default_factory=PartConfig)
    contrast: float = 0.5
    temperature: float = 0.05
    watched: int = 512
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(inputs=256))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != DISTILLATION_KIND:
            raise QbhError(f"kind must be {DISTILLATION_KIND!r}, not {self.kind!r}.")


class Student(nn.Module):
    """An encoder of states together with its loss, whose temperature is learnt too."""

    def __init__(self, config: DistillationConfig) -> None:
        super().__init__()
        self.encoder = ContourEncoder(config.encoder)
        self.contrast = make_loss("infonce", "all", temperature=config.temperature)

    def forward(self, states: Tensor) -> Tensor:
        """Embed (B, L, C) as (B, D)."""
        embeddings: Tensor = self.encoder(states)
        return embeddings


def train_student(
    config: DistillationConfig,
    bank: RenderedBank,
    folder: Path,
    log: Path,
    resume: bool = False,
    progress: bool = True,
    fabric: "Fabric | None" = None,
) -> ContourEncoder:
    """Train an encoder of states to land on its teacher's vectors; the teacher stays as it is.

    Checkpoint and log are those of :func:`qbhkit.training.fit`. Every tenth tune is held back; the log
    shows the mean cosine with the teacher of both sides, ``cosine`` and ``validation_cosine``, and
    how well the vectors of held-back parts find the teacher's: ``validation_mrr``.
    Batches are drawn from generators seeded by (seed, epoch, step), so that a resumed run goes on
    with the very batches it would have seen.

    Args:
        config: the run.
        bank: rendered_hums.
        folder: where the checkpoint is kept.
        log: JSON file of the curve.
        resume: go on from the checkpoint in ``folder``.
        progress: show a bar on standard error.
        fabric: what carries the run; by default one device, a GPU if torch finds one.

    Returns:
        The trained encoder in evaluation mode.

    Raises:
        QbhError: if the bank's states do not fit the encoder, or its vectors the teacher's; if the
            bank holds too few tunes; if there is more than one device; if ``resume`` finds no
            checkpoint, or one of another configuration; if the loss is no longer finite.
    """
    fabric = fabric or make_fabric(config)
    if fabric.world_size > 1:
        raise QbhError("End-to-end training takes one device: leave --devices out.")
    teacher = ContourEmbedder(config.teacher)
    if config.encoder.inputs != bank.channels:
        raise QbhError(f"The bank has {bank.channels} states a frame: set encoder.inputs to it.")
    if config.encoder.embedding_dim != teacher.embedding_dim:
        raise QbhError(
            f"The teacher's vectors are {teacher.embedding_dim} long: set encoder.embedding_dim to it."
        )
    learnt, held = bank.parted(_HELD_BACK)
    if not len(learnt):
        raise QbhError("There are too few tunes to hold some back: make more rendered_hums.")
    trainee = Student(config)
    reading = teacher.reading

    def batches(epoch: int) -> Iterator[PartBatch]:
        for step in range(config.steps_per_epoch):
            rng = generator(config.seed, Stream.PARTS, epoch, step)
            yield learnt.draw(config.batch, reading, config.parts, rng)

    def loss_of(network: nn.Module, parts: PartBatch, epoch: int) -> Loss:
        wanted = torch.from_numpy(teacher.embed(parts.windows)).to(fabric.device)  # (B, D)
        found = network(torch.from_numpy(parts.states).to(fabric.device))  # (B, D)
        cosine = (found * wanted).sum(1).mean()
        value = 1 - cosine
        if config.contrast:
            tunes = torch.from_numpy(parts.tunes).to(fabric.device)
            value = value + config.contrast * trainee.contrast(found, wanted, tunes)
        return Loss(value, {"cosine": cosine.item(), "spread": spread_of(found)})

    watched = held.draw(
        config.watched, reading, config.parts, generator(config.seed, Stream.WATCHED_PARTS, 0, 0)
    )
    truth = teacher.embed(watched.windows)

    def after(trained: Student, epoch: int) -> dict[str, float]:
        found = _embed(trained.encoder, watched.states, fabric.device)
        cosine = float((found * truth).sum(axis=1).mean())
        return {"validation_cosine": cosine, "validation_mrr": pair_mrr(found, truth)}

    speed = Speed("parts_per_s", config.batch)
    return fit(
        config, fabric, trainee, batches, loss_of, folder, log, speed, after, resume, progress
    ).encoder


def _embed(
    encoder: ContourEncoder, states: NDArray, device: "torch.device | str" = "cpu"
) -> NDArray[np.float32]:
    """Embed (B, L, C) some at a time."""
    with torch.inference_mode():
        parts = [
            encoder(torch.from_numpy(states[begin : begin + _BATCH]).to(device)).cpu().numpy()
            for begin in range(0, len(states), _BATCH)
        ]
    return np.concatenate(parts)


def export_student(
    encoder: ContourEncoder, path: Path, teacher: ContourEmbedder, states_of: str
) -> None:
    """Write a trained encoder of states, in half precision, with what is needed to use it.

    Args:
        encoder: trained.
        path: the ``.safetensors`` file to write.
        teacher: whose vectors it has learnt.
        states_of: identity of the network whose states it reads.

    Raises:
        QbhError: if a weight is too large for float16.
    """
    arrays = {key: value.detach().cpu().numpy() for key, value in encoder.state_dict().items()}
    config = {
        "kind": DISTILLATION_KIND,
        "encoder": asdict(encoder.config),
        **asdict(teacher.reading),
        "teacher": teacher.identity,
        "states_of": states_of,
    }
    save_weights(path, arrays, config, half=True)


class StateEmbedder:
    """Turn windows of what was heard into the vectors of the teacher.

    It stands in for the teacher in :class:`qbhkit.retrieval.searcher.Searcher`, whose queries are
    then :class:`~qbhkit.pitch.frontends.StateContour` instead of contours.

    Args:
        weights: a ``.safetensors`` file or the name of a run.

    Attributes:
        weights: identity of its own.
        identity: of the teacher, whose catalogues are searched.
        reading: of windows onto frames.
        embedding_dim: length of a vector.
        states_of: identity of the network whose states are embedded.

    Raises:
        QbhError: if the weights are missing, damaged, or of another kind.
    """

    def __init__(self, weights: str = DISTILLATION_KIND) -> None:
        stored = load_weights(weights)
        try:
            if stored.config["kind"] != DISTILLATION_KIND:
                raise KeyError
            config = build_config(EncoderConfig, dict(stored.config["encoder"]), stored.name)
            self.reading = Reading(int(stored.config["frames"]), stored.config["window_s"])
            self.identity = str(stored.config["teacher"])
            self.states_of: str | None = str(stored.config["states_of"])
            self.encoder = ContourEncoder(config).eval()
            self.encoder.load_state_dict(
                {key: torch.from_numpy(value) for key, value in stored.arrays.items()}
            )
        except (KeyError, TypeError, RuntimeError):
            raise QbhError(
                f"The weights {weights} do not hold an end-to-end encoder: train one with "
                f"'qbhkit train {DISTILLATION_KIND}'."
            ) from None
        self.calibration: dict[str, float] | None = stored.config.get("calibration")
        self.weights = f"{stored.name}-{stored.sha256[:16]}"
        self.embedding_dim = config.embedding_dim

    def embed(self, frames: NDArray) -> NDArray[np.float32]:
        """Embed windows.

        Args:
            frames: (B, L, 2 + C) of :class:`~qbhkit.pitch.frontends.StateContour`; L = ``steps``.

        Returns:
            (B, embedding_dim) float32, each of length 1. Pitch and voicing have no part in them.
        """
        if not len(frames):
            return np.zeros((0, self.embedding_dim), np.float32)
        return _embed(self.encoder, np.ascontiguousarray(frames[..., 2:], np.float32))
