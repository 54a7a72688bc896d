"""Measure how often hums find their songs: the one evaluator of the kit."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray
from tqdm.auto import tqdm

from qbhkit.catalogue.read import Catalogue, open_catalogue
from qbhkit.contour import Contour
from qbhkit.embedding.embedder import Embedder, open_embedder
from qbhkit.embedding.windows import MatchFrom, is_long_enough
from qbhkit.errors import Failure, QbhError
from qbhkit.evaluation import METHODS
from qbhkit.metrics import LabelledQuery, Metrics, comparable_to, metrics, rank_of, summarise
from qbhkit.pitch.frontends import frontend_for, query_loader
from qbhkit.retrieval.align import heard
from qbhkit.retrieval.baselines import CappedDtw, FoldedDtw, LinearScaling, SubsequenceDtw
from qbhkit.retrieval.confidence import Calibration, Case, calibrate, refusal
from qbhkit.retrieval.searcher import STATE_METHOD, Searcher
from qbhkit.storage import read_rows
from qbhkit.weights import DEFAULT_EMBEDDING

ScoreSongs = Callable[[Sequence[Contour]], Iterator[NDArray]]
"""Takes hums, and yields the (songs,) scores of each, higher is better."""
_BASELINES: dict[str, Callable[[Catalogue], Any]] = {
    "linear-scaling": lambda catalogue: LinearScaling(catalogue.contours),
    "dtw": lambda catalogue: SubsequenceDtw(catalogue.contours),
    "dtw-folded": lambda catalogue: FoldedDtw(catalogue.contours),
    "alignment": lambda catalogue: CappedDtw(catalogue.contours, heard(catalogue.songs)),
}


@dataclass(frozen=True)
class Evaluation:
    """How often hums found their songs.

    Attributes:
        queries: the hums.
        ranks: by method, the rank of each query's song: 1 is the best, None a miss.
        match_from: ``start`` or ``anywhere``.
        songs: number of songs searched.
        model: identity of the weights that made the catalogue.
        failures: queries that could not be read or tracked, which count as misses, and why.
        confidence: ``calibration`` and ``refusal`` of ``full``, where enough hums find their songs.
    """

    queries: list[LabelledQuery]
    ranks: dict[str, list[int | None]]
    match_from: MatchFrom
    songs: int
    model: str
    failures: list[Failure] = field(default_factory=list)
    confidence: dict[str, Any] = field(default_factory=dict)

    def metrics(self, method: str = "full") -> Metrics:
        """Return top-1, top-5, top-10 and MRR of a method."""
        return metrics(self.ranks[method])

    def as_json(self) -> dict[str, Any]:
        """Return what ``qbhkit evaluate --out`` writes; the first method's metrics at top level."""
        blocks = {name: summarise(ranks, self.queries) for name, ranks in self.ranks.items()}
        return {
            **next(iter(blocks.values())),
            "anchor": self.match_from,
            "songs": self.songs,
            "model": self.model,
            "comparable_to": comparable_to(self.songs, self.match_from),
            "song_ids": [query.song_id for query in self.queries],
            "singers": [query.singer for query in self.queries],
            "methods": blocks,
            **self.confidence,
        }


def evaluate(
    queries: str | PathLike[str] | Iterable[LabelledQuery],
    catalogue: str | PathLike[str] | Catalogue,
    methods: Sequence[str] = ("full",),
    match_from: MatchFrom = "anywhere",
    weights: str = DEFAULT_EMBEDDING,
    tracker: str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure how often hums find their songs, by one method or several.

    Args:
        queries: a CSV file with the columns path, song_id and, where known, singer; or its rows.
        catalogue: the folder of a catalogue that holds all those songs, or an opened one.
        methods: some of :data:`METHODS`.
        match_from: ``start`` where hums begin with the song, otherwise ``anywhere``.
        weights: those that made the catalogue; baselines search any.
        tracker: name of the pitch tracker for hums; the default one if None.
        progress: show bars on standard error.

    Raises:
        QbhError: if a file is missing or damaged, a query names a song that is not in the
            catalogue, there is no such method or tracker, or other weights made the catalogue.
        MissingPackageError: if the tracker's package is not installed.

    Notebook: notebooks/10_evaluation.py
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise QbhError(f"There is no method {unknown[0]!r}: use {', '.join(METHODS)}.")
    named: Any = "The list of queries"
    if isinstance(queries, str | PathLike):
        named, queries = queries, read_queries(Path(queries))
    listed = list(queries)
    if not isinstance(catalogue, Catalogue):
        catalogue = open_catalogue(Path(catalogue))
    for query in listed:
        if query.song_id not in catalogue.number:
            raise QbhError(
                f"{named} names the song {query.song_id}, which is not in {catalogue.path}: its "
                f"songs have ids such as {catalogue.songs[0]['id']}."
            )
    found = Evaluation(listed, {}, match_from, len(catalogue.songs), catalogue.model)

    # Pitch is tracked once for all methods but end-to-end, which tracks with states.
    @cache
    def embedder(by_states: bool) -> Embedder:
        return open_embedder(STATE_METHOD if by_states else weights)

    @cache
    def hums(by_states: bool) -> list[Contour | None]:
        network = embedder(by_states).states_of
        return _load(found, network, None if by_states else tracker, progress)

    @cache
    def searcher(by_states: bool) -> Searcher:
        return Searcher(catalogue, embedder(by_states))

    truths = [catalogue.number[query.song_id] for query in listed]
    for method in dict.fromkeys(methods):
        by_states = method == STATE_METHOD
        if method in _BASELINES:
            score = by_baseline(catalogue, method, match_from)
        else:
            score = by_search(searcher(by_states), method, match_from)
        cases = score_hums(score, hums(by_states), truths, method if progress else None)
        found.ranks[method] = [case and rank_of(*case) for case in cases]
        known = [(case, query.song_id) for case, query in zip(cases, listed, strict=True) if case]
        if method == "full" and known:
            scored, songs = zip(*known, strict=True)
            used = Calibration.of(embedder(by_states))
            with suppress(QbhError):  # too few hums find their songs
                calibration = asdict(calibrate(scored, used))
                refused = refusal(scored, songs, used)._asdict()
                found.confidence.update(calibration=calibration, refusal=refused)
    return found


def _load(
    found: Evaluation, states_of: str | None, tracker: str | None, progress: bool
) -> list[Contour | None]:
    """Load the queries; those that cannot be loaded are None, and become failures."""
    if tracker is not None:  # refused once: a wrong tracker is not a failure of the hums
        frontend_for(states_of, tracker)
    load_query = query_loader(states_of, tracker)
    hums: list[Contour | None] = []
    for query in tqdm(found.queries, "melody", unit="hum", disable=not progress):
        hums.append(None)
        try:
            hums[-1] = load_query(query.path)
        except QbhError as error:
            if query.path not in (failure.name for failure in found.failures):
                found.failures.append(Failure(query.path, str(error)))
    return hums


def by_search(searcher: Searcher, method: str, match_from: MatchFrom) -> ScoreSongs:
    """Return a function that scores by ``full``, ``vote``, ``vector`` or ``end-to-end``."""
    return lambda hums: (found.score for found in searcher.scores_many(hums, match_from, method))


def by_baseline(catalogue: Catalogue, method: str, match_from: MatchFrom) -> ScoreSongs:
    """Return a function that scores by a baseline, such as ``linear-scaling`` or ``dtw``.

    It gets hums without stray frames, as a search does.
    """
    baseline = _BASELINES[method](catalogue)
    return lambda hums: (baseline.scores(hum.without_strays(), match_from) for hum in hums)


def score_hums(
    score: ScoreSongs,
    hums: Sequence[Contour | None],
    truths: Sequence[int],
    shown: str | None = None,
) -> list[Case | None]:
    """Score all songs for each hum.

    Args:
        score: what :func:`by_search` or :func:`by_baseline` returns.
        hums: None for one that could not be loaded.
        truths: the number of each hum's song.
        shown: title of a bar on standard error; None for no bar.

    Returns:
        Scores and truth of each hum; None, a miss, for a hum that is None or has less than 1 s of
        voice.
    """
    usable = [k for k, hum in enumerate(hums) if hum is not None and is_long_enough(hum)]
    cases: list[Case | None] = [None] * len(hums)
    scores = score([cast(Contour, hums[k]) for k in usable])
    bar = tqdm(zip(usable, scores, strict=True), shown, len(usable), unit="hum", disable=not shown)
    for k, found in bar:
        cases[k] = Case(found, truths[k])
    return cases


def read_queries(path: Path) -> list[LabelledQuery]:
    """Read a query list: ``path,song_id[,singer]``; paths are relative to the file's folder.

    Raises:
        QbhError: if the file is missing, has another header, no rows, or a row that is wrong.
    """
    queries = []
    for line, row in enumerate(read_rows(path, ("path", "song_id"), "[,singer]"), 2):
        if not row["path"] or not row["song_id"]:
            raise QbhError(f"{path}, line {line}: path and song_id must both be given.")
        recording = path.parent / row["path"]  # an absolute path stays as it is
        if not recording.is_file():
            raise QbhError(f"{path}, line {line}: {recording} does not exist.")
        queries.append(LabelledQuery(str(recording), row["song_id"], row.get("singer") or None))
    if not queries:
        raise QbhError(f"{path} holds no queries: add lines path,song_id.")
    return queries
