"""From a hum's contour to ranked songs with the matched seconds.

Parts of the hum vote for songs by their vectors; the best songs are then aligned with the hum frame
by frame; both together give the score, and the score and its lead over other songs the confidence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import Contour
from qbhkit.errors import QbhError
from qbhkit.retrieval.align import FARTHEST_ST, Aligner, Alignments
from qbhkit.retrieval.catalogue import Catalogue, Embedder, open_catalogue
from qbhkit.retrieval.confidence import Calibration, leads
from qbhkit.retrieval.index import BestWindows, ExactIndex, WindowIndex, best_of, open_index
from qbhkit.retrieval.queries import (
    Anchor,
    Query,
    QueryCut,
    QueryWindows,
    cut_of,
    cut_up,
)
from qbhkit.weights import DEFAULT_EMBEDDING

Method = Literal["vector", "vote", "full"]
METHODS: tuple[Method, ...] = ("vector", "vote", "full")
SHORTLIST = 200  # songs that are aligned: those of 98% of the development hums are among them
_BATCH = 16  # hums that are compared at once
NEAREST = 200  # windows that an approximate index finds for each part of a hum


# Whoever hums a song from its start is at 4 s of it after 2.6 to 6.2 s, give or take.
_SLOWEST, _FASTEST, _SLACK_S = 0.65, 1.55, 0.7


class Answer(NamedTuple):
    """One song of a ranked list; what only an alignment can tell is None without one."""

    song_id: str
    title: str
    score: float  # higher is better; comparable within one list
    start_s: float  # the part of the song that is like the hum
    end_s: float
    confidence: float | None = None  # probability that this is the song, were it the first answer
    tempo_ratio: float | None = None  # seconds of the song in a second of the hum
    transposition_st: float | None = None  # how much higher than the song the hum is
    vote: float | None = None  # of the hum's windows and their best ones in the song, -1 to 1
    distance_st: float | None = None  # between hum and song along the path, mean of all frames


def answer_line(
    query: str, voiced_s: float, answers: Sequence[Answer], confident: bool | None = None
) -> dict[str, Any]:
    """Return what ``qbhkit search --json`` prints of a query, and what the HTTP service answers."""
    line = {
        "query": query,
        "voiced_s": round(voiced_s, 3),
        "results": [answer._asdict() for answer in answers],
    }
    return line if confident is None else line | {"confident": confident}


class Scores(NamedTuple):
    """What a search knows of every song."""

    score: NDArray[np.float64]  # (songs,)
    vote: NDArray[np.float64]  # (songs,)
    row: NDArray[np.int64]  # (songs,) number of the window that is most like the hum
    aligned: NDArray[np.int64]  # (C,) the songs that were aligned, by falling vote
    paths: Alignments | None  # (C,) of the piece of the hum that fits best
    distance_st: NDArray[np.float64]  # (C,) mean over pieces


class Searcher:
    """Search a catalogue with the weights that made it.

    Args:
        catalogue: the songs.
        embedder: must be the one the catalogue was built with; its weights bring the calibration.
        cut: how hums are cut.
        index: finds windows where ``anchor`` is ``anywhere``; all of them are read if None. What an
            approximate index finds is compared again with all windows of the best songs.

    Raises:
        QbhError: if the catalogue was made by another model.

    Notebook: notebooks/00_hum_to_song.py, notebooks/09_search_and_align.py,
        notebooks/11_hum_it_yourself.py
    """

    def __init__(
        self,
        catalogue: Catalogue,
        embedder: Embedder,
        cut: QueryWindows | None = None,
        index: WindowIndex | None = None,
    ) -> None:
        if catalogue.model != embedder.identity:
            raise QbhError(
                f"{catalogue.path} was made by the model {catalogue.model}, not "
                f"{embedder.identity}: choose its --weights, or build it again with these."
            )
        self.catalogue, self.embedder = catalogue, embedder
        self.cut = cut or cut_of(embedder.reading)
        self.calibration = Calibration.of(embedder)  # weights of the stages, and confidence
        self.exact = ExactIndex.open(catalogue)
        self.index = index or self.exact
        self._first = np.searchsorted(catalogue.song, np.arange(len(catalogue.songs)))
        first_s = np.minimum.reduceat(catalogue.start_s, self._first)
        self._since_s = catalogue.start_s - first_s[catalogue.song]  # (W,) since the first note
        self._latest_s = np.maximum.reduceat(self._since_s, self._first)[catalogue.song]  # (W,)

    @cached_property
    def _beginnings(self) -> ExactIndex:
        """The windows that begin at a song's first note."""
        return self.exact.only(self.catalogue.at_start)

    @cached_property
    def aligner(self) -> Aligner:
        """What lays hums along the catalogue's songs."""
        return Aligner(self.catalogue.contours)

    def search(
        self, hum: Query, k: int = 10, anchor: Anchor = "anywhere", method: Method = "full"
    ) -> list[Answer]:
        """Return the ``k`` best songs, best first; arguments and errors as :meth:`scores`."""
        return self._answers(self.scores(hum, anchor, method), k)

    def search_many(
        self,
        hums: Sequence[Query],
        k: int = 10,
        anchor: Anchor = "anywhere",
        method: Method = "full",
    ) -> list[list[Answer]]:
        """Search many hums at once, which reads the windows of the catalogue less often.

        Returns:
            Of each hum what :meth:`search` returns.

        Raises:
            QbhError: if less than 1 s of one of them is voiced; says which, counted from 1.
        """
        return [self._answers(scores, k) for scores in self.scores_many(hums, anchor, method)]

    def _answers(self, found: Scores, k: int) -> list[Answer]:
        catalogue = self.catalogue
        order = np.argsort(-found.score, kind="stable")[: max(0, k)]
        answers = [
            Answer(
                catalogue.songs[song]["id"],
                catalogue.songs[song]["title"],
                round(float(found.score[song]), 6),
                round(float(catalogue.start_s[found.row[song]]), 3),
                round(float(catalogue.end_s[found.row[song]]), 3),
                vote=round(float(found.vote[song]), 6),
            )
            for song in order
        ]
        if found.paths is None:
            return answers
        likely = self.calibration.confidence(found.score[order], leads(found.score, order))
        answers = [
            answer._replace(confidence=round(float(share), 4))
            for answer, share in zip(answers, likely, strict=True)
        ]
        place = {int(song): c for c, song in enumerate(found.aligned)}
        return [
            self._explained(answer, found, place[song]) if song in place else answer
            for song, answer in zip(map(int, order), answers, strict=True)
        ]

    def confident(self, answers: Sequence[Answer]) -> bool:
        """Return whether the first answer is to be believed, by the calibrated threshold."""
        return bool(answers) and (answers[0].confidence or 0.0) >= self.calibration.threshold

    def _explained(self, answer: Answer, found: Scores, c: int) -> Answer:
        assert found.paths is not None
        start, end = int(found.paths.start[c]), int(found.paths.end[c])
        answer = answer._replace(distance_st=round(float(found.distance_st[c]), 4))
        if start == end:  # no path: the song is far shorter than the hum
            return answer
        hop_s = self.catalogue.contours[0].hop_s
        return answer._replace(
            start_s=round(start * hop_s, 3),
            end_s=round(end * hop_s, 3),
            tempo_ratio=round((end - start) / int(found.paths.frames[c]), 3),
            transposition_st=round(float(found.paths.transposition_st[c]), 2),
        )

    def scores(self, hum: Query, anchor: Anchor = "anywhere", method: Method = "full") -> Scores:
        """Score every song.

        Args:
            hum: the query's contour, silence around it is cut off; or several takes of one tune,
                which are scored together.
            anchor: ``start`` compares the hum's beginning with windows that begin at a song's first
                note, and what comes later with windows about as far on; ``anywhere`` with all.
            method: ``vector`` compares whole pieces of the hum, ``vote`` parts of them too;
                ``full`` then aligns the best songs, all of whose windows may vote by now, and a
                song that is not aligned counts as one that fits nowhere.

        Returns:
            Scores in the catalogue's order.

        Raises:
            QbhError: if less than 1 s of the hum is voiced.
        """
        query = cut_up(hum, anchor, self._cut_for(method), self.embedder.reading)
        return self._scores_of([query], anchor, method)[0]

    def scores_many(
        self, hums: Sequence[Query], anchor: Anchor = "anywhere", method: Method = "full"
    ) -> Iterator[Scores]:
        """Yield of each hum what :meth:`scores` returns, reading windows once for some of them.

        Raises:
            QbhError: as of :meth:`search_many`.
        """
        cuts = []
        for number, hum in enumerate(hums, 1):
            try:
                cuts.append(cut_up(hum, anchor, self._cut_for(method), self.embedder.reading))
            except QbhError as error:
                raise QbhError(f"hum {number}: {error}") from None
        for begin in range(0, len(cuts), _BATCH):
            yield from self._scores_of(cuts[begin : begin + _BATCH], anchor, method)

    def _cut_for(self, method: Method) -> QueryWindows:
        return replace(self.cut, parts=((0.0, 1.0),)) if method == "vector" else self.cut

    def _scores_of(
        self, queries: Sequence[QueryCut], anchor: Anchor, method: Method
    ) -> list[Scores]:
        """Score every song for each query; the windows of all are compared together."""
        vectors = self.embedder.embed(np.concatenate([query.frames for query in queries]))
        begins_s = np.concatenate([query.begins_s for query in queries])
        found = self._best_windows(vectors, begins_s, anchor)
        ends = np.cumsum([len(query.frames) for query in queries])[:-1]
        columns = (np.split(column, ends) for column in (vectors, *found))
        return [
            self._settled(query, own, BestWindows(similarity, row), anchor, method)
            for query, own, similarity, row in zip(queries, *columns, strict=True)
        ]

    def _settled(
        self,
        query: QueryCut,
        vectors: NDArray[np.float32],
        found: BestWindows,
        anchor: Anchor,
        method: Method,
    ) -> Scores:
        """Let the windows of a query vote, look at the best songs again, and align them."""
        cut = self._cut_for(method)
        vote = _soft_mean(found.similarity.astype(float), cut.sharpness)
        chosen = np.argsort(-vote, kind="stable")[:SHORTLIST]
        approximate = anchor == "anywhere" and self.index is not self.exact
        # A path from the first note is going to be asked for, so any window may vote by then.
        if approximate or (method == "full" and anchor == "start"):
            likest = self.exact.of_songs(chosen).best_windows(vectors)
            vote[chosen] = _soft_mean(likest.similarity[:, chosen].astype(float), cut.sharpness)
        if approximate:
            found.similarity[:, chosen] = likest.similarity[:, chosen]
            found.row[:, chosen] = likest.row[:, chosen]
            others = np.delete(np.arange(len(vote)), chosen)  # known by a bound alone
            vote[others] = np.minimum(vote[others], vote[chosen].min())
            found.row[:, others] = np.where(found.row < 0, self._first, found.row)[:, others]
        whole = found.row[:: len(cut.parts)]  # (pieces, songs); the whole comes first of each piece
        best_piece = found.similarity[:: len(cut.parts)].argmax(axis=0)
        row = whole[best_piece, np.arange(len(best_piece))]
        if method != "full":
            nothing = np.zeros(0)
            return Scores(vote, vote, row, nothing.astype(np.int64), None, nothing)
        distance, paths = self._aligned(query.pieces, chosen, whole[:, chosen], anchor)
        score = vote - self.calibration.distance * FARTHEST_ST
        score[chosen] = vote[chosen] - self.calibration.distance * distance
        return Scores(score, vote, row, chosen, paths, distance)

    def _aligned(
        self,
        pieces: Sequence[Contour],
        songs: NDArray[np.int64],
        rows: NDArray[np.int64],
        anchor: Anchor,
    ) -> tuple[NDArray[np.float64], Alignments]:
        """(C,) mean distances over pieces, and the paths of each song's nearest piece."""
        hop_s = self.catalogue.contours[0].hop_s
        starts = np.round(self.catalogue.start_s[rows] / hop_s).astype(np.int64)  # (pieces, C)
        ends = np.round(self.catalogue.end_s[rows] / hop_s).astype(np.int64)
        found = [
            self.aligner.align(piece, songs, start, end, anchor == "start")
            for piece, start, end in zip(pieces, starts, ends, strict=True)
        ]
        columns = [np.stack(column) for column in zip(*found, strict=True)]  # (pieces, C) each
        nearest = columns[0].argmin(axis=0)
        best = Alignments(*(column[nearest, np.arange(len(songs))] for column in columns))
        return columns[0].mean(axis=0), best

    def _best_windows(self, vectors: NDArray, begins_s: NDArray, anchor: Anchor) -> BestWindows:
        """Find every part's best window in each song, among those that the anchor admits."""
        catalogue = self.catalogue
        if anchor == "anywhere":
            if self.index is self.exact:
                return self.exact.best_windows(vectors)
            near = self.index.nearest(vectors, min(NEAREST, len(catalogue.song)))
            return best_of(near, catalogue.song, len(catalogue.songs))
        shape = len(vectors), len(catalogue.songs)
        best = BestWindows(np.empty(shape, np.float32), np.empty(shape, np.int64))
        for begin_s in np.unique(begins_s):
            chosen = begins_s == begin_s
            admitted = self.exact.only(self._about(begin_s)) if begin_s else self._beginnings
            best.similarity[chosen], best.row[chosen] = admitted.best_windows(vectors[chosen])
        return best

    def _about(self, begin_s: float) -> NDArray[np.bool_]:
        """(W,) whether a window begins where a hum may be after so long; a song's last one may."""
        earliest = np.minimum(_SLOWEST * begin_s - _SLACK_S, self._latest_s)
        latest = np.maximum(_FASTEST * begin_s + _SLACK_S, earliest)
        return (self._since_s >= earliest) & (self._since_s <= latest)

    def query_frames(
        self, hum: Contour, anchor: Anchor
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Cut a hum into windows.

        Args:
            hum: with at least one voiced frame.
            anchor: as :meth:`scores`.

        Returns:
            (pieces * parts, L, 2) frames, piece by piece, and (pieces * parts,) seconds from the
            hum's first note to the beginning of each.
        """
        frames, begins_s, _ = cut_up(hum, anchor, self.cut, self.embedder.reading)
        return frames, begins_s


def open_searcher(
    path: Path, weights: str | None = None, index: str = "exact", **options: Any
) -> Searcher:
    """Open a catalogue for searching.

    Args:
        path: its folder.
        weights: name or file of those that made it, or of an end-to-end encoder whose teacher made
            it; the shipped ones by default.
        index: ``exact``, or one that :func:`qbhkit.retrieval.index.build_index` has built.
        options: as the index takes them.

    Raises:
        QbhError: if the catalogue or the index is missing or damaged, or other weights made it.
        MissingPackageError: if the package of the index is not installed.
    """
    from qbhkit.embedding.end_to_end import open_embedder

    searcher = Searcher(open_catalogue(path), open_embedder(weights or DEFAULT_EMBEDDING))
    if index != ExactIndex.name:
        searcher.index = open_index(index, searcher.catalogue, **options)
    return searcher


def _soft_mean(values: NDArray, sharpness: float) -> NDArray:
    """Return the mean of rows, to which the highest give most: log(mean(exp(s * x))) / s."""
    if sharpness == 0:
        return values.mean(axis=0)
    return np.log(np.exp(sharpness * values).mean(axis=0)) / sharpness
