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
# 1. what the kit does, in one figure for each step;
# 2. where every number behind those pictures is stored, and how to draw them again;
# 3. how to read a rank matrix and a top-k curve, and how published values compare with ours.

# %% tags=["parameters"]
profile = "tiny"  # "tiny" and "full" draw the same figures
seed = 0  # nothing is random here
data_dir = ""  # not needed here: all numbers are recorded
results_dir = "../data/results"  # where they are; "make reproduce" has its own
figures_dir = "../figures"  # where the pictures go

# %%
import json
import platform
from pathlib import Path

import numpy as np

import qbhkit

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## Numbers first
#
# Nothing is measured here. Every figure is drawn from a file in `data/results`. Each of these files was written by a
# command (`qbhkit bench NAME`, `train`, `cross-validate`, `ablate`), which can write it again. So you can check a
# figure against its numbers, and draw it again without hours of computation. `keep` saves a figure as SVG and PNG.


# %%
from qbhkit.figures import save_figure


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
# The figure follows a hum that ships with the kit through all steps: the recording, the tracked pitch, the contour,
# the vector (512 numbers as a square, orange above 0, blue below), and the list of songs.

# %%
from qbhkit.figures import pipeline_figure

illustrations = recorded("illustrations")
way = illustrations["hum_to_song"]
f0_hz = np.array(way["f0_hz"])
hum = qbhkit.Contour(np.array(way["contour"], np.float32))
figure = pipeline_figure(
    np.array(way["envelope"]),
    qbhkit.F0Track(f0_hz, (f0_hz > 0).astype(float)),
    hum,
    np.array(way["vector"]),
    way["answers"],
)
keep(figure, "pipeline")

# %% [markdown]
# ## The encoder
#
# The figure shows the shipped network and its values for the same hum. Shapes are channels by frames. Each stage
# halves the number of frames and increases the number of channels. The pooling (attention, called *summary* in the
# figure) turns the remaining frames into one vector.

# %%
from qbhkit.figures import encoder_figure

tensors = {name: np.array(values) for name, values in way["tensors"].items()}
keep(encoder_figure(tensors, "From contour to vector"), "encoder")

# %% [markdown]
# ## Near and far
#
# The figure shows on real hums what the triplet loss achieves. Each dot is a hum of one of six songs. Each star is
# the beginning of one of these songs. Both panels project 512 dimensions onto two, so dots that seem to touch may be
# far apart. The share of hums whose nearest star is their own song is computed with all 512 dimensions. The network
# on the right was trained on melodies alone. It was not trained on any of these hums.

# %%
from qbhkit.figures import projection_figure

keep(projection_figure(recorded("projection")), "projection")

# %% [markdown]
# ## The two stages
#
# The published training has two stages: self-supervision on songs, then fine-tuning on hums. The left panel shows the
# validation with distorted melodies of held-out tunes. The right panel shows real hums, scored by models that were
# trained on neither their song nor their singer. (Stage 2 lowers the number on the left, because real hums differ
# from rule-based distortions.)

# %%
from qbhkit.figures import stages_figure, training_figure

before, after = recorded("crossfold_stage1"), recorded("crossfold_best")
sets = {"start": "start", "anywhere": "anywhere", "ioacas": "IOACAS"}
found = {
    name: {label: scored[where] for where, label in sets.items()}
    for name, scored in (("stage1", before), ("the recipe of best", after))
}
curves = recorded("train_stage1-all")["curve"], recorded("train_best")["curve"]
keep(stages_figure(*curves, found), "stages")

# %%
keep(training_figure(curves[0], "Stage 1 of best, full run"), "training_stage1")

# %% [markdown]
# ## Every distortion on one melody
#
# The figure shows how stage 1 turns a melody into imitated hums. Each panel shows one rule alone, stronger than in
# training so that it is visible. First come three rules of time, then twelve of pitch, five of voicing and four of
# the tracker. You can listen to some of them in [notebook 04](04_augmentation.ipynb).

# %%
from qbhkit.figures import distortions_figure

distorted = illustrations["distortions"]
versions = {
    name: qbhkit.Contour(np.array(version["frames"], np.float32))
    for name, version in distorted["versions"].items()
}
melody = qbhkit.Contour(np.array(distorted["melody"], np.float32))
title = "What a hummer, or a tracker, may do to a melody"
keep(distortions_figure(melody, versions, title, columns=4), "distortions")

# %% [markdown]
# ## Top-k
#
# The curves show all methods on the same 423 hums, with 95% bands. The marks show results that others published. None
# of them is directly comparable with the curves. The published system (SK telecom) was tested with 250 hums of its
# own, on 87,000 songs and on 30,000 of these songs. Its end-to-end variant works without an explicit pitch estimate.
# The best network reported for this corpus (top-1 0.866, top-10 0.958; we could not check the source) was trained on
# 13,000 real hums and tested on all of MIR-QBSH (4,431 recordings). We have a tenth of these recordings.

# %%
from qbhkit.figures import topk_figure

results = {where: recorded(f"hums_{where}") for where in ("start", "anywhere")}
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
    "stage1, vote": before["anywhere"]["ranks"],
    "the recipe of best, vote": after["anywhere"]["ranks"],
    "the recipe of best, full": after["methods"]["full"]["anywhere"]["ranks"],
}
keep(topk_figure(curves, "What each step adds (anywhere, cross-validation)"), "topk_stages")

# %% [markdown]
# ## The rank matrix
#
# Each row is a song, and each column is a singer. Blue: the song was first. Yellow: it was second. Orange: it was not
# found. White: this singer did not hum it. Columns differ more than rows: most of the misses come from a few singers.
# (The published matrix separates professionals from amateurs. This corpus has no such labels.)

# %%
from qbhkit.figures import rank_matrix_figure

start = results["start"]
queries, singers = start["song_ids"], [name.split("/")[-1] for name in start["singers"]]
title = "Mean of 1 / rank, searched from the start"
figure = rank_matrix_figure(start["methods"]["full"]["ranks"], queries, singers, title)
keep(figure, "rank_matrix")

# %% [markdown]
# ## Trackers, parts and growth
#
# The next three figures show the accuracy and speed of trackers ([notebook 02](02_trackers.ipynb)), what each part of
# the method gains ([07](07_train_supervised.ipynb)), and what a larger catalogue costs
# ([08](08_catalogue_and_index.ipynb)).

# %%
from qbhkit.figures import tracker_accuracy

keep(tracker_accuracy(recorded("melody_bench")), "tracker_accuracy")

# %%
from qbhkit.evaluation.ablation import table
from qbhkit.figures import ablation_figure

keep(ablation_figure(table(recorded("ablation"))), "ablation")

# %%
from qbhkit.figures import growth_figure

keep(growth_figure(recorded("growth")), "growth")

# %% [markdown]
# ## A hum on its path
#
# The figure shows the hum from the first figure, aligned frame by frame with the song that was found.

# %%
from qbhkit.figures import path_figure

song = qbhkit.Contour(np.array(way["song"], np.float32))
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
# 2. In the top-k curve, at which k does the alignment stop helping?
#
# <details><summary>Solutions</summary>
#
# 1. Yes, the same columns are orange. Many other cells are orange too.
#    ```python
#    rank_matrix_figure(start["methods"]["dtw"]["ranks"], queries, singers, "dtw")
#    ```
# 2. For the fine-tuned weights, at about 30. The alignment moves the right song up; it does not find songs that the
#    vote has missed. (For stage 1 it gains almost nothing at any k.)
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
# - A figure only shows the numbers in a file. Keep the file.
# - Show a curve together with its band. If you quote a published number, say what it was measured on.
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
