"""``qbhkit search``, ``serve`` and ``evaluate``: hums in, songs out."""

import argparse
import contextlib
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qbhkit.cli.catalogues import index_options
from qbhkit.cli.terminal import plain, quiet, say
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.storage import write_json

if TYPE_CHECKING:
    from qbhkit.contour import Contour
    from qbhkit.retrieval.catalogue import Catalogue, Embedder
    from qbhkit.retrieval.confidence import Case
    from qbhkit.retrieval.evaluate import Query, Scorer
    from qbhkit.retrieval.search import Answer, Method

END_TO_END = "end-to-end"
METHODS = ("full", "vote", "vector", END_TO_END, "linear-scaling", "dtw")


def search(options: argparse.Namespace) -> int:
    """Run ``qbhkit search``."""
    from qbhkit.retrieval.ears import query_reader
    from qbhkit.retrieval.search import answer_line, open_searcher

    if options.k < 1:
        raise QbhError("-k must be at least 1.")
    method, weights = options.method, options.weights
    if method == END_TO_END:
        method, weights = "full", weights or END_TO_END
    how = index_options(options.index, options)
    searcher = open_searcher(options.catalogue, weights, options.index, **how)
    read = query_reader(searcher.embedder, options.tracker)
    failed = False
    takes = [options.queries] if options.together else [[query] for query in options.queries]
    if options.save_match:
        _refuse_to_overwrite(options.queries, options.save_match)
    for names in takes:
        query = ", ".join(names)
        try:
            heard = [read(Path(name)) for name in names]
            try:
                answers = searcher.search(heard, options.k, options.anchor, method)
            except QbhError as error:
                raise QbhError(f"{query}: {error}.") from None
        except QbhError as error:
            say(f"qbhkit: {error}")
            failed = True
            continue
        sure = searcher.confident(answers) if method == "full" else None
        line = answer_line(query, sum(hum.voiced_s for hum in heard), answers, sure)
        if options.json:
            print(json.dumps(line), flush=True)  # ASCII: no locale can spoil it
        else:
            _print_answers(line, answers)
        if options.save_match:
            try:
                _save_matches(names, answers, searcher.catalogue, options.save_match)
            except QbhError as error:
                say(f"qbhkit: {error}")
                failed = True
    return 2 if failed else 0


def _print_answers(line: dict[str, Any], answers: "list[Answer]") -> None:
    print(plain(f"{line['query']}: {line['voiced_s']:.1f} s voiced"))
    if line.get("confident") is False:
        print("      no confident match; the nearest songs:")
    for rank, answer in enumerate(answers, 1):
        sure = "" if answer.confidence is None else f"{answer.confidence:4.0%}  "
        span = f"{answer.start_s:.1f} to {answer.end_s:.1f} s"
        title = " ".join(answer.title.split())
        name = plain(f"{title}  [{answer.song_id}]")  # a line a song
        print(f"{rank:4}  {answer.score:.3f}  {span:16}  {sure}{name}")


def _refuse_to_overwrite(queries: Sequence[str], folder: Path) -> None:
    """Raise QbhError if what is saved would replace a query, or what is saved for another one."""
    from qbhkit.corpora import stem_of

    stems: dict[str, str] = {}
    for query in queries:
        if Path(query).resolve().parent == folder.resolve():
            raise QbhError(f"{query} lies in {folder} itself: choose another --save-match folder.")
        other = stems.setdefault(stem_of(Path(query)), query)
        if other != query:
            raise QbhError(
                f"{other} and {query} would be saved under one name, "
                f"{stem_of(Path(query))}.hum.wav: rename one."
            )


def _save_matches(
    names: Sequence[str], answers: "list[Answer]", catalogue: "Catalogue", folder: Path
) -> None:
    """Write the recordings of a query, and what the songs of its answer sound like.

    The names are such that nobody's music is called so, wherever the folder lies.
    """
    from qbhkit.audio import load, write_wav
    from qbhkit.corpora import stem_of
    from qbhkit.retrieval.matches import matched_audio

    for name in names:
        if not name.lower().endswith(".csv"):
            write_wav(load(Path(name)), folder / f"{stem_of(Path(name))}.hum.wav")
    for rank, answer in enumerate(answers, 1):
        path = folder / f"{stem_of(Path(names[0]))}.match{rank}.wav"
        write_wav(matched_audio(catalogue, answer), path)


def serve(options: argparse.Namespace) -> int:
    """Run ``qbhkit serve``."""
    try:
        from qbhkit.service.app import ServiceConfig
        from qbhkit.service.server import read_token, run
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"qbhkit serve needs {error.name}: pip install 'qbhkit[service]'."
        ) from None
    from qbhkit.retrieval.search import open_searcher
    from qbhkit.service.recogniser import Recogniser

    config = ServiceConfig(
        most_mb=options.most_mb,
        timeout_s=options.timeout,
        queue=options.queue,
        token=read_token(options.token_file) if options.token_file else None,
    )

    def load() -> tuple[Recogniser, int]:
        how = index_options(options.index, options)
        searcher = open_searcher(options.catalogue, options.weights, options.index, **how)
        recogniser = Recogniser(searcher, options.tracker, config.longest_s)
        recogniser.warm_up()
        return recogniser, recogniser.songs

    def ready(address: str) -> None:
        say(f"{options.catalogue} answers at {address} (stop with Ctrl-C)")

    run(load, config, options.host, options.port, ready)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Run ``qbhkit evaluate``."""
    from tqdm import tqdm

    from qbhkit.embedding.encoders import ContourEmbedder
    from qbhkit.embedding.end_to_end import AudioEmbedder
    from qbhkit.retrieval import evaluate
    from qbhkit.retrieval.catalogue import open_catalogue
    from qbhkit.retrieval.confidence import Calibration, Case
    from qbhkit.weights import DEFAULT_EMBEDDING

    queries = _read_queries(options.queries)
    catalogue = open_catalogue(options.catalogue)
    unknown = [query for query in queries if query.song_id not in catalogue.number]
    if unknown:
        raise QbhError(
            f"{options.queries} names the song {unknown[0].song_id}, which is not in "
            f"{options.catalogue}: its songs have ids such as {catalogue.songs[0]['id']}."
        )
    blocks = {}
    cases: dict[Query, Case] = {}
    embedder = ContourEmbedder(options.weights or DEFAULT_EMBEDDING)
    methods = dict.fromkeys(options.method or ["full"])
    contours = _heard(queries, embedder, options.tracker) if {*methods} - {END_TO_END} else {}
    for method in methods:
        if method == END_TO_END:
            by_states = AudioEmbedder()
            heard = _heard(queries, by_states)
            score = _scorer("full", catalogue, by_states, options.anchor, heard)
        else:
            score = _scorer(method, catalogue, embedder, options.anchor, contours)
        found = {
            query.path: score(query.path)
            for query in tqdm(queries, desc=method, unit="hum", disable=quiet())
        }
        ranks = evaluate.rank_queries(queries, catalogue.number, found.get)
        if method == "full":
            scored = ((query, found[query.path]) for query in queries)
            cases = {
                query: Case(scores, catalogue.number[query.song_id])
                for query, scores in scored
                if scores is not None
            }
        blocks[method] = evaluate.report(ranks, queries)
    first = next(iter(blocks.values()))
    result = {
        **first,
        "anchor": options.anchor,
        "songs": len(catalogue.songs),
        "model": catalogue.model,
        "comparable_to": evaluate.comparable_to(len(catalogue.songs), options.anchor),
        "song_ids": [query.song_id for query in queries],
        "singers": [query.singer for query in queries],
        "methods": blocks,
        **_calibration_of(cases, Calibration.of(embedder).distance),
    }
    write_json(options.out, result)
    print(f"{len(queries)} queries, {len(catalogue.songs)} songs, anchor {options.anchor}")
    print(f"{'method':16}{'top-1':>22}{'top-5':>22}{'top-10':>22}{'MRR':>22}")
    for method, block in blocks.items():
        cells = [
            f"{block[key]:.3f} [{block['intervals'][key][0]:.3f}, {block['intervals'][key][1]:.3f}]"
            for key in ("top1", "top5", "top10", "mrr")
        ]
        print(f"{method:16}" + "".join(f"{cell:>22}" for cell in cells))
    return 0


def _heard(
    queries: "list[Query]", embedder: "Embedder", tracker: str | None = None
) -> "dict[str, Contour | None]":
    """Hear queries for an embedder; say which cannot be used, and keep None for them."""
    from tqdm import tqdm

    from qbhkit.retrieval.ears import query_reader

    read = query_reader(embedder, tracker)
    found: dict[str, Contour | None] = {}
    for query in tqdm(queries, desc="melody", unit="hum", disable=quiet()):
        found[query.path] = None
        try:
            found[query.path] = read(Path(query.path))
        except QbhError as error:
            say(f"qbhkit: {error}")
    return found


def _calibration_of(cases: "dict[Query, Case]", distance: float) -> dict[str, Any]:
    """Return what hums say of the confidence; nothing where they are too few to say anything."""
    from dataclasses import asdict

    from qbhkit.retrieval.confidence import calibrate, refusal

    found, songs = list(cases.values()), [query.song_id for query in cases]
    with contextlib.suppress(QbhError):
        return {
            "calibration": asdict(calibrate(found, distance)),
            "refusal": refusal(found, songs, distance)._asdict(),
        }
    return {}


def _scorer(
    method: str, catalogue: Any, embedder: Any, anchor: Any, contours: "dict[str, Contour | None]"
) -> "Scorer":
    from qbhkit.retrieval.search import Searcher

    if method in ("full", "vote", "vector"):
        searcher = Searcher(catalogue, embedder)

        def of_contour(hum: "Contour") -> Any:
            return searcher.scores(hum, anchor, cast("Method", method)).score
    else:
        from qbhkit.retrieval.baselines import LinearScaling, SubsequenceDtw

        rival = (SubsequenceDtw if method == "dtw" else LinearScaling)(catalogue.contours)

        def of_contour(hum: "Contour") -> Any:
            return rival.scores(hum, anchor)

    def score(path: str) -> Any:
        hum = contours[path]
        if hum is None:
            return None
        with contextlib.suppress(QbhError):  # too little voiced: a miss
            return of_contour(hum)
        return None

    return score


def _read_queries(path: Path) -> "list[Query]":
    from qbhkit.retrieval.evaluate import Query

    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"path", "song_id"} <= set(reader.fieldnames or ()):
                raise QbhError(f"{path} must begin with the header path,song_id[,singer].")
            rows = list(reader)
    except FileNotFoundError:
        raise QbhError(f"{path} does not exist: check the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise QbhError(f"{path} is not a readable CSV file ({error}).") from None
    queries = []
    for line, row in enumerate(rows, 2):
        if not row["path"] or not row["song_id"]:
            raise QbhError(f"{path}, line {line}: path and song_id must both be given.")
        recording = path.parent / row["path"]  # an absolute path stays as it is
        if not recording.is_file():
            raise QbhError(f"{path}, line {line}: {recording} does not exist.")
        queries.append(Query(str(recording), row["song_id"], row.get("singer") or None))
    if not queries:
        raise QbhError(f"{path} holds no queries: add lines path,song_id.")
    return queries
