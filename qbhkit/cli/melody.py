"""``qbhkit melody``: track recordings."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from qbhkit.cli import options as opt
from qbhkit.cli.terminal import quiet, report_failures, say
from qbhkit.errors import QbhError

app = typer.Typer()
_Inputs = Annotated[list[str], opt.argument("IN", "audio file or folder of them")]
_Target = Annotated[
    Literal["voice", "lead"],
    typer.Option(help="lead: the lead instrument, too, where nobody sings"),
]


@opt.add_command(app, "melody", "qbhkit melody hums/ song.mp3 --out f0/")
def melody(
    inputs: _Inputs,
    out: opt.Out,
    tracker: opt.RecordingTracker = None,
    target: _Target = "voice",
    workers: opt.Processes = None,
) -> int:
    """Track the melody of recordings and write it as CSV files, STEM.f0.csv."""
    from qbhkit.corpora import stem_of
    from qbhkit.pitch.folder_to_csv import extract_all
    from qbhkit.pitch.trackers import tracker_for

    named = [path for name in inputs for path in _audio_files(Path(name))]
    paths = list({path.resolve(): path for path in reversed(named)}.values())[::-1]  # each once
    stems: dict[str, Path] = {}
    for path in paths:
        stem = stem_of(path)
        if stem in stems:
            raise QbhError(
                f"{stems[stem]} and {path} would both be written to {stem}.f0.csv: rename one."
            )
        stems[stem] = path
    done = extract_all(
        {path: out / f"{stem}.f0.csv" for stem, path in stems.items()},
        tracker_for(target, tracker),
        workers,
        progress=not quiet(),
    )
    if done.reused:
        say(f"{done.reused} of {len(paths)} were there already")
    return report_failures(done.failures, len(paths), inputs)


def _audio_files(path: Path) -> list[Path]:
    from qbhkit.audio import AUDIO_SUFFIXES

    if not path.is_dir():
        return [path]
    named = [child for child in path.rglob("*") if child.name.lower().endswith(AUDIO_SUFFIXES)]
    found = [
        child
        for child in named
        if child.is_file() and child.name[:2] != "._"  # macOS leaves such files in archives
    ]
    if not found:
        raise QbhError(f"{path} holds no audio files ({', '.join(AUDIO_SUFFIXES)}).")
    return sorted(found)
