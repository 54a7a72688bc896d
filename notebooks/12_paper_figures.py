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
seed = 0
data_dir = ""  # not needed here: sounds come from the package
results_dir = "../data/results"  # where the numbers are; "make reproduce" gives its own
figures_dir = "../figures"

# %%
import json
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import qbhkit
from qbhkit.audio import load
from qbhkit.contour import Contour, Reading, from_f0, normalise, stretch
from qbhkit.corpora.abc import music21_collection
from qbhkit.embedding.augment import Distortions, distort, warp_positions, with_only
from qbhkit.embedding.encoders import ContourEmbedder, activations
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
from qbhkit.melody.trackers import get_tracker
from qbhkit.retrieval.ablation import table
from qbhkit.retrieval.catalogue import build_catalogue, open_catalogue, read_sources
from qbhkit.retrieval.search import Searcher
from qbhkit.storage import asset, cache_dir

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## From a hum to a song
#
# A hum that ships with the kit, on its way through everything: what the microphone gives, what the pitch
# tracker hears, what is kept of it, the vector, and the list.


# %%
def recorded(name):
    return json.loads((Path(results_dir) / f"{name}.json").read_text("utf-8"))


FIGURES = Path(figures_dir)
hums = json.loads(asset("hums/hums.json").read_text("utf-8"))
known = hums[1]
recording = load(asset(f"hums/{known['file']}"))
f0 = get_tracker().track(recording)
hum = from_f0(f0)
embedder = ContourEmbedder()
songs, _ = read_sources(music21_collection(name) for name in ("oneills1850", "ryansMammoth"))
build_catalogue(songs, cache_dir() / "demo-catalogue", embedder)
searcher = Searcher(open_catalogue(cache_dir() / "demo-catalogue"), embedder)
answers = searcher.search(hum, k=6)
frames, _ = searcher.query_frames(hum, "anywhere")
vector = embedder.embed(frames)[0]
figure = pipeline_figure(
    recording, f0, hum, vector, [(answer.title, answer.score) for answer in answers]
)
save_figure(figure, FIGURES, "pipeline")
figure

# %% [markdown]
# ## The encoder
#
# The shipped network and what it made of that hum, with the shapes it really has.


# %%
contour = torch.from_numpy(normalise(frames[:1], embedder.normalisation))
tensors = activations(embedder.encoder, contour)
figure = encoder_figure({name: out[0] for name, out in tensors.items()}, "From contour to vector")
save_figure(figure, FIGURES, "encoder")
figure

# %% [markdown]
# ## Near and far
#
# What the triplet loss is for, on real hums: each dot is somebody's hum of one of six songs, each star a beginning
# of such a song. Both panels show 512 numbers squeezed into two, so that dots which seem to touch may be
# far apart; the share of hums whose nearest star is of their own song is counted with all 512. The network
# on the right had learnt from melodies alone and heard none of these hums.

# %%
figure = projection_figure(recorded("projection"))
save_figure(figure, FIGURES, "projection")
figure

# %% [markdown]
# ## The two stages
#
# The published training: self-supervision over songs, then fine-tuning on hums. On the left, distorted melodies of
# tunes that were held back; on the right what counts, real hums, by models that heard neither their
# song nor their singer. (Stage 2 makes the left number smaller: real hums are not rule-based distortions.)

# %%
before, after = recorded("crossfold_stage1"), recorded("crossfold_best")
found = {
    name: {where: scored[where]["top1"] for where in ("start", "anywhere", "ioacas")}
    for name, scored in (("stage 1", before), ("stages 1 and 2", after))
}
figure = stages_figure(recorded("train_stage1")["curve"], recorded("train_best")["curve"], found)
save_figure(figure, FIGURES, "stages")
figure

# %%
figure = training_figure(recorded("train_stage1")["curve"], "Stage 1, full run")
save_figure(figure, FIGURES, "training_stage1")
figure

# %% [markdown]
# ## Every distortion on one melody
#
# What stage 1 does to a melody to make hums of it; [notebook 04](04_augmentation.ipynb) lets you hear them.

# %%
song = next(song for song in songs if song.title == "THE BRAVE VOLUNTEERS")
melody = song.contour().trimmed()[0]
melody = Contour(melody.frames[:70])
off = with_only(Distortions())
rules = {
    "another key": {"key_st": 6},
    "an octave slip": {"octave_chance": 1},
    "range scaled": {"range_chance": 1, "range_scale": 0.5},
    "drift": {"drift_chance": 1, "drift_st": 3},
    "modulation midway": {"modulation_chance": 1, "modulation_st": 2},
    "slices off": {"offset_chance": 1, "offset_st": 1},
    "wrong notes": {"wrong_note": 0.2},
    "notes left out": {"left_out_chance": 1, "left_out_share": 0.2},
    "notes added": {"added_chance": 1, "added_share": 0.2},
    "glides": {"glide_chance": 1, "glide_frames": 3},
    "smoothed": {"smooth_chance": 1},
    "ends cropped": {"crop_chance": 1, "crop_share": 0.5},
    "a stretch lost": {"dropout_chance": 1, "dropout_share": 0.4},
    "staccato": {"staccato_chance": 1, "staccato_share": 0.7},
    "absurd frames": {"absurd_chance": 1, "absurd_share": 0.3},
}
versions = {
    name: Contour(distort(melody.frames[None], replace(off, **rule), np.random.default_rng(4))[0])
    for name, rule in rules.items()
}
rng, steps = np.random.default_rng(3), len(melody)
reading, slower = Reading(steps), replace(off, tempo_octaves=0.4, slice_tempo=0.5)
positions = warp_positions(np.zeros(1), np.full(1, steps), reading, slower, rng)
versions = {"tempo": Contour(stretch(melody.frames, positions)[0]), **versions}
figure = distortions_figure(melody, versions, "What a hummer, or a tracker, may do to a melody", 4)
save_figure(figure, FIGURES, "distortions")
figure

# %% [markdown]
# ## Top-k
#
# All methods on the same 423 hums, with their 95% bands. The marks are what others published, and none of them is
# comparable: the published system searched 87,000 songs with 250 hums of its own; the network with
# 0.922 and 0.866 had 13,000 real hums to learn from and was tested on the whole of MIR-QBSH (4,431 recordings), an easier
# set than the tenth of it that is at hand here.

# %%
results = {anchor: recorded(f"hums_{anchor}") for anchor in ("start", "anywhere")}
marks = {
    "SK telecom, 87,000 songs": [(10, 0.656)],
    "SK telecom, 30,000 songs": [(10, 0.72)],
    "best on all of MIR-QBSH": [(1, 0.866), (10, 0.958)],
}
curves = {"full, fine-tuned": after["methods"]["full"]["anywhere"]["ranks"]}
curves |= {name: block["ranks"] for name, block in results["anywhere"]["methods"].items()}
title = "423 real hums, searched anywhere in 2,048 songs"
figure = topk_figure(curves, title, marks=marks)
save_figure(figure, FIGURES, "topk_hums_anywhere")
figure

# %%
curves = {
    "stage 1, vote": before["anywhere"]["ranks"],
    "stages 1 and 2, vote": after["anywhere"]["ranks"],
    "stages 1 and 2, full": after["methods"]["full"]["anywhere"]["ranks"],
}
figure = topk_figure(curves, "What each step adds (anywhere, crossed folds)")
save_figure(figure, FIGURES, "topk_stages")
figure

# %% [markdown]
# ## The rank matrix
#
# A row for each song, a column for each singer: blue where the song stood first, orange where it was not found, white
# where nobody hummed it. (The published matrix tells professionals from amateurs; this corpus has no such
# label.) Columns differ more than rows: a few singers hold most of the misses.

# %%
start = results["start"]
queries, singers = start["song_ids"], start["singers"]
figure = rank_matrix_figure(
    start["methods"]["full"]["ranks"], queries, singers, "Mean of 1 / rank, searched from the start"
)
save_figure(figure, FIGURES, "rank_matrix")
figure

# %% [markdown]
# ## Trackers, parts and growth
#
# Accuracy against speed ([notebook 02](02_trackers.ipynb)), what each part of the method buys
# ([07](07_train_supervised.ipynb)), and what a larger catalogue costs ([08](08_catalogue_and_index.ipynb)).

# %%
figure = tracker_accuracy(recorded("melody_bench"))
save_figure(figure, FIGURES, "tracker_accuracy")
figure

# %%
figure = ablation_figure(table(recorded("ablation")))
save_figure(figure, FIGURES, "ablation")
figure

# %%
figure = growth_figure(recorded("growth"))
save_figure(figure, FIGURES, "growth")
figure

# %% [markdown]
# ## A hum on its path
#
# The hum of the beginning, laid along the song that it found, note by note.

# %%
first = answers[0]
number = searcher.catalogue.number[first.song_id]
path = searcher.aligner.path(hum, number, first.transposition_st)
aligned = searcher.catalogue.contours[number]
figure = path_figure(hum, aligned, path, first.transposition_st, first.title)
save_figure(figure, FIGURES, "path")
assert first.song_id == known["song_id"]
figure

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
drawn = sorted(path.stem for path in FIGURES.glob("*.svg"))
print(len(drawn), "figures:", ", ".join(drawn))

# %% [markdown]
# ## Exercises
#
# 1. Draw the rank matrix of `dtw` instead of `full`. Do the same singers fail?
# 2. In the top-k curve, at which k does the alignment stop paying?
#
# <details><summary>Solutions</summary>
#
# 1. `rank_matrix_figure(start["methods"]["dtw"]["ranks"], queries, singers, "dtw")`: the same columns are
#    orange, and many more cells with them.
# 2. Compare `full` and `vote` of stage 1: beyond k = 10 the bands lie on each other. The alignment puts the right song
#    first, it does not find songs that the vote has missed.
# </details>

# %% [markdown]
# ## What to remember
#
# - A figure is a view of a file: keep the file.
# - Give the band with the curve, and say what a foreign number was measured on.
#
# Library functions used: `qbhkit.figures.pipeline_figure`, `qbhkit.figures.projection_figure`,
# `qbhkit.figures.stages_figure`, `qbhkit.figures.rank_matrix_figure`, `qbhkit.figures.topk_figure`,
# `qbhkit.figures.save_figure`. Back to the start: [00 · A hum in, a song out](00_hum_to_song.ipynb).
