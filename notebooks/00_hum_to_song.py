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
# # 00 · A hum in, a song out
#
# What you will learn:
# 1. how a recording of someone humming becomes a line of pitch over time, the *contour*;
# 2. how that contour is compared with hundreds of songs at once;
# 3. how to read the answer: which song, and which seconds of it.
#
# Everything here runs offline. Nobody sang these hums: the kit rendered them from folk tunes in the public
# domain. If you have the MIR-QBSH corpus, the last section searches a real recording too.

# %% tags=["parameters"]
profile = "tiny"  # "tiny" or "full": full searches all 12,900 tunes instead of 858
seed = 0
data_dir = ""  # folder with corpora; empty: the environment variable QBHKIT_DATA

# %%
import json
import platform
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import torch
from IPython.display import Audio, display

import qbhkit

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())
print("torch", torch.__version__, "· numpy", np.__version__)

# %% [markdown]
# ## The hums
#
# Three hums ship with the kit. Each has a different key and tempo from the written tune, and the small errors
# of an untrained singer. Choose one from the list and press play.

# %%
from qbhkit.audio import load
from qbhkit.storage import asset

hums = json.loads(asset("hums/hums.json").read_text("utf-8"))
recordings = [load(asset(f"hums/{hum['file']}")) for hum in hums]
players = [Audio(recording.samples, rate=recording.rate_hz) for recording in recordings]
chooser = ipywidgets.Dropdown(options=[hum["file"] for hum in hums], description="hum")
player = ipywidgets.Output()


def play_chosen(change):
    with player:
        player.clear_output(wait=True)
        display(players[chooser.index])


chooser.observe(play_chosen, names="value")
display(ipywidgets.VBox([chooser, player]))
display(players[0])

# %% [markdown]
# ## From sound to contour
#
# A *pitch tracker* estimates the frequency of the voice (f0) every 10 milliseconds, and decides whether there
# is a voice at all. The contour is the median of the voiced frames every 100 ms, in MIDI semitones: 60 is
# middle C, 72 the C above it. Frames without a voice are gaps in the line.

# %%
from qbhkit.figures import contour_figure

contours = [qbhkit.to_contour(recording) for recording in recordings]
contour_figure(contours[0], f"The contour of {hums[0]['file']}")

# %% [markdown]
# ## The catalogue
#
# The songs are 858 tunes of O'Neill's *Music of Ireland* (1903) and two older books, none of which the network was
# trained on. Each is cut into overlapping windows of 4 to 19 seconds. A small neural network turns every window into a vector of 512 numbers. It was
# trained to give a tune and a hum of that tune nearly the same vector. If you have run `make demo`, this
# catalogue already exists. Otherwise it is built here once, which takes about a minute.

# %%
from qbhkit.catalogue.build import songs_from
from qbhkit.storage import cache_dir

collections = ["oneills1850", "ryansMammoth", "airdsAirs"]
if profile == "full":
    collections += ["miscFolk", "essenFolksong"]
folder = cache_dir() / ("demo-catalogue" if profile == "tiny" else "full-catalogue")
songs, _ = songs_from(collections, held_out=profile == "tiny")
report = qbhkit.build_catalogue(songs, folder)
print(report.songs, "songs,", report.windows, "windows")

# %% [markdown]
# ## The search
#
# The hum is also cut into a few overlapping windows. Each becomes a vector and votes for the songs that have
# a similar window. The 200 songs with the best votes are then aligned with the hum, frame by frame. The score
# combines votes and alignment. The confidence depends on how far the best score is ahead of the others.
# [Notebook 09](09_search_and_align.ipynb) explains each step.

# %%
answers = [qbhkit.search(contour, folder, k=5) for contour in contours]
table = pd.DataFrame(answers[0])
table.index = range(1, 6)
table.round(3)

# %% [markdown]
# For each of the three hums, the right tune is ranked first, well ahead of the second:

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
for hum, found in zip(hums, answers, strict=True):
    print(
        f"{hum['file']}: {found[0].title} {'(right)' if found[0].song_id == hum['song_id'] else ''}"
    )

# %%
first = np.array([found[0].score for found in answers])
second = np.array([found[1].score for found in answers])
np.testing.assert_array_less(second + 0.05, first)
for hum, found in zip(hums, answers, strict=True):
    np.testing.assert_allclose(found[0].start_s, hum["start_s"], atol=2.5)

# %% [markdown]
# ## Does it fit?
#
# The figure shows the hum over the matched seconds of the song. The hum is stretched to the same length and
# transposed to the same key. Where the two lines differ, the singer or the tracker made an error.

# %%
from qbhkit.figures import match_figure

catalogue = qbhkit.open_catalogue(folder)
best = answers[1][0]
song = catalogue.contours[catalogue.number[best.song_id]]
match_figure(contours[1], song, best.start_s, best.end_s, f"{hums[1]['file']} over {best.title}")

# %% [markdown]
# Listen to the matched seconds of the song, rendered exactly as written by the kit's synthetic voice:

# %%
from qbhkit.retrieval.matches import matched_audio

matched = matched_audio(catalogue, best)
display(Audio(matched.samples, rate=matched.rate_hz))

# %% [markdown]
# ## A real recording, if you have one
#
# If the MIR-QBSH corpus is in the data folder, this cell searches one of its 8-second recordings among
# the 48 songs of the corpus. The default weights learnt from these recordings, so it is searched with `stage1`,
# which learnt from tunes alone.

# %%
from qbhkit.corpora import songs_of
from qbhkit.corpora.folders import MirQbsh
from qbhkit.storage import data_dir as default_data_dir

data = Path(data_dir) if data_dir else default_data_dir()
try:
    corpus = MirQbsh(data / "mir-qbsh")
    real = next(hum for hum in corpus.hums("year2009") if hum.song_id == "00014")
    small = cache_dir() / "mir-qbsh-catalogue"
    qbhkit.build_catalogue(list(songs_of(corpus)), small, "stage1")
    sung, known = qbhkit.to_contour(real.path), qbhkit.open_catalogue(small)
    found = qbhkit.search(sung, small, k=3, weights="stage1")
    sound = load(real.path)
    display(Audio(sound.samples, rate=sound.rate_hz), pd.DataFrame(found).round(3))
    song = known.contours[known.number[found[0].song_id]]
    title = f"A real hum of song {real.song_id} over {found[0].title.split(' / ')[0]}"
    display(match_figure(sung, song, found[0].start_s, found[0].end_s, title))
except qbhkit.QbhError:
    print("No real recordings here: 'qbhkit data fetch mir-qbsh' downloads 4,431 of them.")

# %% [markdown]
# ## Exercises
#
# 1. How short can a hum be? Search with the first 2, 3 and 5 seconds of the second hum.
# 2. Move that hum up by 7 semitones. Which columns of the answer change?
# 3. What does the second-best song sound like, in the seconds that match the hum?
#
# <details><summary>Solutions</summary>
#
# 1. With two or three seconds, other songs fit better and the confidence is low. With five seconds, the right
#    song is found.
#    ```python
#    rows = {}
#    for seconds in (2, 3, 5):
#        short = qbhkit.Contour(contours[1].frames[: 10 * seconds])
#        rows[f"the first {seconds} s"] = qbhkit.search(short, folder, k=1)[0]._asdict()
#    display(pd.DataFrame(rows).T[["title", "score", "confidence"]])
#    ```
# 2. Only `transposition_st` changes, by 7. The median pitch of each window is subtracted before the
#    comparison, so the key makes no difference.
#    ```python
#    up = qbhkit.search(contours[1].transposed(7), folder, k=1)
#    display(pd.DataFrame([answers[1][0], up[0]], index=["as hummed", "7 semitones up"]).round(3))
#    ```
# 3. Sometimes it is a variant of the tune. Usually it is a different tune that has a few intervals in common
#    with it.
#    ```python
#    second = matched_audio(catalogue, answers[1][1])
#    display(Audio(second.samples, rate=second.rate_hz))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - The search uses the *contour* of a hum: every 100 ms, the pitch in semitones and whether the frame is
#   voiced.
# - Key and tempo do not matter. The median pitch of each window is subtracted, and windows of all lengths are
#   resampled to 80 frames.
# - The answer gives the song *and* the matched seconds, because windows are compared, not whole songs.
#
# Library functions used: [`qbhkit.audio.load`](../qbhkit/audio.py),
# [`qbhkit.to_contour`](../qbhkit/pitch/frontends.py),
# [`qbhkit.build_catalogue`](../qbhkit/catalogue/build.py),
# [`qbhkit.open_catalogue`](../qbhkit/catalogue/read.py),
# [`qbhkit.search`](../qbhkit/retrieval/searcher.py),
# [`qbhkit.retrieval.matches.matched_audio`](../qbhkit/retrieval/matches.py),
# [`qbhkit.figures.contour_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.match_figure`](../qbhkit/figures/melodies.py).
#
# Next: [01 · From audio to melody](01_audio_to_melody.ipynb) finds the voice in a full song.
