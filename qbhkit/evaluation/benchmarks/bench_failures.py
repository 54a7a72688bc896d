"""Hums whose song is not the first answer, to look at: ``qbhkit bench failures``.

Searches the queries of IOACAS by ``full``; no shipped weights were trained on its songs or singers.
Thirty of the failures are drawn as ``figures/failures.png``, each over the right song and over the
first answer. ``--limit N`` takes N queries.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from qbhkit.contour import CONTOUR_HOP_S, Contour, held_pitch
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.cross_validation import ioacas_test
from qbhkit.figures import Followed, followed_figure
from qbhkit.metrics import metrics
from qbhkit.retrieval.searcher import Scores, Searcher
from qbhkit.storage import atomic_path, data_dir

SHOWN = 30
TOP = 10


class Failure(NamedTuple):
    """The rank of the right song, and how a hum follows it and the first answer."""

    rank: int
    vote_rank: int
    right: Followed
    first: Followed


def followed(searcher: Searcher, hum: Contour, found: Scores, song: int, title: str) -> Followed:
    """Align the first segment of a hum with a song, where its most similar window lies."""
    segment, catalogue = searcher.cut_query(hum).segments[0], searcher.catalogue
    row = found.row[[song]]
    begins, ends = (
        np.round(times[row] / CONTOUR_HOP_S).astype(int)
        for times in (catalogue.start_s, catalogue.end_s)
    )
    paths = searcher.aligner.align(segment, np.array([song]), begins, ends)
    key_st, distance_st = float(paths.transposition_st[0]), float(paths.distance_st[0])
    at = searcher.aligner.path(segment, song, key_st)
    contour, sung = catalogue.contours[song], segment.trimmed()[0]
    read = np.where(contour.voiced[at], contour.pitch_st[at], np.nan)
    pitch = np.where(sung.voiced, held_pitch(sung) - key_st, np.nan)[: len(at)]
    return Followed(title, pitch, read, distance_st)


def main() -> None:
    """Write ``failures.json`` and ``figures/failures``."""
    parser = common.arguments(__doc__ or "", weights="best", limit=0)
    options = common.parse(parser)
    embedder = ContourEmbedder(options.weights)
    others = common.read_corpora(*common.DATABASE)
    test = ioacas_test(embedder.reading, CONTOUR_HOP_S, data_dir(), others)
    searcher, count = test.songs.searcher(embedder), options.limit or None
    queries = list(zip(test.queries, test.contours, strict=True))[:count]
    failures: list[Failure] = []
    ranks: list[int | None] = []
    for query, hum in tqdm(queries, "search", unit="hum"):
        found, truth = searcher.scores(hum), test.songs.number[query.song_id]
        rank, vote_rank = (int((row >= row[truth]).sum()) for row in (found.score, found.vote))
        ranks.append(rank)
        if rank > 1:
            right = followed(searcher, hum, found, truth, f"rank {rank}, by vote {vote_rank}")
            first = followed(searcher, hum, found, int(np.argmax(found.score)), "first answer")
            failures.append(Failure(rank, vote_rank, right, first))
    counts, scores = summary(failures), metrics(ranks)._asdict()
    print(common.brief(scores), counts)
    common.save(options, "failures", {"weights": options.weights, **counts, "scores": scores})
    if options.out is not None and failures:
        step = max(1, len(failures) // SHOWN)
        shown = failures[::step][:SHOWN]
        figure = followed_figure([(failure.right, failure.first) for failure in shown])
        folder = Path("figures") if options.full else options.out
        # a picture only: the figures that a notebook draws are kept as SVG too
        with atomic_path(folder / "failures.png") as part:
            figure.savefig(part, dpi=150, metadata={"Software": None})


def summary(failures: list[Failure]) -> dict[str, Any]:
    """Count the failures, by what would have to change to mend them."""
    nearer = [failure.right.distance_st < failure.first.distance_st for failure in failures]
    return {
        "failures": len(failures),
        "nearer": int(np.sum(nearer)),  # the right song is nearer than the first answer
        "in_top10": sum(failure.rank <= TOP for failure in failures),
        "by_vote_in_top10": sum(failure.vote_rank <= TOP for failure in failures),
    }


if __name__ == "__main__":
    main()
