"""Change and inspect catalogues: add and remove songs, merge, describe, verify.

The manifest is replaced last, so an interrupted change leaves the catalogue as it was.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qbhkit.catalogue.build import (
    BuildContext,
    Executor,
    TrackerFactory,
    build_shards,
    serial_executor,
    song_entry,
)
from qbhkit.catalogue.duplicates import Duplicate, DuplicateIndex
from qbhkit.catalogue.files import (
    CURE,
    MANIFEST,
    Manifest,
    ShardEntry,
    copy_shard,
    intact_shards,
    publish,
    read_manifest,
    read_melodies,
    read_recipe,
    read_shard,
    read_songs,
    recipe_of,
    shard_files,
    sole_writer,
    write_shard,
)
from qbhkit.corpora import Song
from qbhkit.embedding.embedder import Embedder
from qbhkit.embedding.windows import WindowGrid
from qbhkit.errors import Failure, QbhError
from qbhkit.pitch import trackers

_LENGTH_TOLERANCE = 2e-3  # half precision rounds each of 512 numbers


class ChangeReport(NamedTuple):
    """What a catalogue holds after a change, and what is not in it."""

    songs: int
    windows: int
    added: int = 0
    duplicates: Sequence[Duplicate] = ()  # songs that were left out
    failures: Sequence[Failure] = ()  # songs that could not be indexed


def add_songs(
    songs: Sequence[Song],
    path: Path,
    embedder: Embedder,
    tracker: str | None = None,
    get_tracker: TrackerFactory = trackers.get_tracker,
    progress: bool = True,
    executor: Executor = serial_executor,
) -> ChangeReport:
    """Add songs to a catalogue, in new shards; if interrupted, call it again to continue.

    Songs whose melody the catalogue holds already are left out. Songs in notes are recognised in
    any key and tempo; recordings and f0 tracks only if excerpt and performance are the same.

    Args:
        songs: as :func:`~qbhkit.catalogue.build.songs_from` returns them.
        path: folder of the catalogue.
        embedder: computes the vectors.
        tracker: name of the tracker for recordings; the one of the catalogue if None.
        get_tracker: opens a tracker by its name.
        progress: show a progress bar.
        executor: as :func:`~qbhkit.catalogue.build.build_catalogue` takes it.

    Raises:
        QbhError: if the catalogue was built with another model or tracker, or an id is taken by
            another melody; the catalogue then stays as it was.

    Notebook: notebooks/08_catalogue_and_index.py
    """
    path = Path(path)
    with _locked(path) as manifest:
        _check_model_and_tracker(path, manifest, embedder, tracker, songs)
        context = BuildContext(path, embedder, manifest.grid, manifest.tracker, get_tracker)
        intact, index = intact_shards(path), DuplicateIndex()
        for entry in manifest.shards:
            if entry not in intact:
                raise QbhError(f"{entry.path(path)} is missing or damaged: {CURE}.")
            for song, contour in zip(*read_melodies(path, entry), strict=True):
                index.add(song, contour)
        fresh, duplicates = [], []
        for new in songs:
            described = song_entry(new, manifest.tracker)
            known = new.contour() if new.f0 is not None else None
            if duplicate := index.duplicate_of(described, known):
                duplicates.append(duplicate)
            else:
                index.add(described, known)
                fresh.append(new)
        entries, failures = [], []
        for result in build_shards(context, intact, fresh, progress, executor):
            failures += result.failures
            if result.entry is None:
                continue
            held = read_melodies(path, result.entry)
            if "tracker" in held.songs[0]:  # a recording: its melody is known only now
                song_id, contour = held.songs[0]["id"], held.contours[0]
                if near := index.near(contour):
                    duplicates.append(Duplicate(song_id, near[0]))
                    continue
                index.add_contour(song_id, contour)
            entries.append(result.entry)
        if entries:
            manifest = replace(manifest, shards=manifest.shards + tuple(entries))
            publish(path, manifest)
    added = sum(entry.songs for entry in entries)
    return ChangeReport(manifest.songs, manifest.windows, added, duplicates, failures)


@contextmanager
def _locked(path: Path) -> Iterator[Manifest]:
    """Yield the manifest of a catalogue while no other process can change it."""
    read_manifest(path)  # raises before a folder is created for a catalogue that does not exist
    with sole_writer(path):
        yield read_manifest(path)


def _check_model_and_tracker(
    path: Path, manifest: Manifest, embedder: Embedder, tracker: str | None, songs: Sequence[Song]
) -> None:
    """Refuse a model or a tracker that is not the one of the catalogue."""
    if manifest.model != embedder.identity:
        raise QbhError(
            f"{path} was made by the model {manifest.model}, not {embedder.identity}: add with "
            "its weights, or build it again with these."
        )
    name = tracker or manifest.tracker.split("@")[0]
    if tracker or any(song.audio is not None for song in songs):
        identity = trackers.identity_of(name)
        if identity != manifest.tracker:
            raise QbhError(
                f"{path} was made by the tracker {manifest.tracker}, not {identity}: add with "
                "that one, or build it again with this one."
            )


def remove_songs(ids: Sequence[str], path: Path) -> ChangeReport:
    """Remove songs: the shards that hold them are rewritten; nothing is tracked or embedded again.

    Raises:
        QbhError: if an id is unknown, or no song would be left; the catalogue then stays as it was.

    Notebook: notebooks/08_catalogue_and_index.py
    """
    path = Path(path)
    with _locked(path) as manifest:
        held = [[song["id"] for song in read_songs(path, entry)] for entry in manifest.shards]
        unwanted = set(ids)
        if unknown := unwanted.difference(*held):
            raise QbhError(f"{path} holds no song {min(unknown)}: nothing was removed.")
        shards = []
        for entry, names in zip(manifest.shards, held, strict=True):
            kept = [k for k, name in enumerate(names) if name not in unwanted]
            shards += _keep(path, path, entry, kept, manifest)
        if not shards:
            raise QbhError(f"{path} would hold no song: delete the folder instead.")
        manifest = replace(manifest, shards=tuple(shards))
        publish(path, manifest)
    return ChangeReport(manifest.songs, manifest.windows)


def _keep(
    source: Path, target: Path, entry: ShardEntry, kept: Sequence[int], manifest: Manifest
) -> list[ShardEntry]:
    """Write what is kept of a shard into a catalogue, and return the shard there, if any."""
    if not kept:
        return []
    if len(kept) < entry.songs:
        shard = read_shard(source, entry).only(kept)
        return [write_shard(target, manifest.model, manifest.grid, shard)]
    if source != target:
        copy_shard(source, target, entry)
    return [entry]


def merge_catalogues(paths: Sequence[Path], out: Path) -> ChangeReport:
    """Merge catalogues into one. A melody that several of them hold is kept from the first.

    Args:
        paths: the catalogues, built with the same model, tracker and windows.
        out: a new folder, or one of the catalogues.

    Raises:
        QbhError: if they differ in model, tracker or windows, if an id has two melodies, or if
            ``out`` is another catalogue; nothing is changed then.

    Notebook: notebooks/08_catalogue_and_index.py
    """
    paths, out = [Path(path) for path in paths], Path(out)
    _read_compatible(paths)
    if (out / MANIFEST).exists() and out.resolve() not in {path.resolve() for path in paths}:
        raise QbhError(f"{out} is a catalogue already: merge it too, or choose another folder.")
    with sole_writer(out):
        manifests = _read_compatible(paths)
        index, plan, duplicates = DuplicateIndex(), [], []
        for path, manifest in zip(paths, manifests, strict=True):
            own = []
            for entry in manifest.shards:
                kept = []
                melodies = read_melodies(path, entry)
                for number, (song, contour) in enumerate(zip(*melodies, strict=True)):
                    if duplicate := index.duplicate_of(song, contour):
                        duplicates.append(duplicate)
                    else:
                        kept.append(number)
                        own.append((song, contour))
                plan.append((path, entry, kept))
            for song, contour in own:  # added late: duplicates inside one catalogue are kept
                index.add(song, contour)
        parts = [_keep(path, out, entry, kept, manifests[0]) for path, entry, kept in plan]
        manifest = replace(manifests[0], shards=tuple(shard for part in parts for shard in part))
        publish(out, manifest)
    return ChangeReport(manifest.songs, manifest.windows, duplicates=duplicates)


def _read_compatible(paths: Sequence[Path]) -> list[Manifest]:
    """Read the manifests of catalogues, which must agree in model, tracker and windows."""
    manifests = [read_manifest(path) for path in paths]
    first = manifests[0]
    for path, other in zip(paths, manifests, strict=True):
        for what in ("model", "tracker", "grid"):
            one, two = getattr(first, what), getattr(other, what)
            if one != two:
                raise QbhError(
                    f"{paths[0]} and {path} differ in their {what} ({one} and {two}): build one of "
                    "them again like the other."
                )
    return manifests


class CatalogueInfo(NamedTuple):
    """What a catalogue holds, and what it was built with."""

    songs: int
    recordings: int
    windows: int
    shards: int
    bytes: int  # on disk
    model: str
    tracker: str
    grid: WindowGrid
    licences: dict[str, int]  # number of songs under each, most frequent first


def describe_catalogue(path: Path) -> CatalogueInfo:
    """Describe a catalogue by the headers of its files; raise QbhError if it cannot be read."""
    path = Path(path)
    manifest = read_manifest(path)
    songs = [song for entry in manifest.shards for song in read_songs(path, entry)]
    files = [path / MANIFEST, *(entry.path(path) for entry in manifest.shards)]
    return CatalogueInfo(
        len(songs),
        sum("tracker" in song for song in songs),
        manifest.windows,
        len(manifest.shards),
        sum(file.stat().st_size for file in files),
        manifest.model,
        manifest.tracker,
        manifest.grid,
        dict(Counter(song["licence"] for song in songs).most_common()),
    )


class VerifyReport(NamedTuple):
    """What is intact, and what is not."""

    songs: int  # intact
    windows: int
    problems: list[Failure]  # files that are missing, damaged or wrong


def verify_catalogue(path: Path) -> VerifyReport:
    """Check every byte of a catalogue, and that its files fit together; QbhError if there is none.

    Notebook: notebooks/08_catalogue_and_index.py
    """
    path = Path(path)
    try:
        manifest = read_manifest(path)
    except QbhError as error:
        if not (path / MANIFEST).is_file():
            raise
        problems = [Failure(str(path / MANIFEST), str(error))]
        intact = {entry.path(path) for entry in intact_shards(path)}
        for file in sorted(set(shard_files(path)) - intact):
            problems.append(Failure(str(file), f"{file} is damaged: {CURE}."))
        return VerifyReport(0, 0, problems)
    songs, windows, problems = 0, 0, []
    file_of: dict[str, Path] = {}
    dims: set[int] = set()
    for entry in manifest.shards:
        file = entry.path(path)
        try:
            shard = read_shard(path, entry)
            dims.add(shard.vectors.shape[1])
            lengths = np.linalg.norm(shard.vectors.astype(np.float32), axis=1)
            elsewhere = [k for k in shard.songs if file_of.setdefault(k["id"], file) != file]
            wrong = ""
            if read_recipe(path, entry) != recipe_of(manifest.model, manifest.grid, shard.songs):
                wrong = "was made by another model or with other windows"
            elif not (np.abs(lengths - 1) < _LENGTH_TOLERANCE).all():
                wrong = "holds vectors that are not of length 1"
            elif len({song["id"] for song in shard.songs}) < len(shard.songs):
                wrong = "holds two songs of one id"
            elif len(dims) > 1:
                wrong = "holds vectors of another size than the others"
            elif elsewhere:
                wrong = f"holds {elsewhere[0]['id']}, as {file_of[elsewhere[0]['id']]} does"
            if wrong:
                raise QbhError(f"{file} {wrong}: {CURE}.")
        except QbhError as error:
            problems.append(Failure(str(file), str(error)))
            continue
        songs, windows = songs + entry.songs, windows + entry.windows
    return VerifyReport(songs, windows, problems)
