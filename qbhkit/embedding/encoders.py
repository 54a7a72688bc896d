"""Contour (B, L, 2) to vector (B, 512): convolution and max-pool, then context attention."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qbhkit.config import build
from qbhkit.contour import Normalisation, normalise
from qbhkit.errors import QbhError
from qbhkit.weights import DEFAULT_EMBEDDING, load_weights, save_weights

_BATCH = 1024


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the encoder.

    Args:
        widths: channels of each stage; every stage ends in a max-pool that halves time.
        convolutions: convolutions in each stage.
        kernel: frames a convolution sees (published: 3).
        heads: context vectors of the attention; must divide the last width.
        size: length of the embedding (published: 512).
        dropout: share of the summary's values dropped in training.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    convolutions: int = 2
    kernel: int = 3
    heads: int = 8
    size: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.widths or self.convolutions < 1 or self.kernel % 2 == 0 or self.heads < 1:
            raise QbhError("An encoder needs widths, convolutions, heads, and an odd kernel.")
        if self.widths[-1] % self.heads:
            raise QbhError(f"heads ({self.heads}) must divide the last width ({self.widths[-1]}).")

    @property
    def compression(self) -> int:
        """Frames of input to one frame before the attention."""
        return 2 ** len(self.widths)


class ContextAttention(nn.Module):
    """Sum frames weighted by their likeness to learned context vectors, one a head.

    Source: fixed facts, "Embedding network"; Yang et al., "Hierarchical attention networks", 2016.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, width)
        self.context = nn.Parameter(torch.randn(heads, width // heads) * (width // heads) ** -0.5)

    def forward(self, frames: Tensor) -> Tensor:
        """Summarise (B, T, C) as (B, C)."""
        batch, time, width = frames.shape
        keys = torch.tanh(self.project(frames)).view(batch, time, self.heads, -1)  # (B, T, H, C/H)
        weights = torch.softmax((keys * self.context).sum(-1), dim=1)  # (B, T, H)
        values = frames.view(batch, time, self.heads, -1)  # (B, T, H, C/H)
        return (weights.unsqueeze(-1) * values).sum(1).reshape(batch, width)


class ConvEncoder(nn.Module):
    """Embed contours with convolution and max-pool stages and context attention.

    Args:
        config: widths, heads and embedding size.

    Source: fixed facts, "Embedding network". Notebook: notebooks/03_contours.py
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width = 2
        for out in config.widths:
            for _ in range(config.convolutions):
                layers += [
                    nn.Conv1d(width, out, config.kernel, padding=config.kernel // 2, bias=False),
                    nn.BatchNorm1d(out),
                    nn.ReLU(),
                ]
                width = out
            layers.append(nn.MaxPool1d(2))
        self.stages = nn.Sequential(*layers)
        self.summary = ContextAttention(width, config.heads)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width, config.size)

    def forward(self, contours: Tensor) -> Tensor:
        """Embed normalised contours.

        Args:
            contours: (B, L, 2). Shorter than ``compression`` frames: padded with zeros, centred.

        Returns:
            (B, size), each of length 1.

        Raises:
            QbhError: if the shape is not (B, L, 2) with L > 0.
        """
        if contours.ndim != 3 or contours.shape[2] != 2 or contours.shape[1] == 0:
            raise QbhError(f"The encoder takes (batch, length, 2), not {tuple(contours.shape)}.")
        missing = max(0, self.config.compression - contours.shape[1])
        x = contours.transpose(1, 2)  # (B, 2, L)
        x = nn.functional.pad(x, (missing // 2, missing - missing // 2))
        x = self.stages(x).transpose(1, 2)  # (B, L / compression, C)
        x = self.output(self.dropout(self.summary(x)))  # (B, size)
        return nn.functional.normalize(x, dim=1)


class ContourEmbedder:
    """Turn windows of contours into vectors with trained weights.

    Args:
        weights: a ``.safetensors`` file or the name of a set that ships with the kit.

    Raises:
        QbhError: if the weights are missing, damaged, or of another kind.
    """

    def __init__(self, weights: str = DEFAULT_EMBEDDING) -> None:
        stored = load_weights(weights)
        try:
            config = build(EncoderConfig, dict(stored.config["encoder"]), stored.name)
            self.steps = int(stored.config["steps"])
            self.normalisation: Normalisation = stored.config["normalisation"]
            self.encoder = ConvEncoder(config).eval()
            self.encoder.load_state_dict(
                {key: torch.from_numpy(value) for key, value in stored.arrays.items()}
            )
        except (KeyError, TypeError, RuntimeError):
            raise QbhError(f"The weights {weights} do not hold a contour encoder.") from None
        self.identity = f"{stored.name}-{stored.sha256[:16]}"
        self.size = config.size

    def embed(self, frames: NDArray) -> NDArray[np.float32]:
        """Embed windows.

        Args:
            frames: (B, L, 2) MIDI semitones (0 where unvoiced) and voiced; L = ``steps``.

        Returns:
            (B, size) float32, each of length 1.
        """
        if not len(frames):
            return np.zeros((0, self.size), np.float32)
        parts = []
        with torch.inference_mode():
            for begin in range(0, len(frames), _BATCH):
                batch = normalise(frames[begin : begin + _BATCH], self.normalisation)
                parts.append(self.encoder(torch.from_numpy(batch)).numpy())
        return np.concatenate(parts)


def export_encoder(encoder: ConvEncoder, path: Path, steps: int, how: Normalisation) -> None:
    """Write an encoder's weights with what is needed to use them."""
    arrays = {key: value.detach().cpu().numpy() for key, value in encoder.state_dict().items()}
    config = {"encoder": asdict(encoder.config), "steps": steps, "normalisation": how}
    save_weights(path, arrays, config)
