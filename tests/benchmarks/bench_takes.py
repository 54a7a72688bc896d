"""Long hums, and several takes of one tune searched together: ``qbhkit bench takes``.

Long: POP909 songs that no model was trained on, hummed by rule (another key, another speed, a
singer's errors) for 8 to 60 s from anywhere in the song, among all tunes that were held out. Takes:
pairs of real hums of one song by two singers, each alone and both together, among the 2,048 songs,
by weights that never heard a hum.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from bench_distractors import pools
from common import DATABASE, database_folder, hums, listen, machine, save
from tqdm import tqdm

from qbhkit.contour import Contour, Reading, stretch
from qbhkit.corpora import open_corpus
from qbhkit.corpora.songs import Song
from qbhkit.corpora.training_songs import split_of
from qbhkit.embedding.augment import Distortions, distort, warp_positions
from qbhkit.embedding.encoders import ContourEmbedder
from qbhkit.melody.trackers import get_tracker
from qbhkit.retrieval.catalogue import build_catalogue, open_catalogue, read_sources
from qbhkit.retrieval.crossfold import ANCHORS
from qbhkit.retrieval.evaluate import Query, metrics, paired_difference, rank_of
from qbhkit.retrieval.search import Searcher
from qbhkit.runs import generator
from qbhkit.storage import cache_dir, data_dir

WEIGHTS = "stage1"
LENGTHS_S = (8, 15, 30, 60)
VOICED = 0.5  # share of a hum that is sung, at the least
SEED = 20261128


def hummed(song: Song, seconds: float, number: int) -> Contour | None:
    """Hum so many seconds of a song by rule; None where no stretch of it is that long."""
    melody = song.contour()
    length = round(seconds / melody.hop_s)
    if len(melody) < length:
        return None
    share = np.convolve(melody.voiced, np.ones(length) / length, mode="valid")
    starts = np.flatnonzero(share >= VOICED)
    if not len(starts):
        return None
    rng, rules = generator(SEED, number), Distortions()
    start = rng.choice(starts, 1)
    positions = warp_positions(start, np.array([length]), Reading(length), rules, rng)
    sung = distort(stretch(melody.frames, positions), rules, rng)
    sung[..., 0] += np.where(sung[..., 1] > 0, rng.integers(-6, 7), 0)
    return Contour(sung[0])


def long_hums(count: int) -> dict[str, Any]:
    """Search hums of several lengths of the same songs."""
    embedder = ContourEmbedder(WEIGHTS)
    true, others = pools()
    folder = cache_dir() / f"held-out-{WEIGHTS}"
    build_catalogue([*true, *others["held out"]], folder, embedder)
    searcher = Searcher(open_catalogue(folder), embedder)
    watched = set(split_of("pop909")["held_out"])
    songs, _ = read_sources([open_corpus("pop909", data_dir())])
    drawn = {}
    for number, song in enumerate(songs):
        if song.id in watched:
            sung = [hummed(song, seconds, number) for seconds in LENGTHS_S]
            if None not in sung:
                drawn[song.id] = sung
    chosen = dict(list(drawn.items())[:count])
    found: dict[str, Any] = {"songs": len(searcher.catalogue.songs), "hums": len(chosen)}
    for column, seconds in enumerate(LENGTHS_S):
        ranks, times_s = [], []
        for song_id, sung in tqdm(chosen.items(), f"{seconds} s", unit="hum"):
            began = time.perf_counter()
            scores = searcher.scores(sung[column]).score
            times_s.append(time.perf_counter() - began)
            ranks.append(rank_of(scores, searcher.catalogue.number[song_id]))
        search_ms = round(1000 * median(times_s), 1)
        found[f"{seconds} s"] = {**metrics(ranks)._asdict(), "ranks": ranks, "search_ms": search_ms}
    return found


def paired(queries: Sequence[Query]) -> list[tuple[int, int]]:
    """Return pairs of recordings of one song by two singers; none is in two pairs."""
    of_song = defaultdict(list)
    for number, query in enumerate(queries):
        of_song[query.song_id].append(number)
    return [
        pair
        for numbers in of_song.values()
        for pair in zip(numbers[::2], numbers[1::2], strict=False)
        if queries[pair[0]].singer != queries[pair[1]].singer
    ]


def together() -> dict[str, Any]:
    """Search pairs of hums of one song."""
    embedder = ContourEmbedder(WEIGHTS)
    folder = database_folder().with_name(f"{database_folder().name}-{WEIGHTS}")
    songs, _ = read_sources([open_corpus(name, data_dir()) for name in DATABASE])
    build_catalogue(songs, folder, embedder)
    searcher = Searcher(open_catalogue(folder), embedder)
    queries = [Query(str(hum.path), hum.song_id, hum.singer) for hum in hums()]
    pairs, heard = paired(queries), listen(queries, get_tracker())
    found: dict[str, Any] = {"pairs": len(pairs)}
    for anchor in ANCHORS:
        ranks: dict[str, list[int]] = {"first alone": [], "second alone": [], "together": []}
        for pair in tqdm(pairs, anchor, unit="pair"):
            truth = searcher.catalogue.number[queries[pair[0]].song_id]
            takes = [heard[number] for number in pair]
            for name, query in zip(ranks, (*takes, takes), strict=True):
                ranks[name].append(rank_of(searcher.scores(query, anchor).score, truth))
        found[anchor] = {
            name: metrics(row)._asdict() | {"ranks": row} for name, row in ranks.items()
        }
        for name in ("first alone", "second alone"):
            gain = paired_difference(ranks["together"], ranks[name])
            found[anchor][name]["together_gains_top1"] = gain
    return found


def main() -> int:
    """Measure both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hums", type=int, default=100)
    options = parser.parse_args()
    result = {"long": long_hums(options.hums), "takes": together(), "machine": machine()}
    save("takes", result)
    for name, block in (*result["long"].items(), *result["takes"]["anywhere"].items()):
        if isinstance(block, dict):
            print(f"{name:14}", {key: round(block[key], 3) for key in ("top1", "top10", "mrr")})
    return 0


if __name__ == "__main__":
    if code := main():
        raise SystemExit(code)
