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
# # 08 · Catalogue and index
#
# What you will learn:
# 1. what a catalogue stores of each song, and why a build may be interrupted at any time;
# 2. how songs are added and removed, and how a single flipped bit is detected;
# 3. when it is too slow to compare every window, how much recall an index loses for speed, and how far it scales.

# %% tags=["parameters"]
profile = "tiny"  # "tiny": 270 tunes; "full": 1,900
seed = 0
data_dir = ""  # not needed here: the tunes come with the music21 package

# %%
import json
import platform
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

import qbhkit

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## A song becomes windows
#
# A hum may be of any part of a song, and slower or faster. So every song is cut into overlapping windows of 4 to 19
# seconds. The hop is a quarter of the window length. Each window is resampled to 80 frames, whatever its length. A
# hum that was sung too fast is then similar to a longer window.

# %%
from qbhkit.corpora import songs_of
from qbhkit.corpora.abc import music21_collection
from qbhkit.embedding.windows import Reading, WindowGrid, cut_song

count = 270 if profile == "tiny" else 1900
songs = list(islice(songs_of(music21_collection("oneills1850")), count))
cut = cut_song(songs[0].contour(), WindowGrid(), Reading())
lengths = pd.Series((cut.end - cut.start) / 10).value_counts().sort_index()
print(f"{songs[0].title}: {len(cut.frames)} windows")
lengths.rename_axis("length (s)").rename("windows").to_frame()

# %% [markdown]
# ## Built, interrupted and resumed
#
# A catalogue is a folder. It holds shards of up to 256 songs, and a manifest that lists the shards. The file name of
# a shard is a hash of its content. A shard is written completely or not at all, and the manifest is written last. So
# a build may be interrupted at any time, and the next build reuses the existing shards. Here the first build gets 256
# of the songs:

# %%
folder = Path(tempfile.mkdtemp()) / "catalogue"
first = qbhkit.build_catalogue(songs[:256], folder, progress=False)
second = qbhkit.build_catalogue(songs, folder, progress=False)
print(second.songs, "songs,", second.reused, "of them from the first build")
assert second.reused == 256
pd.DataFrame(
    [
        {"file": path.name[:12] + "...", "KB": path.stat().st_size // 1024}
        for path in sorted(folder.rglob("*.*"))
    ]
)

# %% [markdown]
# The shards hold contours, windows and vectors. The vectors take most of the space, a kilobyte each. Because the
# contours are stored, a better network can embed all songs again without tracking any recording again.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
catalogue = qbhkit.open_catalogue(folder)
print("vectors:", catalogue.vectors.shape[1], "numbers each,", catalogue.vectors.dtype)
norms = np.linalg.norm(catalogue.vectors, axis=1)
print("every vector has length 1:", bool(np.allclose(norms, 1, atol=1e-2)))
print("made by", catalogue.model.split("-")[0])

# %% [markdown]
# ## One flipped bit
#
# Disks sometimes return wrong data. Here one bit of a shard is flipped. `verify_catalogue` reports the file, and a
# build from the same songs repairs only that shard.

# %%
from qbhkit.catalogue.edit import verify_catalogue

shard = min((folder / "shards").iterdir(), key=lambda path: path.stat().st_size)
content = bytearray(shard.read_bytes())
content[1000] ^= 1
shard.write_bytes(content)
for problem in verify_catalogue(folder).problems:
    print(problem.reason.replace(str(folder), "catalogue")[:60], "...")
repaired = qbhkit.build_catalogue(songs, folder, progress=False)
left = verify_catalogue(folder).problems
print(repaired.songs - repaired.reused, "songs built again; problems left:", len(left))
assert not left

# %% [markdown]
# ## Add, remove, merge
#
# A song that is already in the catalogue is reported and not added again, even if it has another key or another name.
# You can merge catalogues that other people built, if they used the same network.

# %%
from qbhkit.catalogue.edit import add_songs, merge_catalogues, remove_songs
from qbhkit.embedding.embedder import open_embedder

transposed = replace(songs[7], id="copy", notes=songs[7].notes + np.array([0, 0, 5]))
added = add_songs([transposed], folder, open_embedder(), progress=False)
(duplicate,) = added.duplicates
print(f"added {added.added}; {duplicate.id} is the melody of {duplicate.existing_id}")
removed = remove_songs([songs[0].id], folder)
other, both = folder.parent / "other", folder.parent / "both"
qbhkit.build_catalogue(songs[:1], other, progress=False)
merged = merge_catalogues([folder, other], both)
print(removed.songs, "songs after one was removed,", merged.songs, "after a merge brought it back")
assert merged.songs == second.songs

# %% [markdown]
# ## Finding the nearest windows
#
# The index `exact` compares the seven windows of a hum with all windows of the catalogue. This is one matrix
# multiplication, and it is fast as long as the vectors fit into memory. The index `faiss` compares only a few
# windows. It reduces the 512 dimensions to 128 (PCA). Then it either follows a graph of neighbours (HNSW), or reads
# only the lists of vectors near the query, with each vector compressed to 32 bytes (IVF-PQ). The windows that it
# finds are compared again, exactly. The windows that it misses are lost.

# %%
from qbhkit.retrieval.index import build_index, open_index
from qbhkit.retrieval.index_faiss import FaissChoices
from qbhkit.storage import asset

hum = json.loads(asset("hums/hums.json").read_text("utf-8"))[1]
contour = qbhkit.to_contour(asset(f"hums/{hum['file']}"))
searcher = qbhkit.open_searcher(both)
catalogue = searcher.catalogue
vectors = searcher.embedder.embed(searcher.cut_query(contour).frames)
true = open_index("exact", catalogue).nearest(vectors, 10)
tenth = true.similarity[:, -1:] - 1e-5  # of the ten nearest windows, the least similar
rows = {}
for effort in (10, 40, 160):
    choices = FaissChoices(kind="hnsw", effort=effort, candidates=10)
    near = build_index("faiss", catalogue, choices=choices).nearest(vectors, 10)
    rows[f"hnsw, {effort} candidates"] = np.mean(near.similarity >= tenth)
for probes in (1, 8, 64):
    choices = FaissChoices(kind="ivf-pq", lists=64, probes=probes, candidates=100)
    near = build_index("faiss", catalogue, choices=choices).nearest(vectors, 10)
    rows[f"ivf-pq, {probes} of 64 lists"] = np.mean(near.similarity >= tenth)
pd.Series(rows).rename("recall@10").to_frame().round(3)

# %% [markdown]
# Recall grows with the part of the index that is read. On the command line, run `qbhkit catalogue index CATALOGUE`,
# then `qbhkit search ... --index faiss`. An index records which windows it was built from, and cannot be used with
# others.
#
# ## The whole search on an index
#
# The index only selects candidate songs. The 200 best of them are compared again with all their windows, and aligned
# as usual. So a song that the index finds gets exactly the same score as without the index.

# %%
searcher.index = build_index("faiss", catalogue, choices=FaissChoices(kind="hnsw"))
by_index = searcher.search(contour, k=3)
searcher.index = searcher.exact
by_all = searcher.search(contour, k=3)
assert [answer.song_id for answer in by_index] == [answer.song_id for answer in by_all]
assert by_all[0].song_id == hum["song_id"]
pd.DataFrame(by_index)[["title", "score", "confidence"]].round(3)

# %% [markdown]
# ## For many users at once: PostgreSQL
#
# Use a database if many machines search a collection while it grows. With the extension pgvector, PostgreSQL stores
# songs and windows in two tables, with a graph (HNSW) over half-precision vectors:
#
# ```sh
# export QBHKIT_POSTGRES=postgresql://curator@db.example.org/songs
# qbhkit catalogue index catalogue/ --kind postgres
# qbhkit search hum.wav --catalogue catalogue/ --index postgres
# ```
#
# Readers see either the old catalogue or the complete new one. A writer that crashes leaves nothing behind. Titles
# may contain quotes. The tests check this on a real server. PostgreSQL is slower than FAISS on the same machine.
#
# ## How it grows
#
# `qbhkit bench growth` measured every index on catalogues of about ten thousand and a hundred thousand windows, and
# exact search and IVF-PQ also on a million. All catalogues contain real tunes. Random vectors would be misleading,
# because they are easy to tell apart and melodies are not.

# %%
from qbhkit.figures import growth_figure

growth = json.loads(Path("../data/results/growth.json").read_text())
growth_figure(growth)

# %%
lines = [
    {
        "windows": row["windows"], "index": kind, "build (s)": part["build_s"],
        "look-ups (ms)": part["lookups_ms"]["p50"], "query (ms)": part["query_ms"]["p50"],
        "memory (MB)": part["memory_mb"]["peak"], "recall@10": part["recall_at_10"],
        "song in 10": part["right_song_in_10"],
    }
    for row in growth["sizes"].values()
    for kind, part in row["indexes"].items()
]  # fmt: skip
pd.DataFrame(lines).round(3)

# %% [markdown]
# ## Beyond one machine: an estimate
#
# This estimate extrapolates from the largest catalogue that was measured, for servers with 64 GB of memory. It
# multiplies bytes and milliseconds per window by the number of windows. A look-up in IVF-PQ reads an eighth of the
# lists, so its cost grows with the number of windows. If sixteen machines hold a sixteenth of the windows each, they
# answer in a sixteenth of the time; the slowest machine determines the total. We assume four cents per core-hour. The
# rest of a query (tracking the pitch, aligning the best songs) costs the same at any size.

# %%
largest = max(growth["sizes"].values(), key=lambda row: row["windows"])
part, server_gb, dollars_a_core_hour = largest["indexes"]["faiss ivf-pq"], 64, 0.04
engines = {
    1e7: "FAISS IVF-PQ in one process",
    1e8: "FAISS IVF-PQ, songs split by id",
    1e9: "FAISS or Citus with pgvector, 128 numbers each",
}
estimate = []
for windows, engine in engines.items():
    times = windows / largest["windows"]
    memory_gb = part["memory_mb"]["of_the_catalogue"] * times / 1000
    machines = max(1, int(np.ceil(memory_gb / (0.75 * server_gb))))
    estimate.append(
        {
            "windows": f"{windows:.0e}", "songs": f"{largest['songs'] * times:,.0f}", "engine": engine,
            "vectors on disk (GB)": largest["disk_bytes_a_window"] * windows / 1e9,
            "memory (GB)": memory_gb, "machines": machines,
            "look-ups (core ms)": part["lookups_ms"]["p50"] * times,
            "a million queries ($)":
                part["lookups_ms"]["p50"] * times / 3600 * 1000 * dollars_a_core_hour,
        }
    )  # fmt: skip
pd.DataFrame(estimate).round(1)

# %% [markdown]
# This is what reaches its limit first at each size:
#
# - **a million windows** (ten thousand songs): nothing. A laptop with FAISS is enough.
# - **ten million**: opening the catalogue. The process hashes every shard before it uses it, and keeps all contours
#   and titles in Python. One server with FAISS is still enough, but keep it running (`qbhkit serve`).
# - **a hundred million**: memory and time. The contours no longer fit into memory with everything else, and the lists
#   become long. Split the songs over machines by a hash of their id, query all machines, and merge the ten best of
#   each. Or use PostgreSQL with `PARTITION BY HASH (song)` and one HNSW graph per partition. Citus distributes the
#   partitions over machines.
# - **a billion** (ten million songs): the size of the vectors, a kilobyte each. Use 128 numbers instead of 512 (the
#   ablation in [notebook 07](07_train_supervised.ipynb) shows what that costs). Keep only quantised codes in memory,
#   and the full vectors on the disks of many machines.

# %% [markdown]
# ## Exercises
#
# 1. Build a catalogue with windows of 8 s only (`grid=WindowGrid((8.0,), first_lengths_s=())`). How much smaller
#    is it? Which hums would it miss?
# 2. Remove the song that the hum above finds, and search again. What does `searcher.confident` say?
#
# <details><summary>Solutions</summary>
#
# 1. It has about a seventh of the windows. It misses hums that are much faster or slower than written, and short hums.
#    ```python
#    grid, made = WindowGrid((8.0,), first_lengths_s=()), folder.parent
#    small = qbhkit.build_catalogue(songs[:100], made / "eight", grid=grid, progress=False)
#    usual = qbhkit.build_catalogue(songs[:100], made / "usual", progress=False)
#    print(f"{small.windows / usual.windows:.2f} of the windows")
#    ```
# 2. The next best song gets a low confidence, so `confident` is False.
#    ```python
#    remove_songs([by_all[0].song_id], both)
#    remaining = qbhkit.open_searcher(both)
#    found = remaining.search(contour, k=3)
#    print(found[0].title, round(found[0].confidence, 3), "confident:", remaining.confident(found))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Files that are named by a hash of their content can be built in any order, by anybody, and can be verified.
# - An index decides which windows are not compared. Measure its recall on melodies, and compute the final ranking
#   exactly.
# - Keep what is expensive to compute again: the contours of recordings, rather than the vectors.
#
# Library functions used: [`qbhkit.embedding.windows.cut_song`](../qbhkit/embedding/windows.py),
# [`qbhkit.build_catalogue`](../qbhkit/catalogue/build.py),
# [`qbhkit.open_catalogue`](../qbhkit/catalogue/read.py),
# [`qbhkit.catalogue.edit.verify_catalogue`](../qbhkit/catalogue/edit.py),
# [`qbhkit.catalogue.edit.add_songs`](../qbhkit/catalogue/edit.py),
# [`qbhkit.catalogue.edit.remove_songs`](../qbhkit/catalogue/edit.py),
# [`qbhkit.catalogue.edit.merge_catalogues`](../qbhkit/catalogue/edit.py),
# [`qbhkit.retrieval.index.build_index`](../qbhkit/retrieval/index.py),
# [`qbhkit.retrieval.index.open_index`](../qbhkit/retrieval/index.py),
# [`qbhkit.figures.growth_figure`](../qbhkit/figures/results.py).
#
# Next: [09 · Search and align](09_search_and_align.ipynb).
