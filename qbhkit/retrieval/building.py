"""From songs to the shards of a catalogue: listen, cut into windows, embed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qbhkit.audio import load, refuse_silence
from qbhkit.contour import Contour, Reading, from_f0, stretch, windows
from qbhkit.corpora import Corpus, Song
from qbhkit.corpora.duplicates import melody_key
from qbhkit.errors import Failure, QbhError, naming
from qbhkit.melody import trackers
from qbhkit.melody.trackers import Tracker
from qbhkit.retrieval.shards import (
    FORMAT,
    Manifest,
    Shard,
    ShardEntry,
    SongEntry,
    WindowGrid,
    publish,
    read_melodies,
    recipe_of,
    sole_writer,
    whole_shards,
    write_shard,
)
from qbhkit.storage import sha256_file

_SONGS_A_SHARD = 256

MakeTracker = Callable[[str], Tracker]


def grid_of(reading: Reading) -> WindowGrid:
    """Return the windows that suit a model: of all lengths, or all of the length it has learnt."""
    if reading.window_s is None:
        return WindowGrid()
    return WindowGrid((reading.window_s,), first_lengths_s=())


class Embedder(Protocol):
    """What turns windows into vectors; its ``identity`` names the weights."""

    identity: str
    reading: Reading
    size: int

    def embed(self, frames: NDArray) -> NDArray[np.float32]:
        """Embed (B, L, 2) MIDI frames as (B, size) vectors of length 1."""
        ...


class SongWindows(NamedTuple):
    """The windows of one song, before embedding."""

    frames: NDArray[np.float32]  # (W, L, 2)
    start: NDArray[np.int32]  # (W,) first frame
    end: NDArray[np.int32]  # (W,) frame after the last
    at_start: NDArray[np.bool_]  # (W,) begins at the first note


def cut_song(contour: Contour, grid: WindowGrid, reading: Reading) -> SongWindows:
    """Cut a song into the windows of a grid, counted from its first note.

    Args:
        contour: the whole song.
        grid: lengths and steps.
        reading: onto L frames.

    Returns:
        Its windows, at least one if any frame is voiced: the whole song, however sparse.

    Notebook: notebooks/03_contours.py, notebooks/08_catalogue_and_index.py
    """
    sung, lead_s = contour.trimmed()
    lead = round(lead_s / contour.hop_s)
    spans: set[tuple[int, int]] = set()
    for length_s in grid.lengths_s:
        for window in windows(sung, length_s, length_s * grid.step_share, grid.min_voiced):
            spans.add((window.start_frame, window.end_frame))
    for length_s in (*grid.lengths_s, *grid.first_lengths_s):
        if len(sung):
            spans.add((0, min(len(sung), round(length_s / contour.hop_s))))
    starts, ends = np.array(sorted(spans), np.int32).reshape(-1, 2).T
    positions = reading.positions(starts, ends - starts)  # (W, L)
    frames = stretch(sung.frames, positions).astype(np.float32)
    return SongWindows(frames, starts + lead, ends + lead, starts == 0)


def read_sources(corpora: Iterable[Corpus]) -> tuple[list[Song], list[Failure]]:
    """Read the songs of all sources; a file that cannot be read does not stop the others.

    Returns:
        Songs in order, and the failures.

    Raises:
        QbhError: if two songs share an id; names both.
    """
    songs: dict[str, Song] = {}
    failures = []
    read: set[Path] = set()
    for corpus in corpora:
        for path in corpus.files:
            if path.resolve() in read:
                continue  # named twice, or named beside its folder
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
    reused: int  # songs whose shard was there already
    failures: list[Failure]


class Made(NamedTuple):
    """What became of a group of songs."""

    entry: ShardEntry | None  # None where not one could be indexed
    failures: list[Failure]
    reused: bool


@dataclass(frozen=True)
class Group:
    """Songs that become one shard.

    Args:
        songs: any number in notes or f0, or a single recording.
        entries: their descriptions.
        heard: the shard that holds the recording's contour, and its number there, if one does.
    """

    songs: Sequence[Song]
    entries: Sequence[SongEntry]
    heard: tuple[ShardEntry, int] | None = None


@dataclass(frozen=True)
class Tools:
    """What makes the shards of a catalogue.

    Args:
        folder: the catalogue's.
        embedder: makes the vectors.
        grid: the windows.
        tracker: identity of the tracker.
        get_tracker: makes it, when the first recording comes.
    """

    folder: Path
    embedder: Embedder
    grid: WindowGrid
    tracker: str
    get_tracker: MakeTracker

    @cached_property
    def listener(self) -> Tracker:
        """The tracker, made once."""
        return self.get_tracker(self.tracker.split("@")[0])

    def make(self, group: Group) -> Made:
        """Make the shard of a group and write it; songs that cannot be indexed are left out."""
        songs, contours, cuts, failures = [], [], [], []
        for song, entry in zip(group.songs, group.entries, strict=True):
            try:
                contour = self._contour_of(song, group.heard)
                cut = cut_song(contour, self.grid, self.embedder.reading)
                if not len(cut.frames):
                    raise QbhError(f"{song.source} holds no melody: nothing in it is voiced.")
            except QbhError as error:
                failures.append(Failure(song.source, str(error)))
                continue
            songs.append(entry)
            contours.append(contour)
            cuts.append(cut)
        if not cuts:
            return Made(None, failures, False)
        shard = Shard(
            songs,
            contours,
            self.embedder.embed(np.concatenate([cut.frames for cut in cuts])).astype(np.float16),
            np.repeat(np.arange(len(cuts)), [len(cut.frames) for cut in cuts]).astype(np.int32),
            np.concatenate([cut.start for cut in cuts]),
            np.concatenate([cut.end for cut in cuts]),
            np.concatenate([cut.at_start for cut in cuts]),
        )
        made = write_shard(self.folder, self.embedder.identity, self.grid, shard)
        return Made(made, failures, False)

    def _contour_of(self, song: Song, heard: tuple[ShardEntry, int] | None) -> Contour:
        if song.audio is None:
            return song.contour()
        if heard:
            shard, number = heard
            return read_melodies(self.folder, shard).contours[number]
        audio = load(song.audio, self.listener.rate_hz)
        refuse_silence(audio, song.audio)
        with naming(song.audio):
            return from_f0(self.listener.track(audio))


class Crew(Protocol):
    """Who makes the shards: this process, or the workers of a cluster."""

    def __call__(
        self, tools: Tools, groups: Iterable[tuple[int, Group]]
    ) -> Iterator[tuple[int, Made]]:
        """Yield the number of each group and what became of it, in any order."""
        ...


def in_turn(tools: Tools, groups: Iterable[tuple[int, Group]]) -> Iterator[tuple[int, Made]]:
    """Make one group after the other in this process: the usual :class:`Crew`."""
    return ((number, tools.make(group)) for number, group in groups)


def build_catalogue(
    songs: Sequence[Song],
    path: Path,
    embedder: Embedder,
    tracker: str | None = None,
    get_tracker: MakeTracker = trackers.get_tracker,
    grid: WindowGrid | None = None,
    progress: bool = True,
    crew: Crew = in_turn,
) -> BuildReport:
    """Build a catalogue, or bring one up to date; an interrupted build goes on where it stopped.

    A recording whose contour a shard holds, from the same bytes and tracker, is not listened to.

    Args:
        songs: as :func:`read_sources` gives them.
        path: folder of the catalogue; made if it is missing.
        embedder: makes the vectors.
        tracker: name of the tracker for recordings; the default one for songs if None.
        get_tracker: makes it, when the first recording comes.
        grid: the windows; by default those of :func:`grid_of`.
        progress: show a bar, in a terminal or a notebook.
        crew: who makes the shards; :func:`~qbhkit.retrieval.cluster.open_crew` gives others.

    Returns:
        Counts, and the songs that could not be indexed.

    Raises:
        QbhError: if not a single song could be indexed; an older catalogue there stays as it was.

    Notebook: notebooks/00_hum_to_song.py, notebooks/08_catalogue_and_index.py
    """
    path, grid = Path(path), grid or grid_of(embedder.reading)
    name = tracker or trackers.default_song_tracker()
    identity = trackers.identity_of(name)
    entries, failures, reused = [], [], 0
    with sole_writer(path):
        tools = Tools(path, embedder, grid, identity, get_tracker)
        for made in Workshop(tools, crew).make_all(songs, progress):
            failures += made.failures
            if made.entry:
                entries.append(made.entry)
                reused += made.entry.songs if made.reused else 0
        if not entries:
            reason = f": {failures[0].reason}" if failures else "."
            raise QbhError(f"Not one song could be indexed{reason}")
        manifest = Manifest(FORMAT, embedder.identity, identity, grid, tuple(entries))
        publish(path, manifest)
    return BuildReport(manifest.songs, manifest.windows, reused, failures)


class Workshop:
    """Make the shards of songs in a folder, or find them made.

    Args:
        tools: what makes them.
        crew: who does.

    Attributes:
        whole: the undamaged shards that were there, and their recipes.
    """

    def __init__(self, tools: Tools, crew: Crew = in_turn) -> None:
        self.tools, self.crew = tools, crew
        self.whole = whole_shards(tools.folder)
        self._by_recipe = {recipe: entry for entry, recipe in self.whole.items()}
        self._heard = {
            (song["content"], song["tracker"]): (entry, number)
            for entry, recipe in self.whole.items()
            for number, song in enumerate(json.loads(recipe)["songs"])
            if "tracker" in song
        }

    def make_all(self, songs: Sequence[Song], progress: bool) -> list[Made]:
        """Make the shards of all songs, up to 256 in one, and every recording in one of its own.

        A recording takes seconds to listen to: stopping a build, or adding a song before others,
        must not make it be heard again.

        Returns:
            What became of each group, in the order of the songs, whoever was first.
        """
        symbolic = [song for song in songs if song.audio is None]
        starts = range(0, len(symbolic), _SONGS_A_SHARD)
        groups = [symbolic[begin : begin + _SONGS_A_SHARD] for begin in starts]
        groups += [[song] for song in songs if song.audio is not None]
        made: dict[int, Made] = {}
        with tqdm(total=len(songs), desc="catalogue", unit="song", disable=not progress) as bar:

            def done(number: int, result: Made) -> None:
                made[number] = result
                bar.update(len(groups[number]))

            def due() -> Iterator[tuple[int, Group]]:
                for number, group in enumerate(map(self._describe, groups)):
                    if known := self._by_recipe.get(self._recipe(group)):
                        done(number, Made(known, [], True))
                    else:
                        yield number, group

            for number, result in self.crew(self.tools, due()):
                done(number, result)
        return [made[number] for number in range(len(groups))]

    def _describe(self, songs: Sequence[Song]) -> Group:
        entries = [song_entry(song, self.tools.tracker) for song in songs]
        return Group(songs, entries, self._heard.get((entries[0]["content"], self.tools.tracker)))

    def _recipe(self, group: Group) -> str:
        return recipe_of(self.tools.embedder.identity, self.tools.grid, group.entries)


def song_entry(song: Song, tracker: str) -> SongEntry:
    """Describe a song by what a shard keeps of it; recordings by their bytes: none is decoded.

    Args:
        song: the song.
        tracker: identity of who would listen to it, if it is a recording.
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
        entry["source"] = str(song.audio.absolute())  # it is played, from wherever the search runs
        with suppress(OSError):  # who decodes it will say what is wrong
            content.update(sha256_file(song.audio).encode())
    return entry | {"content": content.hexdigest()}
