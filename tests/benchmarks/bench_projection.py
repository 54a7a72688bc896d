"""Real hums and their songs in the plane, before and after training: ``qbhkit bench projection``.

The six songs hummed most often but one: the whole hums, and each song's beginnings of several
lengths, embedded by an encoder with random weights and by ``stage1``, which never heard a hum; both
projected onto the two principal axes of all points.
"""

from collections import Counter

import numpy as np
import torch
from common import hums, machine, save
from numpy.typing import NDArray
from tqdm import tqdm

from qbhkit.audio import load
from qbhkit.contour import from_f0, normalise, stretch
from qbhkit.corpora import open_corpus, songs_of
from qbhkit.embedding.encoders import ContourEmbedder, ContourEncoder
from qbhkit.melody.trackers import get_tracker
from qbhkit.retrieval.catalogue import cut_song, grid_of
from qbhkit.storage import data_dir

SONGS, HUMS_A_SONG = 6, 16
WEIGHTS = "stage1"


def untrained(trained: ContourEmbedder, frames: NDArray) -> NDArray:
    """Embed (B, L, 2) MIDI frames with random weights."""
    torch.manual_seed(0)
    encoder = ContourEncoder(trained.encoder.config).eval()
    with torch.no_grad():
        vectors: NDArray = encoder(
            torch.from_numpy(normalise(frames, trained.normalisation))
        ).numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    """Embed, project, save."""
    counted = Counter(hum.song_id for hum in hums()).most_common(SONGS + 1)
    chosen = [song for song, _ in counted[1:]]  # the first is hummed four times as often
    songs = {song.id: song for song in songs_of(open_corpus("mir-qbsh", data_dir()))}
    embedder, tracker = ContourEmbedder(WEIGHTS), get_tracker()
    owners, frames = [], []
    for song in tqdm(chosen, "hums"):
        for hum in [hum for hum in hums() if hum.song_id == song][:HUMS_A_SONG]:
            sung, _ = from_f0(tracker.track(load(hum.path, tracker.rate_hz))).trimmed()
            read = embedder.reading.positions(np.zeros(1), np.array([len(sung)]))
            frames.append(stretch(sung.frames, read)[0])
            owners.append(song)
    count = len(frames)
    for song in chosen:
        cut = cut_song(songs[song].contour(), grid_of(embedder.reading), embedder.reading)
        first = cut.frames[cut.at_start]
        frames += list(first)
        owners += [song] * len(first)
    stacked = np.stack(frames).astype(np.float32)
    owner = np.array(owners)
    result = {"songs": chosen, "weights": embedder.identity, "machine": machine(), "panels": {}}
    for name, vectors in (
        ("before training", untrained(embedder, stacked)),
        ("after stage 1", embedder.embed(stacked)),
    ):
        centred = vectors - vectors.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        points = np.round(centred @ axes.T, 4)
        nearest = owner[count:][(vectors[:count] @ vectors[count:].T).argmax(axis=1)]
        likest = (vectors[:count] @ vectors[count:].T).argmax(axis=1)
        shown = sorted({int(k) for k in likest})
        result["panels"][name] = {
            "nearest": float((nearest == owner[:count]).mean()),
            "hums": [[owner[k], *map(float, points[k])] for k in range(count)],
            "melodies": [[owner[count + k], *map(float, points[count + k])] for k in shown],
        }
    save("projection", result)


if __name__ == "__main__":
    main()
