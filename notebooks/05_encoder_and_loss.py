# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Encoder and loss: from a contour to a vector, and what moves the vectors
#
# What you will learn:
# 1. what shape a contour has at every step of every encoder, and what its attention weights;
# 2. the triplet loss by hand and in code, the other losses, and which negatives each of them uses;
# 3. why mined negatives alone make an untrained encoder collapse, and what training does to real tunes.

# %% tags=["parameters"]
profile = "tiny"  # "full" trains the small encoders of the collapse four times as long
seed = 0
data_dir = ""  # not needed here: the tunes come with music21

# %%
import platform
from dataclasses import replace
from itertools import islice
from typing import get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import qbhkit

torch.set_num_threads(1)  # the networks trained here are small: a second thread would only wait
print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## A melody is a vector
#
# `qbhkit.embed` turns a contour, or any recording, into a vector of 512 numbers. All vectors have length 1,
# so their dot product is the cosine similarity. Here are the first eight seconds of a tune of O'Neill's
# collection (1903), the same eight seconds moved up by 5 semitones, and another tune:

# %%
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of

songs = list(islice(songs_of(music21_collection("oneills1850")), 300))
beginnings = [qbhkit.Contour(song.contour().frames[:80]) for song in songs[:2]]
first, second = (qbhkit.embed(contour) for contour in beginnings)
higher = qbhkit.embed(beginnings[0].transposed(5))
print("a vector:", first.shape, first.dtype)
print(f"with itself, 5 semitones up: {first @ higher:.3f}; with another tune: {first @ second:.3f}")

# %% [markdown]
# ## A melody, and the same melody as somebody hums it
#
# From 300 tunes we choose seven that the shipped network was not trained on. Of each we take the first
# eight seconds, 80 frames of 100 ms, and a version that the rules of
# [notebook 04](04_augmentation.ipynb) have distorted. All training is made of such pairs.

# %%
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.sampling import ContourBank, PairBatch, SongPairs
from qbhkit.embedding.windows import WindowRange

held_out = set(read_split("folk")["held_out"])
unseen = [song for song in songs if song.id in held_out and 20 < song.notes[-1, 0] < 40]
unseen = list({song.title.lower(): song for song in unseen}.values())  # one setting of each
tunes = unseen[:7]
bank = ContourBank([song.contour() for song in [*tunes, tunes[0]]], groups=[*range(7), 0])
embedder = ContourEmbedder()
window = WindowRange(shortest_s=8, longest_s=8, frames=embedder.reading.frames, at_start=1)
source = SongPairs(bank, window, Distortions(), embedder.normalisation)
drawn = source.draw(8, np.random.default_rng(seed))
order = np.argsort(drawn.groups, kind="stable")
pairs = PairBatch(*(part[order] for part in drawn))
print([song.title for song in tunes])
print("anchors", pairs.anchors.shape, "positives", pairs.positives.shape, "tunes", pairs.groups)

# %% [markdown]
# Tune 0 is in the batch twice. Two pairs of one tune must never be told apart; below we see which code takes
# care of that. This is tune 1, and the beginning of tune 2:

# %%
from qbhkit.figures import normalised_figure

melody, distorted, other = pairs.anchors[2], pairs.positives[2], pairs.positives[3]
normalised_figure(
    {"the melody": melody, "its distorted version": distorted, "another melody": other},
    f"{tunes[1].title}: a triplet",
    "pitch (1 = 5.5 semitones)",
)

# %% [markdown]
# ## Shapes, read from the model
#
# A forward hook is a function that PyTorch calls after a layer has run. Ours records the layer's output. So
# the table below shows what really happens in the network, not what we believe about it.


# %%
def watch(encoder):
    seen = {}
    for name, part in encoder.named_modules():
        part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    return seen


# %% [markdown]
# First the published shape: four stages, each with a convolution three frames wide and a max-pool over 6, 5,
# 5 and 1 frames, for a window of 200 frames of 100 ms. The axes are channels, a height of 1, and time.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig

published = EncoderConfig(widths=(128,) * 4, convolutions=1, kernel=3, compression=(6, 5, 5, 1))
encoder = ContourEncoder(published).eval()
seen, parts = watch(encoder), dict(encoder.named_modules())
encoder(torch.zeros(1, 200, 2))
rows = [
    (
        name,
        type(parts[name]).__name__,
        tuple(out.shape),
        sum(p.numel() for p in parts[name].parameters()),
    )
    for name, out in seen.items()
    if name
]
print(pd.DataFrame(rows, columns=["layer", "kind", "output", "parameters"]).to_string(index=False))

# %% [markdown]
# 200 frames become 33, 6, 1 and 1. One frame is left, so the attention has nothing to choose from: all its
# weights are 1. Longer windows leave more (300 frames: 2). Our own networks compress time 16-fold and leave
# 5 of 80 frames.

# %% [markdown]
# ## Every kind of encoder
#
# Everything that may differ is a field of `EncoderConfig`. Each row below differs from the first as its name
# says, and has read the same window of 200 frames.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
kinds = {
    "published: plain, constant widths": published,
    "residual stages": replace(published, block="residual", convolutions=2),
    "growing widths": replace(published, widths=(64, 128, 256, 256)),
    "compression 16": replace(published, compression=16),
    "linear pre-encoder": replace(published, linear=128),
    "pooling: attention": replace(published, pooling="attention"),
    "pooling: GRU": replace(published, pooling="gru"),
    "pooling: max": replace(published, pooling="max"),
    "bidirectional LSTM": EncoderConfig(kind="lstm", widths=(128, 128)),
}
rows = {}
for label, config in kinds.items():
    encoder = ContourEncoder(config).eval()
    seen = watch(encoder)
    encoder(torch.zeros(1, 200, 2))
    pools = [f"stages.{n}" for n, part in encoder.stages.named_children() if "Pool" in str(part)]
    stages = [seen[name] for name in pools] or [seen["stages"]]
    rows[label] = {
        "linear": tuple(seen["linear"].shape[1:]),
        "stages": " > ".join(f"{out.shape[1]}x{out.shape[3]}" for out in stages),
        "pooling": tuple(seen["pooling"].shape[1:]),
        "vector": tuple(seen["output"].shape[1:]),
        "parameters": sum(p.numel() for p in encoder.parameters()),
    }
print(pd.DataFrame(rows).T.to_string())

# %% [markdown]
# The column `stages` gives channels x frames after every max-pool. The LSTM keeps all 200 frames. A
# pre-encoder turns the 2 channels into 128 before the first stage. Pooling always leaves one vector, whatever
# the number of frames. And here is one melody on its way through the shipped network, with its real values
# (orange above 0, blue below):

# %%
from qbhkit.embedding.encoders import activations
from qbhkit.figures import encoder_figure

encoder, contour = embedder.encoder, torch.from_numpy(melody[None])
tensors = activations(encoder, contour)
encoder_figure({name: out[0] for name, out in tensors.items()}, "One melody in the shipped encoder")

# %% [markdown]
# ## What the attention weights
#
# Context attention divides the channels into heads. Each head compares every frame with a learnt context
# vector, and a softmax over time turns the comparisons into weights. In four lines, from what the hooks record:

# %%
seen = watch(encoder)
encoder(contour)
attention, frames = encoder.pooling, seen["stages"][0, :, 0].T  # frames: (T, C)
keys = torch.tanh(seen["pooling.project"][0]).unflatten(1, (attention.heads, -1))  # (T, H, C/H)
weights = torch.softmax((keys * attention.context).sum(-1), dim=0).detach()  # (T, H)
by_hand = (weights[..., None] * frames.unflatten(1, (attention.heads, -1))).sum(0).flatten()
np.testing.assert_allclose(by_hand.detach(), tensors["summary"][0], atol=1e-5)

# %%
step_s = 8 / len(weights)
spans = [f"{n * step_s:.1f} to {(n + 1) * step_s:.1f} s" for n in range(len(weights))]
heads = [f"head {n + 1}" for n in range(attention.heads)]
pd.DataFrame(weights.numpy().T, heads, spans).round(2)

# %% [markdown]
# The darker a stretch below, the larger its weight, averaged over the heads. (A frame depends on a little
# more than its own stretch, because the convolutions reach beyond it.)

# %%
from qbhkit.figures import SONG

figure = normalised_figure(
    {"melody": melody}, "Attention over one melody", "pitch (1 = 5.5 semitones)"
)
for n, weight in enumerate(weights.mean(1).tolist()):
    span_s = (n * step_s, (n + 1) * step_s)
    figure.axes[0].axvspan(*span_s, color=SONG, alpha=weight, lw=0)
    figure.axes[0].text(np.mean(span_s), 1.6, f"{weight:.2f}", ha="center", va="center")
figure.axes[0].set_ylim(-2, 2)
figure

# %% [markdown]
# ## A triplet
#
# Three contours: a melody (the anchor), its distorted version (the positive), another melody (the
# negative). The loss asks that the positive be more similar to the anchor than the negative is, by a margin
# of 0.5, and costs what is missing:
#
#     max(0, 0.5 - s(anchor, positive) + s(anchor, negative))
#
# First with an encoder that has learnt nothing, then with the shipped one:

# %%
torch.manual_seed(seed)
untrained = ContourEncoder(encoder.config).eval()
with torch.inference_mode():
    both = {
        name: (network(torch.from_numpy(pairs.anchors)), network(torch.from_numpy(pairs.positives)))
        for name, network in (("untrained", untrained), ("trained", encoder))
    }
costs = {}
for name, (anchors, positives) in both.items():
    a, p, n = anchors[2].numpy(), positives[2].numpy(), positives[3].numpy()
    cost = max(0.0, 0.5 - a @ p + a @ n)
    costs[name] = {"s positive": a @ p, "s negative": a @ n, "loss": cost}
pd.DataFrame(costs).T.round(3)

# %%
assert 0.3 < costs["untrained"]["loss"] < 0.8  # all are similar: the loss is near the margin
assert costs["trained"]["loss"] < costs["untrained"]["loss"]

# %% [markdown]
# ## A batch
#
# In a batch of B pairs every row has its own positive and the positives of all others, so one (B, B) matrix
# holds all triplets. Then anchors and positives change places, so that a hum also learns to find its song
# among songs. With two pairs that is four triplets, here by hand:

# %%
from qbhkit.embedding.losses import make_loss, triplet_hinge

anchors, positives = (vectors[2:4] for vectors in both["untrained"])
near = (anchors @ positives.T).numpy()  # (2, 2)
triplets = [
    max(0, 0.5 - near[0, 0] + near[0, 1]),  # melody 1, its positive, the positive of melody 2
    max(0, 0.5 - near[1, 1] + near[1, 0]),
    max(0, 0.5 - near[0, 0] + near[1, 0]),  # positive 1, its melody, melody 2
    max(0, 0.5 - near[1, 1] + near[0, 1]),
]
groups = torch.tensor([1, 2])
np.testing.assert_allclose(
    np.mean(triplets), triplet_hinge(anchors, positives, groups, negatives=1), rtol=1e-5
)
np.testing.assert_allclose(
    np.mean(triplets), make_loss("hinge", "nearest")(anchors, positives, groups), rtol=1e-5
)
print("four triplets by hand and both functions agree:", np.round(triplets, 3))

# %% [markdown]
# And with all eight pairs, in the trained space. Rows of one tune are not negatives of each other (`other`).
# With all negatives, the mean is taken over the triplets that still cost something. Most triplets are soon
# satisfied and would only dilute the loss.

# %%
anchors, positives = both["trained"]
groups = torch.from_numpy(pairs.groups)
near = (anchors @ positives.T).numpy()  # (8, 8)
other = pairs.groups[:, None] != pairs.groups  # (8, 8)


def mean_both_ways(one_way):
    return 0.5 * (one_way(near) + one_way(near.T))


def hinge(near):
    triplets = np.maximum(0, 0.5 - near.diagonal()[:, None] + near)[other]
    return triplets.sum() / max(1, (triplets > 0).sum())


np.testing.assert_allclose(
    mean_both_ways(hinge), triplet_hinge(anchors, positives, groups), rtol=1e-4
)
print(f"{mean_both_ways(hinge):.4f} by hand and in code")

# %% [markdown]
# ## The other losses
#
# - `hinge-of-means`: one hinge per row, against the *mean* of its negatives. Distant negatives make up for a
#   near one.
# - `euclidean`: the hinge on distance. For vectors of length 1 the distance is `sqrt(2 - 2 * s)`, so the order
#   is the same, but the gaps differ.
# - `infonce`: no margin. A softmax with a temperature asks which entry of the row is the positive. The nearer a
#   negative, the more it is pushed away.
#
# Each of them by hand, in a line or two:


# %%
def hinge_of_means(near):
    mean = (near * other).sum(1) / other.sum(1)
    return np.maximum(0, 0.5 - near.diagonal() + mean).mean()


def euclidean(near):
    distance = np.sqrt(2 - 2 * near)
    triplets = np.maximum(0, 0.5 + distance.diagonal()[:, None] - distance)[other]
    return triplets.sum() / max(1, (triplets > 0).sum())


def infonce(near):
    odds = np.exp(near / 0.07) * (other | np.eye(len(near), dtype=bool))
    return -np.log(odds.diagonal() / odds.sum(1)).mean()


for kind, form in (
    ("hinge-of-means", hinge_of_means),
    ("euclidean", euclidean),
    ("infonce", infonce),
):
    value = make_loss(kind, "all")(anchors, positives, groups).item()
    np.testing.assert_allclose(mean_both_ways(form), value, rtol=1e-3, atol=1e-6)
    print(f"{kind:15} {value:.4f} by hand and in code")

# %% [markdown]
# ## Which negatives
#
# A row has many negatives, and most are already far away. *Mining* chooses among them: `all`; some at
# `random` (published: 4); the `nearest` few; the `hardest`, which is the nearest one; or the `semi-hard` one,
# the nearest of those that are farther away than the positive. The last two need pytorch-metric-learning.

# %%
from qbhkit.embedding.losses import Mining, Negatives
from qbhkit.errors import MissingPackageError
from qbhkit.figures import similarity_figure

minings = {}
for mining in get_args(Mining):
    try:
        minings[mining] = Negatives(mining, 2, torch.Generator().manual_seed(seed))
    except MissingPackageError as error:
        print(error)
chosen = {
    mining: negatives.choose(torch.from_numpy(near), groups)
    for mining, negatives in minings.items()
}
similarity_figure(near, chosen, pairs.groups, "Eight pairs, up to two negatives per row")

# %% [markdown]
# Squares mark a row's own positive, dots its negatives. The two pairs of tune 0 are near each other and never
# become negatives, whatever the mining. The average similarity of the chosen negatives:

# %%
table = {
    mining: {"triplets": len(rows), "mean cosine": near[rows, columns].mean()}
    for mining, (rows, columns) in chosen.items()
}
pd.DataFrame(table).T.round(2)

# %%
assert not any((groups[rows] == groups[columns]).any() for rows, columns in chosen.values())
assert table["nearest"]["mean cosine"] > table["all"]["mean cosine"]

# %% [markdown]
# Every loss with every mining, on this one batch. For the hinges, nearer negatives leave more to learn. (With
# `all`, only the unsatisfied triplets count.) InfoNCE also depends on the number of negatives, because each one
# adds to the softmax: all of them cost more than the two nearest, and these more than the hardest.

# %%
from qbhkit.embedding.losses import LossName

losses = {
    kind: {
        mining: make_loss(kind, mining, negatives=2, generator=torch.Generator().manual_seed(seed))(
            anchors, positives, groups
        ).item()
        for mining in minings
    }
    for kind in get_args(LossName)
}
pd.DataFrame(losses).T.round(3)

# %%
assert losses["hinge"]["nearest"] > losses["hinge"]["random"]
assert losses["infonce"]["all"] > losses["infonce"]["nearest"]

# %% [markdown]
# ## Collapse
#
# If the nearest negatives teach most, why not use them from the first step? We train a small encoder three
# times, on the same batches and with the same initial weights: with all negatives; with the 4 nearest from
# the first step; and with the 4 nearest after a warm-up with all. The *spread* is 1 - |mean of the unit
# vectors|: 0 when all vectors are equal. This is the whole training loop; the kit's own
# (`qbhkit.embedding.training`) adds checkpoints, a schedule and several devices.

# %%
from qbhkit.corpora.training_songs import forbidden_ids
from qbhkit.embedding.training import spread_of
from qbhkit.training_loop import generator

forbidden = forbidden_ids(read_split("folk"))
learnt = ContourBank([song.contour() for song in songs if song.id not in forbidden])
source = SongPairs(learnt, WindowRange(), Distortions(), "key")
step_count = 120 if profile == "tiny" else 480
runs = {"all": ("all", 0), "4 nearest at once": ("nearest", 0)}
runs["4 nearest after a warm-up"] = ("nearest", step_count // 2)
spreads, values = {}, {}
for name, (mining, warm) in runs.items():
    torch.manual_seed(seed)
    network = ContourEncoder(EncoderConfig(widths=(16, 32, 64), convolutions=1, embedding_dim=64))
    loss = make_loss("hinge", mining, negatives=4)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    spreads[name], values[name] = [], []
    for step in range(step_count):
        batch = source.draw(64, generator(seed, step))
        vectors = network(torch.from_numpy(np.concatenate([batch.anchors, batch.positives])))
        cost = loss(*vectors.chunk(2), torch.from_numpy(batch.groups), warm=step < warm)
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        spreads[name].append(spread_of(vectors))
        values[name].append(cost.item())

# %%
from qbhkit.figures import HUM, THIRD

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
for axes, curves in ((left, values), (right, spreads)):
    for (name, curve), style in zip(curves.items(), (":", "-", "--"), strict=True):
        colour = {":": THIRD, "-": SONG, "--": HUM}[style]
        axes.plot(curve, style, color=colour, label=name, lw=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
left.axhline(0.5, color="0.4", lw=0.8, zorder=0)
left.set_title("The loss, and its margin of 0.5", loc="left", fontsize=11)
left.set(xlabel="step", ylabel="loss", ylim=(0, 0.7))
right.set_title("The spread of the vectors", loc="left", fontsize=11)
right.set(xlabel="step", ylabel="spread", ylim=(0, 1))
right.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
plt.close(figure)
figure

# %%
first = {name: values[name][0] for name in runs}
early = {name: np.median(spreads[name][10:60]) for name in runs}
assert first["4 nearest at once"] > 0.5 > first["all"]
assert early["4 nearest at once"] < 0.1
assert early["4 nearest after a warm-up"] > 0.3
pd.DataFrame({"loss at step 1": first, "spread, steps 10 to 60": early}).round(3)

# %% [markdown]
# The first step explains it. To an untrained encoder all contours are similar, so the nearest of many
# negatives is more similar than the positive, and the loss starts *above* its margin. The fastest way to lower
# it is to make all vectors equal: then both similarities are 1, and the loss is exactly the margin. At that
# point the gradient nearly vanishes. This small encoder needs a hundred steps to escape; a larger one did
# not escape within 400 (DECISIONS.md). Against *all* negatives, the positive is a little more similar than the
# average negative from the beginning. The loss starts *below* the margin, and it falls as the encoder learns to
# tell melodies apart. After the warm-up this also holds for the nearest negatives, or soon will.
#
# So the kit's hinge begins with all negatives (`warm_epochs`) and logs the spread. Measured once on 423
# real hums (DECISIONS.md, short runs): top-1 0.44 with all negatives throughout, 0.61 with the 16 nearest
# after a warm-up.

# %% [markdown]
# ## Before and after
#
# Six unseen tunes, ten distorted versions of each, embedded by an untrained encoder and by the shipped one.
# The picture shows the two directions in which the vectors differ most (principal components, by an SVD), so
# it shows only a part of what 512 numbers hold. The percentage uses all of them: how often is the nearest of
# the other 59 versions one of the same tune?

# %%
shown = unseen[7:13]
six = ContourBank([song.contour() for song in shown])
source = SongPairs(six, window, Distortions(), embedder.normalisation)
draws = [source.draw(6, generator(seed, number)) for number in range(10)]
versions = torch.from_numpy(np.concatenate([draw.positives for draw in draws]))  # (60, L, 2)
tune = np.concatenate([draw.groups for draw in draws])  # (60,)
with torch.inference_mode():
    spaces = {"untrained": untrained(versions).numpy(), "trained": encoder(versions).numpy()}


# %%
from qbhkit.figures import FOURTH


def first_two_components(vectors):
    centred = vectors - vectors.mean(0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T, sizes[:2] ** 2 / (sizes**2).sum()


def found(vectors):
    near = vectors @ vectors.T - 2 * np.eye(len(vectors))  # no vector is its own neighbour
    return (tune[near.argmax(1)] == tune).mean()


figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for axes, (name, vectors) in zip(panels, spaces.items(), strict=True):
    points, shares = first_two_components(vectors)
    for number, song in enumerate(shown):
        colour, marker = (HUM, SONG, THIRD, FOURTH, "0.2", "0.6")[number], "osD^vX"[number]
        axes.scatter(*points[tune == number].T, color=colour, marker=marker, s=30, label=song.title)
    axes.set_title(f"{name}: {found(vectors):.0%} find their tune", loc="left", fontsize=11)
    axes.set_xlabel(f"1st component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"2nd component ({shares[1]:.0%})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title="versions of")
plt.close(figure)
figure

# %%
assert found(spaces["trained"]) > 0.8
assert found(spaces["trained"]) > found(spaces["untrained"])

# %% [markdown]
# Note the scales: the untrained vectors all lie in one small region.

# %% [markdown]
# ## Exercises
#
# 1. The published pools take 6 x 5 x 5 = 150 frames to one, and a window has 200. Which frames does the network
#    not see at all? Change one frame after another and check whether the vector moves.
# 2. Which margin on distance asks the same as 0.5 on cosine, for a positive that equals its anchor?
# 3. InfoNCE pushes each negative by its share in the softmax. What is the share of the nearest negative of
#    tune 1 at temperature 1, 0.07 and 0.01?
#
# <details><summary>Solutions</summary>
#
# 1. The last 13: from frame 187 on nothing moves. A max-pool drops an incomplete group of frames.
# ```python
# encoder = ContourEncoder(published).eval()
# contour = torch.randn(1, 200, 2)
# changed = contour.repeat(200, 1, 1)
# changed[range(200), range(200)] += 3
# moved = (encoder(changed) - encoder(contour)).abs().amax(1) > 1e-6
# print(moved.nonzero().max())
# ```
# 2. A negative with cosine 0.5 is at distance `sqrt(2 - 2 * 0.5)` = 1, so the margin is 1.
# ```python
# s = torch.tensor([1.0, 0.5, 0.0])
# print(torch.sqrt(2 - 2 * s))
# ```
# 3. At 1 it is one of many; at 0.01 it has nearly all.
# ```python
# for temperature in (1, 0.07, 0.01):
#     share = torch.softmax(torch.from_numpy(near[2][other[2]]) / temperature, 0)
#     print(temperature, round(share.max().item(), 2))
# ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Stages trade time for channels. Pooling makes one vector of the frames that are left.
# - A loss sees one (B, B) matrix: the diagonal is pulled together, the chosen negatives are pushed apart.
# - Hard negatives teach most, but only a network that has already learnt something. Watch the spread.
#
# Library functions used: [`qbhkit.embed`](../qbhkit/embedding/embedder.py),
# [`qbhkit.embedding.embedder.ContourEmbedder`](../qbhkit/embedding/embedder.py),
# [`qbhkit.embedding.encoders.EncoderConfig`](../qbhkit/embedding/encoders.py),
# [`qbhkit.embedding.encoders.ContourEncoder`](../qbhkit/embedding/encoders.py),
# [`qbhkit.embedding.pooling.ContextAttention`](../qbhkit/embedding/pooling.py),
# [`qbhkit.embedding.encoders.activations`](../qbhkit/embedding/encoders.py),
# [`qbhkit.embedding.losses.triplet_hinge`](../qbhkit/embedding/losses.py),
# [`qbhkit.embedding.losses.make_loss`](../qbhkit/embedding/losses.py),
# [`qbhkit.embedding.losses.hinge`](../qbhkit/embedding/losses.py),
# [`qbhkit.embedding.losses.hinge_of_means`](../qbhkit/embedding/losses.py),
# [`qbhkit.embedding.losses.euclidean_hinge`](../qbhkit/embedding/losses.py),
# [`qbhkit.embedding.losses.InfoNCE`](../qbhkit/embedding/losses.py),
# [`qbhkit.embedding.losses.Negatives`](../qbhkit/embedding/losses.py),
# [`qbhkit.embedding.sampling.SongPairs`](../qbhkit/embedding/sampling.py),
# [`qbhkit.embedding.training.spread_of`](../qbhkit/embedding/training.py),
# [`qbhkit.figures.encoder_figure`](../qbhkit/figures/learning.py),
# [`qbhkit.figures.similarity_figure`](../qbhkit/figures/learning.py).
#
# Next: [06 · Stage 1](06_train_self_supervised.ipynb).
