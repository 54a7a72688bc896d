"""Build a catalogue: turn songs into contours, windows and vectors, and write them as shards."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple, Protocol, cast

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
from qbhkit.contour import Contour, from_f0
from qbhkit.corpora import Corpus, Song, open_source
from qbhkit.corpora.duplicates import melody_key
from qbhkit.embedding.embedder import ContourEmbedder, Embedder
from qbhkit.embedding.windows import WindowGrid, cut_song, grid_for
from qbhkit.errors import Failure, QbhError, naming
from qbhkit.pitch import trackers
from qbhkit.pitch.trackers import Tracker
from qbhkit.storage import data_dir, sha256_file
from qbhkit.weights import DEFAULT_EMBEDDING

_SONGS_PER_SHARD = 256

TrackerFactory = Callable[[str], Tracker]
Sources = str | PathLike[str] | Sequence[str | PathLike[str]] | Sequence[Song]


def songs_from(sources: Sources, data: Path | None = None) -> tuple[list[Song], list[Failure]]:
    """Return the songs of sources, and the files that cannot be read.

    Args:
        sources: as :func:`build_catalogue` takes them; songs are returned as they are.
        data: the folder that holds named corpora; :func:`~qbhkit.storage.data_dir` if None.

    Raises:
        QbhError: if a source is neither a file, a folder nor a corpus, if no file can be read, or
            if two songs have the same id.
    """
    listed = [sources] if isinstance(sources, str | PathLike) else list(sources)
    if listed and all(isinstance(one, Song) for one in listed):
        return cast(list[Song], listed), []
    names = [fspath(cast(str, one)) for one in listed]
    corpora = [corpus for name in names for corpus in open_source(name, data or data_dir())]
    songs, failures = read_sources(corpora)
    if failures and not songs:
        raise QbhError(f"Not one song could be read: {failures[0].reason}")
    return songs, failures


def read_sources(corpora: Iterable[Corpus]) -> tuple[list[Song], list[Failure]]:
    """Read the songs of corpora; a file that cannot be read does not stop the others.

    Returns:
        Songs in order, and the failures.

    Raises:
        QbhError: if two songs have the same id; names both files.
    """
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
    reused: bool


@dataclass(frozen=True)
class Group:
    """Songs that become one shard.

    Args:
        songs: any number of songs in notes or f0, or a single recording.
        entries: their descriptions.
        tracked: the shard that holds the recording's contour already, and its number there; None
            if the recording has to be tracked.
    """

    songs: Sequence[Song]
    entries: Sequence[SongEntry]
    tracked: tuple[ShardEntry, int] | None = None


@dataclass(frozen=True)
class BuildContext:
    """Everything besides the songs that a shard is built from.

    Args:
        folder: of the catalogue.
        embedder: computes the vectors.
        grid: the windows.
        tracker: identity of the tracker.
        get_tracker: opens a tracker by its name; called for the first recording.
    """

    folder: Path
    embedder: Embedder
    grid: WindowGrid
    tracker: str
    get_tracker: TrackerFactory

    @cached_property
    def song_tracker(self) -> Tracker:
        """The tracker, opened once."""
        return self.get_tracker(self.tracker.split("@")[0])

    def build_shard(self, group: Group) -> ShardResult:
        """Build the shard of a group and write it; songs that cannot be indexed are left out."""
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
            return ShardResult(None, failures, False)
        shard = Shard(
            entries,
            contours,
            self.embedder.embed(np.concatenate([cut.frames for cut in cuts])).astype(np.float16),
            np.repeat(np.arange(len(cuts)), [len(cut.frames) for cut in cuts]).astype(np.int32),
            np.concatenate([cut.start for cut in cuts]),
            np.concatenate([cut.end for cut in cuts]),
            np.concatenate([cut.at_start for cut in cuts]),
        )
        written = write_shard(self.folder, self.embedder.identity, self.grid, shard)
        return ShardResult(written, failures, False)

    def _contour_of(self, song: Song, tracked: tuple[ShardEntry, int] | None) -> Contour:
        if song.audio is None:
            return song.contour()
        if tracked:
            shard, number = tracked
            return read_melodies(self.folder, shard).contours[number]
        audio = load(song.audio, self.song_tracker.rate_hz)
        refuse_silence(audio, song.audio)
        with naming(song.audio):
            return from_f0(self.song_tracker.track(audio))


class Executor(Protocol):
    """Where shards are built: in this process, or by the workers of a Dask cluster."""

    def __call__(
        self, context: BuildContext, groups: Iterable[tuple[int, Group]]
    ) -> Iterator[tuple[int, ShardResult]]:
        """Yield the number of each group and its result, in any order."""
        ...


def serial_executor(
    context: BuildContext, groups: Iterable[tuple[int, Group]]
) -> Iterator[tuple[int, ShardResult]]:
    """Build one shard after the other in this process: the default :class:`Executor`."""
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

    A recording is not tracked again if the catalogue holds its contour from the same bytes and the
    same tracker.

    Args:
        sources: files, folders and names of corpora, one or several; or songs in memory.
        out: folder of the catalogue; created if it is missing.
        embedder: computes the vectors; or the name or file of its weights.
        tracker: name of the tracker for recordings; the default one for songs if None.
        get_tracker: opens a tracker by its name; called for the first recording.
        grid: the windows of songs; by default those of :func:`~qbhkit.embedding.windows.grid_for`.
        progress: show a progress bar.
        executor: where the shards are built: in this process, or by what
            :func:`~qbhkit.catalogue.dask_backend.open_executor` yields.

    Returns:
        Counts, and the files and songs that could not be used.

    Raises:
        QbhError: if a source is none of these, if there are no such weights, or if not a single
            song could be indexed; an existing catalogue then stays as it was.

    Notebook: notebooks/00_hum_to_song.py, notebooks/08_catalogue_and_index.py
    """
    if isinstance(embedder, str):
        embedder = ContourEmbedder(embedder)
    path, grid = Path(out), grid or grid_for(embedder.reading)
    identity = trackers.identity_of(tracker or trackers.default_song_tracker())
    songs, failures = songs_from(sources)
    entries, reused = [], 0
    with sole_writer(path):
        context = BuildContext(path, embedder, grid, identity, get_tracker)
        for result in ShardBuilder(context, executor).build_all(songs, progress):
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


class ShardBuilder:
    """Build the shards of songs, except those that the folder holds already.

    Args:
        context: what shards are built from.
        executor: where they are built.

    Attributes:
        intact: the undamaged shards in the folder, and their recipes.
    """

    def __init__(self, context: BuildContext, executor: Executor = serial_executor) -> None:
        self.context, self.executor = context, executor
        self.intact = intact_shards(context.folder)
        self._by_recipe = {recipe: entry for entry, recipe in self.intact.items()}
        self._tracked = {
            (song["content"], song["tracker"]): (entry, number)
            for entry, recipe in self.intact.items()
            for number, song in enumerate(json.loads(recipe)["songs"])
            if "tracker" in song
        }

    def build_all(self, songs: Sequence[Song], progress: bool) -> list[ShardResult]:
        """Build the shards of all songs: up to 256 songs a shard, but one shard per recording.

        Tracking a recording takes seconds. With a shard of its own it is tracked once, even if the
        build is interrupted or a song is inserted before it.

        Returns:
            The results: first of the songs in notes or f0, then of the recordings, in their order.
        """
        symbolic = [song for song in songs if song.audio is None]
        starts = range(0, len(symbolic), _SONGS_PER_SHARD)
        groups = [symbolic[begin : begin + _SONGS_PER_SHARD] for begin in starts]
        groups += [[song] for song in songs if song.audio is not None]
        results: dict[int, ShardResult] = {}
        with tqdm(total=len(songs), desc="catalogue", unit="song", disable=not progress) as bar:

            def finish(number: int, result: ShardResult) -> None:
                results[number] = result
                bar.update(len(groups[number]))

            def missing_groups() -> Iterator[tuple[int, Group]]:
                for number, group in enumerate(map(self._describe, groups)):
                    if known := self._by_recipe.get(self._recipe(group)):
                        finish(number, ShardResult(known, [], True))
                    else:
                        yield number, group

            for number, result in self.executor(self.context, missing_groups()):
                finish(number, result)
        return [results[number] for number in range(len(groups))]

    def _describe(self, songs: Sequence[Song]) -> Group:
        tracker = self.context.tracker
        entries = [song_entry(song, tracker) for song in songs]
        return Group(songs, entries, self._tracked.get((entries[0]["content"], tracker)))

    def _recipe(self, group: Group) -> str:
        return recipe_of(self.context.embedder.identity, self.context.grid, group.entries)


def song_entry(song: Song, tracker: str) -> SongEntry:
    """Describe a song as a shard stores it. A recording is hashed by its bytes, not decoded.

    Args:
        song: the song.
        tracker: identity of the tracker, which is stored with a recording.
    """
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
        entry["source"] = str(song.audio.absolute())  # a search plays it from any working folder
        with suppress(OSError):  # decoding it will report what is wrong
            content.update(sha256_file(song.audio).encode())
    return entry | {"content": content.hexdigest()}
