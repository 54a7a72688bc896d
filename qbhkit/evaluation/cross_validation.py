"""Score a training recipe by cross-validation over songs and singers.

For each pair of a song fold and a singer fold a model is fine-tuned on the hums of other songs by
other singers, and scores the hums of this pair. The ranks of all hums are pooled.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from qbhkit.catalogue.build import song_entry
from qbhkit.catalogue.read import Catalogue
from qbhkit.contour import Contour, from_f0
from qbhkit.corpora import open_corpus
from qbhkit.corpora.folders import EVALUATION_YEAR, Ioacas, MirQbsh
from qbhkit.corpora.songs import Song, songs_of
from qbhkit.corpora.training_songs import read_split, training_songs
from qbhkit.embedding.embedder import ContourEmbedder, export_encoder
from qbhkit.embedding.hum_pairs import AlignedHum, HumPairs, align_hum
from qbhkit.embedding.sampling import PairSource
from qbhkit.embedding.training import TrainConfig, hum_evaluator, song_source, train_encoder
from qbhkit.embedding.windows import MatchFrom, Reading, cut_song, grid_for, stretch
from qbhkit.errors import QbhError
from qbhkit.evaluation.evaluate import by_search, score_hums
from qbhkit.metrics import LabelledQuery, rank_of, summarise
from qbhkit.pitch.trackers import Tracker, get_tracker
from qbhkit.provenance import made_from, record
from qbhkit.retrieval.confidence import Calibration, Case, calibrate, refusal
from qbhkit.retrieval.searcher import Method, Searcher
from qbhkit.storage import sha256_file

MATCH_FROM: tuple[MatchFrom, ...] = ("start", "anywhere")
EXTERNAL = "ioacas"  # key of the scores of another corpus
OTHER_YEARS = "other years"  # of hums whose scores have keys of their own
# The stress test: hums are transposed by semitones, and stretched in time.
TRANSPOSED_ST = (7.0, -5.0)
STRETCHED = (0.7, 1.4)
_HELD_OUT = 4  # every fourth song of the training hums, to choose the best copy on


class LabelledHum(NamedTuple):
    """A development hum: its song and singer, and its alignment with the song."""

    query: LabelledQuery
    aligned: AlignedHum
    part: str = ""  # hums of a part are scored apart from the others


class Folds(NamedTuple):
    """Ids of the songs, and names of the singers, that are held out together."""

    songs: list[list[str]]
    singers: list[list[str]]


class EmbeddedSongs:
    """The songs that are searched: cut into windows once, then embedded by each model.

    Args:
        songs: all of them.
        reading: how a window becomes L frames.
        hop_s: seconds between frames of the contours.
        rests: whether the contours keep their rests.

    Raises:
        QbhError: if two songs have the same id.
    """

    def __init__(
        self, songs: Sequence[Song], reading: Reading, hop_s: float, rests: bool = True
    ) -> None:
        self._songs, self._grid = songs, grid_for(reading)
        self.number = {song.id: k for k, song in enumerate(songs)}
        if len(self.number) < len(songs):
            raise QbhError("Two songs to search have the same id: give one of them another.")
        contours = [song.contour(hop_s) for song in songs]
        self.contours = contours if rests else [contour.without_rests() for contour in contours]
        cuts = [cut_song(contour, self._grid, reading) for contour in self.contours]
        self._frames = np.concatenate([cut.frames for cut in cuts])  # (W, L, 2)
        self._song = np.repeat(np.arange(len(songs)), [len(cut.frames) for cut in cuts])
        self._start_s = np.concatenate([cut.start for cut in cuts]) * hop_s
        self._end_s = np.concatenate([cut.end for cut in cuts]) * hop_s
        self._at_start = np.concatenate([cut.at_start for cut in cuts])

    def searcher(self, embedder: ContourEmbedder) -> Searcher:
        """Embed the windows with a model, and return the searcher of these songs."""
        entries = [song_entry(song, "") for song in self._songs]
        catalogue = Catalogue(
            Path(), embedder.identity, "", self._grid, entries, self.contours,
            embedder.embed(self._frames).astype(np.float16), self._song,
            self._start_s, self._end_s, self._at_start,
        )  # fmt: skip
        return Searcher(catalogue, embedder)


def label_hums(
    queries: Sequence[LabelledQuery],
    embedded: EmbeddedSongs,
    tracker: Tracker,
    progress: bool = True,
) -> list[LabelledHum]:
    """Track hums, and align each with its song from the song's first note.

    Raises:
        QbhError: if a hum names a song that is not among them, cannot be read, or cannot be
            aligned with its song.
    """
    found = []
    for query in tqdm(queries, "melody", unit="hum", disable=not progress):
        if query.song_id not in embedded.number:
            raise QbhError(f"{query.path} hums {query.song_id}, which is not among the songs.")
        song = embedded.number[query.song_id]
        aligned = align_hum(Path(query.path), song, embedded.contours[song], tracker)
        found.append(LabelledHum(query, aligned))
    return found


class ExternalTest(NamedTuple):
    """Queries of another corpus: no song or singer of theirs is used for fine-tuning."""

    queries: list[LabelledQuery]
    contours: list[Contour]
    songs: EmbeddedSongs


class CrossValidationData(NamedTuple):
    """What a recipe is scored on, and the songs of stage 1 that are mixed with the hums."""

    hums: list[LabelledHum]  # their songs and singers are all in folds
    folds: Folds
    songs: EmbeddedSongs  # those that are searched, and that the hums are aligned with
    source: PairSource  # draws the songs of stage 1
    external: ExternalTest | None = None


def mir_qbsh_data(
    config: TrainConfig, data: Path, tracker: str | None = None, progress: bool = True
) -> CrossValidationData:
    """Return the hums and folds of MIR-QBSH, whose 48 songs are searched among MIREX's 2,000.

    Hums of all years are used; those of other years than 2009 are a part of their own.

    Args:
        config: names the corpora of stage 1, the windows and the hop.
        data: the folder of the corpora; IOACAS is the external test if it is there.
        tracker: name of the pitch tracker for hums; the default one if None.
        progress: show a bar on standard error.

    Raises:
        QbhError: if a corpus is missing.
    """
    reading, hop_s, split = config.window.reading, config.hop_s, read_split("mir_qbsh")
    hums, embedded, external = _searched_among(reading, hop_s, data, tracker, progress)
    songs = training_songs(config.corpora, data, hop_s, config.song_filter)
    source = song_source(config, songs)
    folds = Folds(split["song_folds"], split["singer_folds"])
    return CrossValidationData(hums, folds, embedded, source, external)


@lru_cache(maxsize=1)  # most recipes of an ablation share windows and hop
def _searched_among(
    reading: Reading, hop_s: float, data: Path, tracker: str | None, progress: bool
) -> tuple[list[LabelledHum], EmbeddedSongs, ExternalTest | None]:
    corpus = MirQbsh(data / "mir-qbsh")
    songs = [*songs_of(corpus), *songs_of(open_corpus("mirex-essen-2000", data))]
    embedded, split = EmbeddedSongs(songs, reading, hop_s), read_split("mir_qbsh")
    dealt = {name for fold in (*split["song_folds"], *split["singer_folds"]) for name in fold}
    queries = [
        LabelledQuery(str(hum.path), hum.song_id, hum.singer)
        for hum in corpus.hums()
        if {hum.song_id, hum.singer} <= dealt
    ]
    if not queries:
        raise QbhError(f"{corpus.root} holds no hum of the singers that are dealt into folds.")
    hums = [
        hum if EVALUATION_YEAR in Path(hum.query.path).parts else hum._replace(part=OTHER_YEARS)
        for hum in label_hums(queries, embedded, get_tracker(tracker), progress)
    ]
    external = ioacas_test(reading, hop_s, data, songs) if (data / "ioacas").is_dir() else None
    return hums, embedded, external


def ioacas_test(
    reading: Reading, hop_s: float, data: Path, others: Sequence[Song] = ()
) -> ExternalTest:
    """Return the queries of IOACAS, with its 298 songs and others to search among.

    The queries of this corpus have no rests, so the rests of the songs are removed too.

    Raises:
        QbhError: if the corpus is missing.
    """
    corpus = Ioacas(data / "ioacas")
    named = "ioacas/{}".format  # its ids are numbers, as those of other corpora are
    songs = [*(replace(song, id=named(song.id)) for song in songs_of(corpus)), *others]
    embedded, found = EmbeddedSongs(songs, reading, hop_s, rests=False), corpus.queries()
    queries = [LabelledQuery(key, named(song_id), None) for key, (_, song_id) in found.items()]
    contours = [from_f0(track, hop_s).without_rests() for track, _ in found.values()]
    return ExternalTest(queries, contours, embedded)


def cross_validate(
    config: TrainConfig,
    cv_data: CrossValidationData,
    folder: Path,
    stress: bool = False,
    progress: bool = True,
    methods: Sequence[Method] = ("vote",),
) -> dict[str, Any]:
    """Fine-tune a model for every pair of folds, and pool the ranks of all hums.

    A model in the folder is used again if the same recipe made it from the same weights and hums.

    Args:
        config: of the fine-tuning; ``init_from`` names the weights it starts from. Without ``hums``
            nothing is trained, and those weights score all hums.
        cv_data: hums, songs and folds.
        folder: of the models.
        stress: also search the same hums, but for those of a part, transposed and stretched, by
            the first method.
        progress: show bars on standard error.
        methods: of the search; ``full`` also gives a calibration and its refusals.

    Returns:
        Plain values for JSON: by the first method, metrics, intervals and ranks for ``start``,
        ``anywhere``, each stress test, each part (``start, other years``), and the external
        queries, which the first model scores. The same by the other methods is under ``methods``.

    Notebook: notebooks/07_train_supervised.py
    """
    hums, external = cv_data.hums, cv_data.external
    ranks: dict[tuple[Method, str], dict[int, int | None]] = {}
    cases: dict[str, list[tuple[Case, str]]] = {}
    found: dict[Method, dict[str, Any]] = {method: {} for method in methods}
    for number, (test, learn) in enumerate(_split(hums, cv_data.folds, config)):
        aligned = [hums[k].aligned for k in learn]
        weights = _weights(config, aligned, cv_data, folder / f"fold-{number}", progress)
        embedder = ContourEmbedder(str(weights))
        if external is not None and number == 0:
            searcher = external.songs.searcher(embedder)
            truths = [external.songs.number[query.song_id] for query in external.queries]
            for method in methods:
                scored = score_hums(
                    by_search(searcher, method, "anywhere"), external.contours, truths
                )
                ranked = [case and rank_of(*case) for case in scored]
                found[method][EXTERNAL] = summarise(ranked, external.queries)
        searcher = cv_data.songs.searcher(embedder)
        for name, match_from, which, contours in _searched(hums, test, stress):
            truths = [hums[k].aligned.song for k in which]
            as_hummed = name == _scored_as(match_from, hums[which[0]].part)
            for method in methods if as_hummed else methods[:1]:
                column = ranks.setdefault((method, name), {})
                scored = score_hums(by_search(searcher, method, match_from), contours, truths)
                for k, case in zip(which, scored, strict=True):
                    column[k] = case and rank_of(*case)
                    if case and method == "full" and as_hummed:
                        cases.setdefault(name, []).append((case, hums[k].query.song_id))
    for (method, name), column in ranks.items():
        which = sorted(column)
        queries = [hums[k].query for k in which]
        found[method][name] = summarise([column[k] for k in which], queries)
    first, *others = methods
    result = found[first]
    if others:
        result["methods"] = {method: found[method] for method in others}
    if "full" in methods:
        with suppress(QbhError):  # too few hums find their songs to calibrate anything
            result |= _calibrated(cases, Calibration.of(embedder))
    return result


def _calibrated(cases: dict[str, list[tuple[Case, str]]], used: Calibration) -> dict[str, Any]:
    """Return a calibration on all hums, and refusals by calibrations on hums of other songs."""
    everything = [case for part in cases.values() for case, _ in part]
    calibration = asdict(calibrate(everything, used))
    refusals = {}
    for name, part in cases.items():
        some, songs = [case for case, _ in part], [song for _, song in part]
        refusals[name] = refusal(some, songs, used)._asdict()
    return {"calibration": calibration, "refusal": refusals}


def _split(
    hums: Sequence[LabelledHum], folds: Folds, config: TrainConfig
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the hums that a model scores, and those that it may be trained on."""
    everything = list(range(len(hums)))
    if config.hums is None:
        yield everything, []
        return
    for names, singers in product(folds.songs, folds.singers):
        sung = [hum.query.song_id in names for hum in hums]
        by_them = [hum.query.singer in singers for hum in hums]
        yield (
            [k for k in everything if sung[k] and by_them[k]],
            [k for k in everything if not sung[k] and not by_them[k]],
        )


def _weights(
    config: TrainConfig,
    hums: Sequence[AlignedHum],
    cv_data: CrossValidationData,
    folder: Path,
    progress: bool,
) -> Path:
    """Fine-tune a model on some hums, unless the folder holds it, and return its weights."""
    if config.hums is None:
        return Path(config.init_from)
    weights, note = folder / "encoder.safetensors", folder / "made_of.json"
    made_of = _made_of(config, hums)
    if weights.is_file() and not made_from(note, made_of):
        shutil.rmtree(folder)  # of another recipe, or of other hums
    if not weights.is_file():
        reading, how, drawn_as = config.window.reading, config.normalisation, config.hums

        def pairs_of(some: Sequence[AlignedHum]) -> HumPairs:
            contours = cv_data.songs.contours
            return HumPairs(some, contours, drawn_as, reading, how, config.song_faults)

        evaluate = None
        if config.fine_tune is not None:  # the best of its copies is chosen on hums held out
            held_out = sorted({hum.song for hum in hums})[::_HELD_OUT]
            held = [hum for hum in hums if hum.song in held_out]
            hums = [hum for hum in hums if hum.song not in held_out]
            evaluate = hum_evaluator(config, pairs_of(held), cv_data.source)
        encoder = train_encoder(
            config, cv_data.source, folder, folder / "log.json", pairs_of(hums), evaluate,
            progress=progress,
        )  # fmt: skip
        record(note, made_of)  # before the weights: without it they would be made again
        export_encoder(encoder, weights, reading, how)
    return weights


def _made_of(config: TrainConfig, hums: Sequence[AlignedHum]) -> dict[str, str]:
    """Return hashes of all that a model depends on, except the songs."""
    start = Path(config.init_from)
    recipe = json.dumps(asdict(replace(config, init_from="")), sort_keys=True).encode()
    digest = hashlib.sha256()
    for hum in hums:
        digest.update(f"{hum.song} {len(hum.hum)} {hum.at.distance_st}".encode())
        for array in (hum.hum.frames, hum.at.hum_s, hum.at.song_s):
            digest.update(np.ascontiguousarray(array).data)
    return {
        "recipe": hashlib.sha256(recipe).hexdigest(),
        "start": sha256_file(start) if start.is_file() else config.init_from,
        "hums": digest.hexdigest(),
    }


def _searched(
    hums: Sequence[LabelledHum], test: Sequence[int], stress: bool
) -> Iterator[tuple[str, MatchFrom, list[int], list[Contour]]]:
    """Yield each search: key of its scores, where matches may begin, and numbers and contours."""
    for match_from, part in product(MATCH_FROM, sorted({hums[k].part for k in test})):
        which = [k for k in test if hums[k].part == part]
        contours = [hums[k].aligned.hum for k in which]
        yield _scored_as(match_from, part), match_from, which, contours
        if stress and not part:
            for semitones in TRANSPOSED_ST:
                moved = [contour.transposed(semitones) for contour in contours]
                yield f"{match_from}, {semitones:+g} semitones", match_from, which, moved
            for factor in STRETCHED:
                slowed = []
                for contour in contours:
                    positions = (np.arange(round(len(contour) * factor)) + 0.5) / factor
                    slowed.append(Contour(stretch(contour.frames, positions), contour.hop_s))
                yield f"{match_from}, stretched by {factor:g}", match_from, which, slowed


def _scored_as(match_from: MatchFrom, part: str) -> str:
    return f"{match_from}, {part}" if part else match_from
