"""``qbhkit catalogue``: build, edit and index catalogues."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from qbhkit.cli import options as opt
from qbhkit.cli.terminal import plain, quiet, report_failures, say
from qbhkit.errors import QbhError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qbhkit.catalogue.duplicates import Duplicate
    from qbhkit.corpora import Song

_MOST_LISTED = 5
_Report = TypeVar("_Report")


app = opt.group(
    "catalogue",
    "Build, edit and index a catalogue of songs.",
    "qbhkit catalogue build my_songs/ --out catalogue/",
)


@opt.add_command(app, "build", "qbhkit catalogue build oneills1850 my_songs/ --out catalogue/")
def build(
    sources: opt.Sources,
    out: opt.OutCatalogue,
    limit: Annotated[int | None, opt.option("N", "only the first N songs")] = None,
    held_out: Annotated[
        bool, opt.flag("--held-out", "only songs that no shipped embedding was trained on")
    ] = False,
    tracker: opt.SongTracker = None,
    workers: opt.Workers = None,
    scheduler: opt.Scheduler = None,
    weights: opt.Weights = None,
    data: opt.Data = None,
) -> int:
    """Build a catalogue from these sources, or update it."""
    from qbhkit.catalogue.build import build_catalogue, songs_from

    if limit is not None and limit < 1:
        raise QbhError(f"--limit {limit} leaves no song: ask for at least one.")
    songs, unreadable = songs_from(sources, data, held_out)
    songs = songs[:limit]
    found = _with_executor(build_catalogue, songs, out, tracker, workers, scheduler, weights)
    print(
        f"{out}: {found.songs} songs, {found.windows} windows"
        + (f" ({found.reused} songs were there already)" if found.reused else "")
    )
    _say_same_melodies(songs)
    failures = [*unreadable, *found.failures]
    return report_failures(failures, found.songs + len(failures), sources)


@opt.add_command(app, "add", "qbhkit catalogue add new_songs/ --catalogue catalogue/")
def add(
    sources: opt.Sources,
    catalogue: opt.InCatalogue,
    tracker: opt.AddedTracker = None,
    workers: opt.Workers = None,
    scheduler: opt.Scheduler = None,
    weights: opt.Weights = None,
    data: opt.Data = None,
) -> int:
    """Add songs to a catalogue."""
    from qbhkit.catalogue.build import songs_from
    from qbhkit.catalogue.edit import add_songs

    songs, unreadable = songs_from(sources, data)
    found = _with_executor(add_songs, songs, catalogue, tracker, workers, scheduler, weights)
    print(f"{catalogue}: {found.added} songs added; {found.songs} songs, {found.windows} windows")
    _say_duplicates(found.duplicates)
    failures = [*unreadable, *found.failures]
    return report_failures(failures, len(songs) + len(unreadable), sources)


def _with_executor(
    work: "Callable[..., _Report]",
    songs: "list[Song]",
    catalogue: Path,
    tracker: str | None,
    workers: int | None,
    scheduler: str | None,
    weights: str | None,
) -> _Report:
    """Build or add by the workers that the options name."""
    from qbhkit.catalogue.dask_backend import open_executor
    from qbhkit.embedding.embedder import ContourEmbedder
    from qbhkit.weights import DEFAULT_EMBEDDING

    if workers is not None and scheduler is not None:
        raise QbhError("--workers and --scheduler exclude each other: give one of them.")
    weights = weights or DEFAULT_EMBEDDING
    embedder, shown = ContourEmbedder(weights), not quiet()
    with open_executor(workers, scheduler, weights) as executor:
        return work(songs, catalogue, embedder, tracker, progress=shown, executor=executor)


@opt.add_command(app, "remove", "qbhkit catalogue remove my_song other_song --catalogue catalogue/")
def remove(
    ids: Annotated[list[str], opt.argument("ID", "answers show it in brackets")],
    catalogue: opt.InCatalogue,
) -> int:
    """Remove songs from a catalogue."""
    from qbhkit.catalogue.edit import remove_songs

    left = remove_songs(ids, catalogue)
    print(f"{catalogue}: {left.songs} songs, {left.windows} windows are left")
    return 0


@opt.add_command(app, "info", "qbhkit catalogue info catalogue/")
def info(catalogue: opt.Catalogue, as_json: opt.Json = False) -> int:
    """Show what a catalogue holds, and its model and tracker."""
    from dataclasses import asdict

    from qbhkit.catalogue.edit import describe_catalogue

    found = describe_catalogue(catalogue)
    if as_json:
        print(json.dumps(found._asdict() | {"grid": asdict(found.grid)}))
        return 0
    grid = found.grid
    lengths = ", ".join(f"{n:g}" for n in sorted({*grid.lengths_s, *grid.first_lengths_s}))
    print(f"{catalogue}: {found.songs} songs ({found.recordings} recordings)")
    print(f"windows:  {found.windows}, of {lengths} s")
    print(f"on disk:  {found.bytes / 1e6:.1f} MB in {found.shards} shards")
    print(f"model:    {found.model}")
    print(f"tracker:  {found.tracker}")
    for licence, songs in found.licences.items():
        print(f"licence:  {plain(licence)} ({songs} songs)")
    return 0


@opt.add_command(app, "verify", "qbhkit catalogue verify catalogue/")
def verify(catalogue: opt.Catalogue) -> int:
    """Verify the checksums of a catalogue."""
    from qbhkit.catalogue.edit import verify_catalogue

    found = verify_catalogue(catalogue)
    for problem in found.problems:
        say(f"qbhkit: {problem.reason}")
    if found.problems:
        say("qbhkit: build it from the same sources again, which replaces only the damaged shards.")
        return 2
    print(f"{catalogue}: {found.songs} songs, {found.windows} windows, none damaged")
    return 0


@opt.add_command(app, "merge", "qbhkit catalogue merge mine/ yours/ --out ours/")
def merge(
    sources: Annotated[list[Path], opt.argument("CAT", "folders of the catalogues")],
    out: Annotated[Path, opt.option("CAT", "a new catalogue, or one of these")],
) -> int:
    """Merge catalogues built with the same model and tracker."""
    from qbhkit.catalogue.edit import merge_catalogues

    merged = merge_catalogues(sources, out)
    print(f"{out}: {merged.songs} songs, {merged.windows} windows")
    _say_duplicates(merged.duplicates)
    return 0


@opt.add_command(app, "index", "qbhkit catalogue index catalogue/ --kind faiss")
def index(
    catalogue: opt.Catalogue, kind: opt.IndexKind = "faiss", schema: opt.Schema = "qbhkit"
) -> int:
    """Build an index, to search large catalogues faster."""
    from qbhkit.catalogue.read import open_catalogue
    from qbhkit.retrieval.index import build_index

    opened = open_catalogue(catalogue)
    build_index(kind, opened, **opt.index_options(kind, schema))
    print(f"{catalogue}: {len(opened.song)} windows in the index {kind}")
    return 0


def _say_same_melodies(songs: "Sequence[Song]") -> None:
    from qbhkit.corpora.duplicates import same_melodies

    same = same_melodies({song.id: song.notes for song in songs if song.notes is not None})
    for group in same[:_MOST_LISTED]:
        say(f"the same melody under several ids: {', '.join(group)}")
    if len(same) > _MOST_LISTED:
        say(f"and {len(same) - _MOST_LISTED} more melodies that several songs share")


def _say_duplicates(duplicates: "Sequence[Duplicate]") -> None:
    for duplicate in duplicates:
        as_what = "" if duplicate.existing_id == duplicate.id else f" as {duplicate.existing_id}"
        say(f"{duplicate.id} is there already{as_what}")
