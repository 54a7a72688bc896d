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
# 1. what a catalogue keeps of a song, and why a build may be stopped at any moment;
# 2. how songs come and go, and how a single flipped bit is found;
# 3. when reading every window is too slow, what an index gives up for speed, and how far it carries.

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
from qbhkit.audio import load
from qbhkit.catalogue.build import build_catalogue
from qbhkit.catalogue.edit import add_songs, merge_catalogues, remove_songs, verify_catalogue
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import from_f0
from qbhkit.corpora import songs_of
from qbhkit.corpora.abc import music21_collection
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.windows import cut_song, grid_for
from qbhkit.figures import growth_figure
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval.index import build_index, open_index
from qbhkit.retrieval.index_faiss import FaissChoices
from qbhkit.retrieval.searcher import Searcher
from qbhkit.storage import asset

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## A song becomes windows
#
# A hum may be of any part of a song, and slower or faster. So every song is cut into windows of 4 to 19
# seconds, a quarter of their length apart, and each window is read on 80 steps whatever its length: a hum of
# 8 s that was sung too slowly is simply like a shorter window.

# %%
count = 270 if profile == "tiny" else 1900
songs = list(islice(songs_of(music21_collection("oneills1850")), count))
embedder = ContourEmbedder()
cut = cut_song(songs[0].contour(), grid_for(embedder.reading), embedder.reading)
seconds = (cut.end - cut.start) / 10
print(f"{songs[0].title}: {len(cut.frames)} windows")
pd.Series(seconds).value_counts().sort_index().rename_axis("length (s)").rename(
    "windows"
).to_frame()

# %% [markdown]
# ## Built, stopped, and gone on with
#
# A catalogue is a folder: shards of up to 256 songs, each named by a hash of its own bytes, and a manifest
# that lists them. A shard is written whole or not at all, and the manifest last. So a build may be killed
# whenever you like; the next one takes the shards that it finds. Here the first build sees 256 of the songs:

# %%
folder = Path(tempfile.mkdtemp()) / "catalogue"
first = build_catalogue(songs[:256], folder, embedder, progress=False)
second = build_catalogue(songs, folder, embedder, progress=False)
print(second.songs, "songs,", second.reused, "of them from the first build")
assert second.reused == 256
pd.DataFrame(
    [
        {"file": path.name[:12] + "...", "KB": path.stat().st_size // 1024}
        for path in sorted(folder.rglob("*.*"))
    ]
)

# %% [markdown]
# What lies in it: contours, windows and vectors. The vectors take most of the room, a kilobyte each. Contours are
# kept, so that a better network can embed everything again without listening to a single recording.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
catalogue = open_catalogue(folder)
print("vectors:", catalogue.vectors.shape[1], "numbers each,", catalogue.vectors.dtype)
print(
    "every vector has length 1:",
    bool(np.allclose(np.linalg.norm(catalogue.vectors, axis=1), 1, atol=1e-2)),
)
print("made by", catalogue.model.split("-")[0])

# %% [markdown]
# ## One flipped bit
#
# Disks lie now and then. One byte of a shard is changed; `verify` names the file, and a build from the same songs
# mends just that.

# %%
shard = min((folder / "shards").iterdir(), key=lambda path: path.stat().st_size)
content = bytearray(shard.read_bytes())
content[1000] ^= 1
shard.write_bytes(content)
for problem in verify_catalogue(folder).problems:
    print(problem.reason.replace(str(folder), "catalogue")[:60], "...")
mended = build_catalogue(songs, folder, embedder, progress=False)
print(
    mended.songs - mended.reused,
    "songs made again; problems left:",
    len(verify_catalogue(folder).problems),
)
assert not verify_catalogue(folder).problems

# %% [markdown]
# ## Songs come and go
#
# A song that is there already, in another key or under another name, is reported and not added twice. Other
# people's catalogues are merged if the same network made them.

# %%
transposed = replace(songs[7], id="copy", notes=songs[7].notes + np.array([0, 0, 5]))
added = add_songs([transposed], folder, embedder, progress=False)
print(f"added {added.added}; {added.duplicates[0].id} is the melody of {added.duplicates[0].there}")
removed = remove_songs([songs[0].id], folder)
other = folder.parent / "other"
build_catalogue(songs[:1], other, embedder, progress=False)
merged = merge_catalogues([folder, other], folder.parent / "both")
print(removed.songs, "songs after one was removed,", merged.songs, "after it came back by a merge")
assert merged.songs == second.songs

# %% [markdown]
# ## Finding the nearest windows
#
# `exact` compares a hum's seven windows with all windows. That is a multiplication of matrices, and fast
# as long as they fit into memory. `faiss` looks at a few of them: it keeps 128 of 512 numbers (PCA), and then
# either walks a graph of neighbours (HNSW) or reads only the lists of vectors that lie about where the hum lies,
# each vector squeezed into 32 bytes (IVF-PQ). What it finds is compared again, exactly. What it misses is lost.

# %%
catalogue = open_catalogue(folder.parent / "both")
hum = json.loads(asset("hums/hums.json").read_text("utf-8"))[1]
contour = from_f0(get_tracker().track(load(asset(f"hums/{hum['file']}"))))
searcher = Searcher(catalogue, embedder)
frames, _ = searcher.query_frames(contour, "anywhere")
vectors = embedder.embed(frames)
true = open_index("exact", catalogue).nearest(vectors, 10)
rows = {}
for effort in (10, 40, 160):
    choices = FaissChoices(kind="hnsw", effort=effort, candidates=10)
    near = build_index("faiss", catalogue, choices=choices).nearest(vectors, 10)
    rows[f"hnsw, {effort} in sight"] = np.mean(near.similarity >= true.similarity[:, -1:] - 1e-5)
for probes in (1, 8, 64):
    choices = FaissChoices(kind="ivf-pq", lists=64, probes=probes, candidates=100)
    near = build_index("faiss", catalogue, choices=choices).nearest(vectors, 10)
    rows[f"ivf-pq, {probes} of 64 lists"] = np.mean(
        near.similarity >= true.similarity[:, -1:] - 1e-5
    )
pd.Series(rows).rename("recall@10").to_frame().round(3)

# %% [markdown]
# The more of the index is read, the more is found. On the command line: `qbhkit catalogue index CATALOGUE`, then
# `qbhkit search ... --index faiss`. An index names the windows it was made of, and refuses others.
#
# ## The whole search on an index
#
# The index only says which songs to look at. The 200 best of them are compared again with all their windows
# and aligned as ever, so that a song which was found gets the very score that it would have got anyway.

# %%
searcher.index = build_index("faiss", catalogue, choices=FaissChoices(kind="hnsw"))
by_index = searcher.search(contour, k=3)
searcher.index = searcher.exact
by_all = searcher.search(contour, k=3)
assert [answer.song_id for answer in by_index] == [answer.song_id for answer in by_all]
assert by_all[0].song_id == hum["song_id"]
pd.DataFrame(by_index)[["title", "score", "confidence"]].round(3)

# %% [markdown]
# ## For many people at once: PostgreSQL
#
# A library that many machines search, and that grows while they do, belongs into a database. With the
# extension pgvector, PostgreSQL keeps songs and windows in two tables and a graph (HNSW) over half-precision vectors:
#
# ```sh
# export QBHKIT_POSTGRES=postgresql://curator@db.example.org/songs
# qbhkit catalogue index catalogue/ --kind postgres
# qbhkit search hum.wav --catalogue catalogue/ --index postgres
# ```
#
# Readers see all of a new batch of songs or none of it, a writer that dies leaves nothing behind, and titles with
# quotes in them are just titles; the tests do all that to a real server. It is slower than FAISS beside it.
#
# ## How it grows
#
# `qbhkit bench growth` measured every index on catalogues of about ten thousand and a hundred thousand windows,
# exact search and IVF-PQ also on a million: real tunes. Never random vectors: those are easy to tell apart, and
# melodies are not.

# %%
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
# ## Beyond one machine, on paper
#
# Carried on from the largest catalogue that was measured, for a server with 64 GB of memory: bytes and milliseconds
# a window times the number of windows. A look-up of IVF-PQ reads an eighth of the lists, so its cost grows with the
# windows; sixteen machines that hold a sixteenth each answer in a sixteenth of the time, and the slowest decides.
# A core is reckoned at four cents an hour, which is a guess; the rest of a query (hearing it, aligning the
# best songs) costs the same at any size.

# %%
largest = max(growth["sizes"].values(), key=lambda row: row["windows"])
part, server_gb, dollars_a_core_hour = largest["indexes"]["faiss ivf-pq"], 64, 0.04
engines = {
    1e7: "FAISS IVF-PQ in one process",
    1e8: "FAISS IVF-PQ, songs split by id",
    1e9: "FAISS or Citus with pgvector, 128 numbers each",
}
paper = []
for windows, engine in engines.items():
    times = windows / largest["windows"]
    memory_gb = part["memory_mb"]["of_the_catalogue"] * times / 1000
    machines = max(1, int(np.ceil(memory_gb / (0.75 * server_gb))))
    paper.append(
        {
            "windows": f"{windows:.0e}", "songs": f"{largest['songs'] * times:,.0f}", "engine": engine,
            "vectors on disk (GB)": largest["disk_bytes_a_window"] * windows / 1e9,
            "memory (GB)": memory_gb, "machines": machines,
            "look-ups (core ms)": part["lookups_ms"]["p50"] * times,
            "a million queries ($)":
                part["lookups_ms"]["p50"] * times / 3600 * 1000 * dollars_a_core_hour,
        }
    )  # fmt: skip
pd.DataFrame(paper).round(1)

# %% [markdown]
# What breaks first, step by step:
#
# - **a million windows** (ten thousand songs): nothing. A laptop with FAISS.
# - **ten million**: opening. The process hashes every shard before it trusts it, and keeps all contours and titles in
#   Python. One server with FAISS still answers; keep it running (`qbhkit serve`).
# - **a hundred million**: the contours no longer fit beside everything else, and the lists to read become long.
#   Split the songs over machines by a hash of their id, ask all of them, merge the ten best of each; or
#   PostgreSQL with `PARTITION BY HASH (song)`, one HNSW graph a partition, which Citus spreads over machines.
# - **a billion** (ten million songs): a vector that takes a kilobyte. 128 numbers instead of 512 (the ablation
#   of [notebook 07](07_train_supervised.ipynb) says what that costs), quantised codes only in memory, and full vectors on
#   disks of many machines.

# %% [markdown]
# ## Exercises
#
# 1. Build a catalogue with windows of 8 s alone (`grid=WindowGrid((8.0,), first_lengths_s=())`). How much smaller
#    is it? Which hums would it miss?
# 2. Remove the song that the hum above finds, and search again. What does `searcher.confident` say?
#
# <details><summary>Solutions</summary>
#
# 1. About a seventh. It misses who hums much faster or slower than written, and short hums.
#    ```python
#    from qbhkit.catalogue.read import WindowGrid
#
#    grid = WindowGrid((8.0,), first_lengths_s=())
#    small = build_catalogue(songs[:100], folder.parent / "eight", embedder, grid=grid, progress=False)
#    usual = build_catalogue(songs[:100], folder.parent / "usual", embedder, progress=False)
#    print(f"{small.windows / usual.windows:.2f} of the windows")
#    ```
# 2. The next best song gets a low confidence, and the kit says no.
#    ```python
#    remove_songs([by_all[0].song_id], folder.parent / "both")
#    left = Searcher(open_catalogue(folder.parent / "both"), embedder)
#    found = left.search(contour, k=3)
#    print(found[0].title, round(found[0].confidence, 3), "confident:", left.confident(found))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Files that are named by their content can be made in any order, by anybody, and be trusted.
# - An index is a bet on where not to look: measure its recall on melodies, and let an exact step decide.
# - Keep what cannot be had again cheaply: contours of recordings, not vectors.
#
# Library functions used: [`qbhkit.embedding.windows.cut_song`](../qbhkit/retrieval/building.py),
# [`qbhkit.catalogue.build.build_catalogue`](../qbhkit/retrieval/building.py),
# [`qbhkit.catalogue.read.open_catalogue`](../qbhkit/retrieval/catalogue.py),
# [`qbhkit.catalogue.edit.verify_catalogue`](../qbhkit/retrieval/upkeep.py),
# [`qbhkit.catalogue.edit.add_songs`](../qbhkit/retrieval/upkeep.py),
# [`qbhkit.catalogue.edit.remove_songs`](../qbhkit/retrieval/upkeep.py),
# [`qbhkit.catalogue.edit.merge_catalogues`](../qbhkit/retrieval/upkeep.py),
# [`qbhkit.retrieval.index.build_index`](../qbhkit/retrieval/index.py),
# [`qbhkit.retrieval.index.open_index`](../qbhkit/retrieval/index.py),
# [`qbhkit.figures.growth_figure`](../qbhkit/figures/results.py).
#
# Next: [09 · Search and align](09_search_and_align.ipynb).
