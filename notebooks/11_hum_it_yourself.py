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
# # 11 · Hum it yourself
#
# What you will learn:
# 1. how to record a hum in a notebook, and to see and hear which songs it fits;
# 2. what spoils a recording, and what the recorder says about it;
# 3. how to use the recorder's results in your own cells, with or without a browser.
#
# What you hum stays on the machine that runs this notebook, and is not saved with it.

# %% tags=["parameters"]
profile = "tiny"  # "tiny" or "full": full searches all 12,900 tunes instead of 1,000
seed = 0
data_dir = ""  # folder with corpora; empty: the environment variable QBHKIT_DATA

# %%
import json
import platform
from contextlib import suppress
from tempfile import TemporaryDirectory

import ipywidgets
import numpy as np
import pandas as pd
from IPython.display import Audio as Sound
from IPython.display import Image, display

import qbhkit
from qbhkit.audio import Audio, load
from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.read import open_catalogue
from qbhkit.corpora.abc import music21_collection
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.errors import QbhError
from qbhkit.figures import contour_figure, match_figure
from qbhkit.retrieval.searcher import Searcher
from qbhkit.storage import asset, cache_dir
from qbhkit.widgets import HumRecorder

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## The songs
#
# The catalogue of [notebook 00](00_hum_to_song.ipynb): a tune book of the public domain. It is opened
# where it has been built before, and built here otherwise, which takes about a minute. Put the folder of
# your own catalogue here (`qbhkit catalogue build my_songs --out FOLDER`) to hum your own songs.

# %%
collections, most = ["oneills1850"], 1000
if profile == "full":
    collections += ["ryansMammoth", "airdsAirs", "miscFolk", "essenFolksong"]
    most = None
folder = cache_dir() / ("demo-catalogue" if profile == "tiny" else "full-catalogue")
embedder = ContourEmbedder()
try:
    searcher = Searcher(open_catalogue(folder), embedder)
except QbhError:
    songs, _ = read_sources(music21_collection(name) for name in collections)
    build_catalogue(songs[:most], folder, embedder)
    searcher = Searcher(open_catalogue(folder), embedder)
print(len(searcher.catalogue.songs), "songs")

# %% [markdown]
# ## The recorder
#
# Press the red button (or Enter, or Space, when it has the focus), allow the microphone, and hum about
# ten seconds of a tune on "da" or "la". The line shows your pitch while you hum. Press again to stop.
# Then drag the sliders to cut off what went wrong, play a song's matched seconds and your hum beside
# them, or press the button for another try.
#
# No microphone here? Choose a file, or drop one on the recorder: a voice memo of your phone will do
# (m4a needs `pip install av`). Editors that give notebooks no microphone, and machines without one in
# front of you, say so, and offer to record on the machine that runs the kernel (`pip install sounddevice`).

# %%
recorder = HumRecorder(searcher, k=5)
recorder

# %% [markdown]
# Where this page is only read, not run, the recorder does not show. After a hum it looks like this:

# %%
Image("recorder.png", width=480)

# %% [markdown]
# ## A hum from a file
#
# All that the recorder does in a browser it does in a cell too. This takes one of the bundled hums,
# and the recorder above shows what was found:

# %%
hums = json.loads(asset("hums/hums.json").read_text("utf-8"))
known = hums[1]
recorder.hear_file(asset(f"hums/{known['file']}"))
print(recorder.status)
display(Sound(recorder.audio.samples, rate=recorder.audio.rate_hz))

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
best = recorder.results[0]
print(best.title, "(right)" if best.song_id == known["song_id"] else "(wrong)")
print("is heard for", round(recorder.audio.duration_s), "s at", recorder.audio.rate_hz, "Hz")

# %% [markdown]
# `audio`, `contour` and `results` hold what was heard. This works just as well after *you* have hummed:
# run the next cells again.

# %%
contour_figure(recorder.contour, "What the tracker hears")

# %%
columns = ["title", "confidence", "start_s", "end_s", "tempo_ratio", "transposition_st"]
pd.DataFrame(recorder.results, index=range(1, 6))[columns].round(2)

# %%
best = recorder.results[0]
song = searcher.catalogue.contours[searcher.catalogue.number[best.song_id]]
match_figure(recorder.contour, song, best.start_s, best.end_s, f"The hum over {best.title}")

# %% [markdown]
# ## Trim, and look again
#
# Half of the hum often is enough. The rest is not lost: `trim()` without numbers brings it back.

# %%
confidence = {}
for end_s in (3, 5, 8, recorder.contour.duration_s):
    recorder.trim(0, end_s)
    confidence[f"the first {end_s:.0f} s"] = recorder.results[0]._asdict()
pd.DataFrame(confidence).T[["title", "confidence", "distance_st"]]

# %%
recorder.trim()
assert recorder.results[0].song_id == known["song_id"]
np.testing.assert_allclose(recorder.results[0].start_s, known["start_s"], atol=2.5)

# %% [markdown]
# ## What is wrong is said
#
# A recorder that finds nothing should say why. Here is the same hum, degraded in four ways:

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
hum = load(asset(f"hums/{known['file']}"))
noise = 0.1 * np.random.default_rng(seed).standard_normal(5 * hum.rate_hz)
degraded = {
    "a second of it": hum.samples[: hum.rate_hz],
    "from far away": 0.003 * hum.samples,
    "noise alone": noise.astype(np.float32),
    "far too loud": np.clip(20 * hum.samples, -1, 1),
}
test = HumRecorder(searcher)
for how, samples in degraded.items():
    with suppress(QbhError):
        test.hear(Audio(samples, hum.rate_hz))
    print(f"{how}: {test.status}")

# %% [markdown]
# A clipped hum is searched all the same: its pitch survives.
#
# ## React to a hum
#
# `on_heard` calls a function whenever a hum was heard. Recorders go into layouts as all widgets do, and
# each minds its own hum: two people can hum the same tune, and compare.

# %%
heard = []
players = [HumRecorder(searcher, k=3), HumRecorder(searcher, k=3)]
for player in players:
    player.on_heard(lambda widget: heard.append(widget.results[0].title))
display(ipywidgets.VBox(players))

# %%
for player, hum_of in zip(players, hums, strict=False):
    player.hear_file(asset(f"hums/{hum_of['file']}"))
assert heard == [hum_of["title"] for hum_of in hums[:2]]
heard

# %% [markdown]
# ## Keep it
#
# `save` writes the trimmed hum as wav; "Save as wav" in the recorder does the same.

# %%
with TemporaryDirectory() as temporary:
    path = f"{temporary}/my_hum.wav"
    recorder.save(path)
    print(f"{load(path).duration_s:.1f} s")

# %% [markdown]
# ## Exercises
#
# 1. Hum a tune that is *not* in the catalogue, or trim a bundled hum to its last 3 s. What does the
#    recorder say, and how sure is it?
# 2. Say that you hum the beginning of a song (`match_from="start"`). `demo_2` begins in the middle of its tune:
#    is it still found?
# 3. Swap the tracker: `HumRecorder(searcher, tracker=get_tracker("pyin"))` works as well. Does it
#    hear the same contour?
#
# <details><summary>Solutions</summary>
#
# 1. ```python
#    recorder.hear_file(asset("hums/demo_3.flac"))
#    recorder.trim(recorder.contour.duration_s - 3)
#    print(recorder.status, recorder.results[0].confidence)
#    ```
# 2. ```python
#    beginning = HumRecorder(searcher, match_from="start")
#    beginning.hear_file(asset("hums/demo_2.flac"))
#    print(beginning.status)
#    ```
#    Its windows may still vote anywhere, but the path has to begin at the first note: the distance grows.
# 3. ```python
#    from qbhkit.pitch.trackers import get_tracker
#    other = HumRecorder(searcher, tracker=get_tracker("pyin"))
#    other.hear_file(asset(f"hums/{known['file']}"))
#    contour_figure(other.contour, other.status)
#    ```
#    Nearly; they differ where notes begin and end. pYIN takes about forty times as long.
# </details>

# %% [markdown]
# ## What to remember
#
# - Ten seconds, close to the microphone, each note with its own syllable: rests and onsets help too.
# - Whatever the recorder shows is there in Python: `recorder.audio`, `recorder.contour`, `recorder.results`.
# - Sound goes to the kernel and nowhere else; a notebook that is saved holds no voice.
#
# Library functions used: [`qbhkit.widgets.HumRecorder`](../qbhkit/widgets/recorder.py),
# [`qbhkit.retrieval.searcher.Searcher`](../qbhkit/retrieval/search.py),
# [`qbhkit.audio.load`](../qbhkit/audio.py),
# [`qbhkit.figures.match_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.contour_figure`](../qbhkit/figures/melodies.py).
#
# Back to [00 · A hum in, a song out](00_hum_to_song.ipynb), which takes the same way step by step.
