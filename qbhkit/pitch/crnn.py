"""The published singing-voice melody network: 8 kHz audio to 442 pitch classes every 10 ms.

Source: Kum, Lin, Su and Nam, "Semi-supervised learning using teacher-student models for vocal
melody extraction", ISMIR 2020, and fixed facts, "Melody network".
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, leaky_relu_, max_pool2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, Floats, midi_to_hz
from qbhkit.errors import QbhError
from qbhkit.training_loop import initialise_vector_maths
from qbhkit.weights import crnn_path, holding, load_weights, save_weights

initialise_vector_maths()

CRNN_RATE_HZ = 8000
CRNN_HOP, WINDOW, BINS = 80, 1024, 513  # samples, samples, frequencies
PATCH_FRAMES = 31
PATCH = (PATCH_FRAMES, BINS)
LOWEST_MIDI, HIGHEST_MIDI, STEPS_PER_ST = 40.0, 95.0, 8
CLASSES = 442  # no voice, then every 1/8 semitone from MIDI 40 to 95
LOWEST_SUNG_MIDI = 45.0
WIDTHS = (64, 128, 192, 256)
STATES = 512  # two directions of 256

_SLOPE = 0.01
_AMIN, _TOP_DB = 1e-10, 80.0  # librosa.power_to_db's defaults
_STD_FLOOR = 1e-4
_MOST_UNVOICED = 0.49  # below the threshold of voicing, also after rounding to three digits
_BATCH = 4  # patches at a time: 1.2 s; more are no faster on a CPU and take more memory
CLASS_MIDI = LOWEST_MIDI + np.arange(CLASSES - 1) / STEPS_PER_ST  # (441,) of classes 1 to 441


class Melody(NamedTuple):
    """Hold the melody of a recording."""

    f0: F0Track  # N frames of 10 ms
    posteriors: Floats  # (N, 442) probabilities of no voice and of each pitch


def decode(posteriors: NDArray) -> F0Track:
    """Decode pitch and voicing from (N, 442) class probabilities by the published rule.

    A frame is voiced if the most likely of all classes is a pitch from MIDI 45 up.

    Returns:
        A track of N frames: the most likely pitch from MIDI 45 up, in unvoiced frames too, and
        1 - P(class 0), raised to 0.5 in voiced frames and limited to 0.49 in unvoiced ones.

    Source: fixed facts, "Melody network".
    """
    lowest = int(np.searchsorted(CLASS_MIDI, LOWEST_SUNG_MIDI)) + 1  # class of the lowest pitch
    best = posteriors[:, lowest:].argmax(axis=1) + lowest
    sung = posteriors.argmax(axis=1) >= lowest
    found = np.take_along_axis(posteriors, best[:, None], axis=1)[:, 0] > 0
    voice = np.clip(1 - posteriors[:, 0], 0, 1)
    return F0Track(
        np.where(found, midi_to_hz(CLASS_MIDI[best - 1]), 0.0),
        np.where(sung, np.maximum(voice, 0.5), np.minimum(voice, _MOST_UNVOICED)),
    )


class _Residual(nn.Module):
    """Add a shortcut and three more convolutions, and max-pool over frequency."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = _conv_norm(inputs, outputs, 1)
        self.first = _conv_norm(outputs, outputs, 3)
        self.second = _conv_norm(outputs, outputs, 3)
        self.last = _conv_norm(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T, F) to (B, outputs, T, F // 4)."""
        shortcut = self.shortcut(x)
        x = leaky_relu(shortcut, _SLOPE)
        x = leaky_relu_(self.first(x), _SLOPE)
        x = leaky_relu_(self.second(x), _SLOPE)
        x = self.last(x) + shortcut
        # The published order is activation, then pool. The activation is monotonic, so both orders
        # give the same, and this one is faster.
        return leaky_relu_(max_pool2d(x, (1, 4)), _SLOPE)


def _conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)  # Keras' momentum 0.99
    return nn.Sequential(OrderedDict(conv=conv, norm=norm))


class MelodyCrnn(nn.Module):
    """Classify the pitch of each frame of spectrogram patches.

    The published recurrent dropout has no counterpart in PyTorch and is left out.

    Source: fixed facts, "Melody network".
    Notebook: notebooks/01_audio_to_melody.py
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *WIDTHS[:-1])
        self.blocks = nn.Sequential(*map(_Residual, inputs, WIDTHS))
        self.dropout = nn.Dropout(0.5)
        self.input_dropout = nn.Dropout(0.3)
        self.lstm = nn.LSTM(STATES, STATES // 2, batch_first=True, bidirectional=True)
        self.output = nn.Linear(STATES, CLASSES)

    def states(self, patches: Tensor) -> Tensor:
        """Return (B, 31, 512) recurrent states, forward ones first, of (B, 31, 513) dB."""
        x = self.dropout(self.blocks(patches[:, None]))  # (B, 256, 31, 2)
        x = x.permute(0, 2, 3, 1).flatten(2)  # (B, 31, 512): frequency first, then channel
        return self.lstm(self.input_dropout(x))[0]

    def forward(self, patches: Tensor) -> Tensor:
        """Return class logits (B, 31, 442) of normalised patches; softmax gives probabilities."""
        return self.output(self.states(patches))


def padded(samples: Floats, begin: int, stop: int) -> Floats:
    """Return samples from ``begin`` to ``stop``, with zeros beyond both ends of the recording."""
    inside = samples[max(0, begin) : stop]
    return np.pad(inside, (max(0, -begin), max(0, stop - len(samples))))


def magnitudes(samples: Floats, first: int, end: int) -> Floats:
    """Return frames ``first`` to ``end`` (excluded), (T, 513), of ``librosa.stft`` for (N,)."""
    import librosa

    half = WINDOW // 2
    chunk = padded(samples, first * CRNN_HOP - half, (end - 1) * CRNN_HOP + half)
    spectrum = librosa.stft(chunk, n_fft=WINDOW, hop_length=CRNN_HOP, center=False)  # (513, frames)
    return np.abs(spectrum).T


def decibels(magnitude: Floats, loudest: float) -> Floats:
    """Return ``librosa.power_to_db`` of magnitudes of any shape, relative to the loudest one.

    The formula is meant for power; the published system applies it to magnitudes.
    """
    level = 10 * np.log10(np.maximum(_AMIN, magnitude))
    return np.maximum(level - 10 * np.log10(np.maximum(_AMIN, np.float32(loudest))), -_TOP_DB)


def patches_of(level_db: Floats) -> Floats:
    """Cut (N, 513) dB into patches of 31 frames; the last is padded with 0 dB, full level."""
    missing = -len(level_db) % PATCH_FRAMES
    return np.pad(level_db, ((0, missing), (0, 0))).reshape(-1, *PATCH)


class Extractor(ABC):
    """Track recordings in chunks: the base of the published network and ``crnn-lite``."""

    name: str
    rate_hz = CRNN_RATE_HZ

    @abstractmethod
    def decode(self, posteriors: Floats) -> F0Track:
        """Decode the track of N frames from (N, 442) probabilities."""

    @abstractmethod
    def _chunks(self, samples: Floats, states: list[Floats]) -> Iterator[Floats]:
        """Yield (n, 442) probabilities every 10 ms, and add the network's states, if kept."""

    def melody(self, audio: Audio) -> Melody:
        """Return f0 and class probabilities of mono audio; the latter take 0.6 GB for an hour."""
        posteriors = np.concatenate(list(self._posteriors(audio, [])))
        return Melody(self.decode(posteriors), posteriors)

    def track(self, audio: Audio) -> F0Track:
        """Return f0 and voicing: :meth:`melody` with less memory."""
        return self._decoded(self._posteriors(audio, []))

    def _decoded(self, chunks: Iterable[Floats]) -> F0Track:
        parts = [self.decode(posteriors) for posteriors in chunks]
        return F0Track(
            np.concatenate([part.frequency_hz for part in parts]),
            np.concatenate([part.voicing for part in parts]),
        )

    def _posteriors(self, audio: Audio, states: list[Floats]) -> Iterator[Floats]:
        if audio.rate_hz != CRNN_RATE_HZ:
            raise QbhError(f"The melody network takes audio at 8000 Hz, not {audio.rate_hz}.")
        missing = max(1, round(audio.duration_s / F0_HOP_S))
        if audio.silent:
            yield np.eye(1, CLASSES, dtype=np.float32).repeat(missing, axis=0)
            return
        for posteriors in self._chunks(audio.samples, states):
            yield posteriors[:missing]
            missing -= len(posteriors[:missing])


class CrnnExtractor(Extractor):
    """Extract the melody of recordings with the published network; see :func:`load_crnn`.

    Frame i of the published system is centred at i * 10 ms, frame i of the kit's grid at
    (i + 0.5) * 10 ms, so pitch is 5 ms late.

    Args:
        network: trained; batch norms are folded in place, so it cannot be trained any more.
        mean: (31, 513) dB.
        std: (31, 513) dB.
    """

    name = "crnn"

    def __init__(self, network: MelodyCrnn, mean: NDArray, std: NDArray) -> None:
        network.eval().requires_grad_(False)
        for block in network.blocks:
            for part, pair in list(block.named_children()):
                conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(pair.children()))
                setattr(block, part, fuse_conv_bn_eval(conv, norm))
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = np.asarray(mean, np.float32)
        self._scale = np.asarray(std, np.float32) + np.float32(_STD_FLOOR)

    def decode(self, posteriors: Floats) -> F0Track:
        """Decode the track from (N, 442) probabilities by :func:`decode`."""
        return decode(posteriors)

    def _chunks(self, samples: Floats, _: list[Floats]) -> Iterator[Floats]:
        total, step = 1 + len(samples) // CRNN_HOP, _BATCH * PATCH_FRAMES
        stretches = [(first, min(first + step, total)) for first in range(0, total, step)]
        loudest = max(magnitudes(samples, *stretch).max() for stretch in stretches)
        for stretch in stretches:
            yield self._classify(decibels(magnitudes(samples, *stretch), loudest))

    def _classify(self, level_db: Floats) -> Floats:
        """Turn (N, 513) dB into (N, 442) probabilities."""
        patches = (patches_of(level_db) - self._mean) / self._scale
        with torch.inference_mode():
            posteriors = self._network(torch.from_numpy(patches)).softmax(dim=2)
        return posteriors.flatten(0, 1).numpy()[: len(level_db)]


def export_crnn(
    network: MelodyCrnn, mean: NDArray, std: NDArray, path: Path, **origin: Any
) -> None:
    """Write a network with its normalisation in (31, 513) dB as one file, atomically.

    ``origin`` are further entries of its configuration, such as the source of the weights.
    """
    normalisation = {"mean": np.asarray(mean, np.float32), "std": np.asarray(std, np.float32)}
    save_weights(path, arrays_of(network) | normalisation, {"kind": CrnnExtractor.name, **origin})


def arrays_of(network: nn.Module) -> dict[str, NDArray]:
    """Return the parameters of a network by name."""
    return {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}


def load_crnn(path: Path | str | None = None) -> CrnnExtractor:
    """Read a melody network, by default from the data folder: the tracker ``crnn``.

    Licence: MIT (network and weights); the weights are not part of the kit. Range: 110 to 1,976 Hz.
    Threshold: none; a frame is voiced if the most likely class is a pitch.

    Raises:
        QbhError: if the file is missing, damaged, or of another kind; says how to convert it.
    """
    if path is None:
        path = crnn_path()
        if not path.is_file():
            raise QbhError(
                f"{path} does not exist: convert the published weights with 'qbhkit weights "
                f"convert ResNet_NS.hdf5 MEAN.npy STD.npy --out {path.parent}', or use crnn-lite."
            )
    stored, network = load_weights(str(path)), MelodyCrnn()
    with holding(f"{path} does not hold a melody network: make one with 'qbhkit weights convert'."):
        arrays = {key: torch.from_numpy(value) for key, value in stored.arrays.items()}
        mean, std = arrays.pop("mean").numpy(), arrays.pop("std").numpy()
        if stored.config["kind"] != CrnnExtractor.name or not mean.shape == std.shape == PATCH:
            raise KeyError
        network.load_state_dict(arrays)
    return CrnnExtractor(network, mean, std)
