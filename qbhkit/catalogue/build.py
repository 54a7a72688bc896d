"""Build a catalogue: turn songs into contours, windows and vectors, and write them as shards."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from tqdm.auto import tqdm

from qbhkit.audio import load, refuse_silence
from qbhkit.catalogue.files import (
    CATALOGUE_FORMAT,
    Manifest,
    Shard,
    ShardEntry,
    SongEntry,
    intact_shards,
    publish,
    read_melodies,
    recipe_of,
    sole_writer,
    write_shard,
)
from qbhkit.contour import Contour
from qbhkit.corpora import Corpus, Song, open_source
from qbhkit.corpora.duplicates import melody_key
from qbhkit.corpora.training_songs import split_of
from qbhkit.embedding.embedder import ContourEmbedder, Embedder
from qbhkit.embedding.windows import WindowGrid, cut_song, grid_for
from qbhkit.errors import Failure, QbhError, naming
from qbhkit.pitch import trackers
from qbhkit.pitch.trackers import Tracker, song_contour
from qbhkit.storage import data_dir, sha256_file
from qbhkit.weights import DEFAULT_EMBEDDING

_SONGS_PER_SHARD = 256

TrackerFactory = Callable[[str], Tracker]
Sources = str | PathLike[str] | Sequence[str | PathLike[str]] | Sequence[Song]


def songs_from(
    sources: Sources, data: Path | None = None, held_out: bool = False
) -> tuple[list[Song], list[Failure]]:
    """Return the songs of sources, and the files that cannot be read.

    Args:
        sources: as :func:`build_catalogue` takes them; songs are returned as they are.
        data: the folder of named corpora; :func:`~qbhkit.storage.data_dir` if None.
        held_out: of named corpora, return only songs that no shipped embedding was trained on.

    Raises:
        QbhError: if a source is not known, no file can be read, two songs have the same id, a
            source has no split to hold songs out, or no song is held out.
    """
    listed = [sources] if isinstance(sources, str | PathLike) else list(sources)
    if listed and all(isinstance(one, Song) for one in listed):
        return cast(list[Song], listed), []
    names = [fspath(cast(str, one)) for one in listed]
    corpora = [corpus for name in names for corpus in open_source(name, data or data_dir())]
    songs, failures = read_sources(corpora)
    if failures and not songs:
        raise QbhError(f"Not one song could be read: {failures[0].reason}")
    if held_out:
        kept = {song_id for name in names for song_id in split_of(name)["held_out"]}
        songs = [song for song in songs if song.id in kept]
        if not songs:
            raise QbhError(f"No song of {', '.join(names)} is held out: name other corpora.")
    return songs, failures


def read_sources(corpora: Iterable[Corpus]) -> tuple[list[Song], list[Failure]]:
    """Return the songs of corpora and the files that cannot be read; refuse a repeated id."""
    songs: dict[str, Song] = {}
    failures = []
    read: set[Path] = set()
    for corpus in corpora:
        for path in corpus.files:
            if path.resolve() in read:
                continue  # named twice, or named together with its folder
            read.add(path.resolve())
            try:
                found = list(corpus.read(path))
            except QbhError as error:
                failures.append(Failure(str(path), str(error)))
                continue
            for song in found:
                if song.id in songs:
                    raise QbhError(
                        f"Two songs have the id {song.id}: {songs[song.id].source} and "
                        f"{song.source}; rename one of the files."
                    )
                songs[song.id] = song
    return list(songs.values()), failures


class BuildReport(NamedTuple):
    """What a build did."""

    songs: int
    windows: int
    reused: int  # songs whose shard existed already
    failures: list[Failure]


class ShardResult(NamedTuple):
    """The shard of a group of songs, and the songs that could not be indexed."""

    entry: ShardEntry | None  # None if no song of the group could be indexed
    failures: list[Failure]
    reused: bool = False


class Group(NamedTuple):
    """Songs that become one shard: any number of songs in notes or f0, or a single recording."""

    songs: Sequence[Song]
    entries: Sequence[SongEntry]
    tracked: tuple[ShardEntry, int] | None  # shard and number that hold a recording's contour


@dataclass(frozen=True)
class BuildContext:
    """Everything besides the songs that a shard is built from."""

    folder: Path
    embedder: Embedder
    grid: WindowGrid
    tracker: str  # its identity
    get_tracker: TrackerFactory = field(compare=False)

    @cached_property
    def song_tracker(self) -> Tracker:
        """The tracker, opened once."""
        return self.get_tracker(self.tracker.split("@")[0])

    def build_shard(self, group: Group) -> ShardResult:
        """Build and write the shard of a group; songs that cannot be indexed are left out."""
        entries, contours, cuts, failures = [], [], [], []
        for song, entry in zip(group.songs, group.entries, strict=True):
            try:
                contour = self._contour_of(song, group.tracked)
                cut = cut_song(contour, self.grid, self.embedder.reading)
                if not len(cut.frames):
                    raise QbhError(f"{song.source} holds no melody: nothing in it is voiced.")
            except QbhError as error:
                failures.append(Failure(song.source, str(error)))
                continue
            entries.append(entry)
            contours.append(contour)
            cuts.append(cut)
        if not cuts:
            return ShardResult(None, failures)
        owner = np.repeat(np.arange(len(cuts)), [len(cut.frames) for cut in cuts])
        frames, *windows = (np.concatenate(column) for column in zip(*cuts, strict=True))
        shard = Shard(entries, contours, self.embedder.embed(frames), owner, *windows)
        written = write_shard(self.folder, self.embedder.identity, self.grid, shard)
        return ShardResult(written, failures)

    def _contour_of(self, song: Song, tracked: tuple[ShardEntry, int] | None) -> Contour:
        if song.audio is None:
            return song.contour()
        if tracked:
            shard, number = tracked
            return read_melodies(self.folder, shard).contours[number]
        audio = load(song.audio, self.song_tracker.rate_hz)
        refuse_silence(audio, song.audio)
        with naming(song.audio):
            return song_contour(self.song_tracker, audio)


Executor = Callable[[BuildContext, Iterable[tuple[int, Group]]], Iterator[tuple[int, ShardResult]]]
"""Builds numbered groups and yields each number with its result, in any order."""


def serial_executor(
    context: BuildContext, groups: Iterable[tuple[int, Group]]
) -> Iterator[tuple[int, ShardResult]]:
    """Build one shard after the other in this process: the default executor."""
    return ((number, context.build_shard(group)) for number, group in groups)


def build_catalogue(
    sources: Sources,
    out: str | PathLike[str],
    embedder: Embedder | str = DEFAULT_EMBEDDING,
    tracker: str | None = None,
    get_tracker: TrackerFactory = trackers.get_tracker,
    grid: WindowGrid | None = None,
    progress: bool = True,
    executor: Executor = serial_executor,
) -> BuildReport:
    """Build a catalogue or bring one up to date; an interrupted build continues where it stopped.

    Args:
        sources: files, folders and names of corpora, one or several; or songs in memory.
        out: folder of the catalogue; created if it is missing.
        embedder: computes the vectors; or the name or file of its weights.
        tracker: name of the tracker for recordings; the default one for songs if None. Recordings
            that it has tracked for this catalogue are not tracked again.
        get_tracker: opens a tracker by its name.
        grid: the windows of songs; by default those that suit the embedder.
        progress: show a progress bar.
        executor: what builds the shards, as :func:`~qbhkit.catalogue.dask_backend.open_executor`
            yields it.

    Raises:
        QbhError: if a source is none of these, if there are no such weights, or if not a single
            song could be indexed; an existing catalogue then stays as it was.

    Notebook: notebooks/00_hum_to_song.py, notebooks/08_catalogue_and_index.py
    """
    if isinstance(embedder, str):
        embedder = ContourEmbedder(embedder)
    path, grid = Path(out), grid or grid_for(embedder.reading)
    identity = trackers.identity_of(tracker or trackers.default_song_tracker("lead"))
    songs, failures = songs_from(sources)
    entries, reused = [], 0
    with sole_writer(path):
        context = BuildContext(path, embedder, grid, identity, get_tracker)
        for result in build_shards(context, intact_shards(path), songs, progress, executor):
            failures += result.failures
            if result.entry:
                entries.append(result.entry)
                reused += result.entry.songs if result.reused else 0
        if not entries:
            reason = f": {failures[0].reason}" if failures else "."
            raise QbhError(f"Not one song could be indexed{reason}")
        manifest = Manifest(CATALOGUE_FORMAT, embedder.identity, identity, grid, tuple(entries))
        publish(path, manifest)
    return BuildReport(manifest.songs, manifest.windows, reused, failures)


def build_shards(
    context: BuildContext,
    intact: Mapping[ShardEntry, str],
    songs: Sequence[Song],
    progress: bool,
    executor: Executor,
) -> list[ShardResult]:
    """Build the shards of up to 256 songs, except those that are ``intact`` in the folder.

    A recording has a shard of its own, so that it is tracked once, even if the build is interrupted
    or a song is inserted before it. The results of recordings come last.
    """
    by_recipe = {recipe: entry for entry, recipe in intact.items()}
    tracked = {
        (song["content"], song["tracker"]): (entry, number)
        for entry, recipe in intact.items()
        for number, song in enumerate(json.loads(recipe)["songs"])
        if "tracker" in song
    }
    symbolic = [song for song in songs if song.audio is None]
    starts = range(0, len(symbolic), _SONGS_PER_SHARD)
    groups = [symbolic[begin : begin + _SONGS_PER_SHARD] for begin in starts]
    groups += [[song] for song in songs if song.audio is not None]
    results: dict[int, ShardResult] = {}
    with tqdm(total=len(songs), desc="catalogue", unit="song", disable=not progress) as bar:

        def finish(number: int, result: ShardResult) -> None:
            results[number] = result
            bar.update(len(groups[number]))

        def missing() -> Iterator[tuple[int, Group]]:
            for number, group in enumerate(groups):
                entries = [song_entry(song, context.tracker) for song in group]
                recipe = recipe_of(context.embedder.identity, context.grid, entries)
                if known := by_recipe.get(recipe):
                    finish(number, ShardResult(known, [], reused=True))
                else:
                    content = entries[0]["content"], context.tracker
                    yield number, Group(group, entries, tracked.get(content))

        for number, result in executor(context, missing()):
            finish(number, result)
    return [results[number] for number in range(len(groups))]


def song_entry(song: Song, tracker: str) -> SongEntry:
    """Describe a song as a shard stores it, a recording with the identity of its tracker."""
    entry = {"id": song.id, "title": song.title, "source": song.source, "licence": song.licence}
    content = hashlib.sha256()
    if song.notes is not None:
        content.update(np.ascontiguousarray(song.notes, np.float64).tobytes())
        if key := melody_key(song.notes):
            entry["melody"] = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    elif song.f0 is not None:
        content.update(np.float64(song.f0.hop_s).tobytes())
        content.update(song.f0.frequency_hz.tobytes() + song.f0.voicing.tobytes())
    elif song.audio is not None:
        entry["tracker"] = tracker
        entry["source"] = str(song.audio.absolute())  # playable from any working folder
        with suppress(OSError):  # decoding it will report what is wrong
            content.update(sha256_file(song.audio).encode())
    return entry | {"content": content.hexdigest()}
