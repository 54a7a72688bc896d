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
# 1. how a melody and its imitated hum become a training pair, and why no pair is ever drawn twice;
# 2. how to train an encoder, stop it, resume it, and see in the log whether it learns or collapses;
# 3. what the full run of the shipped weights looked like, and how well it works on real hums.

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

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## The configuration
#
# A small YAML file defines a training run completely. The file `tiny` ships with the kit:

# %%
from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.embedding.training import TrainConfig

config = build_config(TrainConfig, read_yaml(config_path("tiny")), "tiny")
if profile == "full":
    config = replace(config, corpora=TrainConfig().corpora, epochs=8, steps_per_epoch=50)
config = replace(config, seed=seed)
print(config_path("tiny").read_text())

# %% [markdown]
# ## The songs
#
# Songs that are used in the evaluation, and songs similar to them, are left out. A fifth of all tunes is held out for
# validation. Variants of a tune share a group, because they must never be negatives of each other.

# %%
from qbhkit.corpora.training_songs import training_songs

songs = training_songs(config.corpora, Path(data_dir))
tunes = len(set(songs.groups))
print(f"{len(songs.ids)} songs to learn from, {tunes} tunes; {len(songs.held_out)} held out")
assert tunes <= len(songs.ids)

# %% [markdown]
# Old tune books contain many such variants, with other titles and in other keys. They were found by melody alone.
# Every melody is described by its 6-grams of pitch changes. Two tunes are near-duplicates if they share at least half
# of the 6-grams of the shorter one. Here are the two tunes of one group, each relative to its median pitch:

# %%
from qbhkit.contour import normalise
from qbhkit.corpora.duplicates import MelodyMatcher
from qbhkit.figures import normalised_figure

group = next(g for g in sorted(set(songs.groups)) if songs.groups.count(g) == 2)
duplicates = [k for k, other in enumerate(songs.groups) if other == group]
pitches = {songs.ids[k]: songs.contours[k].without_rests().pitch_st for k in duplicates}
one, other = pitches
shared = MelodyMatcher({one: pitches[one]}).near(pitches[other])[one]
print(f"{one} and {other}: {shared:.2f} shared")
normalised_figure(
    {songs.ids[k]: normalise(songs.contours[k].frames[:200], "key") for k in duplicates},
    "Two entries of a tune book that must never be told apart",
    "pitch from the median\n(5.52 semitones)",
)

# %% [markdown]
# ## A pair
#
# The *anchor* is a window of a song. The *positive* is the same window as somebody might hum it: in another
# key, unevenly timed, with wrong notes and breaths (notebook 04). Every other row of the batch is a
# *negative*.

# %%
from qbhkit.embedding.training import song_source
from qbhkit.training_loop import generator

pairs = song_source(config, songs)
batch = pairs.draw(config.batch, generator(seed, 0, 0, 0))
print("anchors", batch.anchors.shape, "positives", batch.positives.shape)
normalised_figure(
    {"anchor: the song": batch.anchors[0], "positive: as if hummed": batch.positives[0]},
    "One training pair: 80 frames, whatever the length of the window",
    "pitch from the median\n(5.52 semitones)",
    hop_s=None,
)

# %% [markdown]
# Each batch is drawn with a random generator that is seeded with (seed, epoch, stream, step). So a resumed run gets
# exactly the batches that it would have got without the stop, and no epoch repeats another.

# %%
again = pairs.draw(config.batch, generator(seed, 0, 0, 0))
later = pairs.draw(config.batch, generator(seed, 1, 0, 0))
np.testing.assert_array_equal(again.positives, batch.positives)
assert (later.positives != batch.positives).any()

# %% [markdown]
# ## A short run
#
# For `validation_mrr`, one hum of each held-out song is imitated and searched for among all held-out songs. `spread`
# is 1 if the vectors point in all directions, and 0 if they are all equal. If an encoder *collapses*, the spread
# shows it during training.

# %%
from qbhkit.embedding.training import pair_evaluator, train_encoder

run = Path(tempfile.mkdtemp())
validate = pair_evaluator(config, songs.held_out)
encoder = train_encoder(config, pairs, run, run / "log.json", evaluate=validate, progress=False)
curve = json.loads((run / "log.json").read_text())["curve"]
pd.DataFrame(curve).set_index("epoch").drop(columns="pairs_per_s").round(3)

# %%
by_chance = sum(1 / rank for rank in range(1, len(songs.held_out) + 1)) / len(songs.held_out)
print(f"by chance the MRR would be {by_chance:.3f}")
assert curve[-1]["validation_mrr"] > 3 * by_chance
assert curve[-1]["spread"] > 0.1

# %% [markdown]
# ## Stopped and resumed
#
# Here the same run is stopped after its first epoch, as if the machine had been switched off. With `resume=True` it
# continues and reaches the same loss, to the last digit.

# %%
part = Path(tempfile.mkdtemp())
once = iter([{}])  # an evaluator that works once and then stops the run by an exception
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
# `qbhkit train stage1` trained the shipped weights `stage1` on folk tunes and pop songs, with InfoNCE instead of the
# published hinge loss. The log is in the repository. `qbhkit train stage1-all` did the same with three times as many
# songs; `best` was fine-tuned from these weights.

# %%
from qbhkit.figures import training_figure

recorded = json.loads(Path("../data/results/train_stage1.json").read_text())
training_figure(recorded["curve"], "Stage 1, full run")

# %% [markdown]
# How well does it find the songs of 423 real hums, none of which it was trained on, among 2,048 songs? The table
# shows the cross-validation without any fine-tuning (`qbhkit cross-validate best --init-from stage1 --no-finetune
# --out folds.json`):

# %%
scored = json.loads(Path("../data/results/crossfold_stage1.json").read_text())
pd.DataFrame(scored).loc[["top1", "top10", "mrr"], ["start", "anywhere"]].T.astype(float).round(3)

# %% [markdown]
# ## Which parts of the recipe matter
#
# The table compares twelve recipes that differ in one part. All were trained with the same budget. They were scored
# on real hums, by models that were trained on neither the song nor the singer (`qbhkit ablate ablation --budget full
# --out ablation.json`). Most of them change stage 1. Three parts matter most: the key normalisation of every window,
# the encoder with its windows and negatives, and the distortions of pitch. Three others hardly matter: the size of
# the vector, the corpora, and whether melodies come from notes or were tracked in audio. [Notebook
# 07](07_train_supervised.ipynb) shows the whole table, and what stage 2 adds.

# %%
from qbhkit.evaluation.ablation import table

lines = table(json.loads(Path("../data/results/ablation.json").read_text()))
columns = ["seeds", "start top1", "start top10", "anywhere top1", "anywhere top10", "anywhere mrr"]
pd.DataFrame(lines).set_index("row")[columns].round(3)

# %%
from qbhkit.figures import ablation_figure

ablation_figure(lines)

# %% [markdown]
# ## Exercises
#
# 1. Use mined negatives from the very first step (`warm_epochs=0`, `negatives=1`). What does `spread` do?
# 2. Switch off the distortions of pitch (`augmentation`: set `note_chance`, `drift_chance` and `offset_chance` to 0).
#    Which number rises, and why is this not an improvement?
#
# <details><summary>Solutions</summary>
#
# 1. The loss stays near its margin and the spread falls. The hardest negatives of an untrained encoder are
#    arbitrary, and the fastest way to lower the loss is to give all contours the same vector.
#    ```python
#    hard = Path(tempfile.mkdtemp())
#    at_once = replace(config, warm_epochs=0, negatives=1)
#    train_encoder(at_once, pairs, hard, hard / "log.json", progress=False)
#    lines = json.loads((hard / "log.json").read_text())["curve"]
#    print(pd.DataFrame(lines)[["loss", "spread"]].round(3))
#    ```
# 2. `validation_mrr` rises, because the imitated hums of the validation use the same rules, so they are easier too.
#    Only real hums can show whether the distortions are right (notebook 07).
#    ```python
#    soft = Path(tempfile.mkdtemp())
#    gentle = replace(config.augmentation, note_chance=0, drift_chance=0, offset_chance=0)
#    easy = replace(config, augmentation=gentle)
#    validate = pair_evaluator(easy, songs.held_out)
#    train_encoder(easy, song_source(easy, songs), soft, soft / "log.json", evaluate=validate, progress=False)
#    lines = json.loads((soft / "log.json").read_text())["curve"]
#    print(pd.DataFrame(lines)[["loss", "validation_mrr"]].round(3))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Self-supervision needs no hums. Distortions imitate hums, and determine what the encoder learns to ignore.
# - Generators seeded with (seed, epoch, stream, step) make a run repeatable and every batch new.
# - Watch the spread. If you look only at the loss, a collapse can look like learning.
#
# Library functions used: [`qbhkit.corpora.training_songs.training_songs`](../qbhkit/corpora/training_songs.py),
# [`qbhkit.corpora.duplicates.MelodyMatcher`](../qbhkit/corpora/duplicates.py),
# [`qbhkit.embedding.training.song_source`](../qbhkit/embedding/training.py),
# [`qbhkit.embedding.training.train_encoder`](../qbhkit/embedding/training.py),
# [`qbhkit.embedding.training.pair_evaluator`](../qbhkit/embedding/training.py),
# [`qbhkit.training_loop.generator`](../qbhkit/training_loop.py),
# [`qbhkit.figures.training_figure`](../qbhkit/figures/learning.py).
#
# Next: [07 · Stage 2](07_train_supervised.ipynb).
