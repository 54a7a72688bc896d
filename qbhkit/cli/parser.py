"""What may be typed after ``qbhkit``, and the function that does it."""

import argparse
from pathlib import Path
from typing import Any

import qbhkit
from qbhkit.cli import catalogues, data, hums, melody, training, weights
from qbhkit.evaluation import METHODS


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``qbhkit``; it sets ``run`` to the function of the command."""
    from qbhkit.corpora.folders import EVALUATION_YEAR
    from qbhkit.pitch.trackers import TRACKERS
    from qbhkit.retrieval.index import INDEXES

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

    def formerly(command: Any, option: str, new: str, **how: Any) -> None:
        """Admit the name that an option had in version 1.0, without a word in the help."""
        command.add_argument(option, dest=new, help=argparse.SUPPRESS, **how)

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
            help="start: songs are chosen by their beginnings and the first 14 s of the hum only",
        )  # fmt: skip

    def with_weights(command: Any) -> None:
        command.add_argument(
            "--weights", default=None, metavar="NAME", help="shipped weights or a .safetensors file"
        )

    def with_index(command: Any) -> None:
        command.add_argument(
            "--index", choices=list(INDEXES), default="exact",
            help="what finds windows; faiss and postgres once 'qbhkit catalogue index' has built "
            "them (default: exact, which reads all)",
        )  # fmt: skip
        with_schema(command)

    def with_schema(command: Any) -> None:
        command.add_argument(
            "--schema", default="qbhkit", metavar="NAME",
            help="where the catalogue lies in the database of QBHKIT_POSTGRES (default: qbhkit)",
        )  # fmt: skip

    def with_executor(command: Any) -> None:
        executor = command.add_mutually_exclusive_group()
        executor.add_argument(
            "--workers", type=int, default=None, metavar="N",
            help="Dask processes to share the work (default: none, this process alone)",
        )  # fmt: skip
        executor.add_argument(
            "--scheduler", default=None, metavar="ADDRESS",
            help="a Dask cluster to share it, such as tcp://10.0.0.1:8786; waits for its workers",
        )  # fmt: skip

    command = add(
        "melody", melody.melody, "Extract the melody of recordings as CSV files.",
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
        "build", catalogues.build, "Build a catalogue of these sources, or bring it up to date.",
        "qbhkit catalogue build oneills1850 my_songs/ --out catalogue/", actions,
    )  # fmt: skip
    command.add_argument("sources", **sources)
    command.add_argument("--out", type=Path, required=True, metavar="CAT", help="the catalogue")
    command.add_argument(
        "--limit", type=int, default=None, metavar="N", help="only the first N songs"
    )
    formerly(command, "--first", "limit", type=int)
    with_tracker(command, "recordings of songs", for_songs)
    with_executor(command)
    with_weights(command)
    with_data(command)
    command = add(
        "add", catalogues.add, "Add songs to a catalogue.",
        "qbhkit catalogue add new_songs/ --catalogue catalogue/", actions,
    )  # fmt: skip
    command.add_argument("sources", **sources)
    command.add_argument("--catalogue", type=Path, required=True, metavar="CAT")
    with_tracker(command, "recordings of songs", "the catalogue's own; no other is admitted")
    with_executor(command)
    with_weights(command)
    with_data(command)
    command = add(
        "remove", catalogues.remove, "Remove songs from a catalogue.",
        "qbhkit catalogue remove my_song other_song --catalogue catalogue/", actions,
    )  # fmt: skip
    command.add_argument("ids", nargs="+", metavar="ID", help="as in answers, in brackets")
    command.add_argument("--catalogue", type=Path, required=True, metavar="CAT")
    command = add(
        "info", catalogues.info, "Tell what a catalogue holds and what made it.",
        "qbhkit catalogue info catalogue/", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    command = add(
        "verify", catalogues.verify, "Check every byte of a catalogue.",
        "qbhkit catalogue verify catalogue/", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command = add(
        "merge", catalogues.merge, "Merge catalogues that the same model and tracker made.",
        "qbhkit catalogue merge mine/ yours/ --out ours/", actions,
    )  # fmt: skip
    command.add_argument("catalogues", nargs="+", type=Path, metavar="CAT")
    command.add_argument(
        "--out", type=Path, required=True, metavar="CAT", help="a new one, or one of them"
    )

    command = add(
        "index", catalogues.index, "Build an index, so that many songs are searched faster.",
        "qbhkit catalogue index catalogue/ --kind faiss", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command.add_argument(
        "--kind", choices=list(INDEXES)[1:], default="faiss",
        help="faiss: in the catalogue's folder (default); postgres: in the database whose libpq "
        "connection string QBHKIT_POSTGRES holds",
    )  # fmt: skip
    with_schema(command)

    command = add(
        "search", hums.search, "Name the songs of hums.",
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
        "--takes", action="store_true", help="the queries are takes of one tune: one answer"
    )
    formerly(command, "--together", "takes", action="store_true")
    command.add_argument(
        "--save-match", type=Path, metavar="DIR",
        help="write each hum as STEM.hum.wav and what matches it as STEM.match1.wav and so on",
    )  # fmt: skip
    with_anchor(command)
    command.add_argument("--json", action="store_true", help="one JSON object a line, nothing else")
    with_tracker(command, "the hums", for_hums)
    with_weights(command)
    with_index(command)

    command = add(
        "serve", hums.serve, "Answer hums over HTTP, and on a page to hum at in a browser.",
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
        "evaluate", hums.evaluate, "Measure how often hums find their songs.",
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
        training.train,
        "Train an embedding or a melody network.",
        "qbhkit train tiny --out runs/tiny --resume",
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
    command.add_argument("--log", type=Path, metavar="JSON", help="the curve (default: in DIR)")
    with_data(command)

    command = add(
        "cross-validate", training.cross_validate,
        "Score a recipe: each hum by a model without its song and singer.",
        "qbhkit cross-validate best --out folds.json --stress",
    )  # fmt: skip
    commands.choices["crossfold"] = command  # its name in version 1.0
    command.add_argument("config", metavar="CONFIG", help="fine-tuning: YAML file or shipped name")
    command.add_argument("--out", type=Path, required=True, metavar="JSON")
    command.add_argument(
        "--init-from", metavar="NAME", help="weights to start from, instead of the configuration's"
    )
    formerly(command, "--start", "init_from")
    command.add_argument(
        "--no-finetune", action="store_true", help="score these weights as they are: stage 1 alone"
    )
    formerly(command, "--only-start", "no_finetune", action="store_true")
    command.add_argument(
        "--stress", action="store_true", help="search the hums transposed and stretched too"
    )
    command.add_argument(
        "--models", type=Path, metavar="DIR", help="keeps the models (default: in the cache)"
    )
    with_tracker(command, "the hums", for_hums)
    with_data(command)

    command = add(
        "ablate", training.ablate, "Compare recipes that differ in one part, on one budget.",
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

    kinds = add(
        "weights", None, "Bring trained weights into the kit.",
        "qbhkit weights convert ResNet_NS.hdf5 mean.npy std.npy",
    )  # fmt: skip
    actions = kinds.add_subparsers(required=True, metavar="ACTION")
    command = add(
        "convert", weights.convert, "Convert the published Keras weights of the melody network.",
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
        "import-checkpoint", weights.import_checkpoint,
        "Convert a checkpoint of the published PyTorch code.",
        "qbhkit weights import-checkpoint contour_model/ --out weights/", actions,
    )  # fmt: skip
    actions.choices["convert-original"] = command  # its name in version 1.0
    command.add_argument(
        "folder", type=Path, metavar="FOLDER", help="holds hparams.dat and checkpoint_best.pt"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="writes original.safetensors"
    )

    command = add(
        "calibrate", weights.calibrate_weights, "Store with weights when to believe their answers.",
        "qbhkit weights calibrate mine.safetensors result.json", actions,
    )  # fmt: skip
    command.add_argument("weights", metavar="NAME", help="shipped weights or a .safetensors file")
    command.add_argument(
        "result", type=Path, metavar="JSON",
        help="of 'qbhkit crossfold', or of 'qbhkit evaluate' on hums they were not trained on",
    )  # fmt: skip

    command = add(
        "bench", training.bench, "Run one of the kit's benchmarks.", "qbhkit bench augment",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME", help="an unknown one lists all")
    command.add_argument("rest", nargs=argparse.REMAINDER, help="options of the benchmark")

    corpora = add("data", None, "List, fetch and verify corpora.", "qbhkit data list")
    actions = corpora.add_subparsers(required=True, metavar="ACTION")
    command = add(
        "list", data.list_corpora, "List the corpora the kit knows.", "qbhkit data list", actions
    )
    with_data(command)
    command = add(
        "fetch", data.fetch_corpus, "Download a corpus from its official address.",
        "qbhkit data fetch mir-qbsh", actions,
    )  # fmt: skip
    command.add_argument("name", metavar="NAME")
    with_data(command)
    command = add(
        "pairs", data.pairs, "Align the hums of MIR-QBSH with their songs, to train on.",
        "qbhkit data pairs", actions,
    )  # fmt: skip
    command.add_argument("--out", type=Path, metavar="CSV", help="default: pairs.csv in the cache")
    command.add_argument(
        "--year", default=EVALUATION_YEAR, metavar="FOLDER",
        help=f"of the recordings; '*' takes all (default: {EVALUATION_YEAR}, as the recipe of the "
        "shipped weights does)",
    )  # fmt: skip
    with_tracker(command, "the hums", for_hums)
    with_data(command)
    command = add(
        "transcribe", data.transcribe,
        "Render songs from their notes, and write the melodies that a tracker finds in them.",
        "qbhkit data transcribe pop909 --songs 300 --seconds 60", actions,
    )  # fmt: skip
    actions.choices["hear"] = command  # its name in version 1.0
    command.add_argument("corpus", metavar="CORPUS", help="pop909: MIDI with an accompaniment")
    command.add_argument(
        "--out", type=Path, metavar="DIR",
        help="writes ID.f0.csv (default: CORPUS-transcribed in the cache, where training looks for it)",
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
        "shards", data.shards, "Write melodies to train on, to be read from disk as needed.",
        "qbhkit data shards folk_tunes/ pop909 --out shards/", actions,
    )  # fmt: skip
    command.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="files, folders or corpora; of corpora what may be trained on",
    )  # fmt: skip
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    with_data(command)
    command = add(
        "render", data.render_songs,
        "Render training songs as hums, to distil the states of the melody network from.",
        "qbhkit data render --count 3000", actions,
    )  # fmt: skip
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="default: rendered.safetensors in the cache"
    )
    actions.choices["perform"] = command  # its name in version 1.0
    command.add_argument("--count", type=int, metavar="N", help="rendered_hums, of 8 to 20 s each")
    command.add_argument("--config", metavar="YAML", help="how they are drawn, beside their count")
    command.add_argument(
        "--workers", type=int, default=None, metavar="N", help="processes (default: one a core)"
    )
    with_data(command)
    command = add(
        "verify",
        data.verify_corpus,
        "Check a corpus on disk.",
        "qbhkit data verify mir-qbsh",
        actions,
    )
    command.add_argument("name", metavar="NAME")
    with_data(command)
    return parser
