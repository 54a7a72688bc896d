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
# # 12 · Every figure, from recorded numbers
#
# What you will learn:
# 1. what the kit does, in one picture for each step;
# 2. where every number behind those pictures is kept, and how to draw them anew;
# 3. how to read a rank matrix and a top-k curve, the published system's own values beside ours.

# %% tags=["parameters"]
profile = "tiny"  # "tiny" and "full" draw the same figures
seed = 0  # nothing is drawn by chance here
data_dir = ""  # not needed here: all numbers are recorded
results_dir = "../data/results"  # where they are; "make reproduce" has its own
figures_dir = "../figures"  # where the pictures go

# %%
import json
import platform
from pathlib import Path

import numpy as np

import qbhkit
from qbhkit.contour import Contour, F0Track
from qbhkit.evaluation.ablation import table
from qbhkit.figures import (
    ablation_figure,
    distortions_figure,
    encoder_figure,
    growth_figure,
    path_figure,
    pipeline_figure,
    projection_figure,
    rank_matrix_figure,
    save_figure,
    stages_figure,
    topk_figure,
    tracker_accuracy,
    training_figure,
)

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## Numbers first
#
# Nothing is measured here. Every figure is drawn from a file in `data/results`, each of which was written by a
# command (`qbhkit bench NAME`, `train`, `crossfold`, `ablate`) that can be run again. A picture can so be checked
# against its numbers, and drawn in another way without hours of computing. `keep` writes it as SVG and PNG.


# %%
def recorded(name):
    return json.loads((Path(results_dir) / f"{name}.json").read_text("utf-8"))


def keep(figure, name):
    save_figure(figure, Path(figures_dir), name)
    drawn.append(name)
    return figure


drawn = []
Path(figures_dir).mkdir(exist_ok=True)

# %% [markdown]
# ## From a hum to a song
#
# A hum that ships with the kit, on its way through everything: what the microphone gives, what the pitch
# tracker hears, what is kept of it, the vector (512 numbers as a square, orange above 0, blue below), and the list.

# %%
illustrations = recorded("illustrations")
way = illustrations["hum_to_song"]
f0_hz = np.array(way["f0_hz"])
hum = Contour(np.array(way["contour"], np.float32))
figure = pipeline_figure(
    np.array(way["envelope"]),
    F0Track(f0_hz, (f0_hz > 0).astype(float)),
    hum,
    np.array(way["vector"]),
    way["answers"],
)
keep(figure, "pipeline")

# %% [markdown]
# ## The encoder
#
# The shipped network and what it made of that hum, with the shapes it really has: channels by frames. Each stage
# halves time and widens the channels; the summary (attention) makes one vector of the frames that are left.

# %%
tensors = {name: np.array(values) for name, values in way["tensors"].items()}
keep(encoder_figure(tensors, "From contour to vector"), "encoder")

# %% [markdown]
# ## Near and far
#
# What the triplet loss is for, on real hums: each dot is somebody's hum of one of six songs, each star a beginning
# of such a song. Both panels show 512 numbers squeezed into two, so that dots which seem to touch may be
# far apart; the share of hums whose nearest star is of their own song is counted with all 512. The network
# on the right had learnt from melodies alone and heard none of these hums.

# %%
keep(projection_figure(recorded("projection")), "projection")

# %% [markdown]
# ## The two stages
#
# The published training: self-supervision over songs, then fine-tuning on hums. On the left, distorted melodies of
# tunes that were held back; on the right what counts, real hums, by models that heard neither their
# song nor their singer. (Stage 2 makes the left number smaller: real hums are not rule-based distortions.)

# %%
before, after = recorded("crossfold_stage1"), recorded("crossfold_best")
sets = {"start": "start", "anywhere": "anywhere", "ioacas": "IOACAS"}
found = {
    name: {label: scored[where] for where, label in sets.items()}
    for name, scored in (("stage 1", before), ("stages 1 and 2", after))
}
curves = recorded("train_stage1")["curve"], recorded("train_best")["curve"]
keep(stages_figure(*curves, found), "stages")

# %%
keep(training_figure(curves[0], "Stage 1, full run"), "training_stage1")

# %% [markdown]
# ## Every distortion on one melody
#
# What stage 1 does to a melody to make hums of it: each rule alone, and stronger than in training, so that it
# shows. The first three are rules of time, then twelve of pitch, five of voicing and four of the tracker;
# [notebook 04](04_augmentation.ipynb) lets you hear them.

# %%
distorted = illustrations["distortions"]
versions = {
    name: Contour(np.array(version["frames"], np.float32))
    for name, version in distorted["versions"].items()
}
melody = Contour(np.array(distorted["melody"], np.float32))
title = "What a hummer, or a tracker, may do to a melody"
keep(distortions_figure(melody, versions, title, columns=4), "distortions")

# %% [markdown]
# ## Top-k
#
# All methods on the same 423 hums, with their 95% bands. The marks are what others published, and none of them is
# comparable. The published system (SK telecom) searched 87,000 songs, and 30,000 of them, with 250 hums of its own;
# its end-to-end variant chooses no pitch. The best network for this corpus that we were told of (top-1 0.866, top-10
# 0.958; we could not check the source) had 13,000 real hums to learn from and was tested on all of MIR-QBSH (4,431
# recordings), of which a tenth is at hand here.

# %%
results = {match_from: recorded(f"hums_{match_from}") for match_from in ("start", "anywhere")}
marks = {
    "published, 87,000 songs": [(10, 0.656)],
    "published, 30,000 songs": [(10, 0.72)],
    "published, end to end, 87,000": [(10, 0.58)],
    "best on all of MIR-QBSH": [(1, 0.866), (10, 0.958)],
}
curves = {"full, fine-tuned": after["methods"]["full"]["anywhere"]["ranks"]}
curves |= {name: block["ranks"] for name, block in results["anywhere"]["methods"].items()}
title = "423 real hums, searched anywhere in 2,048 songs"
keep(topk_figure(curves, title, marks=marks), "topk_hums_anywhere")

# %%
curves = {
    "stage 1, vote": before["anywhere"]["ranks"],
    "stages 1 and 2, vote": after["anywhere"]["ranks"],
    "stages 1 and 2, full": after["methods"]["full"]["anywhere"]["ranks"],
}
keep(topk_figure(curves, "What each step adds (anywhere, crossed folds)"), "topk_stages")

# %% [markdown]
# ## The rank matrix
#
# A row for each song, a column for each singer: blue where the song stood first, yellow where it stood second,
# orange where it was not found, white where nobody hummed it. (The published matrix tells professionals from amateurs; this corpus has no such
# label.) Columns differ more than rows: a few singers hold most of the misses.

# %%
start = results["start"]
queries, singers = start["song_ids"], start["singers"]
title = "Mean of 1 / rank, searched from the start"
figure = rank_matrix_figure(start["methods"]["full"]["ranks"], queries, singers, title)
keep(figure, "rank_matrix")

# %% [markdown]
# ## Trackers, parts and growth
#
# Accuracy against speed ([notebook 02](02_trackers.ipynb)), what each part of the method buys
# ([07](07_train_supervised.ipynb)), and what a larger catalogue costs ([08](08_catalogue_and_index.ipynb)).

# %%
keep(tracker_accuracy(recorded("melody_bench")), "tracker_accuracy")

# %%
keep(ablation_figure(table(recorded("ablation"))), "ablation")

# %%
keep(growth_figure(recorded("growth")), "growth")

# %% [markdown]
# ## A hum on its path
#
# The hum of the beginning, laid along the song that it found, note by note.

# %%
song = Contour(np.array(way["song"], np.float32))
best, _ = way["answers"][0]
keep(path_figure(hum, song, np.array(way["path"]), way["transposition_st"], best), "path")

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
print(len(drawn), "figures:", ", ".join(sorted(drawn)))
assert sorted(drawn) == sorted(path.stem for path in Path(figures_dir).glob("*.svg"))

# %% [markdown]
# ## Exercises
#
# 1. Draw the rank matrix of `dtw` instead of `full`. Do the same singers fail?
# 2. In the top-k curve, at which k does the alignment stop paying?
#
# <details><summary>Solutions</summary>
#
# 1. The same columns are orange, and many more cells with them.
#    ```python
#    rank_matrix_figure(start["methods"]["dtw"]["ranks"], queries, singers, "dtw")
#    ```
# 2. Of the fine-tuned weights, at 30 or so: the alignment puts the right song higher, it does not find songs that
#    the vote has missed. (Of stage 1 it gains next to nothing at any k.)
#    ```python
#    ranks = {"full": after["methods"]["full"]["anywhere"]["ranks"], "vote": after["anywhere"]["ranks"]}
#    for k in (1, 3, 10, 30):
#        found = {name: np.mean([bool(r and r <= k) for r in some]) for name, some in ranks.items()}
#        print(k, {name: round(share, 3) for name, share in found.items()})
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - A figure is a view of a file: keep the file.
# - Give the band with the curve, and say what a foreign number was measured on.
#
# Library functions used: [`qbhkit.figures.pipeline_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.encoder_figure`](../qbhkit/figures/learning.py),
# [`qbhkit.figures.projection_figure`](../qbhkit/figures/learning.py),
# [`qbhkit.figures.stages_figure`](../qbhkit/figures/learning.py),
# [`qbhkit.figures.training_figure`](../qbhkit/figures/learning.py),
# [`qbhkit.figures.distortions_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.topk_figure`](../qbhkit/figures/results.py),
# [`qbhkit.figures.rank_matrix_figure`](../qbhkit/figures/results.py),
# [`qbhkit.figures.tracker_accuracy`](../qbhkit/figures/results.py),
# [`qbhkit.figures.ablation_figure`](../qbhkit/figures/results.py),
# [`qbhkit.figures.growth_figure`](../qbhkit/figures/results.py),
# [`qbhkit.figures.path_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.save_figure`](../qbhkit/figures/style.py).
#
# Back to the start: [00 · A hum in, a song out](00_hum_to_song.ipynb).
