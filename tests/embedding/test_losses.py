import math
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from qbhkit.embedding.losses import (
    InfoNCE,
    LossName,
    Mining,
    Negatives,
    euclidean_hinge,
    hinge,
    hinge_of_means,
    make_loss,
)
from qbhkit.errors import QbhError

KINDS, MININGS = get_args(LossName), get_args(Mining)
every_loss = pytest.mark.parametrize(("kind", "mining"), list(product(KINDS, MININGS)))
APART = list(range(12))
SHARED = [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 7]  # some tunes hold several rows


def unit(rng, batch, size=16):
    x = rng.normal(size=(batch, size))
    return torch.tensor(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=torch.float64)


def pairs(seed, batch=12, noise=0.8):
    """Anchors, and positives ever farther from them; the last lies opposite, beyond all others."""
    rng = np.random.default_rng(seed)
    anchors = unit(rng, batch, 6)
    scale = noise * torch.arange(1, batch + 1)[:, None] / 4
    positives = normalize(anchors + scale * unit(rng, batch, 6), dim=1)
    return anchors, torch.cat([positives[:-1], -anchors[-1:]])


def cosine(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def minus_distance(x, y):
    return -math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


def naive_negatives(near, groups, mining, count, generator):
    """The definition of every mining: for each row the columns of its negatives."""
    size = range(len(near))
    others = [[j for j in size if groups[j] != groups[i]] for i in size]
    most = min(count, min(map(len, others)))
    if mining == "all":
        return others
    if mining == "random":
        lots = torch.rand(len(near), len(near), generator=generator).tolist()
        return [sorted(others[i], key=lambda j, i=i: lots[i][j])[-most:] for i in size]
    if mining == "semi-hard":
        others = [[j for j in others[i] if near[i][j] < near[i][i]] for i in size]
    most = most if mining == "nearest" else 1
    return [sorted(others[i], key=lambda j, i=i: near[i][j])[-most:] for i in size]


def naive_loss(kind, mining, anchors, positives, groups, margin, count, temperature, generator):
    """The definition of every loss, triplet by triplet."""
    measure = minus_distance if kind == "euclidean" else cosine
    both = 0.0
    for one, two in ((anchors, positives), (positives, anchors)):
        near = [[measure(x, y) for y in two.tolist()] for x in one.tolist()]
        chosen = naive_negatives(near, groups, mining, count, generator)
        costs = []
        for i, columns in enumerate(chosen):
            if kind == "infonce":
                logits = [near[i][j] / temperature for j in [i, *columns]]
                costs.append(math.log(sum(map(math.exp, logits))) - logits[0])
            elif kind == "hinge-of-means" and columns:
                mean = sum(near[i][j] for j in columns) / len(columns)
                costs.append(max(0.0, margin - near[i][i] + mean))
            elif kind in ("hinge", "euclidean"):
                costs += [max(0.0, margin - near[i][i] + near[i][j]) for j in columns]
        if mining == "all" and kind in ("hinge", "euclidean"):
            costs = [cost for cost in costs if cost > 0]
        both += sum(costs) / max(1, len(costs)) / 2
    return both


def test_the_margin_is_half_unless_told():
    batch = (*pairs(0), torch.tensor(SHARED))
    for form in (hinge, euclidean_hinge, hinge_of_means):
        assert form(*batch, Negatives("all")) == form(*batch, Negatives("all"), margin=0.5) > 0


def test_a_single_row_with_negatives_counts_whole():
    """Of four rows, both ways, only the first has a negative that is semi-hard."""
    near = torch.tensor([[0.8, 0.6], [0.9, 0.3]])  # anchors are axes: positives are columns
    loss = hinge_of_means(torch.eye(2), near.T, torch.arange(2), Negatives("semi-hard"), 0.5)
    assert loss.item() == pytest.approx(0.5 * (0.5 - 0.8 + 0.6))


def test_a_single_triplet_that_costs_counts_whole():
    near = torch.tensor([[0.9, 0.6], [0.0, 0.9]])
    loss = hinge(torch.eye(2), near.T, torch.arange(2), Negatives("all"), 0.5)
    assert loss.item() == pytest.approx(0.5 - 0.9 + 0.6)  # one either way


@every_loss
def test_every_loss_equals_a_naive_loop(kind, mining):
    anchors, positives = pairs(0)
    for groups, margin, count in ((APART, 0.2, 4), (SHARED, 0.5, 100)):
        loss = make_loss(kind, mining, margin, count, 0.1, torch.Generator().manual_seed(5))
        found = loss(anchors, positives, torch.tensor(groups))
        again = torch.Generator().manual_seed(5)
        wanted = naive_loss(kind, mining, anchors, positives, groups, margin, count, 0.1, again)
        assert wanted > 0.001
        assert found.item() == pytest.approx(wanted, rel=1e-6)  # the temperature is float32


@pytest.mark.parametrize("kind", KINDS)
def test_every_mining_gives_another_loss_and_all_of_them_warm_up_with_all_negatives(kind):
    """If two were equal on this batch, the comparison above could not tell them apart."""
    batch = (*pairs(0), torch.tensor(SHARED))
    made = [make_loss(kind, mining, negatives=2) for mining in MININGS]
    assert len({round(loss(*batch).item(), 6) for loss in made}) == len(MININGS)
    everything = make_loss(kind, "all")(*batch)
    assert all(torch.equal(loss(*batch, warm=True), everything) for loss in made)


@pytest.mark.parametrize("mining", MININGS)
def test_perfect_and_far_apart_costs_nothing(mining):
    for kind in ("hinge", "hinge-of-means", "euclidean"):
        assert float(make_loss(kind, mining)(torch.eye(8), torch.eye(8), torch.arange(8))) == 0


@every_loss
def test_collapsed_vectors_cost_the_margin_and_keep_a_finite_gradient(kind, mining):
    torch.manual_seed(0)
    for noise, batch in ((0.0, 6), (0.0, 40), (1e-7, 6), (1e-4, 40)):
        weights = (torch.ones(2 * batch, 4) + noise * torch.randn(2 * batch, 4)).requires_grad_()
        anchors, positives = normalize(weights, dim=1).chunk(2)
        loss = make_loss(kind, mining, margin=0.5, negatives=3)
        value = loss(anchors, positives, torch.arange(batch))
        value.backward()
        assert torch.isfinite(weights.grad).all()
        if noise == 0:
            seen = {"all": batch, "hardest": 2, "semi-hard": 1}.get(mining, 4)  # a row's logits
            hinged = 0.0 if mining == "semi-hard" else 0.5  # none is farther than the positive
            wanted = math.log(seen) if kind == "infonce" else hinged
            assert value.item() == pytest.approx(wanted, abs=1e-6)


def test_the_distance_of_equal_vectors_is_zero():
    """By matrix product it would be up to 0.001, and the loss short of the margin."""
    torch.manual_seed(0)
    anchors = normalize(torch.randn(40, 64), dim=1)
    loss = euclidean_hinge(anchors, anchors, torch.arange(40), Negatives("hardest"), margin=2.0)
    distance = torch.cdist(anchors.double(), anchors.double()).fill_diagonal_(9).min(dim=1).values
    assert float(loss) == pytest.approx(float((2.0 - distance).mean()), abs=1e-6)


@pytest.mark.parametrize("mining", MININGS)
def test_negatives_are_of_other_tunes_even_where_the_own_tune_lies_nearest(mining):
    groups = torch.arange(20) // 4
    near = torch.rand(20, 20, generator=torch.Generator().manual_seed(0))
    near += 2.0 * (groups[:, None] == groups[None, :])
    near.diagonal().fill_(0.9)
    rows, columns = Negatives(mining, 5).choose(near, groups)
    assert set(rows.tolist()) == set(range(20))
    assert not (groups[rows] == groups[columns]).any()
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(rows)


@pytest.mark.parametrize(("pushed_to", "kept_at"), [(1e-6, 0.01), (50.0, 1.0), (0.2, 0.2)])
def test_the_temperature_stays_in_range_and_can_come_back(pushed_to, kept_at):
    anchors, positives = pairs(5)
    groups = torch.arange(12)
    loss = InfoNCE()
    with torch.no_grad():
        loss.log_temperature.fill_(math.log(pushed_to))
    value = loss(anchors, positives, groups, Negatives("all"))
    value.backward()
    wanted = naive_loss("infonce", "all", anchors, positives, APART, 0, 0, kept_at, None)
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    assert loss.log_temperature.exp().item() == pytest.approx(kept_at, rel=1e-5)
    assert float(loss.log_temperature.grad) != 0


def test_a_single_tune_is_refused():
    for kind in KINDS:
        with pytest.raises(QbhError, match="single tune"):
            make_loss(kind)(torch.eye(3), torch.eye(3), torch.zeros(3))


def test_wrong_choices_are_named():
    with pytest.raises(QbhError, match=r"hinge, hinge-of-means, euclidean, infonce, not 'triplet'"):
        make_loss("triplet")
    with pytest.raises(QbhError, match=r"all, nearest, random, semi-hard, hardest, not 'semihard'"):
        make_loss("hinge", "semihard")
    with pytest.raises(QbhError, match="at least 1, not 0"):
        make_loss("hinge", negatives=0)
    for temperature in (0.0, 1.5, math.nan):
        with pytest.raises(QbhError, match="temperature must be from"):
            make_loss("infonce", temperature=temperature)
