"""Train an encoder of contours on pairs; write a checkpoint and a log.

A stage is a mixture of pair sources plus weights to start from. Stage 1 draws from songs only,
stage 2 from real hums too. Combined training goes on with stage 1, and every few epochs fine-tunes
a deep copy of the network on hums.
"""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qbhkit.config import check_range
from qbhkit.contour import Contour, Normalisation
from qbhkit.corpora.training_songs import TrainingSongs
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.contour_shards import open_shards
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.hum_pairs import HumConfig, HumPairs
from qbhkit.embedding.losses import LossName, Mining, make_loss
from qbhkit.embedding.note_pairs import NotePairConfig, NotePairs
from qbhkit.embedding.sampling import (
    ContourBank,
    MixedPairs,
    PairBatch,
    PairSource,
    SongPairs,
    sample_pairs,
)
from qbhkit.embedding.windows import WindowRange
from qbhkit.errors import QbhError
from qbhkit.metrics import pair_mrr
from qbhkit.training_loop import Loss, RunConfig, Speed, Stream, fit, generator, make_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EncoderEvaluator = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class FineTune:
    """Say how deep copies of the network are fine-tuned on hums in combined training.

    Args:
        every: epochs of self-supervision between two copies.
        steps: training steps of a copy.
        learning_rate: the highest learning rate of a copy.

    Raises:
        QbhError: if a number is out of its range.
    """

    every: int = 10
    steps: int = 150
    learning_rate: float = 4e-4

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "every", "steps")
        check_range(self, 0, math.inf, "learning_rate")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Describe one training run; a batch is of pairs.

    Args:
        kind: ``embedding``.
        corpora: names of the corpora to learn from.
        init_from: weights to start from; empty for random ones.
        loss: as ``kind`` of :func:`qbhkit.embedding.losses.make_loss`.
        mining: how negatives are chosen, as in :class:`qbhkit.embedding.losses.Negatives`.
        margin: of the hinges.
        negatives: how many a row has, if ``mining`` takes a number; null for all of the batch.
        temperature: of InfoNCE at the start.
        warm_epochs: epochs at the beginning that use all negatives. With the nearest ones only, an
            untrained encoder collapses into one vector (measured, DECISIONS.md).
        normalisation: ``key`` or ``published``.
        hop_s: seconds between frames of the songs' contours.
        window: which windows of songs are drawn.
        augmentation: humming distortions of the self-supervised pairs.
        note_pairs: how phrases are rendered from notes, besides windows of contours; null for none.
        shards: folder of contours to learn from ('qbhkit data shards'), instead of the corpora's.
        hums: how real hums are drawn; null for self-supervision only.
        pairs: CSV file that pairs the hums with their songs.
        songs: where those songs are: corpora, files or folders.
        fine_tune: fine-tune copies on hums along the way, instead of the network itself.

    Raises:
        QbhError: if a value is wrong, or ``fine_tune`` is given without ``hums``.
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
    init_from: str = ""
    loss: LossName = "hinge"
    mining: Mining = "nearest"
    margin: float = 0.5
    negatives: int | None = 16
    temperature: float = 0.07
    warm_epochs: int = 1
    normalisation: Normalisation = "key"
    hop_s: float = 0.1
    window: WindowRange = field(default_factory=WindowRange)
    augmentation: Distortions = field(default_factory=Distortions)
    note_pairs: NotePairConfig | None = None
    shards: str = ""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    hums: HumConfig | None = None
    pairs: str = ""
    songs: tuple[str, ...] = ()
    fine_tune: FineTune | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "embedding":
            raise QbhError(f"kind must be 'embedding', not {self.kind!r}.")
        if self.fine_tune is not None and self.hums is None:
            raise QbhError("fine_tune needs hums: say how they are drawn.")


def song_source(config: TrainConfig, songs: TrainingSongs) -> PairSource:
    """Return the source of a run's self-supervised pairs.

    Args:
        config: the run.
        songs: of its corpora.

    Raises:
        QbhError: if there is nothing to learn from, or the shards have another hop.

    Notebook: notebooks/06_train_self_supervised.py
    """
    reading, how = config.window.reading, config.normalisation
    if config.shards:
        bank = open_shards(Path(config.shards))
    else:
        bank = ContourBank(songs.contours, songs.groups)
    if bank.hop_s != config.hop_s:
        raise QbhError(f"{config.shards} has a frame every {bank.hop_s:g} s: set hop_s to that.")
    windows = SongPairs(bank, config.window, config.augmentation, how)
    if config.note_pairs is None:
        return windows
    notes = [song.notes for song in songs.songs]
    phrases = NotePairs(
        notes, songs.groups, config.note_pairs, reading, config.augmentation, how, config.hop_s
    )
    share = config.note_pairs.share
    return MixedPairs([(windows, 1 - share), (phrases, share)], same_tunes=not config.shards)


class Trainee(nn.Module):
    """Hold an encoder and its loss, which may have parameters too."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.encoder = ContourEncoder(config.encoder)
        mining: Mining = "all" if config.negatives is None else config.mining
        count = 1 if config.negatives is None else config.negatives
        self.loss = make_loss(config.loss, mining, config.margin, count, config.temperature)

    def forward(self, contours: Tensor) -> Tensor:
        """Embed (B, L, 2) as (B, D)."""
        embeddings: Tensor = self.encoder(contours)
        return embeddings


def train_encoder(
    config: TrainConfig,
    songs: PairSource,
    folder: Path,
    log: Path,
    hums: HumPairs | None = None,
    evaluate: EncoderEvaluator | None = None,
    resume: bool = False,
    progress: bool = True,
    fabric: "Fabric | None" = None,
) -> ContourEncoder:
    """Train an encoder: self-supervised, supervised, or both combined.

    Checkpoint and log are those of :func:`qbhkit.training_loop.fit`; the log also has the embedding
    spread. Batches are drawn from generators seeded by (seed, epoch, step), so that a resumed run
    sees the batches it would have seen. Several devices share each batch, and each of them has all
    its negatives.

    Args:
        config: the run.
        songs: gives self-supervised pairs.
        folder: where the checkpoint is kept.
        log: JSON file of the curve.
        hums: gives pairs of real hums; needed if ``config.hums`` is set.
        evaluate: called with the encoder in evaluation mode after every epoch.
        resume: go on from the checkpoint in ``folder``.
        progress: show a bar on standard error.
        fabric: what carries the run; by default one device, a GPU if torch finds one.

    Returns:
        The trained encoder in evaluation mode. After combined training it is the copy with the best
        ``validation_mrr``, or the last copy if nothing is evaluated.

    Raises:
        QbhError: if ``resume`` finds no checkpoint, or one of another configuration; if the loss
            is no longer finite; if hums are missing; if the weights to start from do not fit.

    Notebook: notebooks/06_train_self_supervised.py, notebooks/07_train_supervised.py
    """
    fabric = fabric or make_fabric(config)
    if config.batch % fabric.world_size:
        raise QbhError(f"{fabric.world_size} devices cannot share a batch of {config.batch}.")
    trainee = Trainee(config)
    if config.init_from:
        _start_from(config.init_from, trainee.encoder)
    if config.hums is None or hums is None:
        if config.hums is not None:
            raise QbhError("The configuration has hums, but there are none to learn from.")
        return _run(config, fabric, trainee, songs, folder, log, evaluate, resume, progress).encoder
    mixed = MixedPairs([(songs, 1 - config.hums.share), (hums, config.hums.share)])
    if config.fine_tune is None:
        return _run(config, fabric, trainee, mixed, folder, log, evaluate, resume, progress).encoder
    copies = _Copies(config, fabric, mixed, folder, evaluate)
    _run(config, fabric, trainee, songs, folder, log, copies, resume, progress)
    return copies.best()


def _run(
    config: TrainConfig,
    fabric: "Fabric",
    trainee: Trainee,
    source: PairSource,
    folder: Path,
    log: Path,
    evaluate: "EncoderEvaluator | _Copies | None",
    resume: bool,
    progress: bool,
) -> Trainee:
    mine = slice(fabric.global_rank, None, fabric.world_size)  # every k-th row

    def batches(epoch: int) -> Iterator[PairBatch]:
        for step in range(config.steps_per_epoch):
            yield source.draw(config.batch, generator(config.seed, epoch, Stream.PAIRS, step))

    def loss_of(network: nn.Module, pairs: PairBatch, epoch: int) -> Loss:
        contours = np.concatenate([pairs.anchors[mine], pairs.positives[mine]])  # (2B, L, 2)
        embeddings = network(torch.from_numpy(contours).to(fabric.device))  # (2B, D)
        if fabric.world_size > 1:
            gathered = cast(Tensor, fabric.all_gather(embeddings, sync_grads=True))
            shares = gathered.unflatten(1, (2, -1))  # (devices, 2, B / devices, D)
            embeddings = shares.permute(1, 2, 0, 3).flatten(0, 2)
        anchors, positives = embeddings.chunk(2)
        groups = torch.from_numpy(pairs.groups).to(fabric.device)
        warm = epoch < config.warm_epochs
        value = trainee.loss(anchors, positives, groups, warm)
        return Loss(value, {"spread": spread_of(embeddings)})

    def after(trained: Trainee, epoch: int) -> dict[str, float]:
        if isinstance(evaluate, _Copies):
            return evaluate(trained, epoch)
        return evaluate(trained.encoder) if evaluate else {}

    speed = Speed("pairs_per_s", config.batch)
    return fit(
        config, fabric, trainee, batches, loss_of, folder, log, speed, after, resume, progress
    )


class _Copies:
    """Fine-tune a deep copy of the network every few epochs, each in a folder of its own."""

    def __init__(
        self,
        config: TrainConfig,
        fabric: "Fabric",
        source: PairSource,
        folder: Path,
        evaluate: EncoderEvaluator | None,
    ) -> None:
        assert config.fine_tune is not None
        self._every, self._epochs = config.fine_tune.every, config.epochs
        self._config = replace(
            config, epochs=1, steps_per_epoch=config.fine_tune.steps,
            learning_rate=config.fine_tune.learning_rate, warm_epochs=0, fine_tune=None,
        )  # fmt: skip
        self._fabric, self._source, self._folder, self._evaluate = fabric, source, folder, evaluate

    def __call__(self, trained: Trainee, epoch: int) -> dict[str, float]:
        """Return the scores of the network and, every few epochs, of its fine-tuned copy."""
        line = self._evaluate(trained.encoder) if self._evaluate else {}
        if (epoch + 1) % self._every:
            return line
        folder = self._folder_of(epoch + 1)
        copy = _run(
            replace(self._config, seed=self._config.seed + epoch), self._fabric, deepcopy(trained),
            self._source, folder, folder / "log.json", self._evaluate, False, False,
        )  # fmt: skip
        tuned = self._evaluate(copy.encoder) if self._evaluate else {}
        return line | {f"fine_tuned_{key}": value for key, value in tuned.items()}

    def _folder_of(self, epochs: int) -> Path:
        return self._folder / f"copy-{epochs:04d}"

    def best(self) -> ContourEncoder:
        """Return the best copy of this run; the folder may also hold copies of an older run."""
        after = range(self._every, self._epochs + 1, self._every)
        found = [self._folder_of(epochs) / "checkpoint.pt" for epochs in after]
        if not found:
            raise QbhError("No copy was fine-tuned: fine_tune.every is more than epochs.")
        states = [torch.load(path, weights_only=True, map_location="cpu") for path in found]
        # the last of equals, which was trained for longer
        best = max(reversed(states), key=lambda state: state["curve"][-1].get("validation_mrr", 0))
        trainee = Trainee(self._config)
        trainee.load_state_dict(best["network"])
        return trainee.eval().encoder


def _start_from(weights: str, encoder: ContourEncoder) -> None:
    found = ContourEmbedder(weights).encoder
    if found.config != encoder.config:
        raise QbhError(f"{weights} is another encoder: give 'encoder' the values of its training.")
    encoder.load_state_dict(found.state_dict())


def pair_evaluator(config: TrainConfig, contours: list[Contour]) -> EncoderEvaluator | None:
    """Return an evaluator that searches for held-out songs by distorted windows of them.

    Args:
        config: the run, whose augmentation distorts the windows, once for all epochs.
        contours: held-out songs. Variants of a tune among them count as wrong answers.

    Returns:
        A function from encoder to ``{"validation_mrr": ...}``, or None for fewer than two songs.

    Notebook: notebooks/06_train_self_supervised.py
    """
    if len(contours) < 2:
        return None
    rng = generator(config.seed, 0, Stream.WATCHED_PAIRS, 0)
    bank, rules = ContourBank(contours), config.augmentation
    pairs = sample_pairs(bank, len(contours), config.window, rules, config.normalisation, rng)
    return _mrr_evaluator(pairs.positives, pairs.anchors)


_DISTRACTORS = 256  # windows of other songs


def hum_evaluator(config: TrainConfig, held_out: HumPairs, songs: PairSource) -> EncoderEvaluator:
    """Return an evaluator that searches for the windows of held-out hums among those of others.

    Args:
        config: the run.
        held_out: hums that the run does not learn from.
        songs: gives the other songs.

    Returns:
        A function from encoder to ``{"validation_mrr": ...}``.
    """
    rng = generator(config.seed, 0, Stream.WATCHED_PAIRS, 0)
    pairs, others = held_out.draw(_DISTRACTORS, rng), songs.draw(_DISTRACTORS, rng)
    windows = np.concatenate([pairs.anchors, others.anchors])
    groups = np.concatenate([pairs.groups, np.full(len(others.groups), -1)])
    return _mrr_evaluator(pairs.positives, windows, pairs.groups[:, None] == groups)


def _mrr_evaluator(
    hums: NDArray, windows: NDArray, same_song: NDArray[np.bool_] | None = None
) -> EncoderEvaluator:
    """Return an evaluator that ranks, for row k of the hums, row k of the windows."""

    def evaluate(encoder: nn.Module) -> dict[str, float]:
        device = next(encoder.parameters()).device
        with torch.inference_mode():
            found, references = (
                encoder(torch.from_numpy(frames).to(device)).cpu().numpy()
                for frames in (hums, windows)
            )
        return {"validation_mrr": pair_mrr(found, references, same_song)}

    return evaluate


def spread_of(embeddings: Tensor) -> float:
    """Return 1 - |mean of the (B, D) unit vectors|: 0 if all of them have collapsed into one.

    Notebook: notebooks/05_encoder_and_loss.py
    """
    return 1.0 - float(embeddings.detach().mean(0).norm())
