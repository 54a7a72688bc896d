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
# 1. the tensor shapes at every step of every encoder, and which frames the attention weights most;
# 2. the triplet loss by hand and in code, the other losses, and how their negatives are chosen;
# 3. why an untrained encoder collapses if it is trained on mined negatives alone, and what training does to real
#    tunes.

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

torch.set_num_threads(1)  # the networks trained here are small: a second thread would not help
print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## A melody is a vector
#
# `qbhkit.embed` turns a contour, or any recording, into a vector of 512 numbers. All vectors have length 1, so their
# dot product is the cosine similarity. Here we compare the first eight seconds of a tune of O'Neill's collection
# (1903) with the same eight seconds 5 semitones higher, and with another tune:

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
# From 300 tunes we choose seven that the shipped network was not trained on. From each we take the first eight
# seconds (80 frames of 100 ms) and a version distorted by the rules of [notebook 04](04_augmentation.ipynb). All
# training in this notebook uses such pairs.

# %%
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.sampling import ContourBank, PairBatch, SongPairs
from qbhkit.embedding.windows import WindowRange

held_out = set(read_split("folk")["held_out"])
unseen = [song for song in songs if song.id in held_out and 20 < song.notes[-1, 0] < 40]
unseen = list({song.title.lower(): song for song in unseen}.values())  # one version of each title
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
# Tune 0 is in the batch twice. Two pairs of one tune must never be negatives of each other. Below we see how the code
# ensures this. The figure shows tune 1 and the beginning of tune 2:

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
# A forward hook is a function that PyTorch calls after a layer has run. Our hook stores the layer's output. So the
# table below shows the shapes that really occur in the network.


# %%
def watch(encoder):
    seen = {}
    for name, part in encoder.named_modules():
        part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    return seen


# %% [markdown]
# First the published architecture. It has four stages, each with a convolution three frames wide and max-pooling. The
# stages pool over 6, 5, 5 and 1 frames. The input is a window of 200 frames of 100 ms. The output of a stage has the
# axes batch, channels, height (always 1) and time.

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
# The four stages reduce the 200 frames to 33, 6, 1 and 1. The attention has only one frame to weight, so all its
# weights are 1. Longer windows leave more frames (300 frames leave 2). Our own networks compress time by a factor of
# 16: 80 frames become 5.

# %% [markdown]
# ## Every kind of encoder
#
# The parts of an encoder are chosen by the fields of `EncoderConfig`. Each row below differs from the first as its
# name says. The input is the same window of 200 frames for all rows.

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
# The column `stages` gives channels x frames after every max-pooling. The LSTM keeps all 200 frames. A pre-encoder
# turns the 2 channels into 128 before the first stage. The final pooling always gives one vector, whatever the number
# of frames. The figure below shows the values of one melody at every step of the shipped network (orange above 0,
# blue below):

# %%
from qbhkit.embedding.encoders import activations
from qbhkit.figures import encoder_figure

encoder, contour = embedder.encoder, torch.from_numpy(melody[None])
tensors = activations(encoder, contour)
encoder_figure({name: out[0] for name, out in tensors.items()}, "One melody in the shipped encoder")

# %% [markdown]
# ## What the attention weights
#
# Context attention divides the channels into heads. Each head compares every frame with a learnt context vector, and
# a softmax over time turns the comparisons into weights. Here is the same computation in four lines, from the outputs
# that the hooks stored:

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
# Darker areas in the figure have a larger weight, averaged over the heads. (The receptive field of the convolutions
# is a little wider than these areas.)

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
# A triplet is three contours: a melody (the anchor), its distorted version (the positive) and another melody (the
# negative). The positive should be more similar to the anchor than the negative is, by a margin of 0.5. The loss is
# the amount by which it falls short of this:
#
#     max(0, 0.5 - s(anchor, positive) + s(anchor, negative))
#
# We compute it with an untrained encoder and with the shipped one:

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
# In a batch of B pairs, each anchor is compared with its own positive and with the positives of all other pairs. So
# one (B, B) matrix of similarities contains all triplets. Then anchors and positives are swapped, so that the encoder
# also learns to find the song of a hum among other songs. Two pairs give four triplets, here by hand:

# %%
from qbhkit.embedding.losses import make_loss

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
    np.mean(triplets), make_loss("hinge", "nearest")(anchors, positives, groups), rtol=1e-5
)
print("four triplets by hand and the function agree:", np.round(triplets, 3))

# %% [markdown]
# The next cell uses all eight pairs and the trained encoder. Rows of the same tune are not negatives of each other
# (`other`). With all negatives, the mean is taken over the triplets whose loss is above 0. Most triplets soon have a
# loss of 0 and would only make the mean smaller.

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
    mean_both_ways(hinge), make_loss("hinge", "all")(anchors, positives, groups), rtol=1e-4
)
print(f"{mean_both_ways(hinge):.4f} by hand and in code")

# %% [markdown]
# ## The other losses
#
# - `hinge-of-means`: one hinge per row, against the *mean* of its negatives. Distant negatives compensate for a near
#   one.
# - `euclidean`: the hinge on distance. For vectors of length 1 the distance is `sqrt(2 - 2 * s)`, so the order of the
#   negatives is the same, but the differences between them are not.
# - `infonce`: it has no margin. It is the cross-entropy of a softmax with a temperature over each row, where the
#   positive is the right class. Nearer negatives are pushed away more.
#
# Here is each of them by hand, in a line or two:


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
# A row has many negatives, and most are already far away. *Mining* chooses some of them. `all` takes all of them, and
# `random` a few at random (published: 4). `nearest` takes the few nearest, and `hardest` the nearest one. `semi-hard`
# takes the nearest of those that are farther away than the positive.

# %%
from qbhkit.embedding.losses import Mining, Negatives
from qbhkit.figures import similarity_figure

chosen = {}
for mining in get_args(Mining):
    negatives = Negatives(mining, 2, torch.Generator().manual_seed(seed))
    chosen[mining] = negatives.choose(torch.from_numpy(near), groups)
similarity_figure(near, chosen, pairs.groups, "Eight pairs, up to two negatives per row")

# %% [markdown]
# Squares mark the positive of each row, dots the chosen negatives. The two pairs of tune 0 are near each other, but
# they are never chosen as negatives, whatever the mining. The table shows the number of triplets and the mean
# similarity of the chosen negatives:

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
# The next table shows every loss with every kind of mining on this batch. The hinge losses are larger with nearer
# negatives. (With `all`, only triplets with a loss above 0 count.) InfoNCE also depends on the number of negatives,
# because each one adds to the softmax. It is largest with all negatives, smaller with the two nearest, and smallest
# with the hardest alone.

# %%
from qbhkit.embedding.losses import LossName

losses = {
    kind: {
        mining: make_loss(kind, mining, negatives=2, generator=torch.Generator().manual_seed(seed))(
            anchors, positives, groups
        ).item()
        for mining in chosen
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
# If the nearest negatives teach most, why not use them from the first step? We train a small encoder three times, on
# the same batches and with the same initial weights: with all negatives; with the 4 nearest from the first step; and
# with the 4 nearest after a warm-up with all negatives. The *spread* is 1 - |mean of the unit vectors|. It is 0 when
# all vectors are equal. The cell below is a complete training loop. The kit's own loop (`qbhkit.embedding.training`)
# adds checkpoints, a schedule and several devices.

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
# The loss at the first step explains the collapse. An untrained encoder gives all contours similar vectors. So the
# nearest of many negatives is more similar to the anchor than the positive is, and the loss starts *above* its
# margin. The fastest way to lower it is to make all vectors equal: then both similarities are 1, and the loss is
# exactly the margin. At that point the gradient nearly vanishes. This small encoder needs a hundred steps to escape;
# a larger one did not escape within 400 (DECISIONS.md). With *all* negatives it is different: from the beginning, the
# positive is a little more similar than the average negative. The loss starts *below* the margin, and it falls as the
# encoder learns to tell melodies apart. After the warm-up, the loss with the nearest negatives is also below the
# margin, or soon will be.
#
# So the kit's training with the hinge loss begins with all negatives (`warm_epochs`), and logs the spread. We
# measured the effect once, in short runs, on 423 real hums (DECISIONS.md). Top-1 was 0.44 with all negatives
# throughout, and 0.61 with the 16 nearest after a warm-up.

# %% [markdown]
# ## Before and after
#
# Here six unseen tunes, in ten distorted versions each, are embedded by an untrained encoder and by the shipped one.
# The figure shows the first two principal components (by an SVD), so it shows only a part of the 512 dimensions. The
# percentage uses all dimensions. It says how often the nearest of the other 59 versions is one of the same tune.

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
# Note the scales of the axes: the untrained vectors are all in one small region.

# %% [markdown]
# ## Exercises
#
# 1. The published max-pooling reduces 6 x 5 x 5 = 150 frames to one, and a window has 200 frames. Which frames have
#    no effect on the vector? Change one frame at a time and check whether the vector changes.
# 2. Suppose that a positive equals its anchor. Which margin on distance is then equivalent to a margin of 0.5 on
#    cosine similarity?
# 3. InfoNCE pushes each negative away in proportion to its share in the softmax. What is the share of the nearest
#    negative of tune 1 at temperature 1, 0.07 and 0.01?
#
# <details><summary>Solutions</summary>
#
# 1. The last 13: frames from 187 on have no effect, because max-pooling drops an incomplete group of frames.
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
# 3. At temperature 1 it is one of many. At 0.01 it has nearly the whole softmax.
# ```python
# for temperature in (1, 0.07, 0.01):
#     share = torch.softmax(torch.from_numpy(near[2][other[2]]) / temperature, 0)
#     print(temperature, round(share.max().item(), 2))
# ```
# </details>

# %% [markdown]
# ## What to remember
#
# - The stages shorten the time axis and add channels. Pooling turns the remaining frames into one vector.
# - A loss is computed from one (B, B) matrix of similarities. It pulls the pairs on the diagonal together and pushes
#   the chosen negatives apart.
# - Hard negatives teach most, but only after the network has learnt something. Watch the spread.
#
# Library functions used: [`qbhkit.embed`](../qbhkit/embedding/embedder.py),
# [`qbhkit.embedding.embedder.ContourEmbedder`](../qbhkit/embedding/embedder.py),
# [`qbhkit.embedding.encoders.EncoderConfig`](../qbhkit/embedding/encoders.py),
# [`qbhkit.embedding.encoders.ContourEncoder`](../qbhkit/embedding/encoders.py),
# [`qbhkit.embedding.pooling.ContextAttention`](../qbhkit/embedding/pooling.py),
# [`qbhkit.embedding.encoders.activations`](../qbhkit/embedding/encoders.py),
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
