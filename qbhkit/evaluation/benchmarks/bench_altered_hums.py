"""Hums that leave their song for a while: ``qbhkit bench altered_hums``.

Hums made by rule of the typed notes of ``QBHKIT_DATA/ultrastar``, 8 to 12 s long, pause, jump, go
wrong or begin with another tune. They are searched anywhere among these notes and the 2,048 songs
of MIREX. ``--limit N`` takes the first N recordings.
"""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.contour import Contour
from qbhkit.corpora import Song
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.benchmarks.bench_real_songs import SEED, all_hums, read_songs
from qbhkit.metrics import metrics, rank_of
from qbhkit.storage import data_dir
from qbhkit.training_loop import generator
from qbhkit.weights import DEFAULT_EMBEDDING

METHODS = ("full", "vote")
PAUSE, JUMP, BAR, LEAD_IN = 30, 30, 20, 30  # frames


def altered(hum: Contour, other: Contour, rng: Generator) -> dict[str, Contour]:
    """Return a hum as it is and altered, at a frame in its middle third; ``other`` is of a song."""
    frames = hum.frames
    at = int(rng.integers(len(frames) // 3, 2 * len(frames) // 3))
    key_st = np.median(hum.pitch_st[hum.voiced]) - np.median(other.pitch_st[other.voiced])
    foreign = other.transposed(float(key_st)).frames
    parts: dict[str, list[NDArray]] = {
        "as hummed": [frames],
        "pauses for 3 s": [frames[:at], np.zeros((PAUSE, 2)), frames[at:]],
        "goes back 3 s": [frames[:at], frames[max(0, at - JUMP) :]],
        "leaves out 3 s": [frames[:at], frames[at + JUMP :]],
        "2 s of another tune": [frames[:at], foreign[:BAR], frames[at + BAR :]],
        "begins with 3 s of another tune": [foreign[:LEAD_IN], frames],
        "no rests": [frames[hum.voiced]],
    }
    return {name: Contour(np.concatenate(part)) for name, part in parts.items()}


def main() -> None:
    """Write ``altered_hums.json``."""
    parser = common.arguments(__doc__ or "", segments=20, limit=0, weights=DEFAULT_EMBEDDING)
    options = common.parse(parser)
    songs = read_songs(data_dir() / "ultrastar")[: options.limit or None]
    typed = [Song(song.id, song.id, "", song.terms, song.notes) for song in songs]
    embedder = ContourEmbedder(options.weights)
    others = common.read_corpora(*common.DATABASE)
    place = f"real-songs-{embedder.identity}"  # of bench real_songs
    searcher = common.searcher_of([*others, *typed], place, embedder)
    hums = all_hums(songs, options.segments)
    versions: dict[str, list[Contour]] = {}
    for number, (_, hum) in enumerate(hums):
        _, other = hums[(number + options.segments) % len(hums)]  # of the next song
        for name, version in altered(hum, other, generator(SEED, number)).items():
            versions.setdefault(name, []).append(version)
    truths = [searcher.catalogue.number[song_id] for song_id, _ in hums]
    found: dict[str, Any] = {}
    for name, contours in versions.items():
        found[name] = {}
        for method in METHODS:
            scored = searcher.scores_many(contours, "anywhere", method)
            ranks = [rank_of(one.score, truth) for one, truth in zip(scored, truths, strict=True)]
            block = found[name][method] = metrics(ranks)._asdict()
            print(f"{name:34}{method:6}{common.brief(block)}", flush=True)
    result = {"weights": embedder.identity, "songs": len(searcher.catalogue.songs), "hums": found}
    common.save(options, "altered_hums", result)


if __name__ == "__main__":
    main()
