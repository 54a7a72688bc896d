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

from qbhkit.contour import hz_to_midi, midi_to_hz
from qbhkit.errors import QbhError
from qbhkit.metrics import melody_score
from qbhkit.pitch.crnn import CLASS_MIDI, HIGHEST_MIDI, LOWEST_MIDI
from qbhkit.pitch.crnn_lite import MARGIN, HarmonicStack, LiteConfig, LiteNetwork
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "melody":
            raise QbhError(f"kind must be 'melody', not {self.kind!r}.")


class _Mixtures(Dataset[tuple[NDArray, NDArray]]):
    """Draw the mixtures of one epoch, each with its own generator."""

    def __init__(
        self, bank: StemBank, voices: list[Recorded], config: MelodyTrainConfig, epoch: int
    ) -> None:
        self._draw = (bank, voices, config.mix)
        self._config, self._epoch = config, epoch

    def __len__(self) -> int:
        return self._config.steps_per_epoch * self._config.batch

    def __getitem__(self, item: int) -> tuple[NDArray, NDArray]:
        rng = generator(self._config.seed, Stream.MIXTURES, self._epoch, item)
        mixture = draw_mixture(*self._draw, rng)
        return mixture.samples, mixture.f0


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
) -> LiteNetwork:
    """Train ``crnn-lite`` on mixtures of excerpts and recorded voices.

    The other arguments are those of :func:`qbhkit.training_loop.fit`, whose errors it raises.
    """
    fabric = fabric or make_fabric(config)
    stack = HarmonicStack(config.network.harmonics).to(fabric.device)
    network = LiteNetwork(config.network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batches(epoch: int) -> DataLoader:
        mixtures = _Mixtures(bank, voices, config, epoch)
        return DataLoader(mixtures, config.batch, num_workers=config.workers)

    def loss_of(wrapped: nn.Module, batch: list[Tensor], epoch: int) -> Loss:
        samples, f0 = batch
        below_db = torch.rand(len(samples)) * _QUIETEST_DB
        with torch.no_grad():
            inputs = features(stack, samples.to(fabric.device), below_db.to(fabric.device))
        wanted = targets(f0, config.blur_st).to(fabric.device)
        return Loss(pitch_loss(wrapped(inputs), wanted), {})

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
    """Return (B, T, 442) probabilities every 20 ms for (B, 2 T) Hz every 10 ms.

    The true pitch is blurred over its neighbours. A pitch outside MIDI 40 to 95 is unvoiced.
    """
    pitch = torch.from_numpy(hz_to_midi(f0.clamp_min(1.0).numpy()))  # (B, 2 T)
    voiced = (pitch >= LOWEST_MIDI) & (pitch <= HIGHEST_MIDI)
    grid = torch.from_numpy(CLASS_MIDI)
    bell = torch.exp(-0.5 * ((grid - pitch[..., None]) / blur_st) ** 2)  # (B, 2 T, 441)
    bell = voiced[..., None] * bell / bell.sum(-1, keepdim=True).clamp_min(1e-9)
    wanted = torch.cat([(~voiced)[..., None].to(bell.dtype), bell], dim=-1)
    return wanted.unflatten(1, (-1, 2)).mean(2).float()


def pitch_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean cross-entropy of (B, T, 442) logits against probabilities."""
    return -(wanted * logits.log_softmax(-1)).sum(-1).mean()


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
) -> PitchEstimates:
    """Run a network on equally long mixtures; ``blur_st`` is that of the configuration."""
    device = next(network.parameters()).device
    stack = HarmonicStack(network.config.harmonics).to(device)
    samples = torch.from_numpy(np.stack([mixture.samples for mixture in mixtures]))
    f0 = torch.from_numpy(np.stack([mixture.f0 for mixture in mixtures]))
    found, voicing, losses = [], [], []
    network.eval()
    with torch.inference_mode():
        for part, true in zip(
            samples.split(_VALIDATION_BATCH), f0.split(_VALIDATION_BATCH), strict=True
        ):
            level = torch.zeros(len(part), device=device)
            logits = network(features(stack, part.to(device), level)).cpu()
            losses.append(pitch_loss(logits, targets(true, blur_st)).item())
            best = logits[..., 1:].argmax(-1).numpy().ravel()
            found.append(midi_to_hz(CLASS_MIDI[best]))
            voicing.append(1 - logits.softmax(-1)[..., 0].numpy().ravel())
    truth = f0[:, 1::2].numpy().ravel()
    return PitchEstimates(
        truth, np.concatenate(found), np.concatenate(voicing), float(np.mean(losses))
    )


def mixture_evaluator(config: MelodyTrainConfig, mixtures: Sequence[Mixture]) -> MelodyEvaluator:
    """Return an evaluator that runs a network on fixed mixtures and scores it by mir_eval."""

    def evaluate(network: LiteNetwork) -> dict[str, float]:
        found = estimate_pitch(network, mixtures, config.blur_st)
        score = melody_score(found.true_hz, found.found_hz, found.voicing)
        return {"validation_loss": found.loss, **score._asdict()}

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
