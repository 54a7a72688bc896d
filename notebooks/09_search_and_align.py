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
# # 09 · Search and align
#
# What you will learn:
# 1. why a hum is cut into parts that vote, instead of being compared as a whole;
# 2. how the best songs are aligned with the hum note by note, which gives the matched seconds, the key
#    and the tempo;
# 3. how the kit knows when it does not know, and says "no confident match".

# %% tags=["parameters"]
profile = "tiny"  # "tiny" or "full": full searches all 12,900 tunes instead of 1,000
seed = 0
data_dir = ""  # folder with corpora; empty: the environment variable QBHKIT_DATA

# %%
import json
import platform
from itertools import islice

import numpy as np
import pandas as pd
from IPython.display import Audio, display

import qbhkit
from qbhkit.audio import load
from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import Contour, from_f0
from qbhkit.corpora import songs_of
from qbhkit.corpora.abc import music21_collection
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.errors import QbhError
from qbhkit.figures import contour_figure, parts_figure, path_figure
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval.matches import matched_audio
from qbhkit.retrieval.searcher import Searcher
from qbhkit.storage import asset, cache_dir

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## A hum and a catalogue
#
# One of the hums that ship with the kit, and the catalogue of [notebook 00](00_hum_to_song.ipynb).

# %%
hums = json.loads(asset("hums/hums.json").read_text("utf-8"))
known = hums[1]
recording = load(asset(f"hums/{known['file']}"))
hum = from_f0(get_tracker().track(recording))
contour_figure(hum, f"{known['file']}: what the tracker hears")

# %%
collections, most = ["oneills1850"], 1000
if profile == "full":
    collections += ["ryansMammoth", "airdsAirs", "miscFolk", "essenFolksong"]
    most = None
folder = cache_dir() / ("demo-catalogue" if profile == "tiny" else "full-catalogue")
embedder = ContourEmbedder()
try:
    searcher = Searcher(open_catalogue(folder), embedder)
except QbhError:  # it has not been built yet
    songs, _ = read_sources(music21_collection(name) for name in collections)
    build_catalogue(songs[:most], folder, embedder)
    searcher = Searcher(open_catalogue(folder), embedder)
catalogue = searcher.catalogue
print(len(catalogue.songs), "songs,", len(catalogue.vectors), "windows")

# %% [markdown]
# ## Step 1: parts of the hum vote
#
# The published system turns the whole hum into one vector and takes the nearest song. One wrong bar
# then spoils everything. So the hum is read seven times: as a whole, its first 84, 70 and 50 per cent,
# its last 85, 70 and 50 per cent. Each reading becomes a vector of its own.

# %%
parts_figure(hum, searcher.cut.parts, "Seven readings of one hum")

# %% [markdown]
# Every reading finds its best window in every song. Below: the cosines of the readings (rows) with
# five songs (columns), the right one among them. No reading needs to be perfect.

# %%
frames, _ = searcher.query_frames(hum, "anywhere")
vectors = embedder.embed(frames)
found = searcher.index.best_windows(vectors)
votes = searcher.scores(hum, method="vote")
best = np.argsort(-votes.score)[:5]
names = [f"{start:.0%} to {start + length:.0%}" for start, length in searcher.cut.parts]
titles = [catalogue.songs[song]["title"] for song in best]
table = pd.DataFrame(found.similarity[:, best], index=names, columns=titles)
table.round(3)

# %% [markdown]
# A song's vote is a mean of its column in which high values count more, `log(mean(exp(4 * x))) / 4`:
# a part that was hummed badly says little, a part that fits says much. The order of parts and
# pieces does not matter. Written out, it is what the library gives:

# %%
soft_mean = np.log(np.exp(4 * found.similarity[:, best].astype(float)).mean(axis=0)) / 4
np.testing.assert_allclose(soft_mean, votes.score[best], atol=1e-6)
pd.DataFrame({"plain mean": table.mean().to_numpy(), "vote": soft_mean}, index=table.columns).round(
    3
)

# %% [markdown]
# ## Step 2: the best songs are aligned
#
# A vector forgets which note was where. So the 200 songs with the best votes are compared once more,
# frame by frame: *dynamic time warping* finds the path through the song that the hum follows, at half to
# double speed at every moment, in whatever key it was hummed. One frame that is far off counts as three
# semitones at most, so that a wrong octave is just a wrong note.

# %%
answers = searcher.search(hum, k=5)
columns = ["title", "score", "vote", "distance_st", "tempo_ratio", "transposition_st", "confidence"]
pd.DataFrame(answers, index=range(1, 6))[columns].round(3)

# %% [markdown]
# The hum (dots) on its path through the first song, and through the second. On the right path hardly a
# dot leaves the melody; on the wrong one the tempo has to be bent, and still much is left over.

# %%
for answer in answers[:2]:
    number = catalogue.number[answer.song_id]
    path = searcher.aligner.path(hum, number, answer.transposition_st)
    title = f"{answer.title}: {answer.distance_st:.2f} semitones on average"
    song = catalogue.contours[number]
    display(path_figure(hum, song, path, answer.transposition_st, title))

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
first = answers[0]
print("found:", first.title, "(right)" if first.song_id == known["song_id"] else "(wrong)")
print("semitones above the song:", round(first.transposition_st))

# %% [markdown]
# The score is the vote less 0.3 for every semitone of mean distance. That weight was chosen on the
# development hums, and is stored with the model.

# %%
weight = searcher.calibration.distance
for answer in answers:
    np.testing.assert_allclose(answer.score, answer.vote - weight * answer.distance_st, atol=1e-4)
assert answers[0].song_id == known["song_id"]
assert answers[0].score > answers[1].score + 0.1

# %% [markdown]
# ## Listen
#
# The hum, and the seconds of the song that it follows:

# %%
matched = matched_audio(catalogue, first)
display(Audio(recording.samples, rate=recording.rate_hz))
display(Audio(matched.samples, rate=matched.rate_hz))

# %% [markdown]
# ## Step 3: when to say no
#
# There is always a nearest song, even for a hum of something else. What tells is the *lead*: how far
# the first song lies above the mean of the ten next. Score and lead go through a logistic curve, fitted
# on hums whose song was there and on the same hums with their song taken away. Here the same hum is
# searched in a small catalogue without its song. (Of the development hums, one in ten is believed all
# the same when its song is missing. A catalogue of under 1,000 songs counts as if ten strangers were in it that
# come as near as in a large one: else the first of a few songs would lead by far, right or wrong.)

# %%
tunes = islice(songs_of(music21_collection("oneills1850")), 100)
others = [song for song in tunes if song.id != known["song_id"]]
without = cache_dir() / f"{folder.name}-without"
build_catalogue(others, without, embedder)
elsewhere = Searcher(open_catalogue(without), embedder)
wrong = elsewhere.search(hum, k=3)
rows = {"its song is there": answers[:3], "its song is not there": wrong}
listed = {case: pd.DataFrame(some)[["title", "score", "confidence"]] for case, some in rows.items()}
pd.concat(listed).round(3)

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
print("with its song:", "confident" if searcher.confident(answers) else "no confident match")
print("without it:", "confident" if elsewhere.confident(wrong) else "no confident match")

# %% [markdown]
# ## Several takes
#
# Whoever hums a tune twice, or two parts of it, may have both searched together: all windows vote for one
# list. Here are two halves of the hum, each alone and then together.

# %%
sung, _ = hum.trimmed()
half = len(sung) // 2
takes = [Contour(sung.frames[:half]), Contour(sung.frames[half:])]
asked = {"first half": takes[0], "second half": takes[1], "both": takes}
lists = {name: searcher.search(some, k=2) for name, some in asked.items()}
pd.DataFrame(
    {
        name: {"first": some[0].title, "confidence": some[0].confidence}
        for name, some in lists.items()
    }
).T

# %%
assert lists["both"][0].song_id == known["song_id"]

# %% [markdown]
# ## Exercises
#
# 1. Make the hum worse: move every note after the middle by 2 semitones. Which falls more, the vote or
#    the distance?
# 2. Search with `method="vector"`, the published way. How far is the first song before the second?
# 3. Hum something else for the second half of the time (append the frames of another hum). Does the
#    right song still win?
#
# <details><summary>Solutions</summary>
#
# 1. Both suffer; the half that is right still votes for the song.
#    ```python
#    frames = sung.frames.copy()
#    frames[half:, 0] += 2 * (frames[half:, 1] > 0)
#    worse = searcher.search(Contour(frames), k=1)[0]
#    rows = pd.DataFrame([answers[0], worse], index=["as hummed", "half of it 2 semitones up"])
#    display(rows[["title", "vote", "distance_st", "confidence"]].round(3))
#    ```
# 2. The right song still leads here, by the cosine of one vector; no path is looked for, so there are no
#    distance, tempo and key.
#    ```python
#    one, two = searcher.search(hum, k=2, method="vector")
#    print(one.title, "leads by", round(one.score - two.score, 3))
#    ```
# 3. No: a song that fits the whole a little beats the one that fits its first half, and the confidence
#    says that none of them is to be believed.
#    ```python
#    other = from_f0(get_tracker().track(load(asset("hums/" + hums[2]["file"]))))
#    mixed = searcher.search(Contour(np.concatenate([sung.frames, other.frames])), k=3)
#    display(pd.DataFrame(mixed, index=range(1, 4))[["title", "score", "confidence"]].round(3))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Parts vote, so that a wrong bar costs a vote and not the song.
# - Vectors find the few songs that are worth a closer look; the alignment looks closely, and tells
#   seconds, key and tempo.
# - The lead over other songs, more than the score, says whether to believe an answer.
#
# Library functions used: [`qbhkit.retrieval.searcher.Searcher`](../qbhkit/retrieval/search.py),
# [`qbhkit.retrieval.align.Aligner`](../qbhkit/retrieval/align.py),
# [`qbhkit.retrieval.confidence.Calibration`](../qbhkit/retrieval/confidence.py),
# [`qbhkit.retrieval.matches.matched_audio`](../qbhkit/retrieval/matches.py),
# [`qbhkit.figures.parts_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.path_figure`](../qbhkit/figures/melodies.py).
#
# Next: [10 · Evaluation](10_evaluation.ipynb) measures how often all of this is right.
