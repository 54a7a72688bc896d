"""Max-hinge triplet loss on cosine similarity, with negatives taken from the batch."""

import torch
from torch import Tensor

from qbhkit.errors import QbhError


def triplet_hinge(
    anchors: Tensor,
    positives: Tensor,
    groups: Tensor,
    margin: float = 0.5,
    negatives: int | None = None,
) -> Tensor:
    """Mean over triplets of max(0, margin - s(anchor, positive) + s(anchor, negative)).

    Negatives of a row are the positives of all rows of other tunes, or the ``negatives`` of them
    that lie nearest to the anchor; anchors and positives also change places, so that a hum learns
    to find its song among other songs as well as a song its hum. Over all negatives the mean is
    taken of the triplets that are not yet met, since most are met soon.

    Args:
        anchors: (B, D) of length 1.
        positives: (B, D) of length 1, row by row the same tune.
        groups: (B,) tune of each row; rows of one tune are never each other's negatives.
        margin: how much nearer a positive must be than a negative, in cosine.
        negatives: nearest negatives a row (published: 4, drawn at random), or all.

    Returns:
        Scalar.

    Raises:
        QbhError: if all rows belong to one tune.

    Source: fixed facts, "Loss"; Schroff et al., "FaceNet", 2015, for negatives from the batch.
    """
    other = groups[:, None] != groups[None, :]  # (B, B)
    if not bool(other.any(dim=1).all()):
        raise QbhError("A triplet needs a negative: the batch holds a single tune.")
    similarity = anchors @ positives.T  # (B, B)
    return 0.5 * (
        _one_way(similarity, other, margin, negatives)
        + _one_way(similarity.T, other, margin, negatives)
    )


def _one_way(similarity: Tensor, other: Tensor, margin: float, negatives: int | None) -> Tensor:
    hinge = torch.relu(margin - similarity.diagonal()[:, None] + similarity)
    if negatives is None:
        active = hinge[other]
        return active.sum() / (active > 0).sum().clamp(min=1)
    most = min(negatives, int(other.sum(dim=1).min()))
    return hinge.masked_fill(~other, -1.0).topk(most, dim=1).values.mean()
