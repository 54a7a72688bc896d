"""The published singing-voice melody network: 8 kHz audio to 442 pitch classes every 10 ms.

Source: Kum, Lin, Su and Nam, "Semi-supervised learning using teacher-student models for vocal
melody extraction", ISMIR 2020, and fixed facts, "Melody network". The trained weights are their
authors' own; :mod:`qbhkit.pitch.keras_weights` converts them.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, leaky_relu_, max_pool2d

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, Floats, midi_to_hz
from qbhkit.errors import QbhError
from qbhkit.training_loop import initialise_vector_maths
from qbhkit.weights import crnn_path, load_weights, save_weights

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
CRNN_KIND = "crnn"

_SLOPE = 0.01
_AMIN, _TOP_DB = 1e-10, 80.0  # librosa.power_to_db's defaults
_STD_FLOOR = 1e-4
_MOST_UNVOICED = 0.49  # below the threshold of voicing, also after rounding to three digits
_BATCH = 4  # patches at a time: 1.2 s; more are no faster on a CPU and take more memory


def class_midi() -> NDArray:
    """Return the (441,) MIDI pitches of the classes after class 0, rising by 1/8 semitone."""
    return LOWEST_MIDI + np.arange(CLASSES - 1) / STEPS_PER_ST


class Melody(NamedTuple):
    """Hold the melody of a recording.

    Args:
        f0: N frames of 10 ms.
        posteriors: (N, 442) float32, probabilities of no voice and of each pitch.
    """

    f0: F0Track
    posteriors: Floats


def decode(posteriors: NDArray, lowest_midi: float = LOWEST_SUNG_MIDI) -> F0Track:
    """Read pitch and voicing off class probabilities.

    The published rule takes the most likely of all 442 classes and calls a frame unvoiced if that
    is class 0 or a pitch under MIDI 45; ``voiced`` of the track is exactly that decision. As with
    other trackers, unvoiced frames have a frequency too: the most likely pitch from ``lowest_midi``
    up. So the published pitch is ``frequency_hz`` where voiced, else 0.

    Args:
        posteriors: (N, 442), each row of sum 1.
        lowest_midi: pitches below count as unvoiced, MIDI semitones, up to 95.

    Returns:
        A track of N frames. Its voicing is 1 - P(class 0), raised to at least 0.5 in voiced frames
        and limited to 0.49 in unvoiced ones.

    Raises:
        QbhError: if the shape is not (N, 442), or ``lowest_midi`` leaves no pitch.

    Source: fixed facts, "Melody network".
    """
    posteriors = np.asarray(posteriors, np.float32)
    if posteriors.ndim != 2 or posteriors.shape[1] != CLASSES:
        raise QbhError(f"Posteriors must be (frames, {CLASSES}), not {posteriors.shape}.")
    midi = class_midi()
    lowest = int(np.searchsorted(midi, lowest_midi)) + 1  # class of the lowest pitch that counts
    if lowest >= CLASSES:
        raise QbhError(f"No pitch is left over MIDI {lowest_midi:g}: the highest is MIDI 95.")
    best = posteriors[:, lowest:].argmax(axis=1) + lowest
    sung = posteriors.argmax(axis=1) >= lowest
    found = np.take_along_axis(posteriors, best[:, None], axis=1)[:, 0] > 0
    voice = np.clip(1 - posteriors[:, 0], 0, 1)
    return F0Track(
        np.where(found, midi_to_hz(midi[best - 1]), 0.0),
        np.where(sung, np.maximum(voice, 0.5), np.minimum(voice, _MOST_UNVOICED)),
    )


class _Residual(nn.Module):
    """One block: shortcut, three more convolutions, their sum, and a max-pool over frequency."""

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

    The dropout of 0.5 after the convolutions and of 0.3 before the recurrent layer is the published
    one. The published recurrent dropout has no counterpart in PyTorch and is left out.

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
        """Return the states of the recurrent layer.

        Args:
            patches: (B, 31, 513), (B, 31, 513, 1) or (B, 1, 31, 513), normalised dB.

        Returns:
            (B, 31, 512): 256 states of the forward direction, then 256 of the backward one.

        Raises:
            QbhError: if the shape is another one.
        """
        if tuple(patches.shape[1:]) not in (PATCH, (*PATCH, 1), (1, *PATCH)):
            raise QbhError(f"Patches must be (batch, 31, 513), not {tuple(patches.shape)}.")
        x = patches.reshape(-1, 1, *PATCH)  # (B, 1, 31, 513)
        x = self.dropout(self.blocks(x))  # (B, 256, 31, 2)
        x = x.permute(0, 2, 3, 1).flatten(2)  # (B, 31, 512): frequency first, then channel
        return self.lstm(self.input_dropout(x))[0]

    def forward(self, patches: Tensor) -> Tensor:
        """Return class logits (B, 31, 442) of normalised patches; softmax gives probabilities."""
        return self.output(self.states(patches))


def _folded(network: MelodyCrnn) -> MelodyCrnn:
    """Fold each batch norm into the convolution before it, in place, for inference."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    network.eval().requires_grad_(False)
    for block in network.blocks:
        for name, pair in list(block.named_children()):
            conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(pair.children()))
            setattr(block, name, fuse_conv_bn_eval(conv, norm))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def frame_count(samples: int) -> int:
    """Return how many frames the centred STFT of so many samples has: 1 + samples // 80."""
    return 1 + samples // CRNN_HOP


def magnitudes(samples: Floats, first: int, end: int) -> Floats:
    """Return frames of the magnitude STFT; they do not depend on the stretch they are part of.

    Args:
        samples: (N,) the whole recording at 8 kHz.
        first: frame to begin with; frame i is centred at sample 80 i, zeros outside.
        end: frame to stop before, at most ``frame_count(N)``.

    Returns:
        (end - first, 513), the values of ``librosa.stft`` with its defaults.
    """
    import librosa

    begin, stop = first * CRNN_HOP - WINDOW // 2, (end - 1) * CRNN_HOP + WINDOW // 2
    chunk = samples[max(0, begin) : stop]
    chunk = np.pad(chunk, (max(0, -begin), max(0, stop - len(samples))))
    spectrum = librosa.stft(chunk, n_fft=WINDOW, hop_length=CRNN_HOP, center=False)  # (513, frames)
    return np.abs(spectrum).T


def decibels(magnitude: Floats, loudest: float) -> Floats:
    """Return ``librosa.power_to_db`` of magnitudes, relative to the recording's loudest.

    The formula is meant for power; the published system applies it to magnitudes, and its weights
    need that.

    Args:
        magnitude: any shape, at least 0.
        loudest: largest magnitude of the whole recording.

    Returns:
        -80 to 0 dB, in the shape of ``magnitude``.
    """
    level = 10 * np.log10(np.maximum(_AMIN, magnitude))
    return np.maximum(level - 10 * np.log10(np.maximum(_AMIN, np.float32(loudest))), -_TOP_DB)


def patches_of(level_db: Floats) -> Floats:
    """Cut frames into patches of 31; the last one is padded with 0 dB, which is full level.

    Args:
        level_db: (N, 513).

    Returns:
        (ceil(N / 31), 31, 513).
    """
    missing = -len(level_db) % PATCH_FRAMES
    return np.pad(level_db, ((0, missing), (0, 0))).reshape(-1, *PATCH)


class Extractor(ABC):
    """Track recordings in chunks: the base of the published network and ``crnn-lite``."""

    name: str
    rate_hz = CRNN_RATE_HZ

    @abstractmethod
    def decode(self, posteriors: Floats) -> F0Track:
        """Read the track of N frames off (N, 442) probabilities."""

    @abstractmethod
    def _chunks(self, samples: Floats) -> Iterator[Floats]:
        """Yield (n, 442) probabilities every 10 ms, for some seconds at a time."""

    def melody(self, audio: Audio) -> Melody:
        """Return f0 and class probabilities; the latter take 0.6 GB for an hour.

        Args:
            audio: mono at 8 kHz. A silent recording is unvoiced without running the network.

        Returns:
            round(duration / 10 ms) frames.

        Raises:
            QbhError: if the audio is not at 8 kHz.
        """
        posteriors = np.concatenate(list(self._posteriors(audio)))
        return Melody(self.decode(posteriors), posteriors)

    def track(self, audio: Audio) -> F0Track:
        """Return f0 and voicing of mono audio at 8 kHz: :meth:`melody` with less memory."""
        parts = [self.decode(posteriors) for posteriors in self._posteriors(audio)]
        return F0Track(
            np.concatenate([part.frequency_hz for part in parts]),
            np.concatenate([part.voicing for part in parts]),
        )

    def _posteriors(self, audio: Audio) -> Iterator[Floats]:
        if audio.rate_hz != CRNN_RATE_HZ:
            raise QbhError(f"The melody network takes audio at 8000 Hz, not {audio.rate_hz}.")
        missing = max(1, round(audio.duration_s / F0_HOP_S))
        if audio.silent:
            yield np.eye(1, CLASSES, dtype=np.float32).repeat(missing, axis=0)
            return
        for posteriors in self._chunks(audio.samples):
            yield posteriors[:missing]
            missing -= len(posteriors[:missing])


class CrnnExtractor(Extractor):
    """Extract the melody of recordings with the published network; see :func:`load_crnn`.

    Frame i of the published system is centred at i * 10 ms, frame i of the kit's grid at
    (i + 0.5) * 10 ms. Frame i stays frame i: pitch is up to 5 ms late. The additional last frame of
    the STFT is dropped.

    Args:
        network: trained. Its batch norms are folded in place, so it cannot be trained afterwards.
        mean: (31, 513) dB.
        std: (31, 513) dB.
    """

    name = "crnn"

    def __init__(self, network: MelodyCrnn, mean: NDArray, std: NDArray) -> None:
        self._network = _folded(network)
        self._mean = np.asarray(mean, np.float32)
        self._scale = np.asarray(std, np.float32) + np.float32(_STD_FLOOR)

    def decode(self, posteriors: Floats) -> F0Track:
        """Read the track off (N, 442) probabilities by the published rule: :func:`decode`."""
        return decode(posteriors)

    def _chunks(self, samples: Floats) -> Iterator[Floats]:
        total, step = frame_count(len(samples)), _BATCH * PATCH_FRAMES
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
    """Write a network with its normalisation as one file, atomically.

    Args:
        network: trained.
        mean: (31, 513) dB.
        std: (31, 513) dB.
        path: ``.safetensors`` file.
        **origin: further entries of its configuration, such as the source of the weights.
    """
    arrays = {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}
    normalisation = {"mean": np.asarray(mean, np.float32), "std": np.asarray(std, np.float32)}
    save_weights(path, {**arrays, **normalisation}, {"kind": CRNN_KIND, **origin})


def load_crnn(path: Path | str | None = None) -> CrnnExtractor:
    """Read a melody network: the tracker ``crnn``.

    Licence: MIT (network and weights); the weights are not part of the kit. Range: 110 to 1,976 Hz.
    Threshold: none; a frame is voiced if the most likely class is a pitch.

    Args:
        path: ``.safetensors`` file, converted or trained; by default that of the data folder.

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
    stored = load_weights(str(path))
    network = MelodyCrnn()
    try:
        if stored.config["kind"] != CRNN_KIND:
            raise KeyError
        arrays = dict(stored.arrays)
        mean, std = arrays.pop("mean"), arrays.pop("std")
        if mean.shape != PATCH or std.shape != PATCH:
            raise KeyError
        network.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    except (KeyError, TypeError, RuntimeError):
        raise QbhError(
            f"{path} does not hold a melody network: make one with 'qbhkit weights convert'."
        ) from None
    return CrnnExtractor(network, mean, std)
