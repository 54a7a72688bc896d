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
# # 06 · Stage 1: learning from songs that nobody hummed
#
# What you will learn:
# 1. how a melody and its imagined hum become a training pair, and why no draw ever comes twice;
# 2. how to train_encoder an encoder, stop it, go on, and see in the log whether it learns or collapses;
# 3. what the full run of the shipped weights looked like, and what it is worth on real hums.

# %% tags=["parameters"]
profile = "tiny"  # "tiny": three short epochs on one collection; "full": eight on all folk tunes
seed = 0
data_dir = ""  # not needed here: melodies come with music21, real results from data/results

# %%
import json
import platform
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import qbhkit
from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.contour import normalise
from qbhkit.corpora.duplicates import MelodyMatcher
from qbhkit.corpora.training_songs import training_songs
from qbhkit.embedding.training import TrainConfig, pair_evaluator, song_source, train_encoder
from qbhkit.evaluation.ablation import table
from qbhkit.figures import ablation_figure, normalised_figure, training_figure
from qbhkit.metrics import pair_mrr
from qbhkit.training import generator

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## The configuration
#
# A run is a small YAML file, and nothing else decides what it does. `tiny` ships with the kit:

# %%
config = build_config(TrainConfig, read_yaml(config_path("tiny")), "tiny")
if profile == "full":
    config = replace(config, corpora=TrainConfig().corpora, epochs=8, steps_per_epoch=50)
config = replace(config, seed=seed)
print(config_path("tiny").read_text())

# %% [markdown]
# ## The songs
#
# Songs that the evaluation searches for, or that lie near one of them, are left out; so are a fifth of
# all tunes, to watch the training by. Variants of a tune share a group: they must never be told apart.

# %%
songs = training_songs(config.corpora, Path(data_dir))
tunes = len(set(songs.groups))
print(f"{len(songs.ids)} songs to learn from, {tunes} tunes; {len(songs.held_out)} to watch")
assert tunes <= len(songs.ids)

# %% [markdown]
# Old tune books are full of such variants, under other titles and in other keys. They were found by
# melody alone: two tunes are near-duplicates when they share half of the shorter one's runs of six
# pitch changes. The two tunes of one group, each moved to its median:

# %%
group = next(g for g in sorted(set(songs.groups)) if songs.groups.count(g) == 2)
duplicates = [k for k, other in enumerate(songs.groups) if other == group]
pitches = {songs.ids[k]: songs.contours[k].without_rests().pitch_st for k in duplicates}
one, other = pitches
print(
    f"{one} and {other}: {MelodyMatcher({one: pitches[one]}).near(pitches[other])[one]:.2f} shared"
)
normalised_figure(
    {songs.ids[k]: normalise(songs.contours[k].frames[:200], "key") for k in duplicates},
    "Two entries of a tune book that must never be told apart",
    "pitch from the median\n(5.52 semitones)",
)

# %% [markdown]
# ## A pair
#
# The *match_from* is a window of a song. The *positive* is the same window as somebody might hum it: in another
# key, unevenly timed, with wrong notes and breaths (notebook 04). Every other row of the batch is a
# *negative*.

# %%
pairs = song_source(config, songs)
batch = pairs.draw(config.batch, generator(seed, 0, 0, 0))
print("anchors", batch.anchors.shape, "positives", batch.positives.shape)
normalised_figure(
    {"anchor: the song": batch.anchors[0], "positive: as if hummed": batch.positives[0]},
    "One training pair, 80 steps long whatever the length of the window",
    "pitch from the median\n(5.52 semitones)",
    hop_s=None,
)

# %% [markdown]
# Each batch is drawn from a generator made of (seed, epoch, worker, step). So a run that was stopped goes on
# with the very batches it would have seen, and no epoch ever repeats another.

# %%
again = pairs.draw(config.batch, generator(seed, 0, 0, 0))
later = pairs.draw(config.batch, generator(seed, 1, 0, 0))
np.testing.assert_array_equal(again.positives, batch.positives)
assert (later.positives != batch.positives).any()

# %% [markdown]
# ## A short run
#
# `validation_mrr` hums the held-out songs once and looks for each among the others. `spread` is 1 when the
# vectors point everywhere, and 0 when they have all become one: an encoder that has *collapsed* would show
# it there, long before anybody searches with it.

# %%
run = Path(tempfile.mkdtemp())
watch = pair_evaluator(config, songs.held_out, pair_mrr)
encoder = train_encoder(config, pairs, run, run / "log.json", evaluate=watch, progress=False)
curve = json.loads((run / "log.json").read_text())["curve"]
pd.DataFrame(curve).set_index("epoch").drop(columns="pairs_per_s").round(3)

# %%
by_chance = sum(1 / rank for rank in range(1, len(songs.held_out) + 1)) / len(songs.held_out)
print(f"by chance the MRR would be {by_chance:.3f}")
assert curve[-1]["validation_mrr"] > 3 * by_chance
assert curve[-1]["spread"] > 0.1

# %% [markdown]
# ## Stopped, and gone on with
#
# The same run, stopped after its first epoch as if the machine had been switched off. With `resume=True` it
# ends with the same loss, to the last digit.

# %%
part = Path(tempfile.mkdtemp())
once = iter([{}])  # an evaluator that answers once, and then breaks the run
try:
    train_encoder(
        config, pairs, part, part / "log.json", evaluate=lambda encoder: next(once), progress=False
    )
except StopIteration:
    print("epochs done:", len(json.loads((part / "log.json").read_text())["curve"]))
train_encoder(config, pairs, part, part / "log.json", resume=True, progress=False)
resumed = json.loads((part / "log.json").read_text())["curve"]
assert [line["loss"] for line in resumed] == [line["loss"] for line in curve]

# %% [markdown]
# ## The full run
#
# `qbhkit train_encoder stage1` made the network from which the shipped weights start: folk tunes and pop songs,
# InfoNCE instead of the published hinge. Its log is in the repository.

# %%
recorded = json.loads(Path("../data/results/train_stage1.json").read_text())
training_figure(recorded["curve"], "Stage 1, full run")

# %% [markdown]
# What is that worth on 423 real hums that it never heard, searched among 2,048 songs? Crossed folds without
# any fine-tuning (`qbhkit crossfold best --start stage1 --only-start --out folds.json`):

# %%
scored = json.loads(Path("../data/results/crossfold_stage1.json").read_text())
pd.DataFrame(scored).loc[["top1", "top10", "mrr"], ["start", "anywhere"]].T.astype(float).round(3)

# %% [markdown]
# ## Which parts of the recipe count
#
# Twelve recipes that differ in one part, on one budget, scored on real hums by models that heard neither their song nor
# their singer (`qbhkit ablate ablation --budget full --out ablation.json`). Most of them change stage 1. Look at what they lose: the key
# that is taken out of every window, the encoder with its windows and negatives, and the distortions of pitch decide; the
# size of the vector, the corpora, and whether songs were read or heard hardly do. [Notebook 07](07_train_supervised.ipynb)
# has the whole table, and what stage 2 adds.

# %%
lines = table(json.loads(Path("../data/results/ablation.json").read_text()))
columns = ["seeds", "start top1", "start top10", "anywhere top1", "anywhere top10", "anywhere mrr"]
pd.DataFrame(lines).set_index("row")[columns].round(3)

# %%
ablation_figure(lines)

# %% [markdown]
# ## Exercises
#
# 1. Take the mined negatives of the very first step (`warm_epochs=0`, `negatives=1`). What does `spread` do?
# 2. Switch off all distortions of pitch (`rules`: set the `note_chance`, `drift_chance` and `offset_chance`
#    to 0). Which number rises, and why is that not good news?
#
# <details><summary>Solutions</summary>
#
# 1. The loss stays near its margin and the spread falls. The hardest negatives of an untrained encoder
#    are noise, and the easiest way out is to give all of them one vector.
#    ```python
#    hard = Path(tempfile.mkdtemp())
#    at_once = replace(config, warm_epochs=0, negatives=1)
#    train_encoder(at_once, pairs, hard, hard / "log.json", progress=False)
#    lines = json.loads((hard / "log.json").read_text())["curve"]
#    print(pd.DataFrame(lines)[["loss", "spread"]].round(3))
#    ```
# 2. `validation_mrr` rises, because the hums it is measured on are easier too: they are made by the same
#    rules. Only real hums can tell whether distortions are right (notebook 07).
#    ```python
#    soft = Path(tempfile.mkdtemp())
#    rules = replace(config.augmentation, note_chance=0, drift_chance=0, offset_chance=0)
#    easy = replace(config, rules=rules)
#    watched = pair_evaluator(easy, songs.held_out, pair_mrr)
#    train_encoder(easy, song_source(easy, songs), soft, soft / "log.json", evaluate=watched, progress=False)
#    lines = json.loads((soft / "log.json").read_text())["curve"]
#    print(pd.DataFrame(lines)[["loss", "validation_mrr"]].round(3))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Self-supervision needs no hums: distortions stand in for them, and they decide what the encoder ignores.
# - Seeds of (epoch, worker, step) make a run repeatable and keep its draws fresh.
# - Watch the spread: collapse looks like learning if you only watch the loss.
#
# Library functions used: [`qbhkit.corpora.training_songs.training_songs`](../qbhkit/corpora/training_songs.py),
# [`qbhkit.corpora.duplicates.MelodyMatcher`](../qbhkit/corpora/duplicates.py),
# [`qbhkit.embedding.training.song_source`](../qbhkit/embedding/training.py),
# [`qbhkit.embedding.training.train_encoder`](../qbhkit/embedding/training.py),
# [`qbhkit.embedding.training.pair_evaluator`](../qbhkit/embedding/training.py),
# [`qbhkit.training.generator`](../qbhkit/runs.py),
# [`qbhkit.figures.training_figure`](../qbhkit/figures/learning.py).
#
# Next: [07 · Stage 2](07_train_supervised.ipynb).
