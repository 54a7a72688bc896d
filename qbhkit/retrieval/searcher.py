"""From a hum to ranked songs with the matched seconds.

Windows of the hum vote for songs by their vectors; the best songs are then aligned with the hum
frame by frame. Vote and distance give the score; the score and its lead give the confidence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.files import MANIFEST
from qbhkit.catalogue.read import Catalogue, open_catalogue
from qbhkit.contour import CONTOUR_HOP_S, Contour
from qbhkit.embedding.embedder import Embedder, open_embedder
from qbhkit.embedding.windows import (
    MatchFrom,
    QueryCut,
    QueryWindows,
    cut_query,
    query_windows_for,
)
from qbhkit.errors import QbhError
from qbhkit.pitch.frontends import Source, query_loader
from qbhkit.retrieval.align import CAP_ST, Aligner, Alignments, heard
from qbhkit.retrieval.confidence import Calibration, is_tune
from qbhkit.retrieval.index import BestWindows, ExactIndex, WindowIndex, best_of, open_index
from qbhkit.weights import DEFAULT_EMBEDDING

Takes = list[Source]  # several hums of one tune
Method = Literal["vector", "vote", "full"]
METHODS: tuple[Method, ...] = ("vector", "vote", "full")
STATE_METHOD = "end-to-end"  # ``full`` on states of the melody network; also names its weights
SHORTLIST = 200  # songs that are aligned: 98% of the development hums have theirs among them
FOLDED = 50  # the best of them are also compared by pitch class, if the calibration asks for it
_BATCH = 16  # hums that are compared at once
NEAREST = 200  # windows that an approximate index finds for each query window
# After t seconds, a hum from a song's start is 0.65 t to 1.55 t into the song, with some slack.
_SLOWEST, _FASTEST, _SLACK_S = 0.65, 1.55, 0.7


class Answer(NamedTuple):
    """One song of a ranked list; what needs an alignment is None without one."""

    song_id: str
    title: str
    score: float  # higher is better; comparable within one list
    start_s: float  # the part of the song that matches the hum
    end_s: float
    confidence: float | None = None  # probability of being right as the first answer
    tempo_ratio: float | None = None  # seconds of the song per second of the hum
    transposition_st: float | None = None  # how much higher than the song the hum is
    vote: float | None = None  # similarity of the query windows to their best ones, -1 to 1
    distance_st: float | None = None  # mean over the hum's frames along the path
    instrumental: bool | None = None  # the part is played, not sung; None if that is not known


def answer_line(
    query: str, voiced_s: float, answers: Sequence[Answer], confident: bool | None = None
) -> dict[str, Any]:
    """Return what ``qbhkit search --json`` prints and the HTTP service answers for a query."""
    line = {
        "query": query,
        "voiced_s": round(voiced_s, 3),
        "results": [answer._asdict() for answer in answers],
    }
    return line if confident is None else line | {"confident": confident}


class Scores(NamedTuple):
    """How well every song matches a hum, in the catalogue's order."""

    score: NDArray[np.float64]  # (songs,)
    vote: NDArray[np.float64]  # (songs,)
    row: NDArray[np.int64]  # (songs,) number of the window most similar to the hum
    aligned: NDArray[np.int64]  # (C,) the songs that were aligned
    paths: Alignments | None  # (C,) of the segment of the hum that fits best
    distance_st: NDArray[np.float64]  # (C,) mean over segments
    is_tune: bool  # whether the hum has more than two notes: others fit too many songs


class Searcher:
    """Search a catalogue with the weights that made it.

    Args:
        catalogue: the songs.
        embedder: the one the catalogue was built with, or its student; holds the calibration.
        tracker: name of the pitch tracker for hums; the default one if None.

    Attributes:
        windows: how hums are cut.
        index: finds windows where ``match_from`` is ``anywhere``; at first ``exact``, which
            compares all.

    Raises:
        QbhError: if the catalogue was made by another model.

    Notebook: notebooks/09_search_and_align.py
    """

    def __init__(
        self, catalogue: Catalogue, embedder: Embedder, tracker: str | None = None
    ) -> None:
        if catalogue.model != embedder.identity:
            raise QbhError(
                f"{catalogue.path} was made by the model {catalogue.model}, not "
                f"{embedder.identity}: choose its --weights, or build it again with these."
            )
        self.catalogue, self.embedder = catalogue, embedder
        self.windows = query_windows_for(embedder.reading)
        self._load_query = query_loader(embedder.states_of, tracker)
        self.calibration = Calibration.of(embedder)
        self.exact = ExactIndex.open(catalogue)
        self.index: WindowIndex = self.exact
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
        """What aligns hums with the catalogue's songs."""
        unvoiced_st = np.where(heard(self.catalogue.songs), self.calibration.unvoiced, CAP_ST)
        return Aligner(self.catalogue.contours, unvoiced_st)

    def search(
        self,
        hum: Source | Takes,
        k: int = 10,
        match_from: MatchFrom = "anywhere",
        method: str = "full",
    ) -> list[Answer]:
        """Return the ``k`` best songs, best first; arguments and errors as :meth:`scores`."""
        return self._answers(self.scores(hum, match_from, method), k)

    def search_many(
        self,
        hums: Sequence[Source | Takes],
        k: int = 10,
        match_from: MatchFrom = "anywhere",
        method: str = "full",
    ) -> list[list[Answer]]:
        """Search many hums, several at a time; an error says which hum, counted from 1."""
        return [self._answers(scores, k) for scores in self.scores_many(hums, match_from, method)]

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
        if found.paths is not None:
            lead = self.calibration.leads(found.score, order)
            sure = self.calibration.confidence(found.score[order], lead)
            sure = sure * found.is_tune
            place = {int(song): c for c, song in enumerate(found.aligned)}
            for rank, song in enumerate(order):
                answer = answers[rank]._replace(confidence=round(float(sure[rank]), 4))
                if song in place:
                    answer = self._with_path(answer, found, found.paths, place[song])
                answers[rank] = answer
        return [
            answer._replace(instrumental=self._instrumental(song, answer))
            for song, answer in zip(order, answers, strict=True)
        ]

    def _instrumental(self, song: int, answer: Answer) -> bool | None:
        """Return whether most of the matching seconds are played, not sung."""
        marks = self.catalogue.contours[song].instrumental
        if marks is None:
            return None
        first, last = (round(at_s / CONTOUR_HOP_S) for at_s in (answer.start_s, answer.end_s))
        return bool(np.mean(marks[first:last]) > 0.5)

    def _with_path(self, answer: Answer, found: Scores, paths: Alignments, c: int) -> Answer:
        """Add what the alignment with the song shows."""
        start, end = int(paths.start[c]), int(paths.end[c])
        answer = answer._replace(distance_st=round(float(found.distance_st[c]), 4))
        if start == end:  # no path: the song is far shorter than the hum
            return answer
        return answer._replace(
            start_s=round(start * CONTOUR_HOP_S, 3),
            end_s=round(end * CONTOUR_HOP_S, 3),
            tempo_ratio=round((end - start) / int(paths.frames[c]), 3),
            transposition_st=round(float(paths.transposition_st[c]), 2),
        )

    def confident(self, answers: Sequence[Answer]) -> bool:
        """Return whether the first answer's confidence reaches the calibrated threshold."""
        return bool(answers) and (answers[0].confidence or 0.0) >= self.calibration.threshold

    def resolve(self, method: str) -> Method:
        """Return the method that a name stands for: ``end-to-end`` is ``full`` on states.

        Raises:
            QbhError: if the weights have no such method.
        """
        if method == STATE_METHOD and self.embedder.states_of is not None:
            return "full"
        if method not in METHODS:
            raise QbhError(
                f"There is no method {method!r} with these weights: use {', '.join(METHODS)}, or "
                f"{STATE_METHOD} with weights that read states."
            )
        return cast(Method, method)

    def scores(
        self, hum: Source | Takes, match_from: MatchFrom = "anywhere", method: str = "full"
    ) -> Scores:
        """Score every song; one that is not aligned gets the worst distance.

        Args:
            hum: path, samples, f0 track or contour, as :func:`qbhkit.to_contour` takes it; or a
                list of several takes of one tune, which are scored together.
            match_from: ``start`` compares the hum's beginning with the windows at each song's first
                note, and later query windows with windows about as far into the song;
                ``anywhere`` compares with all windows.
            method: ``vector`` compares each segment of the hum as a single vector; ``vote`` lets
                several windows of each segment vote; ``full`` also aligns the best songs, after a
                vote on all their windows; ``end-to-end`` is ``full`` by weights that read states.

        Raises:
            QbhError: if the hum cannot be read, less than 1 s of it is voiced, or the weights have
                no such method.
        """
        how = self.resolve(method)
        return self._scores_of([self.cut_query(hum, match_from, how)], match_from, how)[0]

    def scores_many(
        self,
        hums: Sequence[Source | Takes],
        match_from: MatchFrom = "anywhere",
        method: str = "full",
    ) -> Iterator[Scores]:
        """Yield the scores of each hum; an error says which hum, counted from 1."""
        how, cuts = self.resolve(method), []
        for number, hum in enumerate(hums, 1):
            try:
                cuts.append(self.cut_query(hum, match_from, how))
            except QbhError as error:
                raise QbhError(f"hum {number}: {error}") from None
        for begin in range(0, len(cuts), _BATCH):
            yield from self._scores_of(cuts[begin : begin + _BATCH], match_from, how)

    def cut_query(
        self, hum: Source | Takes, match_from: MatchFrom = "anywhere", method: Method = "full"
    ) -> QueryCut:
        """Return the segments and windows of a hum that are compared; errors as :meth:`scores`."""
        takes = hum if isinstance(hum, list) else [hum]
        contours = [self._load_query(take) for take in takes]
        return cut_query(contours, match_from, self._windows_for(method), self.embedder.reading)

    def _windows_for(self, method: Method) -> QueryWindows:
        return replace(self.windows, windows=((0.0, 1.0),)) if method == "vector" else self.windows

    def _scores_of(
        self, queries: Sequence[QueryCut], match_from: MatchFrom, method: Method
    ) -> list[Scores]:
        """Score every song for each query; the windows of all are compared together."""
        vectors = self.embedder.embed(np.concatenate([query.frames for query in queries]))
        begins_s = np.concatenate([query.begins_s for query in queries])
        found = self._best_windows(vectors, begins_s, match_from)
        ends = np.cumsum([len(query.frames) for query in queries])[:-1]
        columns = (np.split(column, ends) for column in (vectors, *found))
        return [
            self._score(query, own, BestWindows(similarity, row), match_from, method)
            for query, own, similarity, row in zip(queries, *columns, strict=True)
        ]

    def _score(
        self,
        query: QueryCut,
        vectors: NDArray[np.float32],
        found: BestWindows,
        match_from: MatchFrom,
        method: Method,
    ) -> Scores:
        """Let the windows of a query vote, compare the best songs again, and align them."""
        windows = self._windows_for(method)
        vote = _soft_mean(found.similarity.astype(float), windows.sharpness)
        chosen = np.argsort(-vote, kind="stable")[:SHORTLIST]
        approximate = match_from == "anywhere" and self.index is not self.exact
        # The alignment will demand a path from the first note, so any window may vote here.
        if approximate or (method == "full" and match_from == "start"):
            best = self.exact.of_songs(chosen).best_windows(vectors)
            vote[chosen] = _soft_mean(best.similarity[:, chosen].astype(float), windows.sharpness)
        if approximate:
            found.similarity[:, chosen] = best.similarity[:, chosen]
            found.row[:, chosen] = best.row[:, chosen]
            others = np.delete(np.arange(len(vote)), chosen)  # only a bound of theirs is known
            vote[others] = np.minimum(vote[others], vote[chosen].min())
            found.row[:, others] = np.where(found.row < 0, self._first, found.row)[:, others]
        step = len(windows.windows)  # the first window of a segment is the whole of it
        whole = found.row[::step]  # (segments, songs)
        best_segment = found.similarity[::step].argmax(axis=0)
        row = whole[best_segment, np.arange(len(best_segment))]
        if method != "full":
            nothing = np.zeros(0)
            return Scores(vote, vote, row, nothing.astype(np.int64), None, nothing, False)
        distance, paths = self._aligned(query.segments, chosen, whole[:, chosen], match_from)
        score = vote - self.calibration.distance * CAP_ST
        score[chosen] = vote[chosen] - self.calibration.distance * distance
        if self.calibration.folded:
            likely = np.argsort(-score, kind="stable")[:FOLDED]
            score -= self.calibration.folded * CAP_ST
            folded = self._folded(query.segments, likely, match_from)
            score[likely] += self.calibration.folded * (CAP_ST - folded)
        voiced = [segment.pitch_st[segment.voiced] for segment in query.segments]
        return Scores(score, vote, row, chosen, paths, distance, is_tune(np.concatenate(voiced)))

    def _folded(
        self, segments: Sequence[Contour], songs: NDArray[np.int64], match_from: MatchFrom
    ) -> NDArray[np.float64]:
        """Return (C,) distances of pitch classes, the mean over segments."""
        at_start = match_from == "start"
        found = [self.aligner.folded_distance(segment, songs, at_start) for segment in segments]
        return np.mean(found, axis=0)

    def _aligned(
        self,
        segments: Sequence[Contour],
        songs: NDArray[np.int64],
        rows: NDArray[np.int64],
        match_from: MatchFrom,
    ) -> tuple[NDArray[np.float64], Alignments]:
        """Return (C,) mean distances over segments, and each song's path of its nearest segment."""
        starts = np.round(self.catalogue.start_s[rows] / CONTOUR_HOP_S).astype(int)  # (segments, C)
        ends = np.round(self.catalogue.end_s[rows] / CONTOUR_HOP_S).astype(int)
        found = [
            self.aligner.align(segment, songs, start, end, match_from == "start")
            for segment, start, end in zip(segments, starts, ends, strict=True)
        ]
        columns = [np.stack(column) for column in zip(*found, strict=True)]  # (segments, C) each
        nearest = columns[0].argmin(axis=0)
        best = Alignments(*(column[nearest, np.arange(len(songs))] for column in columns))
        return columns[0].mean(axis=0), best

    def _best_windows(
        self, vectors: NDArray, begins_s: NDArray, match_from: MatchFrom
    ) -> BestWindows:
        """Find each query window's best window in every song, as far as ``match_from`` admits."""
        catalogue = self.catalogue
        if match_from == "anywhere":
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
        """Return (W,) whether windows begin where a hum may be after ``begin_s`` seconds.

        Of a song too short for that, the last windows are admitted.
        """
        earliest = np.minimum(_SLOWEST * begin_s - _SLACK_S, self._latest_s)
        latest = np.maximum(_FASTEST * begin_s + _SLACK_S, earliest)
        return (self._since_s >= earliest) & (self._since_s <= latest)


def open_searcher(
    path: str | PathLike[str],
    weights: str | None = None,
    index: str = "exact",
    tracker: str | None = None,
    **options: Any,
) -> Searcher:
    """Open a catalogue for searching.

    Args:
        path: its folder.
        weights: name or file of those that made it, or of a state embedder whose teacher made it;
            the shipped ones by default.
        index: ``exact``, or one that :func:`qbhkit.retrieval.index.build_index` has built.
        tracker: name of the pitch tracker for hums; the default one if None.
        options: of the index's ``open`` method.

    Raises:
        QbhError: if the catalogue or the index is missing or damaged, or other weights made it.

    Notebook: notebooks/11_hum_it_yourself.py
    """
    catalogue = open_catalogue(path)
    searcher = Searcher(catalogue, open_embedder(weights or DEFAULT_EMBEDDING), tracker=tracker)
    if index != ExactIndex.name:
        searcher.index = open_index(index, catalogue, **options)
    return searcher


def search(
    hum: Source | Takes,
    catalogue: str | PathLike[str] | Searcher,
    k: int = 5,
    match_from: MatchFrom = "anywhere",
    method: str = "full",
    weights: str | None = None,
    tracker: str | None = None,
) -> list[Answer]:
    """Find the songs that a hum matches best.

    Args:
        hum: path of a recording or of an f0 CSV, (samples, rate_hz), an f0 track or a contour; or a
            list of several takes of one tune.
        catalogue: its folder, which stays open for the next call; or a searcher, whose weights and
            tracker are used.
        k: number of answers.
        match_from: ``start`` if the hum begins with the song, which is easier to find; else
            ``anywhere``.
        method: ``full`` (window voting and alignment), ``vote`` (window voting), ``vector`` (single
            vector) or ``end-to-end`` (``full`` on states of the melody network, in a catalogue that
            was built with the weights ``stage1``). Only ``full`` and ``end-to-end`` report key,
            tempo and confidence.
        weights: those that made the catalogue (``end-to-end``: their student); shipped by default.
        tracker: name of the pitch tracker for hums; the default one if None.

    Returns:
        The ``k`` best songs, best first.

    Raises:
        QbhError: if the hum or the catalogue cannot be used, less than 1 s of the hum is voiced, or
            the weights have no such method.

    Notebook: notebooks/00_hum_to_song.py, notebooks/09_search_and_align.py
    """
    if not isinstance(catalogue, Searcher):
        manifest = (Path(catalogue) / MANIFEST).resolve()
        state = manifest, manifest.stat().st_mtime_ns if manifest.is_file() else 0
        catalogue = _opened(Path(catalogue), weights_for(method, weights), tracker, state)
    return catalogue.search(hum, k, match_from, method)


@lru_cache(maxsize=1)
def _opened(
    path: Path, weights: str | None, tracker: str | None, _state: tuple[Path, int]
) -> Searcher:
    """Open a catalogue once for as long as the state of its manifest stays the same."""
    return open_searcher(path, weights, tracker=tracker)


def weights_for(method: str, weights: str | None) -> str | None:
    """Return the weights that a method needs, if none are given; None is the default ones."""
    return weights or (STATE_METHOD if method == STATE_METHOD else None)


def _soft_mean(values: NDArray, sharpness: float) -> NDArray:
    """Return a mean over rows that favours high values: log(mean(exp(s * x))) / s."""
    if sharpness == 0:
        return values.mean(axis=0)
    return np.log(np.exp(sharpness * values).mean(axis=0)) / sharpness
