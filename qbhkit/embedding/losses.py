"""Losses on a batch of pairs: three hinges and InfoNCE, and the choice of negatives.

Each reads the similarities of all anchors to all positives: a row's positive is on the diagonal,
its negatives are elsewhere. Each is the mean of both directions, anchors to positives and back.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from qbhkit.errors import QbhError

LossName = Literal["hinge", "hinge-of-means", "euclidean", "infonce"]
Mining = Literal["all", "nearest", "random", "semi-hard", "hardest"]

_TEMPERATURES = (0.01, 1.0)


class Chosen(NamedTuple):
    """The negatives of a batch: in row ``rows[t]`` the one in column ``columns[t]``."""

    rows: Tensor  # (T,)
    columns: Tensor  # (T,)


@dataclass(frozen=True)
class Negatives:
    """Say how a row chooses its negatives among the rows of other tunes.

    ``all``; the ``nearest``; some at ``random``; ``semi-hard``, the nearest one that is farther
    than the row's own positive, if there is one; the ``hardest``, the nearest one.

    Raises:
        QbhError: if there is no such mining, or ``count`` is not positive.

    Source: fixed facts, "Loss" (4 at random); Schroff et al., "FaceNet", 2015 (semi-hard).
    Notebook: notebooks/05_encoder_and_loss.py
    """

    mining: Mining
    count: int = 16  # of a row, if nearest or random; fewer if the batch has fewer
    generator: torch.Generator | None = None  # of random, on the CPU; by default torch's own

    def __post_init__(self) -> None:
        _check("mining", self.mining, get_args(Mining))
        if self.count < 1:
            raise QbhError(f"negatives must be at least 1, not {self.count}.")

    @torch.no_grad()
    def choose(self, near: Tensor, groups: Tensor) -> Chosen:
        """Choose the negatives of every row of (B, B) similarities, of tunes (B,).

        Raises:
            QbhError: if all rows belong to one tune.
        """
        other = groups[:, None] != groups[None, :]  # (B, B)
        if not bool(other.any(dim=1).all()):
            raise QbhError("A triplet needs a negative: the batch holds a single tune.")
        if self.mining == "all":
            return Chosen(*other.nonzero(as_tuple=True))
        most = min(self.count, int(other.sum(dim=1).min()))
        if self.mining in ("semi-hard", "hardest"):
            most = 1
        if self.mining == "semi-hard":
            other &= near < near.diagonal()[:, None]
        if self.mining == "random":
            near = torch.rand(near.shape, generator=self.generator).to(near)
        found = near.masked_fill(~other, -math.inf).topk(most, dim=1)  # (B, most)
        rows, place = (found.values > -math.inf).nonzero(as_tuple=True)
        return Chosen(rows, found.indices[rows, place])


def hinge(
    anchors: Tensor, positives: Tensor, groups: Tensor, negatives: Negatives, margin: float = 0.5
) -> Tensor:
    """Return the mean over triplets of max(0, margin - s(anchor, positive) + s(anchor, negative)).

    With all negatives, the mean is over triplets whose loss is not 0, because soon most are 0.

    Args:
        anchors: (B, D) of length 1.
        positives: (B, D) of length 1, row by row the same tune.
        groups: (B,) tune of each row; rows of one tune are never each other's negatives.
        negatives: how they are chosen; 0 is returned if there are none (semi-hard).
        margin: how much nearer a positive must be than a negative, in cosine.

    Raises:
        QbhError: if all rows belong to one tune.

    Source: fixed facts, "Loss"; Schroff et al., "FaceNet", 2015, for negatives from the batch.
    Notebook: notebooks/05_encoder_and_loss.py
    """
    return _hinge(anchors @ positives.T, groups, negatives, margin)


def euclidean_hinge(
    anchors: Tensor, positives: Tensor, groups: Tensor, negatives: Negatives, margin: float = 0.5
) -> Tensor:
    """Return :func:`hinge` on the distance, 0 to 2, instead of the cosine.

    Source: Schroff et al., "FaceNet", 2015, with the distance in place of its square.
    Notebook: notebooks/05_encoder_and_loss.py
    """
    # Exact: by matrix product, vectors that are equal come out up to 0.001 apart. Where the
    # distance is 0 its gradient is 0 too.
    distance = torch.cdist(anchors, positives, compute_mode="donot_use_mm_for_euclid_dist")
    return _hinge(-distance, groups, negatives, margin)


def hinge_of_means(
    anchors: Tensor, positives: Tensor, groups: Tensor, negatives: Negatives, margin: float = 0.5
) -> Tensor:
    """Average max(0, margin - s(anchor, positive) + mean of s(anchor, negatives)) over anchors.

    Arguments are those of :func:`hinge`. Far negatives make up for near ones; an anchor without
    negatives (semi-hard) is left out.

    Source: fixed facts, "Loss", the mean-of-similarities form.
    Notebook: notebooks/05_encoder_and_loss.py
    """

    def one_way(near: Tensor) -> Tensor:
        rows, columns = negatives.choose(near, groups)
        counts = rows.bincount(minlength=len(near))  # (B,)
        sums = near.new_zeros(len(near)).index_add(0, rows, near[rows, columns])  # (B,)
        cost = torch.relu(margin - near.diagonal() + sums / counts.clamp(min=1))  # (B,)
        return cost[counts > 0].sum() / (counts > 0).sum().clamp(min=1)

    return _both_ways(one_way, anchors @ positives.T)


class InfoNCE(nn.Module):
    """Cross-entropy of finding the positive among the negatives, at a learned temperature.

    The temperature, by which similarities are divided, is kept between 0.01 and 1 by clamping the
    parameter itself, so that it has a gradient at the ends too.

    Raises:
        QbhError: if the temperature at the start is not between 0.01 and 1.

    Source: van den Oord et al., 2018; Radford et al., 2021, for the temperature.
    Notebook: notebooks/05_encoder_and_loss.py
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        least, most = _TEMPERATURES
        if not least <= temperature <= most:
            raise QbhError(f"temperature must be from {least} to {most}, not {temperature}.")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(
        self, anchors: Tensor, positives: Tensor, groups: Tensor, negatives: Negatives
    ) -> Tensor:
        """Average -log softmax(s / temperature) at the positive over anchors; see :func:`hinge`."""
        with torch.no_grad():
            self.log_temperature.clamp_(*map(math.log, _TEMPERATURES))

        def one_way(near: Tensor) -> Tensor:
            own = torch.arange(len(near), device=near.device)
            rows, columns = negatives.choose(near, groups)
            seen = torch.eye(len(near), dtype=torch.bool, device=near.device)
            seen[rows, columns] = True
            logits = near / self.log_temperature.exp()  # first: -inf has no gradient to divide
            return nn.functional.cross_entropy(logits.masked_fill(~seen, -math.inf), own)

        return _both_ways(one_way, anchors @ positives.T)


class PairLoss(nn.Module):
    """Hold a loss and its choice of negatives, as a training loop calls them."""

    def __init__(self, loss: Callable[..., Tensor], negatives: Negatives) -> None:
        super().__init__()
        self.loss = loss
        self.negatives = negatives

    def forward(
        self, anchors: Tensor, positives: Tensor, groups: Tensor, warm: bool = False
    ) -> Tensor:
        """Return the loss of a batch; arguments as of :func:`hinge`.

        The warm-up uses all negatives: with mined ones only, an untrained encoder collapses into
        one vector (measured, DECISIONS.md).
        """
        return self.loss(anchors, positives, groups, Negatives("all") if warm else self.negatives)


def make_loss(
    kind: LossName,
    mining: Mining = "nearest",
    margin: float = 0.5,
    negatives: int = 16,
    temperature: float = 0.07,
    generator: torch.Generator | None = None,
) -> PairLoss:
    """Return a loss by name.

    Args:
        kind: ``hinge`` on cosine, the mean over triplets; ``hinge-of-means``, over the mean of a
            row's negatives; ``euclidean``, the hinge on distance; ``infonce``, whose temperature
            is a parameter for the optimiser.
        mining: as in :class:`Negatives`, with ``negatives`` and ``generator``.
        margin: of the three hinges, in cosine or in distance.
        negatives: how many a row has.
        temperature: of InfoNCE at the start.
        generator: of ``random``.

    Raises:
        QbhError: if there is no such kind or mining, or a number is out of its range.

    Notebook: notebooks/05_encoder_and_loss.py
    """
    _check("kind", kind, get_args(LossName))
    chosen = Negatives(mining, negatives, generator)
    if kind == "infonce":
        return PairLoss(InfoNCE(temperature), chosen)
    form = {"hinge": hinge, "hinge-of-means": hinge_of_means, "euclidean": euclidean_hinge}[kind]
    return PairLoss(partial(form, margin=margin), chosen)


def _hinge(near: Tensor, groups: Tensor, negatives: Negatives, margin: float) -> Tensor:
    def one_way(near: Tensor) -> Tensor:
        cost = torch.relu(margin - near.diagonal()[:, None] + near)  # (B, B), nearest first
        triplets = cost[negatives.choose(cost, groups)]  # (T,)
        unmet = int((triplets > 0).sum())
        return triplets.sum() / max(1, unmet if negatives.mining == "all" else len(triplets))

    return _both_ways(one_way, near)


def _both_ways(one_way: Callable[[Tensor], Tensor], near: Tensor) -> Tensor:
    return 0.5 * (one_way(near) + one_way(near.T))


def _check(what: str, name: str, choices: tuple[str, ...]) -> None:
    if name not in choices:
        raise QbhError(f"{what} must be one of {', '.join(choices)}, not {name!r}.")
