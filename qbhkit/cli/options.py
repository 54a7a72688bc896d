"""How commands are added, and the options that several of them share."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from qbhkit.evaluation import METHODS
from qbhkit.pitch.trackers import TRACKERS
from qbhkit.retrieval.index import INDEXES

FORMER_OPTIONS = {  # names of version 1.0
    "--first": "--limit",
    "--together": "--takes",
    "--only-start": "--no-finetune",
    "--start": "--init-from",
}


class _Command(TyperCommand):
    """Accept unambiguous abbreviations of options, and the names they had in version 1.0."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = [name for param in self.get_params(ctx) for name in param.opts if name[:2] == "--"]
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*(_full(arg, names) for arg in args[:end]), *args[end:]])


def _full(argument: str, names: list[str]) -> str:
    option, *value = argument.split("=", 1)
    if option[:2] != "--" or option in names:
        return argument
    present = FORMER_OPTIONS.get(option)
    meant = [present] if present in names else [name for name in names if name.startswith(option)]
    return "=".join([meant[0], *value]) if len(meant) == 1 else argument


def add_command(
    to: typer.Typer, name: str, example: str, former: str = "", **settings: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that makes a function a command.

    Args:
        to: the group of commands.
        name: of the command.
        example: shown under its help.
        former: its name in version 1.0, which no help page shows.
        settings: what else :meth:`typer.Typer.command` takes.
    """

    def add(run: Callable[..., Any]) -> Callable[..., Any]:
        text = (run.__doc__ or "").splitlines()[0]
        how = {"cls": _Command, "help": text, "epilog": f"\b\nexample:\n  {example}", **settings}
        to.command(name, **how)(run)
        if former:
            to.command(former, hidden=True, **how)(run)
        return run

    return add


def group(name: str, text: str, example: str) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(
        name=name, help=text, epilog=f"\b\nexample:\n  {example}", rich_markup_mode=None
    )


def option(metavar: str, text: str, name: str = "") -> Any:
    """Describe an option; its name is that of the parameter, if none is given."""
    return typer.Option(*filter(None, [name]), metavar=metavar, help=text)


def flag(name: str, text: str) -> Any:
    """Describe an option without a value."""
    return typer.Option(name, help=text)


def argument(metavar: str, text: str) -> Any:
    """Describe an argument."""
    return typer.Argument(metavar=metavar, help=text)


def choice(names: Collection[str], text: str, name: str = "") -> Any:
    """Describe an option whose values are the keys of a registry, which may still grow."""

    def check(value: str | list[str] | None) -> str | list[str] | None:
        for one in [value] if isinstance(value, str) else value or []:
            if one not in names:
                raise typer.BadParameter(f"{one!r} is not one of {', '.join(map(repr, names))}.")
        return value

    metavar = "|".join(names)
    return typer.Option(*filter(None, [name]), metavar=metavar, help=text, callback=check)


def _tracker(what: str, default: str) -> Any:
    return choice(TRACKERS, f"pitch tracker for {what} (default: {default})")


_FOR_SONGS = "crnn-lite, or crnn where its converted weights are in the data folder"
HumTracker = Annotated[str | None, _tracker("the hums", "swift-f0, or pyin where that is missing")]
SongTracker = Annotated[str | None, _tracker("recordings of songs", "crnn-lite-lead")]
MixTracker = Annotated[str | None, _tracker("the mixes", _FOR_SONGS)]
RecordingTracker = Annotated[
    str | None, _tracker("the recordings; swift-f0 suits a voice alone", _FOR_SONGS)
]
AddedTracker = Annotated[
    str | None, _tracker("recordings of songs", "the catalogue's; others are refused")
]
Data = Annotated[
    Path | None,
    option("DIR", "holds a folder for each corpus (default: $QBHKIT_DATA, else the cache)"),
]
Out = Annotated[Path, option("DIR", "for what is written; made if it is missing")]
OutJson = Annotated[Path, option("JSON", "for the result")]
Models = Annotated[Path | None, option("DIR", "for the models (default: in the cache)")]
InCatalogue = Annotated[Path, option("CAT", "folder of the catalogue")]
OutCatalogue = Annotated[Path, option("CAT", "folder of the catalogue, new or to update")]
Catalogue = Annotated[Path, argument("CAT", "folder of the catalogue")]
Sources = Annotated[
    list[str],
    argument(
        "SOURCE...", "corpus name, file or folder (.mid .abc .f0.csv .wav .flac .ogg .mp3 ...)"
    ),
]
Config = Annotated[str, argument("CONFIG", "YAML file or shipped name")]
Overrides = Annotated[
    list[str] | None,
    option("KEY=VALUE", "changes CONFIG, such as learning_rate=1e-3; may be repeated", "--set"),
]
Weights = Annotated[str | None, option("NAME", "shipped weights or a .safetensors file")]
Processes = Annotated[int | None, option("N", "processes (default: one per core)")]
Workers = Annotated[
    int | None, option("N", "Dask processes that share the work (default: one process)")
]
Scheduler = Annotated[
    str | None,
    option(
        "ADDRESS",
        "a Dask cluster that shares the work, such as tcp://10.0.0.1:8786; waits for its workers",
    ),
]
Anchor = Annotated[
    Literal["start", "anywhere"],
    typer.Option(
        help="start: the hum begins with the song; its first 14 s are compared with the "
        "beginnings of songs"
    ),
]
SearchMethod = Annotated[
    str,
    choice(
        METHODS[:4],
        "full: window voting, then alignment of the best songs; vote: window voting; vector: "
        "single vector; end-to-end: full, with states of the melody network in place of the "
        "pitch, in a catalogue built with --weights stage1; only full and end-to-end report "
        "confidence",
    ),
]
Methods = Annotated[
    list[str] | None, choice(METHODS, "may be repeated (default: full)", "--method")
]
Index = Annotated[
    str,
    choice(
        INDEXES,
        "what finds the most similar windows; faiss and postgres must first be built with "
        "'qbhkit catalogue index'; exact compares all",
    ),
]
IndexKind = Annotated[
    str,
    choice(
        INDEXES,
        "faiss: a file in the catalogue's folder; postgres: tables in the database of "
        "QBHKIT_POSTGRES, a libpq connection string",
    ),
]
Schema = Annotated[str, option("NAME", "schema of the catalogue in QBHKIT_POSTGRES")]
Json = Annotated[bool, flag("--json", "one JSON object a line, nothing else")]


def index_options(index: str, schema: str) -> dict[str, str]:
    """Return the options that an index takes besides its catalogue."""
    return {"schema": schema} if index == "postgres" else {}
