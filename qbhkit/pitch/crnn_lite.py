"""``crnn-lite``: a small convolutional-recurrent network for sung melody, fast on a CPU.

It works every 20 ms. Its output has the grid and the classes of :mod:`qbhkit.pitch.crnn`.

Source: the harmonic stack follows Bittner et al., "Deep salience representations for f0 estimation
in polyphonic music", ISMIR 2017.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from torch import Tensor, nn

from qbhkit.audio import Audio
from qbhkit.config import build_config
from qbhkit.contour import (
    CONTOUR_HOP_S,
    F0_HOP_S,
    Contour,
    F0Track,
    Floats,
    from_f0,
    midi_to_hz,
    rescale_confidence,
)
from qbhkit.errors import QbhError
from qbhkit.pitch.crnn import (
    CLASS_MIDI,
    CLASSES,
    CRNN_RATE_HZ,
    HIGHEST_MIDI,
    LOWEST_MIDI,
    Extractor,
    arrays_of,
    padded,
)
from qbhkit.weights import holding, load_weights, save_weights

LITE_HOP = 160  # samples, 20 ms
_FLOOR_DB = -80.0
_BINS_PER_ST = 4
_PITCHES = round(HIGHEST_MIDI - LOWEST_MIDI) * _BINS_PER_ST + 1  # 221
_WINDOWS = (1024, 2048)
_FFT = 2048
MARGIN = (_FFT - LITE_HOP) // 2  # samples that a frame reaches beyond its own 20 ms
_CHUNK = 500  # frames that are processed together: 10 s
_CONTEXT = 50  # frames beyond each end of a chunk, to make the seams negligible
_FAINTEST = 1e-6  # a magnitude; a quieter recording is silent
_AROUND_S, _SUNG = 4.0, 0.1  # nobody sings where less than this share of these seconds is voiced
_STATE_FRAMES = round(CONTOUR_HOP_S * CRNN_RATE_HZ / LITE_HOP)  # 5; _CHUNK is a multiple


@dataclass(frozen=True)
class LiteConfig:
    """Set the size of a network, and what it tracks.

    Raises:
        QbhError: if the targets are others.
    """

    harmonics: tuple[float, ...] = (0.5, 1, 2, 3, 4, 5, 6, 8)  # multiples of each pitch
    channels: int = 32  # of the convolutions over pitch and time
    wide: tuple[int, int] = (32, 48)  # channels of the convolutions that summarise a frame
    states: int = 128  # of the recurrent layer, each way
    dropout: float = 0.2  # before the recurrent layer
    targets: tuple[str, ...] = ("voice",)  # or voice and lead: who sings, else the lead instrument

    def __post_init__(self) -> None:
        if self.targets not in (("voice",), ("voice", "lead")):
            raise QbhError(f"targets must be [voice] or [voice, lead], not {list(self.targets)}.")


class HarmonicStack(nn.Module):
    """Turn samples into levels of each harmonic of each pitch: one filter fits all pitches."""

    below: Tensor  # (H, P) the bin below each frequency
    share: Tensor  # (H, P) distance to that bin, 0 to 1
    inside: Tensor  # (H, P) whether the spectrum contains the frequency

    def __init__(self, harmonics: tuple[float, ...]) -> None:
        super().__init__()
        pitch = LOWEST_MIDI + np.arange(_PITCHES) / _BINS_PER_ST
        hz = 440 * 2 ** ((pitch - 69) / 12) * np.asarray(harmonics)[:, None]  # (H, P)
        at = hz / CRNN_RATE_HZ * _FFT
        inside = hz < 0.49 * CRNN_RATE_HZ
        below = np.where(inside, np.floor(at), 0).astype(int)
        self.register_buffer("below", torch.from_numpy(below), persistent=False)
        share = np.where(inside, at - below, 0).astype(np.float32)
        self.register_buffer("share", torch.from_numpy(share), persistent=False)
        self.register_buffer("inside", torch.from_numpy(inside), persistent=False)
        for size in _WINDOWS:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def magnitudes(self, samples: Tensor) -> Tensor:
        """Return (B, T, W, 1025) of (B, T * 160 + 2 * MARGIN) samples.

        A full-scale sine has magnitude 0.5 in each of the W windows.
        """
        found = []
        for size in _WINDOWS:
            window = getattr(self, f"window_{size}")
            spectrum = torch.stft(
                samples, _FFT, LITE_HOP, size, window, center=False, return_complex=True
            )  # (B, 1025, T)
            found.append(spectrum.abs().transpose(1, 2) / (size / 2))
        return torch.stack(found, dim=2)

    def forward(self, magnitudes: Tensor, reference: Tensor) -> Tensor:
        """Return (B, W * H, T, P) from 0 (80 dB under the reference) to 1.

        Args:
            magnitudes: (B, T, W, 1025).
            reference: (B,) the magnitude that counts as 0 dB.
        """
        level = 20 * torch.log10(magnitudes.clamp_min(1e-9) / reference[:, None, None, None])
        level = (level / -_FLOOR_DB + 1).clamp(0, None)  # (B, T, W, 1025)
        low, high = level[..., self.below], level[..., self.below + 1]  # (B, T, W, H, P)
        stack = (low + self.share * (high - low)) * self.inside
        return stack.flatten(2, 3).transpose(1, 2)


class LiteNetwork(nn.Module):
    """Map (B, W * H, T, 221) of a :class:`HarmonicStack` to (B, K, T, 442) for K targets."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        channels, (first, second) = config.channels, config.wide
        self.config = config
        self.local = nn.Sequential(
            *_convolution(len(_WINDOWS) * len(config.harmonics), channels, (3, 5)),
            *_convolution(channels, channels, (3, 5)),
            *_convolution(channels, channels, (5, 3)),
        )
        self.salience = nn.Conv2d(channels, 2, 1)  # even and odd eighths of a semitone
        self.summary = nn.Sequential(
            nn.MaxPool2d((1, 4)),
            *_convolution(channels, first, (3, 3)),
            nn.MaxPool2d((1, 4)),
            *_convolution(first, second, (3, 3)),
        )
        self.narrow = nn.Sequential(
            nn.Linear(second * (_PITCHES // 16), 2 * config.states),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )
        self.recurrent = nn.GRU(
            2 * config.states, config.states, batch_first=True, bidirectional=True
        )
        # one layer for each target, stacked
        self.classes = nn.Linear(2 * config.states, len(config.targets) * CLASSES)

    def forward(self, stack: Tensor) -> Tensor:
        """Return (B, K, T, 442) logits every 20 ms."""
        return self.logits_and_states(stack)[0]

    def logits_and_states(self, stack: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, K, T, 442) logits and the recurrent layer's (B, T, 2 * states)."""
        local = self.local(stack.contiguous(memory_format=torch.channels_last))  # (B, C, T, P)
        salience = self.salience(local).permute(0, 2, 3, 1).flatten(2)[..., :-1]  # (B, T, 441)
        summary = self.summary(local).permute(0, 2, 1, 3).flatten(2)
        states, _ = self.recurrent(self.narrow(summary))
        logits = self.classes(states).unflatten(-1, (-1, CLASSES)).transpose(1, 2)
        pitched = logits[..., 1:] + salience[:, None]
        return torch.cat([logits[..., :1], pitched], dim=-1), states


def _convolution(inside: int, outside: int, kernel: tuple[int, int]) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, outside, kernel, padding="same", bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    ]


def every_10_ms(posteriors: NDArray) -> NDArray:
    """Interpolate (T, 442) probabilities every 20 ms linearly to (2 T, 442) every 10 ms."""
    before = np.concatenate([posteriors[:1], posteriors[:-1]])
    after = np.concatenate([posteriors[1:], posteriors[-1:]])
    both = np.stack([0.75 * posteriors + 0.25 * before, 0.75 * posteriors + 0.25 * after], axis=1)
    return both.reshape(-1, posteriors.shape[-1])


def every_100_ms(states: NDArray) -> Floats:
    """Average (T, C) states every 20 ms to (ceil(T / 5), C) every 100 ms, the grid of a contour."""
    firsts = np.arange(0, len(states), _STATE_FRAMES)
    counts = np.diff(firsts, append=len(states))
    sums = np.add.reduceat(states, firsts, axis=0)
    return np.asarray(sums / counts[:, None], np.float32)


class TrackWithStates(NamedTuple):
    """Hold the f0 track of a recording and the states of the same run of the network."""

    f0: F0Track  # N frames of 10 ms
    states: Floats  # (ceil(duration / 100 ms), C) of the recurrent layer every 100 ms


class Melodies(NamedTuple):
    """Hold two f0 tracks of a song, both of N frames."""

    voice: F0Track
    lead: F0Track  # of the voice where somebody sings, else of the lead instrument


class LiteExtractor(Extractor):
    """Extract the sung melody of recordings with a trained ``crnn-lite``.

    Args:
        weights: shipped weights or a ``.safetensors`` file.

    Raises:
        QbhError: if the weights are missing, damaged, or of another kind.
    """

    name = "crnn-lite"
    target = "voice"

    def __init__(self, weights: str = "crnn-lite") -> None:
        stored = load_weights(weights)
        config = dict(stored.config)
        with holding(f"{weights} does not hold crnn-lite: train it again."):
            if config.pop("kind") != LiteExtractor.name:
                raise KeyError
            one = config.pop("threshold", None)  # of version 1.0
            self._thresholds = [float(t) for t in config.pop("thresholds", [one])]
            network = LiteNetwork(build_config(LiteConfig, config, weights))
            arrays = {key: torch.from_numpy(value) for key, value in stored.arrays.items()}
            network.load_state_dict(arrays)
            if len(self._thresholds) != len(network.config.targets):
                raise KeyError
        if self.target not in network.config.targets:
            raise QbhError(
                f"{weights} has no output for the lead melody: use LiteExtractor for the voice, or "
                "train weights with 'qbhkit train crnn-lite-2'."
            )
        self._target = network.config.targets.index(self.target)
        self.threshold = self._thresholds[self._target]
        self._stack = HarmonicStack(network.config.harmonics)
        self._network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def decode(self, posteriors: Floats) -> F0Track:
        """Return the most likely pitch, and 1 - P(class 0) with the threshold scaled to 0.5."""
        return _decode(posteriors, self.threshold)

    def track_with_states(self, audio: Audio) -> TrackWithStates:
        """Return what :meth:`track` does, and the states of the same run: zeros for silence."""
        states: list[Floats] = []
        track = self._decoded(self._posteriors(audio, states))
        if not states:  # silence
            count = max(1, -(-len(audio.samples) // (LITE_HOP * _STATE_FRAMES)))
            states.append(np.zeros((count, 2 * self._network.config.states), np.float32))
        return TrackWithStates(track, np.concatenate(states))

    def _chunks(self, samples: Floats, states: list[Floats]) -> Iterator[Floats]:
        for posteriors in self._all_targets(samples, states):
            yield posteriors[self._target]

    def _all_targets(self, samples: Floats, states: list[Floats]) -> Iterator[Floats]:
        """Yield (K, n, 442) probabilities every 10 ms, and add the states."""
        samples = samples - np.float32(samples.mean(dtype=np.float64))
        frames = -(-len(samples) // LITE_HOP)
        chunks = [(first, min(first + _CHUNK, frames)) for first in range(0, frames, _CHUNK)]
        with torch.inference_mode():
            peaks = [self._magnitudes(samples, *chunk).amax() for chunk in chunks]
            peak = torch.stack(peaks).amax().clamp_min(_FAINTEST)[None]
            for first, end in chunks:
                begin, stop = max(0, first - _CONTEXT), min(end + _CONTEXT, frames)
                stack = self._stack(self._magnitudes(samples, begin, stop), peak)
                logits, every_20_ms = self._network.logits_and_states(stack)
                posteriors = [every_10_ms(one) for one in logits[0].softmax(-1).numpy()]
                kept = slice(first - begin, end - begin)
                states.append(every_100_ms(every_20_ms[0, kept].numpy()))
                yield np.stack(posteriors)[:, 2 * kept.start : 2 * kept.stop]

    def _magnitudes(self, samples: Floats, first: int, end: int) -> Tensor:
        """Return (1, end - first, W, 1025), with silence beyond both ends of the recording."""
        chunk = padded(samples, first * LITE_HOP - MARGIN, end * LITE_HOP + MARGIN)
        return self._stack.magnitudes(torch.from_numpy(chunk)[None])


class LeadExtractor(LiteExtractor):
    """Extract the melody of a song: the voice, and the lead instrument where nobody sings.

    Args:
        weights: those of a run with the targets voice and lead.

    Raises:
        QbhError: as for the voice; and if the weights have no output for the lead melody.
    """

    name = "crnn-lite-lead"
    target = "lead"

    def __init__(self, weights: str = "crnn-lite-2") -> None:
        super().__init__(weights)

    def track(self, audio: Audio) -> F0Track:
        """Return f0 and voicing of the voice, or of the lead instrument where nobody sings."""
        return self._song(audio)[0]

    def song_contour(self, audio: Audio) -> Contour:
        """Return the contour of what :meth:`track` returns, with its instrumental parts marked."""
        track, played = self._song(audio)
        marks = played[:: round(CONTOUR_HOP_S / F0_HOP_S)]
        return replace(from_f0(track), instrumental=marks)

    def _song(self, audio: Audio) -> tuple[F0Track, NDArray[np.bool_]]:
        """Return the melody of N frames, and (N,) whether the lead instrument plays it."""
        voice, lead = self.track_both(audio)
        sung = uniform_filter1d(voice.voiced.astype(float), round(_AROUND_S / F0_HOP_S))
        played = sung < _SUNG
        frequency_hz = np.where(played, lead.frequency_hz, voice.frequency_hz)
        return F0Track(frequency_hz, np.where(played, lead.voicing, voice.voicing)), played

    def track_both(self, audio: Audio) -> Melodies:
        """Return what each output of the network tracks, in one run."""
        if audio.silent or audio.rate_hz != self.rate_hz:
            return Melodies(super().track(audio), super().track(audio))  # unvoiced, or an error
        frames = max(1, round(audio.duration_s / F0_HOP_S))
        rows = [
            [[track.frequency_hz, track.voicing] for track in map(_decode, chunk, self._thresholds)]
            for chunk in self._all_targets(audio.samples, [])
        ]
        both = np.concatenate(rows, axis=2)[..., :frames]  # (2, 2, N)
        return Melodies(*(F0Track(*track) for track in both))


def _decode(posteriors: Floats, threshold: float) -> F0Track:
    best = posteriors[:, 1:].argmax(axis=1)
    voicing = rescale_confidence(np.clip(1 - posteriors[:, 0], 0, 1), threshold)
    return F0Track(midi_to_hz(CLASS_MIDI[best]), voicing)


def start_from(network: LiteNetwork, weights: str) -> None:
    """Copy into a network what fits of trained weights.

    Weights for the voice alone start both outputs of a network with two.

    Raises:
        QbhError: if the weights are not those of ``crnn-lite``.
    """
    stored = load_weights(weights)
    if stored.config.get("kind") != LiteExtractor.name:
        raise QbhError(f"{weights} does not hold crnn-lite: give other weights in 'init_from'.")
    own = network.state_dict()
    for key, value in stored.arrays.items():
        array = torch.from_numpy(value)
        if key.startswith("classes.") and len(array) == CLASSES:
            array = torch.cat([array] * len(network.config.targets))
        if key in own and own[key].shape == array.shape:
            own[key].copy_(array)


def export_lite(network: LiteNetwork, path: Path, *thresholds: float) -> None:
    """Write a trained network as safetensors with its configuration inside.

    Args:
        network: trained.
        path: of the file.
        thresholds: for each target, of 1 - P(class 0), from which a frame is voiced; 0.5 if none.
    """
    found = thresholds or (0.5,) * len(network.config.targets)
    config = {"kind": LiteExtractor.name, "thresholds": found, **asdict(network.config)}
    save_weights(path, arrays_of(network), config)
