"""Pooling layers: from the frames (B, T, C) of an encoder to one vector (B, C).

Source: fixed facts, "Embedding network".
"""

import torch
from torch import Tensor, nn


class ContextAttention(nn.Module):
    """Sum frames weighted by their similarity to learned context vectors, one for each head.

    Source: Yang et al., "Hierarchical attention networks", 2016.
    Notebook: notebooks/05_encoder_and_loss.py
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, width)
        self.context = nn.Parameter(torch.randn(heads, width // heads) * (width // heads) ** -0.5)

    def forward(self, frames: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        batch, time, width = frames.shape
        keys = torch.tanh(self.project(frames)).view(batch, time, self.heads, -1)  # (B, T, H, C/H)
        weights = torch.softmax((keys * self.context).sum(-1), dim=1)  # (B, T, H)
        values = frames.view(batch, time, self.heads, -1)  # (B, T, H, C/H)
        return (weights.unsqueeze(-1) * values).sum(1).reshape(batch, width)


class SimpleAttention(nn.Module):
    """Sum frames weighted by a learned linear score of each of their channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, width, bias=False)  # the softmax would undo a bias

    def forward(self, frames: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        weights = torch.softmax(self.score(frames), dim=1)  # (B, T, C)
        return (weights * frames).sum(1)


class LastState(nn.Module):
    """Read frames with a GRU and keep its last state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        _, last = self.gru(frames)  # (1, B, C)
        return last[0]


class MaxOverTime(nn.Module):
    """Keep the largest value of each channel."""

    def forward(self, frames: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        return frames.amax(1)
