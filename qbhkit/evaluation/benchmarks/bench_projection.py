"""Real hums and their songs in the plane, before and after training: ``qbhkit bench projection``.

The six songs hummed most often but one: the whole hums, and each song's beginnings of several
lengths, embedded by an encoder with random weights and by ``stage1``, which was not trained on
hums; both projected onto the two principal axes of all points.
"""

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qbhkit.contour import normalise
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.encoders import ContourEncoder
from qbhkit.embedding.windows import cut_song, grid_for, read_whole
from qbhkit.evaluation.benchmarks import common

SONGS = 6
WEIGHTS = "stage1"


def untrained(trained: ContourEmbedder, frames: NDArray) -> NDArray:
    torch.manual_seed(0)
    encoder = ContourEncoder(trained.encoder.config).eval()
    normalised = torch.from_numpy(normalise(frames, trained.normalisation))
    with torch.no_grad():
        vectors: NDArray = encoder(normalised).numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    options = common.parse(common.arguments(__doc__, hums=16))  # of a song
    hums, songs = common.hums(), {song.id: song for song in common.read_corpora("mir-qbsh")}
    counted = Counter(hum.song_id for hum in hums).most_common(SONGS + 1)
    chosen = [song for song, _ in counted[1:]]  # the first is hummed four times as often
    embedder = ContourEmbedder(WEIGHTS)
    owners, paths = [], []
    for song in chosen:
        found = [hum.path for hum in hums if hum.song_id == song][: options.hums]
        paths += found
        owners += [song] * len(found)
    frames = [read_whole(contour, embedder.reading) for contour in common.track_all(paths)]
    count = len(frames)
    for song in chosen:
        cut = cut_song(songs[song].contour(), grid_for(embedder.reading), embedder.reading)
        first = cut.frames[cut.at_start]
        frames += list(first)
        owners += [song] * len(first)
    stacked, owner = np.stack(frames), np.array(owners)
    panels: dict[str, Any] = {}
    for name, vectors in (
        ("before training", untrained(embedder, stacked)),
        ("after stage 1", embedder.embed(stacked)),
    ):
        centred = vectors - vectors.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        points = np.round(centred @ axes.T, 4)
        most_similar = (vectors[:count] @ vectors[count:].T).argmax(axis=1)
        shown = sorted({int(k) for k in most_similar})
        panels[name] = {
            "nearest": float((owner[count:][most_similar] == owner[:count]).mean()),
            "hums": [[owner[k], *map(float, points[k])] for k in range(count)],
            "melodies": [[owner[count + k], *map(float, points[count + k])] for k in shown],
        }
    result = {"songs": chosen, "weights": embedder.identity, "panels": panels}
    common.save(options, "projection", result)
