"""The commands of ``qbhkit`` and their options, each with the function that runs it."""

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

    def add(
        name: str, run: Any, text: str, example: str, to: Any = commands, former: str = ""
    ) -> Any:
        """Add a command; ``former`` is its name in version 1.0, which no help page shows."""
        command = to.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        if former:
            to.choices[former] = command
        return command

    def formerly(command: Any, option: str, new: str, **how: Any) -> None:
        """Accept the name that an option had in version 1.0; no help page shows it."""
        command.add_argument(option, dest=new, help=argparse.SUPPRESS, **how)

    def with_data(command: Any) -> None:
        command.add_argument(
            "--data", type=Path, metavar="DIR",
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
            help="start: the hum begins with the song; its first 14 s are compared with the "
            "beginnings of songs (default: anywhere)",
        )  # fmt: skip

    def with_weights(command: Any) -> None:
        command.add_argument(
            "--weights", metavar="NAME", help="shipped weights or a .safetensors file"
        )

    def with_index(command: Any) -> None:
        command.add_argument(
            "--index", choices=list(INDEXES), default="exact",
            help="what finds the most similar windows; faiss and postgres must first be built with "
            "'qbhkit catalogue index' (default: exact, which compares all)",
        )  # fmt: skip
        with_schema(command)

    def with_schema(command: Any) -> None:
        command.add_argument(
            "--schema", default="qbhkit", metavar="NAME",
            help="schema of the catalogue in the database of QBHKIT_POSTGRES (default: qbhkit)",
        )  # fmt: skip

    def with_executor(command: Any) -> None:
        executor = command.add_mutually_exclusive_group()
        executor.add_argument(
            "--workers", type=int, metavar="N",
            help="Dask processes that share the work (default: none, one process)",
        )  # fmt: skip
        executor.add_argument(
            "--scheduler", metavar="ADDRESS",
            help="a Dask cluster that shares the work, such as tcp://10.0.0.1:8786; waits for its "
            "workers",
        )  # fmt: skip

    command = add(
        "melody", melody.melody, "Track the melody of recordings and write it as CSV files.",
        "qbhkit melody hums/ song.mp3 --out f0/",
    )  # fmt: skip
    command.add_argument("inputs", nargs="+", metavar="IN", help="audio file or folder of them")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="writes STEM.f0.csv"
    )
    with_tracker(command, "the recordings; swift-f0 suits a voice alone", for_songs)
    command.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")

    catalogue = add(
        "catalogue", None, "Build, edit and index a catalogue of songs.",
        "qbhkit catalogue build my_songs/ --out catalogue/",
    )  # fmt: skip
    actions = catalogue.add_subparsers(required=True, metavar="ACTION")
    sources: dict[str, Any] = {
        "nargs": "+", "metavar": "SOURCE",
        "help": "corpus name, file or folder (.mid .abc .f0.csv .wav .flac .ogg .mp3 ...)",
    }  # fmt: skip
    command = add(
        "build", catalogues.build, "Build a catalogue from these sources, or update it.",
        "qbhkit catalogue build oneills1850 my_songs/ --out catalogue/", actions,
    )  # fmt: skip
    command.add_argument("sources", **sources)
    command.add_argument("--out", type=Path, required=True, metavar="CAT", help="the catalogue")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N songs")
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
    with_tracker(command, "recordings of songs", "the catalogue's; others are refused")
    with_executor(command)
    with_weights(command)
    with_data(command)
    command = add(
        "remove", catalogues.remove, "Remove songs from a catalogue.",
        "qbhkit catalogue remove my_song other_song --catalogue catalogue/", actions,
    )  # fmt: skip
    command.add_argument("ids", nargs="+", metavar="ID", help="answers show it in brackets")
    command.add_argument("--catalogue", type=Path, required=True, metavar="CAT")
    command = add(
        "info", catalogues.info, "Show what a catalogue holds, and its model and tracker.",
        "qbhkit catalogue info catalogue/", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    command = add(
        "verify", catalogues.verify, "Verify the checksums of a catalogue.",
        "qbhkit catalogue verify catalogue/", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command = add(
        "merge", catalogues.merge, "Merge catalogues built with the same model and tracker.",
        "qbhkit catalogue merge mine/ yours/ --out ours/", actions,
    )  # fmt: skip
    command.add_argument("catalogues", nargs="+", type=Path, metavar="CAT")
    command.add_argument(
        "--out", type=Path, required=True, metavar="CAT", help="a new catalogue, or one of these"
    )

    command = add(
        "index", catalogues.index, "Build an index, to search large catalogues faster.",
        "qbhkit catalogue index catalogue/ --kind faiss", actions,
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CAT")
    command.add_argument(
        "--kind", choices=list(INDEXES)[1:], default="faiss",
        help="faiss: a file in the catalogue's folder (default); postgres: tables in the database "
        "of QBHKIT_POSTGRES, a libpq connection string",
    )  # fmt: skip
    with_schema(command)

    command = add(
        "search", hums.search, "Find the songs that were hummed.",
        "qbhkit search hum.wav --catalogue catalogue/ -k 5",
    )  # fmt: skip
    command.add_argument("queries", nargs="+", metavar="QUERY", help="audio or .f0.csv")
    command.add_argument("--catalogue", type=Path, required=True, metavar="CAT")
    command.add_argument("-k", type=int, default=10, help="songs in each answer (default: 10)")
    command.add_argument(
        "--method", choices=METHODS[:4], default="full",
        help="full: window voting, then alignment of the best songs (default); vote: window "
        "voting; vector: single vector; end-to-end: full, with states of the melody network in "
        "place of the pitch, in a catalogue built with --weights stage1; only full and end-to-end "
        "report confidence",
    )  # fmt: skip
    command.add_argument(
        "--takes", action="store_true", help="the queries are takes of one tune: give one answer"
    )
    formerly(command, "--together", "takes", action="store_true")
    command.add_argument(
        "--save-match", type=Path, metavar="DIR",
        help="write each hum as STEM.hum.wav, and the matched seconds of its songs as "
        "STEM.match1.wav, STEM.match2.wav, ...",
    )  # fmt: skip
    with_anchor(command)
    command.add_argument("--json", action="store_true", help="one JSON object a line, nothing else")
    with_tracker(command, "the hums", for_hums)
    with_weights(command)
    with_index(command)

    command = add(
        "serve", hums.serve, "Serve a catalogue over HTTP, with a page to hum into.",
        "qbhkit serve catalogue/    # then open http://127.0.0.1:8000",
    )  # fmt: skip
    command.add_argument("catalogue", type=Path, metavar="CATALOGUE")
    command.add_argument(
        "--host", default="127.0.0.1",
        help="address to bind (default: 127.0.0.1, this machine only); browsers allow the "
        "microphone only there or over HTTPS, so put an HTTPS proxy in front of other addresses",
    )  # fmt: skip
    command.add_argument("--port", type=int, default=8000, help="0: any free port (default: 8000)")
    command.add_argument(
        "--most-mb", type=float, default=20, metavar="MB", help="largest recording (default: 20)"
    )
    command.add_argument(
        "--timeout", type=float, default=30, metavar="S",
        help="seconds to send a recording, and again to answer it (default: 30)",
    )  # fmt: skip
    command.add_argument(
        "--queue", type=int, default=8, metavar="N",
        help="recordings that may wait; more are refused with status 503 (default: 8)",
    )  # fmt: skip
    command.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help="file with the credential that requests must carry (Authorization: Bearer ...); "
        "required if other machines can reach the service",
    )  # fmt: skip
    with_tracker(command, "the hums", for_hums)
    with_weights(command)
    with_index(command)

    command = add(
        "evaluate", hums.evaluate, "Measure how often hums find their songs.",
        "qbhkit evaluate --queries hums.csv --catalogue catalogue/ --out result.json",
    )  # fmt: skip
    command.add_argument(
        "--queries", type=Path, required=True, metavar="CSV", help="columns path,song_id[,singer]"
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
        "Train an encoder or a melody network.",
        "qbhkit train tiny --out runs/tiny --resume",
    )
    command.add_argument("config", metavar="CONFIG", help="YAML file or a shipped name")
    command.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="auto: the GPU if there is one (default)",
    )  # fmt: skip
    command.add_argument(
        "--devices", type=int, default=1, metavar="N",
        help="number of GPUs, or of CPU processes, that share each batch (default: 1)",
    )  # fmt: skip
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="for checkpoint and weights (default: in the cache)"
    )
    command.add_argument("--log", type=Path, metavar="JSON", help="the curve (default: in DIR)")
    with_data(command)

    command = add(
        "cross-validate", training.cross_validate,
        "Score a training recipe on hums whose songs and singers the model has not seen.",
        "qbhkit cross-validate best --out folds.json --stress", former="crossfold",
    )  # fmt: skip
    command.add_argument("config", metavar="CONFIG", help="YAML file or shipped name")
    command.add_argument("--out", type=Path, required=True, metavar="JSON")
    command.add_argument(
        "--init-from", metavar="NAME", help="weights to start from (default: those of CONFIG)"
    )
    formerly(command, "--start", "init_from")
    command.add_argument(
        "--no-finetune", action="store_true", help="score the weights without fine-tuning them"
    )
    formerly(command, "--only-start", "no_finetune", action="store_true")
    command.add_argument(
        "--stress", action="store_true", help="search transposed and stretched hums too"
    )
    command.add_argument(
        "--models", type=Path, metavar="DIR", help="for the models (default: in the cache)"
    )
    with_tracker(command, "the hums", for_hums)
    with_data(command)

    command = add(
        "ablate", training.ablate, "Compare training recipes that differ in one part.",
        "qbhkit ablate ablation --budget tiny --out table.json",
    )  # fmt: skip
    command.add_argument("grid", metavar="GRID", help="YAML file or shipped name")
    command.add_argument("--budget", required=True, metavar="NAME", help="one of GRID's budgets")
    command.add_argument(
        "--out", type=Path, required=True, metavar="JSON", help="resumed if it exists"
    )
    command.add_argument(
        "--models", type=Path, metavar="DIR", help="for the models (default: in the cache)"
    )
    with_tracker(command, "the hums", for_hums)
    with_data(command)

    kinds = add(
        "weights", None, "Convert, import and calibrate weights.",
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
        "--out", type=Path, metavar="DIR",
        help="for crnn.safetensors (default: where the kit looks for it)",
    )  # fmt: skip

    command = add(
        "import-checkpoint", weights.import_checkpoint,
        "Import a checkpoint of the published PyTorch code.",
        "qbhkit weights import-checkpoint contour_model/ --out weights/", actions,
        former="convert-original",
    )  # fmt: skip
    command.add_argument(
        "folder", type=Path, metavar="FOLDER", help="holds hparams.dat and checkpoint_best.pt"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for original.safetensors"
    )

    command = add(
        "calibrate", weights.calibrate_weights, "Store a confidence calibration with weights.",
        "qbhkit weights calibrate mine.safetensors result.json", actions,
    )  # fmt: skip
    command.add_argument("weights", metavar="NAME", help="shipped weights or a .safetensors file")
    command.add_argument(
        "result", type=Path, metavar="JSON",
        help="of 'qbhkit cross-validate', or of 'qbhkit evaluate' on hums not used in training",
    )  # fmt: skip

    command = add(
        "bench", training.bench, "Run one of the kit's benchmarks.", "qbhkit bench augment",
    )  # fmt: skip
    command.add_argument("name", metavar="NAME", help="an unknown name lists all")
    command.add_argument("rest", nargs=argparse.REMAINDER, help="options of the benchmark")

    corpora = add("data", None, "List, fetch, verify and prepare corpora.", "qbhkit data list")
    actions = corpora.add_subparsers(required=True, metavar="ACTION")
    command = add("list", data.list_corpora, "List the known corpora.", "qbhkit data list", actions)
    with_data(command)
    command = add(
        "fetch", data.fetch_corpus, "Download a corpus from its official site.",
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
        help=f"year of the recordings; '*': all (default: {EVALUATION_YEAR}, as for the shipped "
        "weights)",
    )  # fmt: skip
    with_tracker(command, "the hums", for_hums)
    with_data(command)
    command = add(
        "transcribe", data.transcribe,
        "Render songs with their accompaniment, and track the melody in them.",
        "qbhkit data transcribe pop909 --songs 300 --seconds 60", actions, former="hear",
    )  # fmt: skip
    command.add_argument("corpus", metavar="CORPUS", help="pop909: MIDI with an accompaniment")
    command.add_argument(
        "--out", type=Path, metavar="DIR",
        help="for ID.f0.csv (default: CORPUS-transcribed in the cache, where training looks)",
    )  # fmt: skip
    command.add_argument("--songs", type=int, metavar="N", help="only the first N (default: all)")
    command.add_argument(
        "--seconds", type=float, metavar="S",
        help="of each song, from a second before its first note (default: all of it)",
    )  # fmt: skip
    command.add_argument(
        "--level-db", type=float, nargs=2, default=(-3.0, 6.0), metavar=("LOW", "HIGH"),
        help="range of the voice's level over the accompaniment (default: -3 6)",
    )  # fmt: skip
    command.add_argument(
        "--seed", type=int, default=0, metavar="K", help="random seed (default: 0)"
    )
    with_tracker(command, "the mixes", for_songs)
    with_data(command)
    command = add(
        "shards", data.shards, "Write melodies as shards, which training reads from disk.",
        "qbhkit data shards folk_tunes/ pop909 --out shards/", actions,
    )  # fmt: skip
    command.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="files, folders or corpora; of a corpus the training songs",
    )  # fmt: skip
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    with_data(command)
    command = add(
        "render", data.render_songs,
        "Render training songs as hums, for state distillation.",
        "qbhkit data render --count 3000", actions, former="perform",
    )  # fmt: skip
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="default: rendered.safetensors in the cache"
    )
    command.add_argument("--count", type=int, metavar="N", help="number of hums, 8 to 20 s each")
    command.add_argument("--config", metavar="YAML", help="how hums are rendered")
    command.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
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
