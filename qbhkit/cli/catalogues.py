"""``qbhkit catalogue``: build, edit and index catalogues."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qbhkit.cli.terminal import plain, quiet, report_failures, say
from qbhkit.errors import QbhError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qbhkit.catalogue.duplicates import Duplicate
    from qbhkit.corpora import Song

_MOST_LISTED = 5
_Report = TypeVar("_Report")


def build(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue build``."""
    from qbhkit.catalogue.build import build_catalogue, songs_from

    if options.limit is not None and options.limit < 1:
        raise QbhError(f"--limit {options.limit} leaves no song: ask for at least one.")
    songs, unreadable = songs_from(options.sources, options.data)
    songs = songs[: options.limit]
    found = _with_executor(build_catalogue, songs, options.out, options)
    print(
        f"{options.out}: {found.songs} songs, {found.windows} windows"
        + (f" ({found.reused} songs were there already)" if found.reused else "")
    )
    _say_same_melodies(songs)
    failures = [*unreadable, *found.failures]
    return report_failures(failures, found.songs + len(failures), options.sources)


def add(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue add``."""
    from qbhkit.catalogue.build import songs_from
    from qbhkit.catalogue.edit import add_songs

    songs, unreadable = songs_from(options.sources, options.data)
    found = _with_executor(add_songs, songs, options.catalogue, options)
    print(
        f"{options.catalogue}: {found.added} songs added; {found.songs} songs, "
        f"{found.windows} windows"
    )
    _say_duplicates(found.duplicates)
    failures = [*unreadable, *found.failures]
    return report_failures(failures, len(songs) + len(unreadable), options.sources)


def _with_executor(
    work: "Callable[..., _Report]",
    songs: "list[Song]",
    catalogue: Path,
    options: argparse.Namespace,
) -> _Report:
    """Build or add with the weights, the tracker and the workers that the options name."""
    from qbhkit.catalogue.dask_backend import open_executor
    from qbhkit.embedding.embedder import ContourEmbedder
    from qbhkit.weights import DEFAULT_EMBEDDING

    weights = options.weights or DEFAULT_EMBEDDING
    embedder, shown = ContourEmbedder(weights), not quiet()
    with open_executor(options.workers, options.scheduler, weights) as executor:
        return work(songs, catalogue, embedder, options.tracker, progress=shown, executor=executor)


def remove(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue remove``."""
    from qbhkit.catalogue.edit import remove_songs

    left = remove_songs(options.ids, options.catalogue)
    print(f"{options.catalogue}: {left.songs} songs, {left.windows} windows are left")
    return 0


def info(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue info``."""
    from dataclasses import asdict

    from qbhkit.catalogue.edit import describe_catalogue

    found = describe_catalogue(options.catalogue)
    if options.json:
        print(json.dumps(found._asdict() | {"grid": asdict(found.grid)}))
        return 0
    grid = found.grid
    lengths = ", ".join(f"{n:g}" for n in sorted({*grid.lengths_s, *grid.first_lengths_s}))
    print(f"{options.catalogue}: {found.songs} songs ({found.recordings} recordings)")
    print(f"windows:  {found.windows}, of {lengths} s")
    print(f"on disk:  {found.bytes / 1e6:.1f} MB in {found.shards} shards")
    print(f"model:    {found.model}")
    print(f"tracker:  {found.tracker}")
    for licence, songs in found.licences.items():
        print(f"licence:  {plain(licence)} ({songs} songs)")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue verify``."""
    from qbhkit.catalogue.edit import verify_catalogue

    found = verify_catalogue(options.catalogue)
    for problem in found.problems:
        say(f"qbhkit: {problem.reason}")
    if found.problems:
        say("qbhkit: build it from the same sources again, which replaces only the damaged shards.")
        return 2
    print(f"{options.catalogue}: {found.songs} songs, {found.windows} windows, none damaged")
    return 0


def merge(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue merge``."""
    from qbhkit.catalogue.edit import merge_catalogues

    merged = merge_catalogues(options.catalogues, options.out)
    print(f"{options.out}: {merged.songs} songs, {merged.windows} windows")
    _say_duplicates(merged.duplicates)
    return 0


def index(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue index``."""
    from qbhkit.catalogue.read import open_catalogue
    from qbhkit.retrieval.index import build_index

    catalogue = open_catalogue(options.catalogue)
    build_index(options.kind, catalogue, **index_options(options.kind, options))
    print(f"{options.catalogue}: {len(catalogue.song)} windows in the index {options.kind}")
    return 0


def index_options(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that an index takes besides its catalogue."""
    return {"schema": options.schema} if name == "postgres" else {}


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
