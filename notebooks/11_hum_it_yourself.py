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
# 1. how to record a hum in a notebook, and how to see and play the songs that match it best;
# 2. what can go wrong with a recording, and what the recorder says about it;
# 3. how to use the recorder's results in your own cells, with or without a browser.
#
# Your hum stays on the machine that runs this notebook, and is not saved with the notebook.

# %% tags=["parameters"]
profile = "tiny"  # "tiny" or "full": full searches all 12,900 tunes instead of 858
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
from IPython.display import Audio, Image, display

import qbhkit

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## The songs
#
# We use the catalogue of [notebook 00](00_hum_to_song.ipynb), a tune book in the public domain. If it has not been
# built yet, it is built here, which takes about a minute. To search your own songs, build a catalogue of them
# (`qbhkit catalogue build my_songs --out FOLDER`) and set `folder` to its path.

# %%
from qbhkit.catalogue.build import songs_from
from qbhkit.storage import cache_dir

collections = ["oneills1850", "ryansMammoth", "airdsAirs"]
if profile == "full":
    collections += ["miscFolk", "essenFolksong"]
folder = cache_dir() / ("demo-catalogue" if profile == "tiny" else "full-catalogue")
try:
    searcher = qbhkit.open_searcher(folder)
except qbhkit.QbhError:  # it has not been built yet
    songs, _ = songs_from(collections, held_out=profile == "tiny")
    qbhkit.build_catalogue(songs, folder)
    searcher = qbhkit.open_searcher(folder)
print(len(searcher.catalogue.songs), "songs")

# %% [markdown]
# ## The recorder
#
# Press the red button (or Enter or Space when it has the focus) and allow the browser to use the microphone. Hum
# about ten seconds of a tune on "da" or "la". The line shows your pitch while you hum. Press the button again to
# stop. Then you can trim the hum with the sliders, and play your hum and the matched seconds of a song. To try again,
# press the button once more.
#
# No microphone? Choose a file, or drop one on the recorder. A voice memo from your phone works, too (m4a needs `pip
# install av`). Some editors do not let notebooks use the microphone. Then the recorder says so, and offers to record
# on the machine that runs the kernel (`pip install sounddevice`).

# %%
recorder = qbhkit.HumRecorder(searcher, k=5)
recorder

# %% [markdown]
# If you read this page without running it, you do not see the recorder. After a hum it looks like this:

# %%
Image("recorder.png", width=480)

# %% [markdown]
# ## A hum from a file
#
# Everything that the recorder does in a browser also works from code. This cell searches one of the bundled hums, and
# the recorder above shows the songs that were found:

# %%
from qbhkit.storage import asset

hums = json.loads(asset("hums/hums.json").read_text("utf-8"))
known = hums[1]
recorder.hear_file(asset(f"hums/{known['file']}"))
print(recorder.status)
display(Audio(recorder.audio.samples, rate=recorder.audio.rate_hz))

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
best = recorder.results[0]
print(best.title, "(right)" if best.song_id == known["song_id"] else "(wrong)")
print("a hum of", round(recorder.audio.duration_s), "s at", recorder.audio.rate_hz, "Hz")

# %% [markdown]
# The attributes `audio`, `contour` and `results` hold the hum and the songs that were found. After you have recorded
# *your* hum, run the next cells again to see its results.

# %%
from qbhkit.figures import contour_figure

contour_figure(recorder.contour, "The contour of the hum")

# %%
columns = ["title", "confidence", "start_s", "end_s", "tempo_ratio", "transposition_st"]
pd.DataFrame(recorder.results, index=range(1, 6))[columns].round(2)

# %%
from qbhkit.figures import match_figure

best = recorder.results[0]
song = searcher.catalogue.contours[searcher.catalogue.number[best.song_id]]
match_figure(recorder.contour, song, best.start_s, best.end_s, f"The hum over {best.title}")

# %% [markdown]
# ## Trim and search again
#
# Half of the hum is often enough to find the song. The rest is not lost: `trim()` without arguments restores it.

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
# ## Problems are reported
#
# If a recording has a problem, the recorder says what is wrong. Here are four bad recordings:

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
from qbhkit.audio import load

hum = load(asset(f"hums/{known['file']}"))
noise = 0.1 * np.random.default_rng(seed).standard_normal(5 * hum.rate_hz)
degraded = {
    "a second of it": hum.samples[: hum.rate_hz],
    "from far away": 0.003 * hum.samples,
    "noise alone": noise.astype(np.float32),
    "far too loud": np.clip(20 * hum.samples, -1, 1),
}
test = qbhkit.HumRecorder(searcher)
for how, samples in degraded.items():
    with suppress(qbhkit.QbhError):
        test.hear(qbhkit.Audio(samples, hum.rate_hz))
    print(f"{how}: {test.status}")

# %% [markdown]
# The hum that is far too loud is clipped. It is searched anyway, because clipping does not change its pitch.
#
# ## React to a hum
#
# `on_heard` registers a function that is called after every hum. Recorders can be placed in layouts like any other
# widget. Each recorder keeps its own hum, so two people can hum the same tune and compare the results.

# %%
found = []
players = [qbhkit.HumRecorder(searcher, k=3), qbhkit.HumRecorder(searcher, k=3)]
for player in players:
    player.on_heard(lambda widget: found.append(widget.results[0].title))
display(ipywidgets.VBox(players))

# %%
for player, hum_of in zip(players, hums, strict=False):
    player.hear_file(asset(f"hums/{hum_of['file']}"))
assert found == [hum_of["title"] for hum_of in hums[:2]]
found

# %% [markdown]
# ## Save it
#
# `save` writes the trimmed hum as a wav file. The button "Save as wav" in the recorder does the same.

# %%
with TemporaryDirectory() as temporary:
    path = f"{temporary}/my_hum.wav"
    recorder.save(path)
    print(f"{load(path).duration_s:.1f} s")

# %% [markdown]
# ## Exercises
#
# 1. Hum a tune that is *not* in the catalogue, or trim a bundled hum to its last 3 s. What does the recorder say, and
#    what is the confidence?
# 2. Tell the recorder that you hum the beginning of a song (`match_from="start"`). `demo_2` begins in the
#    middle of its tune. Is it still found?
# 3. Swap the tracker: `HumRecorder(searcher, tracker=get_tracker("pyin"))`. Is the contour the same?
#
# <details><summary>Solutions</summary>
#
# 1. ```python
#    recorder.hear_file(asset("hums/demo_3.flac"))
#    recorder.trim(recorder.contour.duration_s - 3)
#    print(recorder.status, recorder.results[0].confidence)
#    ```
# 2. ```python
#    beginning = qbhkit.HumRecorder(searcher, match_from="start")
#    beginning.hear_file(asset("hums/demo_2.flac"))
#    print(beginning.status)
#    ```
#    The windows of the hum may still vote for any song. But now the path has to begin at the first note of the song,
#    so the distance is larger.
# 3. ```python
#    from qbhkit.pitch.trackers import get_tracker
#    other = qbhkit.HumRecorder(searcher, tracker=get_tracker("pyin"))
#    other.hear_file(asset(f"hums/{known['file']}"))
#    contour_figure(other.contour, other.status)
#    ```
#    It is nearly the same. The two contours differ where notes begin and end. pYIN takes about forty times as long.
# </details>

# %% [markdown]
# ## What to remember
#
# - Hum for ten seconds, close to the microphone, with a new syllable on each note. Rests and onsets help the search,
#   too.
# - Everything that the recorder shows is available in Python: `recorder.audio`, `recorder.contour`,
#   `recorder.results`.
# - Your recording is sent to the kernel and nowhere else. A saved notebook does not contain it.
#
# Library functions used: [`qbhkit.HumRecorder`](../qbhkit/widgets/recorder.py),
# [`qbhkit.open_searcher`](../qbhkit/retrieval/searcher.py),
# [`qbhkit.audio.load`](../qbhkit/audio.py),
# [`qbhkit.figures.match_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.contour_figure`](../qbhkit/figures/melodies.py).
#
# Back to [00 · A hum in, a song out](00_hum_to_song.ipynb), which goes through the same steps one by one.
