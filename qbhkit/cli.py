"""The command line: thin, scriptable, and honest about bad input (exit code 2)."""

import argparse
import contextlib
import csv
import io
import json
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import qbhkit
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.storage import cache_dir, data_dir, sha256_file, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qbhkit.contour import Contour
    from qbhkit.corpora import Song
    from qbhkit.embedding.sampling import Hummed
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.errors import Failure
    from qbhkit.retrieval.catalogue import Catalogue, Embedder
    from qbhkit.retrieval.confidence import Case
    from qbhkit.retrieval.evaluate import Query, Scorer
    from qbhkit.retrieval.search import Answer, Method
    from qbhkit.retrieval.upkeep import Twin
    from qbhkit.runs import RunConfig

T = TypeVar("T")
END_TO_END = "end-to-end"
METHODS = ("full", "vote", "vector", END_TO_END, "linear-scaling", "dtw")
INDEXES = ("exact", "faiss", "postgres")
_SAME_TUNE = 0.8  # share of common runs from which tunes are listed as near-duplicates
_MOST_LISTED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 2 after one sentence on standard error for input that a user can mend.
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a title that the terminal has no letters for
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return int(options.run(options) or 0)
    except QbhError as error:
        _say(f"qbhkit: {error}")
        return 2
    except BrokenPipeError:  # the reader of a pipe has left
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except OSError as error:
        _say(f"qbhkit: {error.filename or 'a file'} cannot be used ({error.strerror or error}).")
        return 2
    except KeyboardInterrupt:
        _say("qbhkit: stopped; run the same command again to go on.")
        return 130


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    from qbhkit.melody.trackers import TRACKERS

    parser = argparse.ArgumentParser(
        prog="qbhkit", description="Query by humming: a hum in, ranked songs out."
    )
    parser.add_argument("--version", action="version", version=f"qbhkit {qbhkit.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str, example: str, to: Any = commands) -> Any:
        command = to.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    def with_data(command: Any) -> None:
        command.add_argument(
            "--data", type=Path, default=None, metavar="DIR",
            help="folder with the corpora, one folder each (default: $QBHKIT_DATA, else the cache)",
        )  # fmt: skip

    def with_tracker(command: Any, what: str, usual: str) -> None:
        command.add_argument(
            "--tracker", choices=list(TRACKERS), default=None,
            help=f"pitch tracker for {what} (default: {usual})",
        )  # fmt: skip

    for_hums = "swift-f0, or pyin where that is missing"
    for_songs = "crnn-lite, or crnn where its converted weights are in the data folder"

    def with_anchor(command: Any) -> None:
        command.add_argument(
            "--anchor", choices=("start", "anywhere"), default="anywhere",
            help="start: the first 14 s of the hum against the beginnings of songs only",
        )  # fmt: skip

    def with_weights(command: Any) -> None:
        command.add_argument(
            "--weights", default=None, metavar="NAME", help="shipped weights or a .safetensors file"
        )

    def with_index(command: Any) -> None:
        command.add_argument(
            "--index", choices=INDEXES, default="exact",
            help="what finds windows; faiss and postgres once 'qbhkit catalogue index' has built "
            "them (default: exact, which reads all)",
        )  # fmt: skip
        with_schema(command)

    def with_schema(command: Any) -> None:
        command.add_argument(
            "--schema", default="qbhkit", metavar="NAME",
            help="where the catalogue lies in the database of QBHKIT_POSTGRES (default: qbhkit)",
        )  # fmt: skip

    def with_crew(command: Any) -> None:
        crew = command.add_mutually_exclusive_group()
        crew.add_argument(
            "--workers", type=int, default=None, metavar="N",
            help="Dask processes to share the work (default: none, this process alone)",
        )  # fmt: skip
        crew.add_argument(
            "--scheduler", default=None, metavar="ADDRESS",
            help="a Dask cluster to share it, such as tcp://10.0.0.1:8786; waits for its workers",
        )  # fmt: skip

    command = add(
        "melody", _melody, "Extract the melody of recordings as CSV files.",
        "qbhkit melody hums/ song.mp3 --out f0/",
    )  # fmt: skip
    command.add_argument("inputs", nargs="+", metavar="IN", help="audio file or folder of them")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="writes STEM.f0.csv"
    )
    with_tracker(command, "the recordings; swift-f0 suits a voice alone", for_songs)
    command.add_argument(
        "--workers", type=int, default=None, metavar="N", help="processes (default: one a core)"
    )

    catalogue = add(
        "catalogue", None, "Build and keep a catalogue of songs.",
        "qbhkit catalogue build my_songs/ --out catalogue/",
    )  # fmt: skip
    actions = catalogue.add_subparsers(required=True, metavar="ACTION")
    sources: dict[str, Any] = {
        "nargs": "+", "metavar": "SOURCE",
        "help": "corpus name, file or folder (.mid .abc .f0.csv .wav .flac .ogg .mp3 ...)",
    }  # fmt: skip
    command = add(
        "build", _catalogue_build, "Build a catalogue of these sources, or bring it up to date.",
        "qbhkit catalogue build oneills1850 my_songs/ --out catalogue/", actions,
    )  # fmt: skip
    command.add_argument("sources", **sources)
    command.add_argument("--out", type=Path, required=True, metavar="CAT", help="the catalogue")
    with_tracker(command, "recordings of songs", for_songs)
    with_crew(command)
    with_weights(command)
    with_data(command)
    command = add(
        "add", _catalogue_add, "Add songs to a catalogue.",
        "qbhkit catalogue add new_songs/ --catalogue catalogue/", actions,
    )  # fmt: skip
    command.add_argument("sources", **sources)
    command.add_argument("--catalogue", type=Path, required=True, metavar="CAT")
    with_tracker(command, "recordings of songs", "the catalogue's own; no other is admitted")
    with_crew(command)
    with_weights(command)
    with_data(command)
    command = add(
        "remove", _catalogue_remove, "Remove songs from a catalogue.",
        "qbhkit catalogue remove my_song other_song --catalogue catalogue/", actions,
    )  # fmt: skip
    command.add_argument("ids", nargs="+", metavar="ID", help="as in answers, in brackets")
    command.add_argument("--catalogue", type=Path, required=True, metavar="CAT")
    command = add(
        "info", _catalogue_info, "Tell what a catalogue holds and what made it.",
        "qbhkit catalogue info catalogue/", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    command = add(
        "verify", _catalogue_verify, "Check every byte of a catalogue.",
        "qbhkit catalogue verify catalogue/", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command = add(
        "merge", _catalogue_merge, "Merge catalogues that the same model and tracker made.",
        "qbhkit catalogue merge mine/ yours/ --out ours/", actions,
    )  # fmt: skip
    command.add_argument("catalogues", nargs="+", type=Path, metavar="CAT")
    command.add_argument(
        "--out", type=Path, required=True, metavar="CAT", help="a new one, or one of them"
    )

    command = add(
        "index", _catalogue_index, "Build an index, so that many songs are searched faster.",
        "qbhkit catalogue index catalogue/ --kind faiss", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command.add_argument(
        "--kind", choices=INDEXES[1:], default="faiss",
        help="faiss: in the catalogue's folder (default); postgres: in the database whose libpq "
        "connection string QBHKIT_POSTGRES holds",
    )  # fmt: skip
    with_schema(command)

    command = add(
        "search", _search, "Name the songs of hums.",
        "qbhkit search hum.wav --catalogue catalogue/ -k 5",
    )  # fmt: skip
    command.add_argument("queries", nargs="+", metavar="QUERY", help="audio or .f0.csv")
    command.add_argument("--catalogue", type=Path, required=True, metavar="CAT")
    command.add_argument("-k", type=int, default=10, help="songs in each answer (default: 10)")
    command.add_argument(
        "--method", choices=METHODS[:4], default="full",
        help="full: the songs that the hum's parts vote for, aligned with it (default); "
        "vote: without the alignment; vector: the whole hum at once; end-to-end: full, by what the "
        "melody network hears instead of a pitch, in a catalogue built with --weights stage1",
    )  # fmt: skip
    command.add_argument(
        "--together", action="store_true", help="the queries are takes of one tune: one answer"
    )
    command.add_argument(
        "--save-match", type=Path, metavar="DIR",
        help="write each hum's STEM.wav and, of its songs, STEM.1.wav and so on: what matches it",
    )  # fmt: skip
    with_anchor(command)
    command.add_argument("--json", action="store_true", help="one JSON object a line, nothing else")
    with_tracker(command, "the hums", for_hums)
    with_weights(command)
    with_index(command)

    command = add(
        "serve", _serve, "Answer hums over HTTP, and on a page to hum at in a browser.",
        "qbhkit serve catalogue/    # then open http://127.0.0.1:8000",
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CATALOGUE")
    command.add_argument(
        "--host", default="127.0.0.1",
        help="address to bind (default: 127.0.0.1, this machine only); browsers give a page the "
        "microphone only there or over HTTPS, so put a server with a certificate before others",
    )  # fmt: skip
    command.add_argument("--port", type=int, default=8000, help="0: a free one (default: 8000)")
    command.add_argument(
        "--most-mb", type=float, default=20, metavar="MB", help="of a recording (default: 20)"
    )
    command.add_argument(
        "--timeout", type=float, default=30, metavar="S",
        help="seconds to send a recording, and again to answer it (default: 30)",
    )  # fmt: skip
    command.add_argument(
        "--queue", type=int, default=8, metavar="N",
        help="recordings that may wait; further ones are sent away with 503 (default: 8)",
    )  # fmt: skip
    command.add_argument(
        "--token-file", type=Path, default=None, metavar="FILE",
        help="holds the credential that requests must bring (Authorization: Bearer ...); needed "
        "where other machines can reach the service",
    )  # fmt: skip
    with_tracker(command, "the hums", for_hums)
    with_weights(command)
    with_index(command)

    command = add(
        "evaluate", _evaluate, "Measure how often hums find their songs.",
        "qbhkit evaluate --queries hums.csv --catalogue catalogue/ --out result.json",
    )  # fmt: skip
    command.add_argument(
        "--queries", type=Path, required=True, metavar="CSV", help="path,song_id[,singer]"
    )
    command.add_argument("--catalogue", type=Path, required=True, metavar="CAT")
    with_anchor(command)
    command.add_argument(
        "--method", action="append", choices=METHODS, help="may be repeated (default: full)"
    )
    command.add_argument("--out", type=Path, required=True, metavar="JSON")
    with_tracker(command, "the hums", for_hums)
    with_weights(command)

    command = add(
        "train",
        _train,
        "Train an embedding or a melody network.",
        "qbhkit train first --out runs/first --resume",
    )
    command.add_argument("config", metavar="CONFIG", help="YAML file or a shipped name")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="auto: a GPU if there is one (default)",
    )  # fmt: skip
    command.add_argument(
        "--devices", type=int, default=1, metavar="N",
        help="GPUs, or processes on the CPU, that share every batch (default: 1)",
    )  # fmt: skip
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="checkpoint and weights (default: in the cache)"
    )
    command.add_argument(
        "--log", type=Path, metavar="JSON", help="the curve (default: data/results, else DIR)"
    )
    with_data(command)

    command = add(
        "crossfold", _crossfold, "Score a recipe: each hum by a model without its song and singer.",
        "qbhkit crossfold best --out crossfold.json --stress",
    )  # fmt: skip
    command.add_argument("config", metavar="CONFIG", help="fine-tuning: YAML file or shipped name")
    command.add_argument("--out", type=Path, required=True, metavar="JSON")
    command.add_argument(
        "--start", metavar="NAME", help="weights to start from, instead of the configuration's"
    )
    command.add_argument(
        "--only-start", action="store_true", help="score these weights as they are: stage 1 alone"
    )
    command.add_argument(
        "--stress", action="store_true", help="search the hums transposed and stretched too"
    )
    command.add_argument(
        "--models", type=Path, metavar="DIR", help="keeps the models (default: in the cache)"
    )
    with_tracker(command, "the hums", for_hums)
    with_data(command)

    command = add(
        "ablate", _ablate, "Compare recipes that differ in one part, on one budget.",
        "qbhkit ablate ablation --budget tiny --out table.json",
    )  # fmt: skip
    command.add_argument("grid", metavar="GRID", help="YAML file or shipped name")
    command.add_argument("--budget", required=True, metavar="NAME", help="one of the grid's")
    command.add_argument("--out", type=Path, required=True, metavar="JSON", help="goes on from it")
    command.add_argument(
        "--models", type=Path, metavar="DIR", help="keeps the models (default: in the cache)"
    )
    with_tracker(command, "the hums", for_hums)
    with_data(command)

    weights = add(
        "weights", None, "Bring trained weights into the kit.",
        "qbhkit weights convert ResNet_NS.hdf5 mean.npy std.npy",
    )  # fmt: skip
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    command = add(
        "convert", _weights_convert, "Convert the published Keras weights of the melody network.",
        "qbhkit weights convert ResNet_NS.hdf5 x_data_mean_total_31.npy x_data_std_total_31.npy",
        actions,
    )  # fmt: skip
    command.add_argument("keras", type=Path, metavar="WEIGHTS.hdf5", help="Keras 2 weights")
    command.add_argument("mean", type=Path, metavar="MEAN.npy", help="(31, 513) dB")
    command.add_argument("std", type=Path, metavar="STD.npy", help="(31, 513) dB")
    command.add_argument(
        "--out", type=Path, default=None, metavar="DIR",
        help="writes crnn.safetensors (default: where the kit looks for it)",
    )  # fmt: skip

    command = add(
        "convert-original", _weights_convert_original,
        "Convert a checkpoint of the original PyTorch code.",
        "qbhkit weights convert-original contour_model/ --out weights/", actions,
    )  # fmt: skip
    command.add_argument(
        "folder", type=Path, metavar="FOLDER", help="holds hparams.dat and checkpoint_best.pt"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="writes original.safetensors"
    )

    command = add(
        "calibrate", _weights_calibrate, "Store with weights when to believe their answers.",
        "qbhkit weights calibrate mine.safetensors result.json", actions,
    )  # fmt: skip
    command.add_argument("weights", metavar="NAME", help="shipped weights or a .safetensors file")
    command.add_argument(
        "result", type=Path, metavar="JSON",
        help="of 'qbhkit crossfold', or of 'qbhkit evaluate' on hums they were not trained on",
    )  # fmt: skip

    command = add(
        "bench", _bench, "Run a benchmark of the checkout (tests/benchmarks).",
        "qbhkit bench augment",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME")
    command.add_argument("rest", nargs=argparse.REMAINDER, help="options of the benchmark")

    corpora = add("data", None, "List, fetch and verify corpora.", "qbhkit data list")
    actions = corpora.add_subparsers(required=True, metavar="ACTION")
    command = add(
        "list", _data_list, "List the corpora the kit knows.", "qbhkit data list", actions
    )
    with_data(command)
    command = add(
        "fetch", _data_fetch, "Download a corpus from its official address.",
        "qbhkit data fetch mir-qbsh", actions,
    )  # fmt: skip
    command.add_argument("name", metavar="NAME")
    with_data(command)
    command = add(
        "pairs", _data_pairs, "Lay the hums of MIR-QBSH along their songs, to train on.",
        "qbhkit data pairs", actions,
    )  # fmt: skip
    command.add_argument("--out", type=Path, metavar="CSV", help="default: pairs.csv in the cache")
    with_tracker(command, "the hums", for_hums)
    with_data(command)
    command = add(
        "hear", _data_hear, "Sing and play songs in notes, and write the melodies that are heard.",
        "qbhkit data hear pop909 --songs 300 --seconds 60", actions,
    )  # fmt: skip
    command.add_argument("corpus", metavar="CORPUS", help="pop909: MIDI with an accompaniment")
    command.add_argument(
        "--out", type=Path, metavar="DIR",
        help="writes ID.f0.csv (default: CORPUS-heard in the cache, where training looks for it)",
    )  # fmt: skip
    command.add_argument("--songs", type=int, metavar="N", help="only the first N (default: all)")
    command.add_argument(
        "--seconds", type=float, metavar="S",
        help="of each song, from a second before its first note (default: all of it)",
    )  # fmt: skip
    command.add_argument(
        "--level-db", type=float, nargs=2, default=(-3.0, 6.0), metavar=("LOW", "HIGH"),
        help="voice over accompaniment, drawn for each song (default: -3 6)",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, metavar="K", help="default: 0")
    with_tracker(command, "the mixes", for_songs)
    with_data(command)
    command = add(
        "shards", _data_shards, "Write melodies to train on, to be read from disk as needed.",
        "qbhkit data shards folk_tunes/ pop909 --out shards/", actions,
    )  # fmt: skip
    command.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="files, folders or corpora; of corpora what may be trained on",
    )  # fmt: skip
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    with_data(command)
    command = add(
        "perform", _data_perform, "Sing training songs and hear them, for end-to-end training.",
        "qbhkit data perform --count 3000", actions,
    )  # fmt: skip
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="default: performances.safetensors in the cache"
    )
    command.add_argument("--count", type=int, metavar="N", help="performances, of 8 to 20 s each")
    command.add_argument("--config", metavar="YAML", help="how they are drawn, beside their count")
    command.add_argument(
        "--workers", type=int, default=None, metavar="N", help="processes (default: one a core)"
    )
    with_data(command)
    command = add(
        "verify", _data_verify, "Check a corpus on disk.", "qbhkit data verify mir-qbsh", actions
    )
    command.add_argument("name", metavar="NAME")
    with_data(command)
    return parser


def _melody(options: argparse.Namespace) -> int:
    from qbhkit.corpora import stem_of
    from qbhkit.melody.batch import extract_all
    from qbhkit.melody.trackers import default_song_tracker

    paths = [path for name in options.inputs for path in _audio_files(Path(name))]
    stems: dict[str, Path] = {}
    for path in paths:
        stem = stem_of(path)
        if stem in stems:
            raise QbhError(
                f"{stems[stem]} and {path} would both be written to {stem}.f0.csv; rename one."
            )
        stems[stem] = path
    done = extract_all(
        {path: options.out / f"{stem}.f0.csv" for stem, path in stems.items()},
        options.tracker or default_song_tracker(),
        options.workers,
        progress=not _quiet(),
    )
    if done.reused:
        _say(f"{done.reused} of {len(paths)} were there already")
    failures = done.failures
    return _report_failures(failures, len(paths), options.inputs)


def _audio_files(path: Path) -> list[Path]:
    from qbhkit.audio import AUDIO_SUFFIXES

    if not path.is_dir():
        return [path]
    named = [child for child in path.rglob("*") if child.name.lower().endswith(AUDIO_SUFFIXES)]
    found = [child for child in named if child.name[:2] != "._"]  # what macOS leaves in archives
    if not found:
        raise QbhError(f"{path} holds no audio files ({', '.join(AUDIO_SUFFIXES)}).")
    return sorted(found)


def _report_failures(failures: "list[Failure]", total: int, inputs: Sequence[str]) -> int:
    """Say what failed; the code is 2 if a file named by the user failed, or nothing went well."""
    for failure in failures:
        _say(f"qbhkit: {failure.reason}")
    if failures and total > 1:
        _say(f"qbhkit: {len(failures)} of {total} failed, the others are done.")
    named = {str(Path(name)) for name in inputs}
    fatal = any(failure.name in named for failure in failures) or len(failures) == total
    return 2 if failures and fatal else 0


def _quiet() -> bool:
    return not sys.stderr.isatty()


def _catalogue_build(options: argparse.Namespace) -> int:
    from qbhkit.retrieval.catalogue import build_catalogue

    songs, unreadable = _read_songs(options)
    found = _with_crew(build_catalogue, songs, options.out, options)
    print(
        f"{options.out}: {found.songs} songs, {found.windows} windows"
        + (f" ({found.reused} songs were there already)" if found.reused else "")
    )
    _say_same_melodies(songs)
    failures = [*unreadable, *found.failures]
    return _report_failures(failures, found.songs + len(failures), options.sources)


def _read_songs(options: argparse.Namespace) -> "tuple[list[Song], list[Failure]]":
    from qbhkit.corpora import open_source
    from qbhkit.retrieval.catalogue import read_sources

    data = options.data or data_dir()
    corpora = [corpus for source in options.sources for corpus in open_source(source, data)]
    songs, unreadable = read_sources(corpora)
    if unreadable and not songs:
        raise QbhError(f"Not one song could be read: {unreadable[0].reason}")
    return songs, unreadable


def _with_crew(
    work: "Callable[..., T]", songs: "list[Song]", catalogue: Path, options: argparse.Namespace
) -> T:
    """Build or add with the weights, the tracker and the workers that the options name."""
    from qbhkit.embedding.encoders import ContourEmbedder
    from qbhkit.retrieval.cluster import open_crew
    from qbhkit.weights import DEFAULT_EMBEDDING

    weights = options.weights or DEFAULT_EMBEDDING
    embedder, shown = ContourEmbedder(weights), not _quiet()
    with open_crew(options.workers, options.scheduler, weights) as crew:
        return work(songs, catalogue, embedder, options.tracker, progress=shown, crew=crew)


def _catalogue_add(options: argparse.Namespace) -> int:
    from qbhkit.retrieval.upkeep import add_songs

    songs, unreadable = _read_songs(options)
    found = _with_crew(add_songs, songs, options.catalogue, options)
    print(
        f"{options.catalogue}: {found.added} songs added; {found.songs} songs, "
        f"{found.windows} windows"
    )
    _say_twins(found.twins)
    failures = [*unreadable, *found.failures]
    return _report_failures(failures, len(songs) + len(unreadable), options.sources)


def _say_twins(twins: "Sequence[Twin]") -> None:
    for twin in twins:
        as_what = "" if twin.there == twin.id else f" as {twin.there}"
        _say(f"{twin.id} is there already{as_what}")


def _catalogue_remove(options: argparse.Namespace) -> int:
    from qbhkit.retrieval.upkeep import remove_songs

    left = remove_songs(options.ids, options.catalogue)
    print(f"{options.catalogue}: {left.songs} songs, {left.windows} windows are left")
    return 0


def _catalogue_info(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from qbhkit.retrieval.upkeep import describe_catalogue

    found = describe_catalogue(options.catalogue)
    if options.json:
        print(json.dumps(found._asdict() | {"grid": asdict(found.grid)}))
        return 0
    lengths = ", ".join(f"{length:g}" for length in found.grid.lengths_s)
    print(f"{options.catalogue}: {found.songs} songs ({found.recordings} recordings)")
    print(f"windows:  {found.windows}, of {lengths} s")
    print(f"on disk:  {found.bytes / 1e6:.1f} MB in {found.shards} shards")
    print(f"model:    {found.model}")
    print(f"tracker:  {found.tracker}")
    for licence, songs in found.licences.items():
        print(f"licence:  {licence} ({songs} songs)")
    return 0


def _catalogue_verify(options: argparse.Namespace) -> int:
    from qbhkit.retrieval.upkeep import verify_catalogue

    found = verify_catalogue(options.catalogue)
    for problem in found.problems:
        _say(f"qbhkit: {problem.reason}")
    if found.problems:
        _say("qbhkit: a build from the same sources makes only what is damaged anew.")
        return 2
    print(f"{options.catalogue}: {found.songs} songs, {found.windows} windows, all whole")
    return 0


def _catalogue_merge(options: argparse.Namespace) -> int:
    from qbhkit.retrieval.upkeep import merge_catalogues

    merged = merge_catalogues(options.catalogues, options.out)
    print(f"{options.out}: {merged.songs} songs, {merged.windows} windows")
    _say_twins(merged.twins)
    return 0


def _catalogue_index(options: argparse.Namespace) -> int:
    from qbhkit.retrieval.catalogue import open_catalogue
    from qbhkit.retrieval.index import build_index

    catalogue = open_catalogue(options.catalogue)
    build_index(options.kind, catalogue, **_of_index(options.kind, options))
    print(f"{options.catalogue}: {len(catalogue.song)} windows in the index {options.kind}")
    return 0


def _of_index(name: str, options: argparse.Namespace) -> dict[str, Any]:
    return {"schema": options.schema} if name == "postgres" else {}


def _say_same_melodies(songs: "Sequence[Song]") -> None:
    from qbhkit.corpora.duplicates import same_melodies

    same = same_melodies({song.id: song.notes for song in songs if song.notes is not None})
    for group in same[:_MOST_LISTED]:
        _say(f"the same melody under several ids: {', '.join(group)}")
    if len(same) > _MOST_LISTED:
        _say(f"and {len(same) - _MOST_LISTED} more melodies that several songs share")


def _search(options: argparse.Namespace) -> int:
    from qbhkit.retrieval.ears import query_reader
    from qbhkit.retrieval.search import answer_line, open_searcher

    if options.k < 1:
        raise QbhError("-k must be at least 1.")
    method, weights = options.method, options.weights
    if method == END_TO_END:
        method, weights = "full", weights or END_TO_END
    how = _of_index(options.index, options)
    searcher = open_searcher(options.catalogue, weights, options.index, **how)
    read = query_reader(searcher.embedder, options.tracker)
    failed = False
    takes = [options.queries] if options.together else [[query] for query in options.queries]
    for names in takes:
        query = ", ".join(names)
        try:
            heard = [read(Path(name)) for name in names]
            try:
                answers = searcher.search(heard, options.k, options.anchor, method)
            except QbhError as error:
                raise QbhError(f"{query}: {error}.") from None
            if options.save_match:
                _save_matches(names, answers, searcher.catalogue, options.save_match)
        except QbhError as error:
            _say(f"qbhkit: {error}")
            failed = True
            continue
        sure = searcher.confident(answers) if method == "full" else None
        line = answer_line(query, sum(hum.voiced_s for hum in heard), answers, sure)
        if options.json:
            print(json.dumps(line), flush=True)  # ASCII: no locale can spoil it
        else:
            _print_answers(line, answers)
    return 2 if failed else 0


def _print_answers(line: dict[str, Any], answers: "list[Answer]") -> None:
    print(f"{line['query']}: {line['voiced_s']:.1f} s voiced")
    if line.get("confident") is False:
        print("      no confident match; the nearest songs:")
    for rank, answer in enumerate(answers, 1):
        sure = "" if answer.confidence is None else f"{answer.confidence:4.0%}  "
        span = f"{answer.start_s:.1f} to {answer.end_s:.1f} s"
        title = " ".join(answer.title.split())  # a line a song
        print(f"{rank:4}  {answer.score:.3f}  {span:16}  {sure}{title}  [{answer.song_id}]")


def _save_matches(
    names: Sequence[str], answers: "list[Answer]", catalogue: "Catalogue", folder: Path
) -> None:
    """Write the recordings of a query, and what the songs of its answer sound like."""
    from qbhkit.audio import load, write_wav
    from qbhkit.corpora import stem_of
    from qbhkit.retrieval.matches import matched_audio

    for name in names:
        if not name.lower().endswith(".csv"):
            write_wav(load(Path(name)), folder / f"{stem_of(Path(name))}.wav")
    for rank, answer in enumerate(answers, 1):
        path = folder / f"{stem_of(Path(names[0]))}.{rank}.wav"
        write_wav(matched_audio(catalogue, answer), path)


def _serve(options: argparse.Namespace) -> int:
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
        how = _of_index(options.index, options)
        searcher = open_searcher(options.catalogue, options.weights, options.index, **how)
        recogniser = Recogniser(searcher, options.tracker, config.longest_s)
        recogniser.warm_up()
        return recogniser, recogniser.songs

    def ready(address: str) -> None:
        _say(f"{options.catalogue} answers at {address} (stop with Ctrl-C)")

    run(load, config, options.host, options.port, ready)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
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
        ranks: list[int | None] = []
        for query in tqdm(queries, desc=method, unit="hum", disable=_quiet()):
            scores, truth = score(query.path), catalogue.number[query.song_id]
            ranks.append(None if scores is None else evaluate.rank_of(scores, truth))
            if method == "full" and scores is not None:
                cases[query] = Case(scores, truth)
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
    for query in tqdm(queries, desc="melody", unit="hum", disable=_quiet()):
        found[query.path] = None
        try:
            found[query.path] = read(Path(query.path))
        except QbhError as error:
            _say(f"qbhkit: {error}")
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


def _train(options: argparse.Namespace) -> int:
    from qbhkit.config import config_path, read_yaml
    from qbhkit.figures import save_figure, training_figure
    from qbhkit.storage import read_json

    path = config_path(options.config)
    values = read_yaml(path)
    out = options.out or cache_dir() / "runs" / path.stem
    results = Path("data/results")
    log = options.log or (results if results.is_dir() else out) / f"train_{path.stem}.json"
    data = options.data or data_dir()
    run = _Run(values, path, out, log, options)
    kinds = {"melody": _train_melody, "end-to-end": _train_end_to_end}
    kinds.get(str(values.get("kind")), _train_embedding)(run, data)
    curve = read_json(log, "train again")["curve"]
    save_figure(training_figure(curve, path.stem), out, "curve")
    print(f"weights: {run.weights}\ncurve: {log}")
    return 0


class _Run(NamedTuple):
    """What a training run was asked for."""

    values: dict[str, Any]
    path: Path
    out: Path
    log: Path
    options: argparse.Namespace

    @property
    def weights(self) -> Path:
        return self.out / f"{self.path.stem}.safetensors"

    def carried(self, config: "RunConfig") -> dict[str, Any]:
        """Return the arguments that every kind of training takes."""
        from qbhkit.runs import make_fabric

        fabric = make_fabric(config, self.options.device, self.options.devices)
        return {"resume": self.options.resume, "progress": not _quiet(), "fabric": fabric}


def _train_embedding(run: _Run, data: Path) -> None:
    from qbhkit.config import build
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.encoders import export_encoder
    from qbhkit.embedding.sampling import HumPairs
    from qbhkit.embedding.training import TrainConfig, pair_evaluator, song_source, train
    from qbhkit.retrieval.evaluate import pair_mrr

    config = build(TrainConfig, run.values, str(run.path))
    carried = run.carried(config)
    songs = training_songs(config.corpora, data, config.hop_s)
    _say(f"{len(songs.ids)} songs, {len(set(songs.groups))} tunes to learn from")
    drawn = song_source(config, songs)
    hums = None
    if config.hums is not None:
        listened, contours = _hear_pairs(config, run.path.parent, data)
        reading = config.window.reading
        hums = HumPairs(listened, contours, config.hums, reading, config.normalisation)
    validate = pair_evaluator(config, songs.held_out, pair_mrr)
    encoder = train(config, drawn, run.out, run.log, hums, validate, **carried)
    export_encoder(encoder, run.weights, config.window.reading, config.normalisation)


def _crossfold(options: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from qbhkit.config import build, config_path, read_yaml
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.retrieval import crossfold
    from qbhkit.weights import weights_path

    path = config_path(options.config)
    config = build(TrainConfig, read_yaml(path), str(path))
    config = replace(config, start=str(weights_path(options.start or config.start)))
    if options.only_start:
        config = replace(config, hums=None)
    data, progress = options.data or data_dir(), not _quiet()
    ground = crossfold.mir_qbsh(config, data, options.tracker, progress)
    folder = options.models or cache_dir() / "crossfold" / path.stem
    found = crossfold.cross_fold(
        config, ground, folder, options.stress, progress, ("vote", "full", "vector")
    )
    named = replace(config, start=Path(config.start).stem)
    result = {"config": asdict(named), "songs": len(ground.book.contours), **found}
    write_json(options.out, result)
    for method, blocks in {"vote": found, **found["methods"]}.items():
        for name, block in blocks.items():
            if "ranks" in block:
                cells = "  ".join(f"{key} {block[key]:.3f}" for key in ("top1", "top10", "mrr"))
                print(f"{method:8}{name:28}{cells}")
    for anchor, block in found["refusal"].items():
        print(f"refusal {anchor:28}" + "  ".join(f"{key} {block[key]:.3f}" for key in block))
    return 0


def _ablate(options: argparse.Namespace) -> int:
    from qbhkit.config import build, config_path, read_yaml
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.retrieval import ablation, crossfold

    path = config_path(options.grid)
    grid = build(ablation.Grid, read_yaml(path), str(path))
    data, progress = options.data or data_dir(), not _quiet()

    def ground_of(config: TrainConfig) -> crossfold.Ground:
        return crossfold.mir_qbsh(config, data, options.tracker, progress)

    folder = options.models or cache_dir() / "ablation" / path.stem
    found = ablation.ablate(grid, options.budget, ground_of, folder, options.out, progress)
    print(f"{'':40}{'start: top-1':>14}{'top-10':>9}{'anywhere: top-1':>17}{'top-10':>9}")
    for line in ablation.table(found):
        start, anywhere = (
            [f"{line[f'{anchor} {key}']:.3f}" for key in ("top1", "top10")]
            for anchor in crossfold.ANCHORS
        )
        print(f"{line['row']:40}{start[0]:>14}{start[1]:>9}{anywhere[0]:>17}{anywhere[1]:>9}")
    return 0


def _hear_pairs(
    config: "TrainConfig", folder: Path, data: Path
) -> "tuple[list[Hummed], list[Contour]]":
    """Hear the hums of a configuration, which lies in a folder, and lay them along their songs."""
    from tqdm import tqdm

    from qbhkit.corpora import open_source, songs_of
    from qbhkit.corpora.pairs import read_pairs
    from qbhkit.melody.trackers import get_tracker
    from qbhkit.retrieval.crossfold import hear

    named = _found(config.pairs, folder)
    pairs = read_pairs(named)
    corpora = [corpus for source in config.songs for corpus in open_source(source, data)]
    songs = [song for corpus in corpora for song in songs_of(corpus)]
    number = {song.id: k for k, song in enumerate(songs)}
    contours = [song.contour(config.hop_s) for song in songs]
    tracker, hums = get_tracker(), []
    for pair in tqdm(pairs, desc="melody", unit="hum", disable=_quiet()):
        if pair.song_id not in number:
            raise QbhError(f"{named} names the song {pair.song_id}, which is not in 'songs'.")
        song = number[pair.song_id]
        hums.append(hear(pair.hum, song, contours[song], tracker, pair.start_s, pair.end_s))
    return hums, contours


def _found(name: str, folder: Path) -> Path:
    """Look for a file that a configuration names: here, beside the configuration, in the cache."""
    places = [place / name for place in (Path(), folder, cache_dir())]
    return next((path for path in places if path.is_file()), places[0])


def _train_end_to_end(run: _Run, data: Path) -> None:
    from qbhkit.config import build
    from qbhkit.embedding.encoders import ContourEmbedder
    from qbhkit.embedding.end_to_end import EndToEndConfig, export_audio_encoder, train
    from qbhkit.embedding.performances import PerformanceBank, read_performances
    from qbhkit.retrieval.evaluate import pair_mrr

    config = build(EndToEndConfig, run.values, str(run.path))
    carried = run.carried(config)
    bank = PerformanceBank(read_performances(_found(config.bank, run.path.parent)))
    _say(f"{len(bank)} performances to learn from")
    encoder = train(config, bank, run.out, run.log, pair_mrr, **carried)
    export_audio_encoder(encoder, run.weights, ContourEmbedder(config.teacher), bank.heard_by)


def _train_melody(run: _Run, data: Path) -> None:
    from qbhkit.config import build
    from qbhkit.melody.lite import export_lite
    from qbhkit.melody.training import (
        MelodyTrainConfig,
        best_threshold,
        listen,
        mixture_evaluator,
        train,
        watch,
    )
    from qbhkit.melody.voices import training_material

    config = build(MelodyTrainConfig, run.values, str(run.path))
    carried = run.carried(config)
    material = training_material(config, data, cache_dir() / "stems", progress=not _quiet())
    _say(
        f"{len(material.bank)} excerpts and {len(material.voices)} recordings to learn from, "
        f"{len(material.watched_voices)} recordings to watch"
    )
    watched = watch(config, material.watched_bank, material.watched_voices)
    evaluate = mixture_evaluator(config, watched)
    network = train(config, material.bank, material.voices, run.out, run.log, evaluate, **carried)
    export_lite(network, run.weights, best_threshold(listen(network, watched, config.blur_st)))


def _bench(options: argparse.Namespace) -> int:
    folder = Path("tests/benchmarks")
    script = folder / f"bench_{options.name}.py"
    if not script.is_file():
        names = ", ".join(sorted(path.stem[6:] for path in folder.glob("bench_*.py")))
        raise QbhError(
            f"There is no benchmark {options.name!r} here"
            + (f": use one of {names}." if names else ": run it from a checkout of the repository.")
        )
    sys.argv = [str(script), *options.rest]
    sys.path.insert(0, str(folder.resolve()))  # benchmarks share a module beside them
    runpy.run_path(str(script), run_name="__main__")
    return 0


def _weights_convert(options: argparse.Namespace) -> int:
    from qbhkit.melody.keras_weights import convert_crnn
    from qbhkit.weights import crnn_path

    found = crnn_path()
    written = convert_crnn(options.keras, options.mean, options.std, options.out or found.parent)
    print(f"weights: {written}")
    if written.resolve() != found.resolve():
        _say(f"qbhkit looks for it at {found}: copy it there.")
    return 0


def _weights_convert_original(options: argparse.Namespace) -> int:
    from qbhkit.embedding.original import convert_original

    print(f"weights: {convert_original(options.folder, options.out)}")
    return 0


def _weights_calibrate(options: argparse.Namespace) -> int:
    from qbhkit.config import build
    from qbhkit.retrieval.confidence import Calibration
    from qbhkit.storage import read_json
    from qbhkit.weights import load_weights, save_weights, weights_path

    cure = "give the JSON of 'qbhkit crossfold', or of 'qbhkit evaluate' on hums enough"
    values = read_json(options.result, cure)
    if not isinstance(values, dict) or not isinstance(values.get("calibration"), dict):
        raise QbhError(f"{options.result} holds no calibration: {cure}.")
    build(Calibration, values["calibration"], str(options.result))
    path, stored = weights_path(options.weights), load_weights(options.weights)
    save_weights(path, stored.arrays, stored.config | {"calibration": values["calibration"]})
    print(f"{path}: {values['calibration']}")
    return 0


def _data_list(options: argparse.Namespace) -> int:
    from qbhkit.corpora import CORPORA, open_corpus

    data = options.data or data_dir()
    for info in CORPORA.values():
        try:
            state = f"here, {len(open_corpus(info.name, data).files)} files"
        except QbhError:
            state = "not here"
        print(f"{info.name}: {info.what} ({state})")
        print(f"    from:  {info.where}\n    terms: {info.terms}\n    get:   {info.cure}")
    return 0


def _data_fetch(options: argparse.Namespace) -> int:
    from qbhkit.corpora import CORPORA
    from qbhkit.corpora.fetch import download, unpack

    info = CORPORA.get(options.name)
    if info is None:
        raise QbhError(f"There is no corpus {options.name!r}; see 'qbhkit data list'.")
    if info.url is None or info.sha256 is None:
        raise QbhError(f"{info.name} is not offered for download: {info.cure}.")
    data = options.data or data_dir()
    archive = data / f"{info.name}.zip"
    download(info.url, archive, info.sha256, progress=not _quiet())
    unpack(archive, data / info.name)
    files = sorted(path for path in (data / info.name).rglob("*") if path.is_file())
    sums = {str(path.relative_to(data / info.name)): sha256_file(path) for path in files}
    write_json(data / f"{info.name}.sums.json", sums)
    print(f"{data / info.name}: {len(files)} files")
    return 0


def _data_pairs(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from qbhkit.contour import CONTOUR_HOP_S
    from qbhkit.corpora import songs_of
    from qbhkit.corpora.folders import MirQbsh
    from qbhkit.corpora.pairs import Pair, write_pairs
    from qbhkit.melody.trackers import get_tracker
    from qbhkit.retrieval.crossfold import hear

    corpus = MirQbsh((options.data or data_dir()) / "mir-qbsh")
    contours = {song.id: song.contour() for song in songs_of(corpus)}
    tracker, pairs = get_tracker(options.tracker), []
    for hum in tqdm(corpus.hums(), desc="melody", unit="hum", disable=_quiet()):
        try:
            at = hear(hum.path, 0, contours[hum.song_id], tracker).at
        except QbhError as error:
            _say(f"qbhkit: {error}")
            continue
        half_s = CONTOUR_HOP_S / 2  # an alignment's times are the middles of frames
        ends_s = (at.song_s[0] - half_s, at.song_s[-1] + half_s)
        pairs.append(Pair(hum.path.resolve(), hum.song_id, *map(float, ends_s)))
    out = options.out or cache_dir() / "pairs.csv"
    write_pairs(pairs, out)
    print(f"{out}: {len(pairs)} hums")
    return 0


def _data_hear(options: argparse.Namespace) -> int:
    from qbhkit.melody.heard import HearConfig, hear_corpus
    from qbhkit.melody.trackers import default_song_tracker

    config = HearConfig(options.seed, options.seconds, tuple(options.level_db))
    out = options.out or cache_dir() / f"{options.corpus}-heard"
    done = hear_corpus(
        options.corpus,
        options.data or data_dir(),
        out,
        config,
        options.tracker or default_song_tracker(),
        options.songs,
        progress=not _quiet(),
    )
    code = _report_failures(done.failures, done.written + done.reused + len(done.failures), [])
    if not code:
        again = f" ({done.reused} were there already)" if done.reused else ""
        print(f"{out}: {done.written + done.reused} melodies{again}")
    return code


def _data_shards(options: argparse.Namespace) -> int:
    from qbhkit.corpora import CORPORA, open_source, songs_of
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.shards import write_shards

    data = options.data or data_dir()
    songs = training_songs(tuple(name for name in options.sources if name in CORPORA), data)
    paths = [source for source in options.sources if source not in CORPORA]
    corpora = [corpus for path in paths for corpus in open_source(path, data)]
    groups = list(songs.groups)

    def contours() -> "Iterator[Contour]":
        yield from songs.contours
        first = max(groups, default=-1) + 1
        others = (song for corpus in corpora for song in songs_of(corpus))
        for tune, song in enumerate(others, first):
            groups.append(tune)  # nobody says which are variants
            yield song.contour().trimmed()[0]

    bank = write_shards(contours(), options.out, groups, progress=not _quiet())
    print(f"{options.out}: {len(bank.lengths)} songs, {bank.tunes} tunes, {len(bank.pitch)} frames")
    return 0


def _data_perform(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from qbhkit.config import build, config_path, read_yaml
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.retrieval.perform import PerformConfig, perform_all

    config = PerformConfig()
    if options.config:
        path = config_path(options.config)
        config = build(PerformConfig, read_yaml(path), str(path))
    if options.count is not None:
        config = replace(config, count=options.count)
    songs = training_songs(config.corpora, options.data or data_dir())
    _say(f"{len(songs.ids)} songs to sing")
    out = options.out or cache_dir() / "performances.safetensors"
    workers = options.workers or os.cpu_count() or 1
    made = perform_all(config, songs, out, workers, progress=not _quiet())
    frames = made.arrays["frames"]
    print(f"{out}: {len(frames)} performances, {frames.sum() / 36000:.1f} h")
    return 0


def _data_verify(options: argparse.Namespace) -> int:
    from qbhkit.corpora import open_corpus
    from qbhkit.corpora.duplicates import MelodyMatcher
    from qbhkit.retrieval.catalogue import read_sources
    from qbhkit.storage import read_json

    data = options.data or data_dir()
    corpus = open_corpus(options.name, data)
    sums_path = data / f"{options.name}.sums.json"
    if sums_path.is_file():
        for name, expected in read_json(sums_path, "fetch the corpus again").items():
            path = data / options.name / name
            if not path.is_file() or sha256_file(path) != expected:
                raise QbhError(f"{path} is missing or changed: fetch the corpus again.")
    songs, failures = read_sources([corpus])
    checked = "checksums fit, " if sums_path.is_file() else ""
    print(f"{options.name}: {checked}{len(songs)} songs in {len(corpus.files)} files")
    pitches = {song.id: song.notes[:, 2] for song in songs if song.notes is not None}
    near = MelodyMatcher(pitches).groups(_SAME_TUNE)
    print(f"{len(near)} groups of near-duplicates, {sum(map(len, near))} songs in all")
    for group in near[:_MOST_LISTED]:
        print(f"    {', '.join(group[:6])}{' ...' if len(group) > 6 else ''}")
    _report_failures(failures, len(songs) + len(failures), [])
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
