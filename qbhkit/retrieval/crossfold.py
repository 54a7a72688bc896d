"""Score a training recipe by crossed folds: every hum by a model that knew neither song nor singer.

The songs and the singers of the development hums are dealt into folds. For each pair of a song fold
and a singer fold a model is fine-tuned on the hums of other songs by other singers, and scores the
hums of these; the ranks of all hums are pooled.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from qbhkit.audio import load
from qbhkit.contour import Contour, Reading, from_f0, stretch
from qbhkit.corpora import open_corpus
from qbhkit.corpora.folders import Ioacas, MirQbsh
from qbhkit.corpora.pairs import align
from qbhkit.corpora.songs import Song, songs_of
from qbhkit.corpora.training_songs import read_split, training_songs
from qbhkit.embedding.encoders import ContourEmbedder, export_encoder
from qbhkit.embedding.sampling import Hummed, HumPairs, PairSource
from qbhkit.embedding.training import TrainConfig, hum_evaluator, song_source, train
from qbhkit.errors import QbhError, naming
from qbhkit.melody.trackers import Tracker, get_tracker
from qbhkit.retrieval.catalogue import Catalogue, WindowGrid, cut_song, grid_of
from qbhkit.retrieval.confidence import Calibration, Case, calibrate, refusal
from qbhkit.retrieval.evaluate import Query, rank_of, report
from qbhkit.retrieval.queries import Anchor
from qbhkit.retrieval.search import Method, Searcher
from qbhkit.storage import read_json, sha256_file, write_json

ANCHORS: tuple[Anchor, ...] = ("start", "anywhere")
YEAR = "year2009"  # of the hums; other years of the official archive may number singers anew
ELSEWHERE = "ioacas"  # what the scores of another corpus are called
# What is done to the hums to see whether the answer stays: transposed by semitones, stretched.
TRANSPOSED_ST = (7.0, -5.0)
STRETCHED = (0.7, 1.4)
_WATCHED = 4  # every so manieth song of the training hums, where a checkpoint must be chosen


class SungHum(NamedTuple):
    """A development hum: whose it is, and how it runs through its song."""

    query: Query
    hummed: Hummed


class Folds(NamedTuple):
    """Which songs and which singers belong together."""

    songs: list[list[str]]
    singers: list[list[str]]


class SongBook:
    """The songs that are searched, cut into windows once, and embedded by one model after another.

    Args:
        songs: all of them.
        grid: windows of the catalogue.
        reading: onto L frames.
        hop_s: seconds between frames of the contours.
        rests: whether the songs keep their rests.

    Raises:
        QbhError: if two songs have the same id.
    """

    def __init__(
        self,
        songs: Sequence[Song],
        grid: WindowGrid,
        reading: Reading,
        hop_s: float,
        rests: bool = True,
    ) -> None:
        self._songs, self._grid, self.hop_s = songs, grid, hop_s
        self.number = {song.id: k for k, song in enumerate(songs)}
        if len(self.number) < len(songs):
            raise QbhError("Two songs to search have the same id: give one of them another.")
        contours = [song.contour(hop_s) for song in songs]
        self.contours = contours if rests else [contour.without_rests() for contour in contours]
        cuts = [cut_song(contour, grid, reading) for contour in self.contours]
        self._frames = np.concatenate([cut.frames for cut in cuts])  # (W, L, 2)
        self._song = np.repeat(np.arange(len(songs)), [len(cut.frames) for cut in cuts])
        self._start = np.concatenate([cut.start for cut in cuts])
        self._end = np.concatenate([cut.end for cut in cuts])
        self._at_start = np.concatenate([cut.at_start for cut in cuts])

    def searcher(self, embedder: ContourEmbedder) -> Searcher:
        """Return what searches these songs with a model."""
        entries = [{"id": song.id, "title": song.title} for song in self._songs]
        catalogue = Catalogue(
            Path(), embedder.identity, "", self._grid, entries, self.contours,
            embedder.embed(self._frames).astype(np.float16), self._song,
            self._start * self.hop_s, self._end * self.hop_s, self._at_start,
        )  # fmt: skip
        return Searcher(catalogue, embedder)


def sung_hums(
    queries: Sequence[Query], book: SongBook, tracker: Tracker, progress: bool = True
) -> list[SungHum]:
    """Hear hums, and lay each along its song from the song's first note.

    Args:
        queries: recordings, each with the id of its song, which it begins with.
        book: where the songs are.
        tracker: hears the hums.
        progress: show a bar on standard error.

    Raises:
        QbhError: if a hum names a song that is not there, or nothing in it is voiced.
    """
    found = []
    for query in tqdm(queries, "melody", unit="hum", disable=not progress):
        if query.song_id not in book.number:
            raise QbhError(f"{query.path} hums {query.song_id}, which is not among the songs.")
        song = book.number[query.song_id]
        found.append(SungHum(query, hear(Path(query.path), song, book.contours[song], tracker)))
    return found


def hear(
    recording: Path,
    number: int,
    song: Contour,
    tracker: Tracker,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Hummed:
    """Hear a hum and lay it along its song.

    Args:
        recording: of the hum.
        number: of the song.
        song: its contour, whose hop the hum's contour gets.
        tracker: hears the hum.
        start_s: where the hum begins in the song; None for the song's first note.
        end_s: where it ends at the latest; None for the song's end.

    Raises:
        QbhError: if the recording cannot be read, or nothing can be aligned.

    Notebook: notebooks/07_train_supervised.py
    """
    audio = load(recording, tracker.rate_hz)
    with naming(recording):
        hum = from_f0(tracker.track(audio), song.hop_s)
    if end_s is not None:
        song = Contour(song.frames[: round(end_s / song.hop_s)], song.hop_s)
    try:
        return Hummed(hum, number, align(hum, song, start_s))
    except QbhError as error:
        raise QbhError(f"{recording}: {error}.") from None


class Elsewhere(NamedTuple):
    """Queries of another corpus, by nobody and of no song that anything was fine-tuned on."""

    queries: list[Query]
    contours: list[Contour]
    book: SongBook


class Ground(NamedTuple):
    """What a recipe is scored on, and the songs of stage 1 that are mixed with the hums."""

    hums: list[SungHum]  # every singer and song of theirs is in a fold
    folds: Folds
    book: SongBook  # the songs that are searched, and that the hums were laid along
    source: PairSource
    elsewhere: Elsewhere | None = None


def mir_qbsh(
    config: TrainConfig, data: Path, tracker: str | None = None, progress: bool = True
) -> Ground:
    """Return the crossed folds of MIR-QBSH, whose 48 songs are searched among MIREX's 2,000.

    Args:
        config: says the corpora of stage 1, windows, and hop.
        data: the folder that holds corpora.
        tracker: hears the hums; the default one for None.
        progress: show a bar on standard error.

    Raises:
        QbhError: if a corpus is not there.
    """
    hums, book, elsewhere = _searched_among(
        config.window.reading, config.hop_s, data, tracker, progress
    )
    learnt = training_songs(config.corpora, data, config.hop_s)
    split = read_split("mir_qbsh")
    folds = Folds(split["song_folds"], split["singer_folds"])
    return Ground(hums, folds, book, song_source(config, learnt), elsewhere)


@lru_cache(maxsize=1)  # the recipes of an ablation mostly differ in training alone
def _searched_among(
    reading: Reading, hop_s: float, data: Path, tracker: str | None, progress: bool
) -> tuple[list[SungHum], SongBook, Elsewhere | None]:
    corpus = MirQbsh(data / "mir-qbsh")
    songs = [*songs_of(corpus), *songs_of(open_corpus("mirex-essen-2000", data))]
    book = SongBook(songs, grid_of(reading), reading, hop_s)
    split = read_split("mir_qbsh")
    dealt = {name for fold in (*split["song_folds"], *split["singer_folds"]) for name in fold}
    queries = [
        Query(str(hum.path), hum.song_id, hum.singer)
        for hum in corpus.hums(YEAR)
        if {hum.song_id, hum.singer} <= dealt
    ]
    if not queries:
        raise QbhError(f"{corpus.root} holds no hum of the singers that are dealt into folds.")
    hums = sung_hums(queries, book, get_tracker(tracker), progress)
    elsewhere = ioacas(reading, hop_s, data, songs) if (data / "ioacas").is_dir() else None
    return hums, book, elsewhere


def ioacas(reading: Reading, hop_s: float, data: Path, others: Sequence[Song] = ()) -> Elsewhere:
    """Return the queries of IOACAS, its 298 songs, and others to search them among.

    The corpus has dropped the rests of its queries; here the songs lose theirs too.

    Args:
        reading: onto L frames.
        hop_s: seconds between frames.
        data: the folder that holds corpora.
        others: further songs.

    Raises:
        QbhError: if the corpus is not there.
    """
    corpus = Ioacas(data / "ioacas")
    named = "ioacas/{}".format  # its songs have numbers, as those of other corpora
    songs = [*(replace(song, id=named(song.id)) for song in songs_of(corpus)), *others]
    book = SongBook(songs, grid_of(reading), reading, hop_s, rests=False)
    found = corpus.queries()
    queries = [Query(key, named(song_id), None) for key, (_, song_id) in found.items()]
    contours = [from_f0(track, hop_s).without_rests() for track, _ in found.values()]
    return Elsewhere(queries, contours, book)


def cross_fold(
    config: TrainConfig,
    ground: Ground,
    folder: Path,
    stress: bool = False,
    progress: bool = True,
    methods: Sequence[Method] = ("vote",),
) -> dict[str, Any]:
    """Fine-tune a model for every pair of folds, and pool the ranks of all hums.

    A model that is in the folder already is used again if it was made by the same recipe from the
    same weights and hums, so that a stopped run goes on.

    Args:
        config: of the fine-tuning; ``start`` names the weights it starts from. Without ``hums``
            nothing is trained, and all hums are scored by those weights.
        ground: hums, songs and folds.
        folder: where the models are kept.
        stress: also search the same hums transposed and stretched.
        progress: show bars on standard error.
        methods: of the search; ``full`` also gives a calibration and what it refuses.

    Returns:
        By the first method, for each anchor, and each stress of it, metrics, intervals and ranks as
        JSON; also for the queries of another corpus where there are some, by the first of the
        models. The same by the other methods, under ``methods`` and their names.

    Notebook: notebooks/07_train_supervised.py
    """
    hums, other = ground.hums, ground.elsewhere
    queries = [hum.query for hum in hums]
    found: dict[Method, dict[str, Any]] = {method: {} for method in methods}
    ranks: dict[tuple[Method, str], list[int | None]] = {}
    cases: dict[Anchor, list[tuple[Case, str]]] = {anchor: [] for anchor in ANCHORS}
    for number, (test, learn) in enumerate(_parted(hums, ground.folds, config)):
        learnt = [hums[k].hummed for k in learn]
        weights = _weights(config, learnt, ground, folder / f"fold-{number}", progress)
        embedder = ContourEmbedder(str(weights))
        if other is not None and number == 0:
            elsewhere = other.book.searcher(embedder)
            asked = [query.song_id for query in other.queries]
            for method in methods:
                scored = _cases(elsewhere, other.contours, asked, "anywhere", method)
                shown = report([case and rank_of(*case) for case in scored], other.queries)
                found[method][ELSEWHERE] = shown
        searcher = ground.book.searcher(embedder)
        for name, anchor, contours in _searched([hums[k].hummed.hum for k in test], stress):
            for method in methods:
                column = ranks.setdefault((method, name), [None] * len(hums))
                asked = [queries[k].song_id for k in test]
                scored = _cases(searcher, contours, asked, anchor, method)
                for k, case in zip(test, scored, strict=True):
                    if case is None:
                        continue
                    column[k] = rank_of(*case)
                    if method == "full" and name == anchor:
                        cases[anchor].append((case, queries[k].song_id))
    for (method, name), column in ranks.items():
        found[method][name] = report(column, queries)
    first, *others = methods
    result = found[first]
    if others:
        result["methods"] = {method: found[method] for method in others}
    if "full" in methods:
        with suppress(QbhError):  # too few hums find their songs to calibrate anything
            result |= _calibrated(cases, Calibration.of(embedder).distance)
    return result


def _calibrated(cases: dict[Anchor, list[tuple[Case, str]]], distance: float) -> dict[str, Any]:
    """Return a calibration on all hums, and what one does to the hums of songs it has not seen."""
    everything = [case for anchor in ANCHORS for case, _ in cases[anchor]]
    refused = {}
    for anchor in ANCHORS:
        if not cases[anchor]:
            raise QbhError("A calibration needs hums that find their songs.")
        some, songs = zip(*cases[anchor], strict=True)
        refused[anchor] = refusal(some, songs, distance)._asdict()
    return {"calibration": asdict(calibrate(everything, distance)), "refusal": refused}


def _parted(
    hums: Sequence[SungHum], folds: Folds, config: TrainConfig
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the hums that a model scores, and those it may learn from."""
    everything = list(range(len(hums)))
    if config.hums is None:
        yield everything, []
        return
    for names in folds.songs:
        for singers in folds.singers:
            sung = [hum.query.song_id in names for hum in hums]
            heard = [hum.query.singer in singers for hum in hums]
            yield (
                [k for k in everything if sung[k] and heard[k]],
                [k for k in everything if not sung[k] and not heard[k]],
            )


def _weights(
    config: TrainConfig,
    hums: Sequence[Hummed],
    ground: Ground,
    folder: Path,
    progress: bool,
) -> Path:
    if config.hums is None:
        return Path(config.start)
    weights, note = folder / "encoder.safetensors", folder / "made_of.json"
    made_of = _made_of(config, hums)
    if weights.is_file() and not (note.is_file() and read_json(note, f"delete {note}") == made_of):
        shutil.rmtree(folder)  # of another recipe, or of other hums
    if not weights.is_file():
        reading, how = config.window.reading, config.normalisation

        drawn_as = config.hums

        def pairs_of(some: Sequence[Hummed]) -> HumPairs:
            return HumPairs(some, ground.book.contours, drawn_as, reading, how)

        evaluate, log = None, folder / "log.json"
        if config.fine_tune is not None:  # of its copies the best must be chosen on other hums
            number = {song: k for k, song in enumerate(sorted({hum.song for hum in hums}))}
            watched = [number[hum.song] % _WATCHED == 0 for hum in hums]
            held_out = pairs_of([hum for hum, held in zip(hums, watched, strict=True) if held])
            hums = [hum for hum, held in zip(hums, watched, strict=True) if not held]
            evaluate = hum_evaluator(config, held_out, ground.source)
        encoder = train(
            config, ground.source, folder, log, pairs_of(hums), evaluate, progress=progress
        )
        write_json(note, made_of)  # first: without it the weights would be made again
        export_encoder(encoder, weights, reading, how)
    return weights


def _made_of(config: TrainConfig, hums: Sequence[Hummed]) -> dict[str, str]:
    """Return hashes of all that a model depends on but the songs of its corpora."""
    start = Path(config.start)
    recipe = json.dumps(asdict(replace(config, start="")), sort_keys=True).encode()
    heard = hashlib.sha256()
    for hum in hums:
        heard.update(f"{hum.song} {len(hum.hum)}".encode())
        heard.update(np.ascontiguousarray(hum.hum.frames).data)
    return {
        "recipe": hashlib.sha256(recipe).hexdigest(),
        "start": sha256_file(start) if start.is_file() else config.start,
        "hums": heard.hexdigest(),
    }


def _searched(contours: list[Contour], stress: bool) -> Iterator[tuple[str, Anchor, list[Contour]]]:
    for anchor in ANCHORS:
        yield anchor, anchor, contours
        if stress:
            for semitones in TRANSPOSED_ST:
                moved = [contour.transposed(semitones) for contour in contours]
                yield f"{anchor}, {semitones:+g} semitones", anchor, moved
            for factor in STRETCHED:
                slowed = [_stretched(contour, factor) for contour in contours]
                yield f"{anchor}, stretched by {factor:g}", anchor, slowed


def _stretched(contour: Contour, factor: float) -> Contour:
    positions = (np.arange(round(len(contour) * factor)) + 0.5) / factor
    return Contour(stretch(contour.frames, positions), contour.hop_s)


def _cases(
    searcher: Searcher,
    contours: Sequence[Contour],
    song_ids: Sequence[str],
    anchor: Anchor,
    method: Method,
) -> list[Case | None]:
    """Search hums together; None for one in which too little is voiced, which is a miss."""
    heard = []
    for number, contour in enumerate(contours):
        with suppress(QbhError):
            searcher.query_frames(contour, anchor)
            heard.append(number)
    found: list[Case | None] = [None] * len(contours)
    scored = searcher.scores_many([contours[number] for number in heard], anchor, method)
    for number, scores in zip(heard, scored, strict=True):
        found[number] = Case(scores.score, searcher.catalogue.number[song_ids[number]])
    return found
