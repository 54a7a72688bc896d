"""Encode contours (B, L, 2) as vectors (B, embedding_dim): stages that shorten time, pooling."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qbhkit.config import check_range
from qbhkit.embedding.pooling import ContextAttention, LastState, MaxOverTime, SimpleAttention
from qbhkit.errors import QbhError
from qbhkit.training_loop import initialise_vector_maths

initialise_vector_maths()

Block = Literal["plain", "residual"]

CONTOUR_CHANNELS = 2  # of a contour: normalised pitch, voiced


@dataclass(frozen=True)
class EncoderConfig:
    """Say what an encoder is made of.

    Raises:
        QbhError: if a value is impossible, or has no meaning for the ``kind``.

    Source: fixed facts, "Embedding network".
    Notebook: notebooks/05_encoder_and_loss.py
    """

    # Channels of each stage. An lstm has one layer for each width, all of the last width.
    widths: tuple[int, ...] = (64, 128, 256)
    convolutions: int = 2  # in each stage
    kernel: int = 3  # frames a convolution sees, odd (published: 3)
    heads: int = 8  # context vectors of the pooling ``context``; must divide the last width
    embedding_dim: int = 512  # published: 512
    dropout: float = 0.0  # share of the pooled values dropped in training
    kind: str = "conv"  # a key of ``ENCODER_STAGES``
    block: Block = "plain"  # ``residual`` has a shortcut around the convolutions of a stage
    # How many frames become one (published: about 160): a product with one factor of 2 or more for
    # each stage; None halves time in each stage; a tuple gives each max-pool, 1 for none.
    compression: int | tuple[int, ...] | None = None
    linear: int = 0  # channels of a linear layer before the first stage; 0 for none
    pooling: str = "context"  # a key of ``POOLINGS``
    inputs: int = CONTOUR_CHANNELS  # of a frame: 2, or the number of a network's states

    def __post_init__(self) -> None:
        choices = {"kind": ENCODER_STAGES, "block": get_args(Block), "pooling": POOLINGS}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise QbhError(f"{name} must be {' or '.join(known)}, not {value!r}.")
        check_range(self, 1, math.inf, "convolutions", "kernel", "heads", "embedding_dim", "inputs")
        check_range(self, 0, math.inf, "linear")
        pools = self.compression if isinstance(self.compression, tuple) else (self.compression,)
        if any(pool is not None and pool < 1 for pool in pools):
            raise QbhError(f"compression must be at least 1, not {self.compression}.")
        if not self.widths or min(self.widths) < 1:
            raise QbhError(f"widths must be one or more numbers from 1, not {self.widths}.")
        if self.kernel % 2 == 0:
            raise QbhError(f"kernel must be odd, not {self.kernel}.")
        if not 0 <= self.dropout < 1:
            raise QbhError(f"dropout must be at least 0 and less than 1, not {self.dropout}.")
        if self.pooling == "context" and self.widths[-1] % self.heads:
            raise QbhError(f"heads ({self.heads}) must divide the last width ({self.widths[-1]}).")
        if self.kind == "conv" and len(self.pools) != len(self.widths):
            raise QbhError(
                f"compression ({self.compression}) cannot be spread over {len(self.widths)} "
                "stages: it must be a product of so many whole numbers, each 2 or more."
            )
        if self.kind != "conv" and (self.block != "plain" or self.compression is not None):
            raise QbhError(f"The kind {self.kind} has no stages: leave block and compression out.")
        if self.kind == "lstm" and self.widths[-1] % 2:
            raise QbhError(f"The last width of an lstm ({self.widths[-1]}) must be even.")

    @property
    def pools(self) -> tuple[int, ...]:
        """Return the frames of each stage's max-pool; empty for any kind but ``conv``."""
        if self.kind != "conv":
            return ()
        if isinstance(self.compression, tuple):
            return self.compression
        stages = len(self.widths)
        if self.compression is None:
            return (2,) * stages
        # Among equal products the smallest sum has the most even factors.
        return min(_factorings(self.compression, stages), key=sum, default=())[::-1]

    @property
    def total(self) -> int:
        """Return how many input frames become one frame before pooling."""
        return math.prod(self.pools)


def _factorings(number: int, count: int, least: int = 2) -> Iterator[tuple[int, ...]]:
    """Yield every product of ``count`` rising factors, ``least`` or more, that is ``number``."""
    if count == 1 and number >= least:
        yield (number,)
    elif count > 1 and least**count <= number:
        for first in range(least, math.isqrt(number) + 1):
            if number % first == 0:
                yield from (
                    (first, *rest) for rest in _factorings(number // first, count - 1, first)
                )


class TimeConvolution(nn.Conv1d):
    """Convolve over time as over images one pixel high, which trains twice as fast."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, 1, T) to (B, outputs, 1, T)."""
        return nn.functional.conv2d(x, self.weight[:, :, None], padding=(0, *self.padding))


def _convolutions(inputs: int, outputs: int, config: EncoderConfig) -> list[nn.Module]:
    """Return the layers of a stage before its max-pool: (B, inputs, 1, T) to (B, outputs, 1, T)."""
    layers: list[nn.Module] = []
    for width in (inputs, *[outputs] * (config.convolutions - 1)):
        layers.append(TimeConvolution(width, outputs, config.kernel))
        layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return layers


class Residual(nn.Module):
    """Add a shortcut around a stage's convolutions, itself a convolution if channels change."""

    def __init__(self, inputs: int, outputs: int, config: EncoderConfig) -> None:
        super().__init__()
        *layers, self.activation = _convolutions(inputs, outputs, config)  # comes after the sum
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()  # the identity
        if inputs != outputs:
            self.shortcut.append(TimeConvolution(inputs, outputs, config.kernel))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, 1, T) to (B, outputs, 1, T)."""
        return self.activation(self.body(x) + self.shortcut(x))


class BiLstm(nn.Module):
    """Read frames forwards and backwards; each direction gives half of the channels."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, width // 2, layers, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, 1, T) to (B, width, 1, T)."""
        states, _ = self.lstm(x[:, :, 0].transpose(1, 2))  # (B, T, width)
        return states.transpose(1, 2)[:, :, None]


def _convolution_stages(inputs: int, config: EncoderConfig) -> nn.Module:
    layers: list[nn.Module] = []
    for outputs, pool in zip(config.widths, config.pools, strict=True):
        if config.block == "residual":
            layers.append(Residual(inputs, outputs, config))
        else:
            layers += _convolutions(inputs, outputs, config)
        layers.append(nn.MaxPool2d((1, pool)))
        inputs = outputs
    return nn.Sequential(*layers)


# By name: from input channels and a configuration to a module that maps (B, inputs, 1, L) to
# (B, widths[-1], 1, L // total).
ENCODER_STAGES: dict[str, Callable[[int, EncoderConfig], nn.Module]] = {
    "conv": _convolution_stages,
    "lstm": lambda inputs, config: BiLstm(inputs, config.widths[-1], len(config.widths)),
}

# By name: from a configuration to a module that maps (B, T, widths[-1]) to (B, widths[-1]).
POOLINGS: dict[str, Callable[[EncoderConfig], nn.Module]] = {
    "context": lambda config: ContextAttention(config.widths[-1], config.heads),
    "attention": lambda config: SimpleAttention(config.widths[-1]),
    "gru": lambda config: LastState(config.widths[-1]),
    "max": lambda config: MaxOverTime(),
}


class ContourEncoder(nn.Module):
    """Embed contours: linear layer of each frame, stages, pooling, linear output.

    Source: fixed facts, "Embedding network".
    Notebook: notebooks/05_encoder_and_loss.py
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        # Names and order are fixed: stored weights depend on the names, seeds on the order.
        self.linear = nn.Linear(config.inputs, config.linear) if config.linear else nn.Identity()
        self.stages = ENCODER_STAGES[config.kind](config.linear or config.inputs, config)
        self.pooling = POOLINGS[config.pooling](config)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.widths[-1], config.embedding_dim)

    def forward(self, contours: Tensor) -> Tensor:
        """Embed normalised contours (B, L, inputs) as (B, embedding_dim), each of length 1.

        If L is less than ``config.total``, they are padded with zeros at both ends.

        Raises:
            QbhError: if the shape is not (B, L, inputs) with L > 0.
        """
        inputs = self.config.inputs
        if contours.ndim != 3 or contours.shape[2] != inputs or contours.shape[1] == 0:
            raise QbhError(
                f"The encoder takes (batch, length, {inputs}), not {tuple(contours.shape)}."
            )
        missing = max(0, self.config.total - contours.shape[1])
        x = nn.functional.pad(contours, (0, 0, missing // 2, missing - missing // 2))
        x = self.linear(x).transpose(1, 2)[:, :, None]  # (B, linear or inputs, 1, L)
        x = self.stages(x.contiguous(memory_format=torch.channels_last))
        x = self.pooling(x[:, :, 0].transpose(1, 2))  # (B, widths[-1])
        x = self.output(self.dropout(x))  # (B, embedding_dim)
        return nn.functional.normalize(x.float(), dim=1)


def activations(encoder: ContourEncoder, contours: Tensor) -> dict[str, NDArray[np.float32]]:
    """Return an encoder's intermediate tensors for normalised contours (B, L, inputs).

    Returns:
        In this order: ``contour`` (B, inputs, L); ``stage 1`` and so on (B, C, T), each after its
        max-pool, or a single one for an encoder without max-pools; ``summary`` (B, C), the pooled
        vector; ``vector`` (B, embedding_dim).

    Notebook: notebooks/05_encoder_and_loss.py
    """
    pools = [part for part in encoder.stages.modules() if isinstance(part, nn.MaxPool2d)]
    parts = {f"stage {n}": part for n, part in enumerate(pools or [encoder.stages], 1)}
    found = {"contour": contours.transpose(1, 2)[:, :, None]}
    handles = [
        part.register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
        for name, part in (parts | {"summary": encoder.pooling}).items()
    ]
    try:
        with torch.inference_mode():
            found["vector"] = encoder(contours)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (out[:, :, 0] if out.ndim == 4 else out).numpy() for name, out in found.items()}
