"""Train ``crnn-lite`` on mixtures with known pitch; write a checkpoint and a curve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from qbhkit.config import check_range
from qbhkit.contour import hz_to_midi, midi_to_hz
from qbhkit.errors import QbhError
from qbhkit.metrics import melody_score
from qbhkit.pitch.crnn import CLASS_MIDI, HIGHEST_MIDI, LOWEST_MIDI
from qbhkit.pitch.crnn_lite import MARGIN, HarmonicStack, LiteConfig, LiteNetwork, start_from
from qbhkit.pitch.self_training import Segment, draw_labelled
from qbhkit.synthesis.mixing import EXCERPT_S, MixConfig, Mixture, Recorded, StemBank, draw_mixture
from qbhkit.training_loop import Loss, RunConfig, Speed, Stream, fit, generator, make_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MelodyEvaluator = Callable[[LiteNetwork], dict[str, float]]
_VALIDATION_BATCH = 8  # mixtures
_QUIETEST_DB = 15.0  # an excerpt may be so far below the loudest moment of its song


@dataclass(frozen=True)
class MelodyTrainConfig(RunConfig):
    """Describe a training run; a batch holds mixtures of 8 s."""

    kind: str = "melody"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    blur_st: float = 0.2  # standard deviation of the target around the true pitch, semitones
    watched: int = 48  # mixtures for validation, drawn once
    watched_singers: int = 2  # how many of the training singers are kept for validation
    speech: tuple[str, ...] = ("slt", "rms", "awb", "kal16")  # voices of flite; may be empty
    utterances: int = 40  # how many each of them speaks, for its timbre and consonants
    workers: int = 1  # processes that draw mixtures
    bfloat16: bool = True  # multiply in half precision if the processor can
    mix: MixConfig = field(default_factory=MixConfig)
    network: LiteConfig = field(default_factory=LiteConfig)
    init_from: str = ""  # weights to start from; empty for random ones
    recordings: str = ""  # folder of recordings that weights label, to train on; empty for none
    teacher: str = "crnn-lite"  # the weights that label them
    self_trained: float = 0.25  # share of them in the batches

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1, "self_trained")
        if "lead" in self.network.targets and not self.mix.split:
            raise QbhError("The target lead needs soloists: set 'split' of 'mix' to more than 0.")
        if self.kind != "melody":
            raise QbhError(f"kind must be 'melody', not {self.kind!r}.")


class _Mixtures(Dataset[tuple[NDArray, NDArray, NDArray]]):
    """Draw the mixtures of one epoch, each with its own generator."""

    def __init__(
        self,
        bank: StemBank,
        voices: list[Recorded],
        config: MelodyTrainConfig,
        epoch: int,
        segments: list[Segment],
    ) -> None:
        self._draw, self._segments = (bank, voices, config.mix), segments
        self._config, self._epoch = config, epoch

    def __len__(self) -> int:
        return self._config.steps_per_epoch * self._config.batch

    def __getitem__(self, item: int) -> tuple[NDArray, NDArray, NDArray]:
        """Return samples, and (K, 800) Hz and weights every 10 ms for K targets."""
        rng = generator(self._config.seed, Stream.MIXTURES, self._epoch, item)
        mix, names = self._config.mix, self._config.network.targets
        if self._segments and rng.random() < self._config.self_trained:
            found = draw_labelled(self._segments, mix.degraded, mix.produced, rng)
            # where nobody sings, the teacher does not know the lead melody
            weights = {"voice": found.weight, "lead": found.weight * (found.f0 > 0)}
            weight = np.stack([weights[name] for name in names])
            return found.samples, np.stack([found.f0] * len(names)), weight
        mixture = draw_mixture(*self._draw, rng)
        f0 = f0_of(mixture, names)
        return mixture.samples, f0, np.ones_like(f0)


def f0_of(mixture: Mixture, names: Sequence[str]) -> NDArray[np.float32]:
    """Return (K, N) Hz every 10 ms of the targets with these names."""
    return np.stack([mixture.lead_f0 if name == "lead" else mixture.f0 for name in names])


def train_melody_network(
    config: MelodyTrainConfig,
    bank: StemBank,
    voices: list[Recorded],
    folder: Path,
    log: Path,
    evaluate: MelodyEvaluator | None = None,
    resume: bool = False,
    progress: bool = True,
    fabric: "Fabric | None" = None,
    segments: Sequence[Segment] = (),
) -> LiteNetwork:
    """Train ``crnn-lite`` on mixtures of excerpts and recorded voices.

    ``segments`` are those of :func:`qbhkit.pitch.self_training.label_recordings`, if any.

    The other arguments are those of :func:`qbhkit.training_loop.fit`, whose errors it raises.
    """
    fabric = fabric or make_fabric(config)
    stack = HarmonicStack(config.network.harmonics).to(fabric.device)
    network = LiteNetwork(config.network)
    if config.init_from:
        start_from(network, config.init_from)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batches(epoch: int) -> DataLoader:
        mixtures = _Mixtures(bank, voices, config, epoch, list(segments))
        return DataLoader(mixtures, config.batch, num_workers=config.workers)

    def loss_of(wrapped: nn.Module, batch: list[Tensor], epoch: int) -> Loss:
        samples, f0, weight = batch
        below_db = torch.rand(len(samples)) * _QUIETEST_DB
        with torch.no_grad():
            inputs = features(stack, samples.to(fabric.device), below_db.to(fabric.device))
        wanted = targets(f0, config.blur_st).to(fabric.device)
        return Loss(pitch_loss(wrapped(inputs), wanted, weight.to(fabric.device)), {})

    def after(trained: LiteNetwork, epoch: int) -> dict[str, float]:
        return evaluate(trained) if evaluate else {}

    speed = Speed("audio_s_per_s", EXCERPT_S * config.batch)
    return fit(
        config, fabric, network, batches, loss_of, folder, log, speed, after, resume, progress
    )


def features(stack: HarmonicStack, samples: Tensor, below_db: Tensor) -> Tensor:
    """Return the network's input for (B, N) samples whose peak lies ``below_db`` under 0 dB."""
    magnitudes = stack.magnitudes(functional.pad(samples, (MARGIN, MARGIN)))
    peak = magnitudes.amax((1, 2, 3)).clamp_min(1e-6)
    return stack(magnitudes, peak * 10 ** (below_db / 20))


def targets(f0: Tensor, blur_st: float) -> Tensor:
    """Return (..., T, 442) probabilities every 20 ms for (..., 2 T) Hz every 10 ms.

    The true pitch is blurred over its neighbours. A pitch outside MIDI 40 to 95 is unvoiced.
    """
    pitch = torch.from_numpy(hz_to_midi(f0.clamp_min(1.0).numpy()))  # (..., 2 T)
    voiced = (pitch >= LOWEST_MIDI) & (pitch <= HIGHEST_MIDI)
    grid = torch.from_numpy(CLASS_MIDI)
    bell = torch.exp(-0.5 * ((grid - pitch[..., None]) / blur_st) ** 2)  # (..., 2 T, 441)
    bell = voiced[..., None] * bell / bell.sum(-1, keepdim=True).clamp_min(1e-9)
    wanted = torch.cat([(~voiced)[..., None].to(bell.dtype), bell], dim=-1)
    return wanted.unflatten(-2, (-1, 2)).mean(-2).float()


def pitch_loss(logits: Tensor, wanted: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of (..., T, 442) logits against probabilities.

    ``weight`` is of (..., 2 T) frames of 10 ms, 0 to 1; by default every frame counts.
    """
    entropy = -(wanted * logits.log_softmax(-1)).sum(-1)
    if weight is not None:
        entropy = entropy * weight.unflatten(-1, (-1, 2)).mean(-1)
    return entropy.mean()


def watch(config: MelodyTrainConfig, bank: StemBank, voices: list[Recorded]) -> list[Mixture]:
    """Draw the mixtures for validation, from songs and singers that are not trained on."""
    streams = (generator(config.seed, Stream.WATCHED_MIXTURES, 0, k) for k in range(config.watched))
    return [draw_mixture(bank, voices, config.mix, rng) for rng in streams]


class PitchEstimates(NamedTuple):
    """Hold true and found pitch of mixtures, over all their frames of 20 ms."""

    true_hz: NDArray  # (N,) 0 = unvoiced
    found_hz: NDArray  # (N,) the most likely pitch, also where unvoiced
    voicing: NDArray  # (N,) probability of a voice
    loss: float


def estimate_pitch(
    network: LiteNetwork, mixtures: Sequence[Mixture], blur_st: float
) -> list[PitchEstimates]:
    """Run a network on equally long mixtures and return the estimates for each target.

    ``blur_st`` is that of the configuration.
    """
    device = next(network.parameters()).device
    stack = HarmonicStack(network.config.harmonics).to(device)
    samples = torch.from_numpy(np.stack([mixture.samples for mixture in mixtures]))
    names = network.config.targets
    f0 = torch.from_numpy(np.stack([f0_of(mixture, names) for mixture in mixtures]))
    found, voicing, losses = [], [], []  # one entry a batch: (K, ...)
    network.eval()
    with torch.inference_mode():
        for part, true in zip(
            samples.split(_VALIDATION_BATCH), f0.split(_VALIDATION_BATCH), strict=True
        ):
            level = torch.zeros(len(part), device=device)
            logits = network(features(stack, part.to(device), level)).cpu()
            both = zip(logits.unbind(1), targets(true, blur_st).unbind(1), strict=True)
            losses.append([pitch_loss(one, wanted).item() for one, wanted in both])
            best = logits[..., 1:].argmax(-1).transpose(0, 1).flatten(1).numpy()
            found.append(midi_to_hz(CLASS_MIDI[best]))
            voicing.append(1 - logits.softmax(-1)[..., 0].transpose(0, 1).flatten(1).numpy())
    truth = f0[..., 1::2].transpose(0, 1).flatten(1).numpy()
    columns = (truth, np.concatenate(found, 1), np.concatenate(voicing, 1), np.mean(losses, 0))
    return [PitchEstimates(*row[:3], float(row[3])) for row in zip(*columns, strict=True)]


def mixture_evaluator(config: MelodyTrainConfig, mixtures: Sequence[Mixture]) -> MelodyEvaluator:
    """Return an evaluator that runs a network on fixed mixtures and scores it by mir_eval.

    The keys of the lead melody begin with ``lead_``.
    """

    def evaluate(network: LiteNetwork) -> dict[str, float]:
        line: dict[str, float] = {}
        estimates = estimate_pitch(network, mixtures, config.blur_st)
        for name, found in zip(network.config.targets, estimates, strict=True):
            score = melody_score(found.true_hz, found.found_hz, found.voicing)
            scored = {"validation_loss": found.loss, **score._asdict()}
            line |= {key if name == "voice" else f"{name}_{key}": scored[key] for key in scored}
        return line

    return evaluate


def best_threshold(found: PitchEstimates) -> float:
    """Return the threshold of voicing, 0.1 to 0.9, with the highest overall accuracy."""
    pitched = found.true_hz > 0
    apart = np.abs(hz_to_midi(np.maximum(found.true_hz, 1.0)) - hz_to_midi(found.found_hz))
    right = pitched & (apart < 0.5)

    def accuracy(threshold: float) -> float:
        voiced = found.voicing >= threshold
        return float(np.where(voiced, right, ~pitched).mean())

    return max((round(0.02 * step, 2) for step in range(5, 46)), key=accuracy)
