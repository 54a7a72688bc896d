"""Long hums, and several takes of one tune searched together: ``qbhkit bench takes``.

Long: POP909 songs that no model was trained on, hummed by rule (another key, another speed, a
singer's errors) for 8 to 60 s from anywhere in the song, among all tunes that were held out. Takes:
pairs of real hums of one song by two singers, each alone and both together, among the 2,048 songs,
by weights that were not trained on hums.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from qbhkit.contour import Contour
from qbhkit.corpora.songs import Song
from qbhkit.corpora.training_songs import split_of
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.benchmarks.bench_distractors import pools
from qbhkit.evaluation.cross_validation import MATCH_FROM
from qbhkit.metrics import LabelledQuery, metrics, rank_of
from qbhkit.training_loop import generator

WEIGHTS = "stage1"
LENGTHS_S = (8, 15, 30, 60)
SEED = 20261128


def long_hum(song: Song, seconds: float, number: int) -> Contour | None:
    """Hum so many seconds of a song by rule; None where no stretch of it is that long."""
    melody = song.contour()
    length = round(seconds / melody.hop_s)
    starts = common.voiced_starts(melody, length)
    if not len(starts):
        return None
    rng = generator(SEED, number)
    return common.hummed(melody, rng.choice(starts, 1), length, rng)[0]


def long_hums(count: int) -> dict[str, Any]:
    embedder = ContourEmbedder(WEIGHTS)
    true, others = pools()
    searcher = common.searcher_of([*true, *others["held out"]], f"held-out-{WEIGHTS}", embedder)
    watched = set(split_of("pop909")["held_out"])
    drawn = {}
    for number, song in enumerate(common.read_corpora("pop909")):
        if song.id in watched:
            sung = [long_hum(song, seconds, number) for seconds in LENGTHS_S]
            if None not in sung:
                drawn[song.id] = sung
    chosen = dict(list(drawn.items())[:count])
    found: dict[str, Any] = {"songs": len(searcher.catalogue.songs), "hums": len(chosen)}
    for column, seconds in enumerate(LENGTHS_S):
        ranks = [
            rank_of(searcher.scores(sung[column]).score, searcher.catalogue.number[song_id])
            for song_id, sung in tqdm(chosen.items(), f"{seconds} s", unit="hum")
        ]
        found[f"{seconds} s"] = {**metrics(ranks)._asdict(), "ranks": ranks}
    return found


def paired(queries: Sequence[LabelledQuery]) -> list[tuple[int, int]]:
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


def together(subset: int) -> dict[str, Any]:
    searcher, queries = common.database(ContourEmbedder(WEIGHTS)), common.labelled_hums(subset)
    pairs, contours = paired(queries), common.track_all(query.path for query in queries)
    found: dict[str, Any] = {"pairs": len(pairs)}
    for match_from in MATCH_FROM:
        ranks: dict[str, list[int | None]] = {"first alone": [], "second alone": [], "together": []}
        for pair in tqdm(pairs, match_from, unit="pair"):
            truth = searcher.catalogue.number[queries[pair[0]].song_id]
            takes = [contours[number] for number in pair]
            for name, query in zip(ranks, (*takes, takes), strict=True):
                ranks[name].append(rank_of(searcher.scores(query, match_from).score, truth))
        found[match_from] = {
            name: metrics(row)._asdict() | {"ranks": row} for name, row in ranks.items()
        }
    return found


def main() -> None:
    options = common.parse(common.arguments(__doc__, hums=100, subset=0))
    result = {"long": long_hums(options.hums), "takes": together(options.subset)}
    for name, block in (*result["long"].items(), *result["takes"]["anywhere"].items()):
        if isinstance(block, dict):
            print(f"{name:14}{common.brief(block)}")
    common.save(options, "takes", result)
