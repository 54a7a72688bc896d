"""``qbhkit catalogue``: build, keep and index catalogues."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qbhkit.cli.terminal import plain, quiet, report_failures, say
from qbhkit.errors import QbhError
from qbhkit.storage import data_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from qbhkit.corpora import Song
    from qbhkit.errors import Failure
    from qbhkit.retrieval.twins import Twin

_MOST_LISTED = 5
_Report = TypeVar("_Report")


def build(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue build``."""
    from qbhkit.retrieval.catalogue import build_catalogue

    if options.first is not None and options.first < 1:
        raise QbhError(f"--first {options.first} leaves no song: ask for at least one.")
    songs, unreadable = _read_songs(options)
    songs = songs[: options.first]
    found = _with_crew(build_catalogue, songs, options.out, options)
    print(
        f"{options.out}: {found.songs} songs, {found.windows} windows"
        + (f" ({found.reused} songs were there already)" if found.reused else "")
    )
    _say_same_melodies(songs)
    failures = [*unreadable, *found.failures]
    return report_failures(failures, found.songs + len(failures), options.sources)


def add(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue add``."""
    from qbhkit.retrieval.upkeep import add_songs

    songs, unreadable = _read_songs(options)
    found = _with_crew(add_songs, songs, options.catalogue, options)
    print(
        f"{options.catalogue}: {found.added} songs added; {found.songs} songs, "
        f"{found.windows} windows"
    )
    _say_twins(found.twins)
    failures = [*unreadable, *found.failures]
    return report_failures(failures, len(songs) + len(unreadable), options.sources)


def _with_crew(
    work: "Callable[..., _Report]",
    songs: "list[Song]",
    catalogue: Path,
    options: argparse.Namespace,
) -> _Report:
    """Build or add with the weights, the tracker and the workers that the options name."""
    from qbhkit.embedding.encoders import ContourEmbedder
    from qbhkit.retrieval.cluster import open_crew
    from qbhkit.weights import DEFAULT_EMBEDDING

    weights = options.weights or DEFAULT_EMBEDDING
    embedder, shown = ContourEmbedder(weights), not quiet()
    with open_crew(options.workers, options.scheduler, weights) as crew:
        return work(songs, catalogue, embedder, options.tracker, progress=shown, crew=crew)


def _read_songs(options: argparse.Namespace) -> "tuple[list[Song], list[Failure]]":
    from qbhkit.corpora import open_source
    from qbhkit.retrieval.catalogue import read_sources

    data = options.data or data_dir()
    corpora = [corpus for source in options.sources for corpus in open_source(source, data)]
    songs, unreadable = read_sources(corpora)
    if unreadable and not songs:
        raise QbhError(f"Not one song could be read: {unreadable[0].reason}")
    return songs, unreadable


def remove(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue remove``."""
    from qbhkit.retrieval.upkeep import remove_songs

    left = remove_songs(options.ids, options.catalogue)
    print(f"{options.catalogue}: {left.songs} songs, {left.windows} windows are left")
    return 0


def info(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue info``."""
    from dataclasses import asdict

    from qbhkit.retrieval.upkeep import describe_catalogue

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
    from qbhkit.retrieval.upkeep import verify_catalogue

    found = verify_catalogue(options.catalogue)
    for problem in found.problems:
        say(f"qbhkit: {problem.reason}")
    if found.problems:
        say("qbhkit: a build from the same sources makes only what is damaged anew.")
        return 2
    print(f"{options.catalogue}: {found.songs} songs, {found.windows} windows, all whole")
    return 0


def merge(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue merge``."""
    from qbhkit.retrieval.upkeep import merge_catalogues

    merged = merge_catalogues(options.catalogues, options.out)
    print(f"{options.out}: {merged.songs} songs, {merged.windows} windows")
    _say_twins(merged.twins)
    return 0


def index(options: argparse.Namespace) -> int:
    """Run ``qbhkit catalogue index``."""
    from qbhkit.retrieval.catalogue import open_catalogue
    from qbhkit.retrieval.index import build_index

    catalogue = open_catalogue(options.catalogue)
    build_index(options.kind, catalogue, **index_options(options.kind, options))
    print(f"{options.catalogue}: {len(catalogue.song)} windows in the index {options.kind}")
    return 0


def index_options(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what an index has to be told besides its catalogue."""
    return {"schema": options.schema} if name == "postgres" else {}


def _say_same_melodies(songs: "Sequence[Song]") -> None:
    from qbhkit.corpora.duplicates import same_melodies

    same = same_melodies({song.id: song.notes for song in songs if song.notes is not None})
    for group in same[:_MOST_LISTED]:
        say(f"the same melody under several ids: {', '.join(group)}")
    if len(same) > _MOST_LISTED:
        say(f"and {len(same) - _MOST_LISTED} more melodies that several songs share")


def _say_twins(twins: "Sequence[Twin]") -> None:
    for twin in twins:
        as_what = "" if twin.there == twin.id else f" as {twin.there}"
        say(f"{twin.id} is there already{as_what}")
