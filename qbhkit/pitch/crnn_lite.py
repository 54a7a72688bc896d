"""``crnn-lite``: a small convolutional-recurrent network for sung melody, fast on a CPU.

Its input is the spectrum on a logarithmic frequency axis, once for each harmonic of each pitch, so
that one small filter fits all pitches. It works every 20 ms. Its output has the grid of the
published network: every 10 ms, class 0 for no voice, then MIDI 40 to 95 in steps of 1/8 semitone.

Source: the harmonic stack follows Bittner et al., "Deep salience representations for f0 estimation
in polyphonic music", ISMIR 2017; grid and interface are those of :mod:`qbhkit.pitch.crnn`.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qbhkit.audio import Audio
from qbhkit.config import build_config
from qbhkit.contour import CONTOUR_HOP_S, F0_HOP_S, F0Track, Floats, midi_to_hz, rescale_confidence
from qbhkit.errors import QbhError
from qbhkit.pitch.crnn import (
    CLASSES,
    CRNN_RATE_HZ,
    HIGHEST_MIDI,
    LOWEST_MIDI,
    Extractor,
    class_midi,
)
from qbhkit.weights import load_weights, save_weights

LITE_HOP = 160  # samples, 20 ms
DEFAULT_WEIGHTS = "crnn-lite"
LITE_KIND = "crnn-lite"
_FLOOR_DB = -80.0
_BINS_PER_ST = 4
_PITCHES = round(HIGHEST_MIDI - LOWEST_MIDI) * _BINS_PER_ST + 1  # 221
_WINDOWS = (1024, 2048)
_FFT = 2048
MARGIN = (_FFT - LITE_HOP) // 2  # samples that a frame reaches beyond its own 20 ms
_CHUNK = 500  # frames that are processed together: 10 s
_CONTEXT = 50  # frames beyond each end of a chunk, to make the seams negligible
_FAINTEST = 1e-6  # a magnitude; a quieter recording is silent
_STATE_FRAMES = round(CONTOUR_HOP_S * CRNN_RATE_HZ / LITE_HOP)  # 5; _CHUNK is a multiple


@dataclass(frozen=True)
class LiteConfig:
    """Set the size of a network.

    Args:
        harmonics: multiples of each pitch in the input.
        channels: of the convolutions over pitch and time.
        wide: channels of the two convolutions that summarise a frame.
        states: of the recurrent layer, each way.
        dropout: before the recurrent layer.
    """

    harmonics: tuple[float, ...] = (0.5, 1, 2, 3, 4, 5, 6, 8)
    channels: int = 32
    wide: tuple[int, int] = (32, 48)
    states: int = 128
    dropout: float = 0.2


class HarmonicStack(nn.Module):
    """Turn samples into levels in dB, for each harmonic of each pitch.

    Args:
        harmonics: see :class:`LiteConfig`.
    """

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
        """Return (B, T, W, 1025) magnitudes of T hops of 20 ms.

        A full-scale sine has magnitude 0.5 in each of the W windows.

        Args:
            samples: (B, T * 160 + 2 * MARGIN); frame t is centred on its own hop.
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
    """Classify the pitch of frames from :class:`HarmonicStack` features.

    Shapes: (B, W * H, T, 221) to (B, T, 442), a frame every 20 ms.
    """

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
        self.classes = nn.Linear(2 * config.states, CLASSES)

    def forward(self, stack: Tensor) -> Tensor:
        """Return (B, T, 442) logits."""
        return self.logits_and_states(stack)[0]

    def logits_and_states(self, stack: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, T, 442) logits and the recurrent layer's (B, T, 2 * states)."""
        local = self.local(stack.contiguous(memory_format=torch.channels_last))  # (B, C, T, P)
        salience = self.salience(local).permute(0, 2, 3, 1).flatten(2)[..., :-1]  # (B, T, 441)
        summary = self.summary(local).permute(0, 2, 1, 3).flatten(2)
        states, _ = self.recurrent(self.narrow(summary))
        logits = self.classes(states)
        return torch.cat([logits[..., :1], logits[..., 1:] + salience], dim=-1), states


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


def decode_lite(posteriors: NDArray, threshold: float) -> F0Track:
    """Read pitch and voicing off class probabilities.

    Args:
        posteriors: (N, 442), each row of sum 1.
        threshold: of 1 - P(class 0), from which a frame is voiced; voicing is scaled so that it
            becomes 0.5.

    Returns:
        A track of N frames, with the most likely pitch in unvoiced frames too.
    """
    best = posteriors[:, 1:].argmax(axis=1)
    voicing = rescale_confidence(np.clip(1 - posteriors[:, 0], 0, 1), threshold)
    return F0Track(midi_to_hz(class_midi()[best]), voicing)


def every_100_ms(states: NDArray) -> Floats:
    """Average (T, C) states every 20 ms to (ceil(T / 5), C) every 100 ms, the grid of a contour.

    The last mean may be of fewer than five frames.
    """
    firsts = np.arange(0, len(states), _STATE_FRAMES)
    counts = np.diff(firsts, append=len(states))
    sums = np.add.reduceat(states, firsts, axis=0)
    return np.asarray(sums / counts[:, None], np.float32)


class TrackWithStates(NamedTuple):
    """Hold the f0 track of a recording and the states of the same run of the network.

    Args:
        f0: N frames of 10 ms.
        states: (T, C) float32 of the recurrent layer every 100 ms, T = ceil(duration / 100 ms).
    """

    f0: F0Track
    states: Floats


class LiteExtractor(Extractor):
    """Extract the melody of recordings with a trained ``crnn-lite``.

    Args:
        weights: shipped weights or a ``.safetensors`` file.

    Raises:
        QbhError: if the weights are missing, damaged, or of another kind.
    """

    name = "crnn-lite"

    def __init__(self, weights: str = DEFAULT_WEIGHTS) -> None:
        stored = load_weights(weights)
        config = {key: value for key, value in stored.config.items() if key != "kind"}
        try:
            if stored.config["kind"] != LITE_KIND:
                raise KeyError
            self.threshold = float(config.pop("threshold"))
            network = LiteNetwork(build_config(LiteConfig, config, weights))
            arrays = {key: torch.from_numpy(value) for key, value in stored.arrays.items()}
            network.load_state_dict(arrays)
        except QbhError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise QbhError(f"{weights} does not hold crnn-lite: train it again.") from None
        self._stack = HarmonicStack(network.config.harmonics)
        self._network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def decode(self, posteriors: Floats) -> F0Track:
        """Read the track off (N, 442) probabilities: :func:`decode_lite`."""
        return decode_lite(posteriors, self.threshold)

    def track_with_states(self, audio: Audio) -> TrackWithStates:
        """Return f0 and voicing as :meth:`track` does, and the recurrent states of the same run.

        Args:
            audio: mono at 8 kHz. A silent recording is unvoiced, and its states are zeros.

        Raises:
            QbhError: if the audio is not at 8 kHz.
        """
        if audio.silent or audio.rate_hz != CRNN_RATE_HZ:
            track = self.track(audio)  # raises if the rate is wrong
            count = max(1, -(-len(audio.samples) // (LITE_HOP * _STATE_FRAMES)))
            return TrackWithStates(
                track, np.zeros((count, 2 * self._network.config.states), np.float32)
            )
        parts, states = [], []
        for posteriors, every_20_ms in self._chunks_with_states(audio.samples):
            parts.append(self.decode(posteriors))
            states.append(every_100_ms(every_20_ms))
        count = max(1, round(audio.duration_s / F0_HOP_S))
        track = F0Track(
            np.concatenate([part.frequency_hz for part in parts])[:count],
            np.concatenate([part.voicing for part in parts])[:count],
        )
        return TrackWithStates(track, np.concatenate(states))

    def states(self, audio: Audio) -> Floats:
        """Return the (T, C) states of :meth:`track_with_states`; the arguments are the same."""
        return self.track_with_states(audio).states

    def _chunks(self, samples: Floats) -> Iterator[Floats]:
        return (posteriors for posteriors, _ in self._chunks_with_states(samples))

    def _chunks_with_states(self, samples: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Yield probabilities every 10 ms and states every 20 ms, of 10 s at a time."""
        samples = samples - np.float32(samples.mean(dtype=np.float64))
        frames = -(-len(samples) // LITE_HOP)
        chunks = [(first, min(first + _CHUNK, frames)) for first in range(0, frames, _CHUNK)]
        with torch.inference_mode():
            peaks = [self._magnitudes(samples, *chunk).amax() for chunk in chunks]
            peak = torch.stack(peaks).amax().clamp_min(_FAINTEST)[None]
            for first, end in chunks:
                begin, stop = max(0, first - _CONTEXT), min(end + _CONTEXT, frames)
                stack = self._stack(self._magnitudes(samples, begin, stop), peak)
                logits, states = self._network.logits_and_states(stack)
                posteriors = every_10_ms(logits[0].softmax(-1).numpy())
                kept = slice(first - begin, end - begin)
                yield posteriors[2 * kept.start : 2 * kept.stop], states[0, kept].numpy()

    def _magnitudes(self, samples: Floats, first: int, end: int) -> Tensor:
        """Return (1, end - first, W, 1025), with silence beyond both ends of the recording."""
        begin, stop = first * LITE_HOP - MARGIN, end * LITE_HOP + MARGIN
        chunk = samples[max(0, begin) : stop]
        chunk = np.pad(chunk, (max(0, -begin), max(0, stop - len(samples))))
        return self._stack.magnitudes(torch.from_numpy(chunk)[None])


def export_lite(network: LiteNetwork, path: Path, threshold: float = 0.5) -> None:
    """Write a trained network as safetensors with its configuration inside.

    Args:
        network: trained.
        path: of the file.
        threshold: of voicing, see :func:`decode_lite`.
    """
    arrays = {key: value.cpu().numpy() for key, value in network.state_dict().items()}
    save_weights(
        path, arrays, {"kind": LITE_KIND, "threshold": threshold, **asdict(network.config)}
    )
