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
# # 10 · Evaluation: how often does a hum find its song?
#
# What you will learn:
# 1. top-k and mean reciprocal rank (MRR), and why they need an interval;
# 2. two classic baselines that any learned method has to beat;
# 3. how to stress-test a system, and which other scores a score can be compared with.

# %% tags=["parameters"]
profile = "tiny"  # "tiny": 10 rendered hums; "full": 200
seed = 0
data_dir = ""  # not needed here: hums are rendered, and real results are read from data/results
collections = "oneills1850 ryansMammoth airdsAirs"  # what is searched: the tunes that no weights were trained on
hums_of = ""  # the collection whose tunes are hummed; empty: any of those searched
hum_count = 0  # 0: as many as the profile says

# %%
import json
import platform
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Audio, display

import qbhkit

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## Ranks and metrics
#
# For every hum all songs are ranked. *Top-k* is the share of hums whose song is among the first k. *MRR* is the mean
# of 1 / rank. A song with the same score as the true song counts as ranked above it. A hum that cannot be searched
# counts as a miss.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
from qbhkit.metrics import metrics, rank_of

scores = np.array([0.2, 0.9, 0.7, 0.7, -0.1])
print("rank of song 1:", rank_of(scores, 1))
print("rank of song 2, which ties with song 3:", rank_of(scores, 2))
print({name: round(value, 3) for name, value in metrics([1, 3, 12, None])._asdict().items()})

# %% [markdown]
# A score measured on sixteen hums is less certain than a score measured on four hundred. The 95% interval shows how
# certain it is. It comes from the bootstrap: the hums are resampled with replacement many times. The bootstrap
# assumes that the hums are independent, so the interval describes how certain the score is for these singers. For
# other singers, see below.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
from qbhkit.metrics import intervals

for count in (16, 400):
    low, high = intervals([1, 1, 1, 8] * (count // 4))["top1"]
    print(f"{count} hums, three quarters right: top-1 0.75, interval {low:.2f} to {high:.2f}")

# %% [markdown]
# ## A live test
#
# The catalogue has the 858 tunes of notebook 00, unless the parameter `collections` names others.

# %%
from qbhkit.catalogue.build import songs_from
from qbhkit.storage import cache_dir

names = collections.split()
songs, _ = songs_from(names, held_out=True)
usual = names == ["oneills1850", "ryansMammoth", "airdsAirs"]  # the catalogue of notebook 00
folder = cache_dir() / ("demo-catalogue" if usual else f"catalogue-{'-'.join(names)}")
try:
    searcher = qbhkit.open_searcher(folder)
except qbhkit.QbhError:  # it has not been built yet
    qbhkit.build_catalogue(songs, folder)
    searcher = qbhkit.open_searcher(folder)

# %% [markdown]
# The hums are rendered from tunes that no model was trained on. They start anywhere in the tune, in any key, at 0.75
# to 1.33 times the original tempo. They are short (six seconds) and out of tune (by 0.8 semitones per note). They are
# written as wav files, with a list of queries in the same folder. The columns of this list are `path`, `song_id` and,
# if known, `singer`. To evaluate your own recordings, you only need such a list.

# %%
from qbhkit.audio import write_wav
from qbhkit.synthesis.singer import Voice, render_hum


def hummed(song, note_error_st):
    rng = np.random.default_rng([seed, chosen.index(song)])  # the same hum, whatever the error
    start_s, tempo = rng.uniform(0, song.notes[-1, 0] - 12), 2 ** rng.uniform(-0.4, 0.4)
    inside = (song.notes[:, 0] >= start_s) & (song.notes[:, 0] < start_s + 6 * tempo)
    voice = Voice("mm", rng.uniform(-20, -8), tempo, note_error_st, breath=0.05)
    return render_hum(song.notes[inside], voice, rng).audio


def write_hums(place, note_error_st=0.8):
    for song in chosen:
        write_wav(hummed(song, note_error_st), place / f"{song.id}.wav")
    rows = [(f"{song.id}.wav", song.id) for song in chosen]
    pd.DataFrame(rows, columns=["path", "song_id"]).to_csv(place / "queries.csv", index=False)
    return place / "queries.csv"


chosen = [song for song in songs if 25 < song.notes[-1, 0] < 90]
chosen = [song for song in chosen if song.id.startswith(hums_of)]
np.random.default_rng(seed).shuffle(chosen)
chosen = chosen[: hum_count or (10 if profile == "tiny" else 200)]
place = Path(tempfile.mkdtemp())
queries = write_hums(place)
print(queries.read_text()[:200], "...")

# %% [markdown]
# Listen to the first hum:

# %%
Audio(str(place / f"{chosen[0].id}.wav"))

# %% [markdown]
# One call tracks the hums, searches with each method and ranks the true songs. `full` is the default method of the
# kit (window voting, then alignment). `vote` is window voting alone. `linear-scaling` and `dtw` are the classic
# baselines.

# %%
methods = ("full", "vote", "linear-scaling", "dtw")
evaluation = qbhkit.evaluate(queries, searcher.catalogue, methods)
pd.DataFrame({name: evaluation.metrics(name)._asdict() for name in methods}).T.round(3)

# %%
assert evaluation.metrics("full").top10 >= 0.8

# %% [markdown]
# This notebook can be run on other catalogues, because `collections` is a parameter. The next cell stores the scores
# as data in its output, so that several runs can be compared. `notebooks/compare_catalogues.py` (or `make compare`)
# runs this notebook on three catalogues, and makes one table from the three executed copies.

# %%
run = {"catalogue": collections, "songs": evaluation.songs, "hums": len(evaluation.queries)}
scores = []
for name in methods:
    found = evaluation.metrics(name)._asdict()
    del found["n"]
    scores.append(run | {"method": name} | {key: round(x, 3) for key, x in found.items()})
words = f"{len(scores)} lines for the table of compare_catalogues.py"
display({"application/vnd.qbhkit.scores+json": scores, "text/plain": words}, raw=True)

# %% [markdown]
# ## Stress tests
#
# Here the same hums are moved up by 7 semitones, or stretched to 0.7 and 1.4 times their tempo. The change of key
# cannot change the result, because the method is key-invariant by construction.


# %%
from qbhkit.embedding.windows import stretch

hums = [qbhkit.to_contour(place / f"{song.id}.wav") for song in chosen]
truth = [searcher.catalogue.number[song.id] for song in chosen]


def faster(hum, tempo):
    frames = stretch(hum.frames, (np.arange(int(len(hum) / tempo)) + 0.5) * tempo)
    return qbhkit.Contour(frames.astype(np.float32), hum.hop_s)


def ranked(hums, method):
    found = searcher.scores_many(hums, method=method)
    return [rank_of(scores.score, song) for scores, song in zip(found, truth, strict=True)]


stress = {
    "as hummed": hums,
    "+7 semitones": [hum.transposed(7) for hum in hums],
    "0.7 x speed": [faster(hum, 0.7) for hum in hums],
    "1.4 x speed": [faster(hum, 1.4) for hum in hums],
}
stressed = {name: ranked(changed, "vote") for name, changed in stress.items()}
pd.DataFrame({name: metrics(found)._asdict() for name, found in stressed.items()}).T.round(3)

# %%
assert stressed["as hummed"] == evaluation.ranks["vote"]
assert stressed["+7 semitones"] == stressed["as hummed"]

# %% [markdown]
# ## Real hums, recorded results
#
# `make evaluate` starts from the wav files of 423 real recordings of the MIR-QBSH corpus (8 kHz, 8 bit, 26 singers).
# It searches for them among the 48 songs of the corpus and 2,000 Essen folk songs. The results are in `data/results`;
# the recordings are not part of this repository.

# %%
results = {
    where: json.loads(Path(f"../data/results/hums_{where}.json").read_text("utf-8"))
    for where in ("start", "anywhere")
}
rows = {}
for where, result in results.items():
    for name, block in result["methods"].items():
        low, high = block["intervals"]["top10"]
        row = {key: round(block[key], 3) for key in ("n", "top1", "top5", "top10", "mrr")}
        rows[where, name] = row | {"top-10 interval": f"{low:.3f} to {high:.3f}"}
pd.DataFrame(rows).T

# %%
print(results["anywhere"]["comparable_to"])

# %%
from qbhkit.figures import topk_figure

topk_figure(
    {name: block["ranks"] for name, block in results["anywhere"]["methods"].items()},
    "423 real hums, searched anywhere in 2,048 songs",
)

# %% [markdown]
# ## By singer
#
# The scores of different singers differ far more than the scores of different methods. The table shows the five
# singers whose hums were found least often, and the five whose hums were found most often (by window voting, searched
# from the start):

# %%
per_singer = pd.DataFrame(results["start"]["methods"]["vote"]["per_singer"]).T
per_singer = per_singer.sort_values("mrr").round(3)
pd.concat([per_singer.head(5), per_singer.tail(5)])

# %% [markdown]
# So hums by the same singer are not independent samples. How well does the system work for *other* people? If the
# bootstrap draws whole singers instead of hums, the intervals are about twice as wide:

# %%
found, singers = results["start"]["methods"]["full"]["ranks"], results["start"]["singers"]
widths = {"hums": intervals(found), "singers": intervals(found, groups=singers)}
pd.DataFrame(
    {f"{drawn} drawn": limits["top1"] for drawn, limits in widths.items()}, index=["low", "high"]
).T.round(3)

# %% [markdown]
# ## Exercises
#
# 1. Render the hums with `note_error_st=1.2`. Which method loses most?
# 2. Keep only the first 3 seconds of every hum. How does that change top-1?
#
# <details><summary>Solutions</summary>
#
# 1. `dtw`, because it compares the pitches directly and has no limit on the cost of a wrong note. The other methods
#    lose about the same. (Ten hums are too few to be sure: use `profile="full"`.)
#    ```python
#    rough = qbhkit.evaluate(write_hums(Path(tempfile.mkdtemp()), 1.2), searcher.catalogue, methods)
#    mrr = {
#        name: {"0.8 semitones": evaluation.metrics(name).mrr, "1.2": rough.metrics(name).mrr}
#        for name in methods
#    }
#    print(pd.DataFrame(mrr).T.round(3))
#    ```
# 2. It falls, because a few notes fit many tunes.
#    ```python
#    short = [qbhkit.Contour(hum.trimmed()[0].frames[:30]) for hum in hums]
#    print(metrics(ranked(short, "full")))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - A rank needs rules. Here, ties and failures count against the system.
# - With every score, report an interval and the number of songs that were searched.
# - Evaluate baselines in the same run, on the same queries.
#
# Library functions used: [`qbhkit.evaluate`](../qbhkit/evaluation/evaluate.py),
# [`qbhkit.metrics.rank_of`](../qbhkit/metrics.py),
# [`qbhkit.metrics.metrics`](../qbhkit/metrics.py),
# [`qbhkit.metrics.intervals`](../qbhkit/metrics.py),
# [`qbhkit.retrieval.baselines.LinearScaling`](../qbhkit/retrieval/baselines.py),
# [`qbhkit.retrieval.baselines.SubsequenceDtw`](../qbhkit/retrieval/baselines.py),
# [`qbhkit.figures.topk_figure`](../qbhkit/figures/results.py).
#
# Next: [11 · Hum it yourself](11_hum_it_yourself.ipynb).
