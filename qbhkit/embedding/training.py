"""Train an encoder of contours on pairs; write a checkpoint and a log.

A stage is a mixture of pair sources plus weights to start from: stage 1 draws from songs, stage 2
from real hums too. Combined training is stage 1 that fine-tunes a copy on hums every few epochs.
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
from qbhkit.corpora.training_songs import SongFilter, TrainingSongs
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.contour_shards import open_shards
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.hum_errors import HumErrors
from qbhkit.embedding.hum_pairs import HumConfig, HumPairs
from qbhkit.embedding.losses import LossName, Mining, PairLoss, make_loss
from qbhkit.embedding.sampling import ContourBank, MixedPairs, PairBatch, PairSource, SongPairs
from qbhkit.embedding.song_faults import SongFaults
from qbhkit.embedding.windows import WindowRange
from qbhkit.errors import QbhError
from qbhkit.metrics import pair_mrr
from qbhkit.training_loop import Loss, RunConfig, Speed, Stream, fit, generator, make_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EncoderEvaluator = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class FineTune:
    """Say how copies of the network are fine-tuned on hums in combined training."""

    every: int = 10  # epochs of self-supervision between two copies
    steps: int = 150  # of a copy
    learning_rate: float = 4e-4  # of a copy

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "every", "steps")
        check_range(self, 0, math.inf, "learning_rate")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Describe one training run; a batch holds pairs.

    Raises:
        QbhError: if ``kind`` or a field of RunConfig is wrong, or ``fine_tune`` lacks ``hums``.
    """

    kind: str = "embedding"
    corpora: tuple[str, ...] = (
        "essenFolksong", "oneills1850", "airdsAirs", "ryansMammoth", "miscFolk",
    )  # fmt: skip
    epochs: int = 60
    batch: int = 512
    init_from: str = ""  # weights to start from; empty for random ones
    # As in losses.make_loss; negatives may be null for all of the batch.
    loss: LossName = "hinge"
    mining: Mining = "nearest"
    margin: float = 0.5
    negatives: int | None = 16
    temperature: float = 0.07
    warm_epochs: int = 1  # at the beginning, with all negatives
    normalisation: Normalisation = "key"
    song_filter: SongFilter = "runs"  # see training_songs; alignment is stricter
    hop_s: float = 0.1  # between frames of the songs' contours
    window: WindowRange = field(default_factory=WindowRange)  # of songs
    augmentation: Distortions = field(default_factory=Distortions)  # of the self-supervised pairs
    song_faults: SongFaults = field(default_factory=SongFaults)  # of the songs, in all pairs
    shards: str = ""  # folder of contours ('qbhkit data shards'), instead of the corpora's
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    hums: HumConfig | None = None  # how real hums are drawn; null for self-supervision only
    pairs: str = ""  # CSV file that pairs the hums with their songs
    songs: tuple[str, ...] = ()  # where those songs are: corpora, files or folders
    fine_tune: FineTune | None = None  # train copies on hums, not the network itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "embedding":
            raise QbhError(f"kind must be 'embedding', not {self.kind!r}.")
        if self.fine_tune is not None and self.hums is None:
            raise QbhError("fine_tune needs hums: say how they are drawn.")


def song_source(config: TrainConfig, songs: TrainingSongs) -> PairSource:
    """Return the source of a run's self-supervised pairs, from the songs of its corpora.

    Raises:
        QbhError: if there is nothing to learn from, the hops differ, or the shards are damaged.

    Notebook: notebooks/06_train_self_supervised.py
    """
    if config.shards:
        bank = open_shards(Path(config.shards))
    else:
        bank = ContourBank(songs.contours, songs.groups)
    if bank.hop_s != config.hop_s:
        where = config.shards or "The bank of songs"
        raise QbhError(f"{where} has a frame every {bank.hop_s:g} s: set hop_s to that.")
    rules, faults = config.augmentation, config.song_faults
    return SongPairs(bank, config.window, rules, config.normalisation, faults)


class Trainee(nn.Module):
    """Hold an encoder and its loss, which may have parameters too."""

    def __init__(self, config: EncoderConfig, loss: PairLoss) -> None:
        super().__init__()
        self.encoder = ContourEncoder(config)
        self.loss = loss

    def forward(self, frames: Tensor) -> Tensor:
        """Embed (B, L, C) as (B, D)."""
        embeddings: Tensor = self.encoder(frames)
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
    spread. Several devices share each batch; each of them uses all negatives of the batch.

    Args:
        config: the run.
        songs: gives self-supervised pairs.
        folder: where the checkpoint is kept.
        log: JSON file of the curve.
        hums: gives pairs of real hums; needed if ``config.hums`` is set.
        evaluate: called with the encoder in evaluation mode after every epoch.
        resume: go on from the checkpoint in ``folder``.
        progress: show a bar on standard error.
        fabric: the devices; by default one, a GPU if torch finds one.

    Returns:
        The trained encoder in evaluation mode. After combined training it is the copy with the best
        ``validation_mrr``, or the last copy if nothing is evaluated.

    Raises:
        QbhError: if hums are missing; if the weights to start from, the number of devices or
            ``fine_tune.every`` do not fit the configuration; and as ``fit``.

    Notebook: notebooks/06_train_self_supervised.py, notebooks/07_train_supervised.py
    """
    fabric = fabric or make_fabric(config)
    if config.batch % fabric.world_size:
        raise QbhError(f"{fabric.world_size} devices cannot share a batch of {config.batch}.")
    mining: Mining = "all" if config.negatives is None else config.mining
    count = 1 if config.negatives is None else config.negatives
    loss = make_loss(config.loss, mining, config.margin, count, config.temperature)
    trainee = Trainee(config.encoder, loss)
    if config.init_from:
        found = ContourEmbedder(config.init_from).encoder
        if found.config != config.encoder:
            raise QbhError(
                f"{config.init_from} is another encoder: give 'encoder' the values of its training."
            )
        trainee.encoder.load_state_dict(found.state_dict())

    def scores(trained: Trainee, _: int = 0) -> dict[str, float]:
        return evaluate(trained.encoder) if evaluate else {}

    if config.hums is None:
        return _run(config, fabric, trainee, songs, folder, log, scores, resume, progress).encoder
    if hums is None:
        raise QbhError("The configuration has hums, but there are none to learn from.")
    sung = songs
    if config.hums.borrowed:
        if not isinstance(songs, SongPairs):
            raise QbhError("hums.borrowed needs pairs of songs: it hums their windows again.")
        errors = HumErrors(hums.hums, hums.songs, config.hums.augmentation)
        sung = songs.borrowing(errors, config.hums.borrowed)
    mixed = MixedPairs([(sung, 1 - config.hums.share), (hums, config.hums.share)])
    if config.fine_tune is None:
        return _run(config, fabric, trainee, mixed, folder, log, scores, resume, progress).encoder
    copied = range(config.fine_tune.every, config.epochs + 1, config.fine_tune.every)
    copies = {epochs: folder / f"copy-{epochs:04d}" for epochs in copied}
    if not copies:
        raise QbhError("No copy would be fine-tuned: fine_tune.every is more than epochs.")
    tuning = replace(
        config, epochs=1, steps_per_epoch=config.fine_tune.steps,
        learning_rate=config.fine_tune.learning_rate, warm_epochs=0, fine_tune=None,
    )  # fmt: skip

    def fine_tune(trained: Trainee, epoch: int) -> dict[str, float]:
        line = scores(trained)
        if place := copies.get(epoch + 1):
            again, copy = replace(tuning, seed=config.seed + epoch), deepcopy(trained)
            _run(again, fabric, copy, mixed, place, place / "log.json", scores, False, False)
            line |= {f"fine_tuned_{key}": value for key, value in scores(copy).items()}
        return line

    _run(config, fabric, trainee, songs, folder, log, fine_tune, resume, progress)
    states = [
        torch.load(place / "checkpoint.pt", weights_only=True, map_location="cpu")
        for place in copies.values()
    ]
    # of equally good copies the last, which was trained for longer
    best = max(reversed(states), key=lambda state: state["curve"][-1].get("validation_mrr", 0))
    trainee.load_state_dict(best["network"])
    return trainee.eval().encoder


def _run(
    config: TrainConfig,
    fabric: "Fabric",
    trainee: Trainee,
    source: PairSource,
    folder: Path,
    log: Path,
    evaluate: Callable[[Trainee, int], dict[str, float]],
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
        groups = torch.from_numpy(pairs.groups).to(fabric.device)
        value = trainee.loss(*embeddings.chunk(2), groups, epoch < config.warm_epochs)
        return Loss(value, {"spread": spread_of(embeddings)})

    speed = Speed("pairs_per_s", config.batch)
    return fit(
        config, fabric, trainee, batches, loss_of, folder, log, speed, evaluate, resume, progress
    )


def pair_evaluator(config: TrainConfig, contours: list[Contour]) -> EncoderEvaluator | None:
    """Return an evaluator that searches for held-out songs by distorted windows of them.

    The windows are drawn and distorted once for all epochs; variants of a tune count as wrong.
    For fewer than two songs, None is returned.

    Notebook: notebooks/06_train_self_supervised.py
    """
    if len(contours) < 2:
        return None
    rng = generator(config.seed, 0, Stream.WATCHED_PAIRS, 0)
    bank, rules = ContourBank(contours), config.augmentation
    source = SongPairs(bank, config.window, rules, config.normalisation)
    pairs = source.draw(len(contours), rng)
    return _mrr_evaluator(pairs.positives, pairs.anchors)


_DISTRACTORS = 256  # windows of other songs, and as many hums


def hum_evaluator(config: TrainConfig, held_out: HumPairs, songs: PairSource) -> EncoderEvaluator:
    """Return an evaluator of how well held-out hums find their windows among those of songs."""
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
