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
# 2. how that contour is compared with a thousand songs at once;
# 3. how to read the answer: which song, and which seconds of it.
#
# Everything here runs offline. The hums were rendered by the kit itself from folk tunes of the public
# domain; where real recordings lie beside the checkout, a real one is added at the end.

# %% tags=["parameters"]
profile = "tiny"  # "tiny" or "full": full searches all 12,900 tunes instead of 1,000
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
from qbhkit.audio import load
from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import from_f0
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.folders import MirQbsh
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.errors import QbhError
from qbhkit.figures import contour_figure, match_figure
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval.matches import matched_audio
from qbhkit.retrieval.searcher import Searcher
from qbhkit.storage import asset, cache_dir
from qbhkit.storage import data_dir as default_data_dir

print(
    "qbhkit",
    qbhkit.__version__,
    "· Python",
    platform.python_version(),
    "· torch",
    torch.__version__,
)

# %% [markdown]
# ## The hums
#
# Three hums ship with the kit. Each was hummed in another key and at another speed than its tune is
# written in, and with the small errors of an untrained singer. Choose one in the list and press play.

# %%
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
# A *pitch tracker* listens every 10 milliseconds and says which frequency the voice has (f0), and
# whether there is a voice at all. Every 100 ms we keep the median of the voiced frames, on a scale of
# semitones: 60 is the middle C of a piano, 72 the C above it. Where nobody sings the line stays open.

# %%
tracker = get_tracker()
contours = [from_f0(tracker.track(recording)) for recording in recordings]
contour_figure(contours[0], f"What the tracker {tracker.name} hears in {hums[0]['file']}")

# %% [markdown]
# ## The catalogue
#
# The songs: the first 1,000 of O'Neill's *Music of Ireland* (1903). Each was cut into overlapping
# windows of 4 to 19 seconds, and every window was turned into a vector of 512 numbers by a small neural
# network that was trained to give a tune and its hummed version nearly the same vector. `make demo` has
# built the catalogue already; otherwise it is built here, once, in about a minute.

# %%
collections, most = ["oneills1850"], 1000
if profile == "full":
    collections += ["ryansMammoth", "airdsAirs", "miscFolk", "essenFolksong"]
    most = None
folder = cache_dir() / ("demo-catalogue" if profile == "tiny" else "full-catalogue")
embedder = ContourEmbedder()
songs, _ = read_sources(music21_collection(name) for name in collections)
report = build_catalogue(songs[:most], folder, embedder)
print(report.songs, "songs,", report.windows, "windows")

# %%
catalogue = open_catalogue(folder)
searcher = Searcher(catalogue, embedder)

# %% [markdown]
# ## The search
#
# The hum is cut into a few overlapping parts; each part becomes a vector too and votes for the songs that
# have a window like it. The 200 songs with the best votes are then aligned with the hum, frame by frame.
# Both together are the score, and its lead over the other songs tells how sure the kit is.
# [Notebook 09](09_search_and_align.ipynb) takes this apart.

# %%
answers = [searcher.search(contour, k=5) for contour in contours]
table = pd.DataFrame(answers[0])
table.index = range(1, 6)
table.round(3)

# %% [markdown]
# The right tune stands first for each of the three, and well before the second:

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
# The hum laid over the seconds of the song that the search named: stretched to their length and moved
# to their key. Where the lines part, the singer (or the tracker) was off.

# %%
best = answers[1][0]
song = catalogue.contours[catalogue.number[best.song_id]]
match_figure(contours[1], song, best.start_s, best.end_s, f"{hums[1]['file']} over {best.title}")

# %% [markdown]
# Listen: the matched seconds of the song, played by the kit's own voice, exactly as written.

# %%
matched = matched_audio(catalogue, best)
display(Audio(matched.samples, rate=matched.rate_hz))

# %% [markdown]
# ## A real recording, where there is one
#
# If the MIR-QBSH corpus lies in the data folder, one of its 8-second recordings is searched too, against
# the 48 songs it was made for.

# %%
data = Path(data_dir) if data_dir else default_data_dir()
try:
    real = next(hum for hum in MirQbsh(data / "mir-qbsh").hums() if hum.song_id == "00014")
    small = cache_dir() / "mir-qbsh-catalogue"
    real_songs, _ = read_sources([MirQbsh(data / "mir-qbsh")])
    build_catalogue(real_songs, small, embedder)
    sung = load(real.path)
    heard, known = from_f0(tracker.track(sung)), open_catalogue(small)
    found = Searcher(known, embedder).search(heard, k=3)
    display(Audio(sung.samples, rate=sung.rate_hz), pd.DataFrame(found).round(3))
    song = known.contours[known.number[found[0].song_id]]
    title = f"A real hum of song {real.song_id} over {found[0].title.split(' / ')[0]}"
    display(match_figure(heard, song, found[0].start_s, found[0].end_s, title))
except QbhError:
    print("No real recordings here: 'qbhkit data fetch mir-qbsh' brings 4,431 of them.")

# %% [markdown]
# ## Exercises
#
# 1. How little is enough? Search with the first 2, 3 and 5 seconds of the second hum.
# 2. Move that hum up by 7 semitones. Which columns of the answer change?
# 3. What does the second-best song sound like, where it is like the hum?
#
# <details><summary>Solutions</summary>
#
# 1. Two and three seconds fit other songs better, and the confidence is low; five find the right one.
#    ```python
#    from qbhkit.contour import Contour
#
#    rows = {}
#    for seconds in (2, 3, 5):
#        short = Contour(contours[1].frames[: 10 * seconds])
#        rows[f"the first {seconds} s"] = searcher.search(short, k=1)[0]._asdict()
#    display(pd.DataFrame(rows).T[["title", "score", "confidence"]])
#    ```
# 2. Only `transposition_st`, by 7: each window loses its own median, so the key is gone before anything is compared.
#    ```python
#    up = searcher.search(contours[1].transposed(7), k=1)
#    display(pd.DataFrame([answers[1][0], up[0]], index=["as hummed", "7 semitones up"]).round(3))
#    ```
# 3. Now and then like a variant, mostly like another tune with a few steps in common.
#    ```python
#    second = matched_audio(catalogue, answers[1][1])
#    display(Audio(second.samples, rate=second.rate_hz))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - A hum is searched by its *contour*: pitch in semitones, every 100 ms, and whether it is voiced.
# - Key and speed do not matter: each window loses its median pitch, and windows of several lengths are
#   all read on the same 80 steps.
# - The answer names the song *and* its seconds, because windows are compared, not whole songs.
#
# Library functions used: [`qbhkit.audio.load`](../qbhkit/audio.py),
# [`qbhkit.pitch.trackers.get_tracker`](../qbhkit/melody/trackers/__init__.py),
# [`qbhkit.contour.from_f0`](../qbhkit/contour.py),
# [`qbhkit.catalogue.build.build_catalogue`](../qbhkit/retrieval/building.py),
# [`qbhkit.catalogue.read.open_catalogue`](../qbhkit/retrieval/catalogue.py),
# [`qbhkit.retrieval.searcher.Searcher`](../qbhkit/retrieval/search.py),
# [`qbhkit.retrieval.matches.matched_audio`](../qbhkit/retrieval/matches.py),
# [`qbhkit.figures.contour_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.match_figure`](../qbhkit/figures/melodies.py).
#
# Next: [01 · From audio to melody](01_audio_to_melody.ipynb) finds the voice in a full song.
