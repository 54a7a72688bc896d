"""``qbhkit search``, ``serve`` and ``evaluate``: hums in, songs out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbhkit.cli import options as opt
from qbhkit.cli.terminal import plain, quiet, say
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.storage import write_json

if TYPE_CHECKING:
    from qbhkit.catalogue.read import Catalogue
    from qbhkit.retrieval.searcher import Answer


app = typer.Typer()


@opt.add_command(app, "search", "qbhkit search hum.wav --catalogue catalogue/ -k 5")
def search(
    queries: Annotated[list[str], opt.argument("QUERY", "audio or .f0.csv")],
    catalogue: opt.InCatalogue,
    k: Annotated[int, opt.option("K", "songs in each answer", "-k")] = 10,
    method: opt.SearchMethod = "full",
    takes: Annotated[
        bool, opt.flag("--takes", "the queries are takes of one tune: give one answer")
    ] = False,
    save_match: Annotated[
        Path | None,
        opt.option(
            "DIR", "write each hum as STEM.hum.wav, the matched seconds as STEM.match1.wav, ..."
        ),
    ] = None,
    anchor: opt.Anchor = "anywhere",
    as_json: opt.Json = False,
    tracker: opt.HumTracker = None,
    weights: opt.Weights = None,
    index: opt.Index = "exact",
    schema: opt.Schema = "qbhkit",
) -> int:
    """Find the songs that were hummed."""
    from qbhkit.pitch.frontends import query_loader
    from qbhkit.retrieval.searcher import answer_line, open_searcher, weights_for

    if k < 1:
        raise QbhError("-k must be at least 1.")
    weights = weights_for(method, weights)
    searcher = open_searcher(catalogue, weights, index, **opt.index_options(index, schema))
    how = searcher.resolve(method)
    load_query = query_loader(searcher.embedder.states_of, tracker)
    failed = False
    if save_match:
        _refuse_to_overwrite(queries, save_match)
    for names in [queries] if takes else [[query] for query in queries]:
        query = ", ".join(names)
        try:
            hums = [load_query(name) for name in names]
            try:
                answers = searcher.search([*hums], k, anchor, how)
            except QbhError as error:
                raise QbhError(f"{query}: {error}.") from None
        except QbhError as error:
            say(f"qbhkit: {error}")
            failed = True
            continue
        sure = searcher.confident(answers) if how == "full" else None
        line = answer_line(query, sum(hum.voiced_s for hum in hums), answers, sure)
        if as_json:
            print(json.dumps(line), flush=True)  # ASCII: any locale can print it
        else:
            _print_answers(line, answers)
        if save_match:
            try:
                _save_matches(names, answers, searcher.catalogue, save_match)
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
        played = "  instrumental" if answer.instrumental else ""
        print(f"{rank:4}  {answer.score:.3f}  {span:16}  {sure}{name}{played}")


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


@opt.add_command(app, "serve", "qbhkit serve catalogue/    # then open http://127.0.0.1:8000")
def serve(
    catalogue: opt.Catalogue,
    host: Annotated[
        str,
        typer.Option(
            help="address to bind; one that other machines can reach needs a credential, and an "
            "HTTPS proxy, since browsers allow the microphone only on localhost or over HTTPS"
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free port")] = 8000,
    most_mb: Annotated[float, opt.option("MB", "largest recording")] = 20,
    timeout: Annotated[
        float, opt.option("S", "seconds to send a recording, and again to answer it")
    ] = 30,
    queue: Annotated[
        int, opt.option("N", "recordings that may wait; more are refused with status 503")
    ] = 8,
    token_file: Annotated[
        Path | None,
        opt.option(
            "FILE",
            "holds the credential that requests must carry (Authorization: Bearer ...); required "
            "if other machines can reach the service",
        ),
    ] = None,
    tracker: opt.HumTracker = None,
    weights: opt.Weights = None,
    index: opt.Index = "exact",
    schema: opt.Schema = "qbhkit",
) -> int:
    """Serve a catalogue over HTTP, with a page to hum into."""
    try:
        from qbhkit.service.app import Recognise, ServiceConfig
        from qbhkit.service.server import read_token, run
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"qbhkit serve needs {error.name}: pip install 'qbhkit[service]'."
        ) from None
    from qbhkit.retrieval.searcher import open_searcher
    from qbhkit.service.recogniser import recogniser

    config = ServiceConfig(
        most_mb=most_mb,
        timeout_s=timeout,
        queue=queue,
        token=read_token(token_file) if token_file else None,
    )

    def load() -> tuple[Recognise, int]:
        how = opt.index_options(index, schema)
        searcher = open_searcher(catalogue, weights, index, **how)
        recognise = recogniser(searcher, tracker, config.longest_s)
        return recognise, len(searcher.catalogue.songs)

    def ready(address: str) -> None:
        say(f"{catalogue} answers at {address} (stop with Ctrl-C)")

    run(load, config, host, port, ready)
    return 0


@opt.add_command(
    app,
    "evaluate",
    "qbhkit evaluate --queries hums.csv --catalogue catalogue/ --out result.json",
)
def evaluate(
    queries: Annotated[Path, opt.option("CSV", "columns path,song_id[,singer]")],
    catalogue: opt.InCatalogue,
    out: opt.OutJson,
    anchor: opt.Anchor = "anywhere",
    method: opt.Methods = None,
    tracker: opt.HumTracker = None,
    weights: opt.Weights = None,
) -> int:
    """Measure how often hums find their songs."""
    from qbhkit.evaluation.evaluate import evaluate as measure
    from qbhkit.weights import DEFAULT_EMBEDDING

    found = measure(
        queries,
        catalogue,
        method or ["full"],
        anchor,
        weights or DEFAULT_EMBEDDING,
        tracker,
        progress=not quiet(),
    )
    for failure in found.failures:
        say(f"qbhkit: {failure.reason}")
    result = found.as_json()
    write_json(out, result)
    print(f"{len(found.queries)} queries, {found.songs} songs, anchor {anchor}")
    print(f"{'method':16}{'top-1':>22}{'top-5':>22}{'top-10':>22}{'MRR':>22}")
    for method, block in result["methods"].items():
        cells = [
            f"{block[key]:.3f} [{block['intervals'][key][0]:.3f}, {block['intervals'][key][1]:.3f}]"
            for key in ("top1", "top5", "top10", "mrr")
        ]
        print(f"{method:16}" + "".join(f"{cell:>22}" for cell in cells))
    return 0
