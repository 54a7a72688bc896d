import numpy as np
import pytest
import torch

from qbhkit.embedding.losses import triplet_hinge
from qbhkit.errors import QbhError


def unit(rng, batch, size=16):
    x = rng.normal(size=(batch, size))
    return torch.tensor(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=torch.float64)


def naive(anchors, positives, groups, margin, negatives):
    """The definition, triplet by triplet."""
    both = 0.0
    for one, two in ((anchors, positives), (positives, anchors)):
        rows = []
        for i in range(len(one)):
            near = float(one[i] @ two[i])
            others = [j for j in range(len(one)) if groups[j] != groups[i]]
            rows.append([max(0.0, margin - near + float(one[i] @ two[j])) for j in others])
        if negatives is None:
            active = [value for row in rows for value in row if value > 0]
            both += sum(active) / max(1, len(active)) / 2
        else:
            most = min(negatives, min(map(len, rows)))
            kept = [value for row in rows for value in sorted(row)[-most:]]
            both += sum(kept) / len(kept) / 2
    return both


@pytest.mark.parametrize("negatives", [None, 1, 4, 100])
@pytest.mark.parametrize("margin", [0.1, 0.5])
@pytest.mark.parametrize("groups", [list(range(12)), [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 7]])
def test_equals_a_naive_loop(negatives, margin, groups):
    rng = np.random.default_rng(0)
    anchors, positives = unit(rng, 12), unit(rng, 12)
    found = triplet_hinge(anchors, positives, torch.tensor(groups), margin, negatives)
    assert float(found) == pytest.approx(naive(anchors, positives, groups, margin, negatives))


def test_perfect_and_far_apart_costs_nothing():
    vectors = torch.eye(8)
    assert float(triplet_hinge(vectors, vectors, torch.arange(8), 0.5, None)) == 0
    assert float(triplet_hinge(vectors, vectors, torch.arange(8), 0.5, 3)) == 0


def test_collapsed_vectors_cost_the_margin():
    same = torch.ones(6, 4) / 2
    for negatives in (None, 2):
        loss = triplet_hinge(same, same, torch.arange(6), 0.5, negatives)
        assert float(loss) == pytest.approx(0.5)


def test_variants_of_a_tune_are_no_negatives():
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.01], [0, 1]]), dim=1)
    apart = triplet_hinge(vectors, vectors, torch.tensor([0, 1, 2]), 0.5, None)
    together = triplet_hinge(vectors, vectors, torch.tensor([0, 0, 2]), 0.5, None)
    assert float(apart) > 0.4
    assert float(together) == 0


def test_a_single_tune_is_refused():
    with pytest.raises(QbhError, match="negative"):
        triplet_hinge(torch.eye(3), torch.eye(3), torch.zeros(3), 0.5)


def test_gradient_pulls_the_positive_nearer():
    rng = np.random.default_rng(1)
    anchors, positives = unit(rng, 6), unit(rng, 6).requires_grad_()
    before = (anchors * positives).sum()
    triplet_hinge(anchors, positives, torch.arange(6), 0.5, None).backward()
    after = (anchors * (positives - 0.1 * positives.grad)).sum()
    assert float(after.detach()) > float(before.detach())
