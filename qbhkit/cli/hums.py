"""``qbhkit search``, ``serve`` and ``evaluate``: hums in, songs out."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbhkit.cli.catalogues import index_options
from qbhkit.cli.terminal import plain, quiet, say
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.storage import write_json

if TYPE_CHECKING:
    from qbhkit.catalogue.read import Catalogue
    from qbhkit.retrieval.searcher import Answer


def search(options: argparse.Namespace) -> int:
    """Run ``qbhkit search``."""
    from qbhkit.pitch.frontends import query_loader
    from qbhkit.retrieval.searcher import answer_line, open_searcher, resolve_method

    if options.k < 1:
        raise QbhError("-k must be at least 1.")
    method, weights = resolve_method(options.method, options.weights)
    how = index_options(options.index, options)
    searcher = open_searcher(options.catalogue, weights, options.index, **how)
    load_query = query_loader(searcher.embedder.states_of, options.tracker)
    failed = False
    takes = [options.queries] if options.takes else [[query] for query in options.queries]
    if options.save_match:
        _refuse_to_overwrite(options.queries, options.save_match)
    for names in takes:
        query = ", ".join(names)
        try:
            hums = [load_query(name) for name in names]
            try:
                answers = searcher.search([*hums], options.k, options.anchor, method)
            except QbhError as error:
                raise QbhError(f"{query}: {error}.") from None
        except QbhError as error:
            say(f"qbhkit: {error}")
            failed = True
            continue
        sure = searcher.confident(answers) if method == "full" else None
        line = answer_line(query, sum(hum.voiced_s for hum in hums), answers, sure)
        if options.json:
            print(json.dumps(line), flush=True)  # ASCII: any locale can print it
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
    """Raise QbhError if a saved file would replace a query, or the saved file of another query."""
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
    """Write the recordings of a query, and the matched seconds of the songs that were found.

    The suffixes ``.hum.wav`` and ``.match1.wav`` keep recordings in the folder from being replaced.
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
    from qbhkit.retrieval.searcher import open_searcher
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
    from qbhkit.evaluation.evaluate import evaluate as measure
    from qbhkit.weights import DEFAULT_EMBEDDING

    found = measure(
        options.queries,
        options.catalogue,
        options.method or ["full"],
        options.anchor,
        options.weights or DEFAULT_EMBEDDING,
        options.tracker,
        progress=not quiet(),
    )
    for failure in found.failures:
        say(f"qbhkit: {failure.reason}")
    result = found.as_json()
    write_json(options.out, result)
    print(f"{len(found.queries)} queries, {found.songs} songs, anchor {options.anchor}")
    print(f"{'method':16}{'top-1':>22}{'top-5':>22}{'top-10':>22}{'MRR':>22}")
    for method, block in result["methods"].items():
        cells = [
            f"{block[key]:.3f} [{block['intervals'][key][0]:.3f}, {block['intervals'][key][1]:.3f}]"
            for key in ("top1", "top5", "top10", "mrr")
        ]
        print(f"{method:16}" + "".join(f"{cell:>22}" for cell in cells))
    return 0
