"""A catalogue: the contours, windows and vectors of many songs, in checked files.

A catalogue is a folder: ``manifest.json`` names the model, the tracker and the windows that made
it, and lists shards of up to 256 songs (a recording has its own) with their checksums. A shard's
name is a hash of everything it was made from, so an interrupted build goes on where it stopped, and
one that changes nothing ends at once. The old manifest stays in force until the new one is whole.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qbhkit.audio import load, refuse_silence
from qbhkit.config import build as build_config
from qbhkit.contour import Contour, Reading, from_f0, from_pitch, stretch, windows
from qbhkit.corpora import Corpus, Song
from qbhkit.errors import Failure, QbhError
from qbhkit.melody import trackers
from qbhkit.melody.trackers import Tracker
from qbhkit.storage import atomic_path, read_json, sha256_file, write_json

FORMAT = 1
_SONGS_A_SHARD = 256
_CURE = "build the catalogue again"


@dataclass(frozen=True)
class WindowGrid:
    """Which windows of a song are embedded.

    Args:
        lengths_s: window lengths, seconds; a hum is compared with all of them, whatever its own
            length, which is how a slower or faster hum is found.
        step_share: from one start to the next, as a share of the length.
        first_lengths_s: further lengths for the window at the song's first note.
        min_voiced: smallest voiced share of a window.
    """

    lengths_s: tuple[float, ...] = (4.0, 5.7, 8.0, 11.3, 16.0)
    step_share: float = 0.25
    first_lengths_s: tuple[float, ...] = (4.8, 6.7, 9.5, 13.5, 19.0)
    min_voiced: float = 0.5


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


@dataclass(frozen=True, eq=False)
class Catalogue:
    """An opened catalogue: all songs with contours, windows and vectors in memory.

    Attributes:
        path: its folder.
        model: identity of the weights that embedded it.
        tracker: name of the tracker used for recordings.
        grid: its windows.
        songs: id, title, source and licence of each song.
        contours: the contour of each song.
        vectors: (W, D) float16.
        song: (W,) song number of each window.
        start_s, end_s: (W,) seconds.
        at_start: (W,) whether a window begins at the song's first note.
    """

    path: Path
    model: str
    tracker: str
    grid: WindowGrid
    songs: list[dict[str, str]]
    contours: list[Contour]
    vectors: NDArray[np.float16]
    song: NDArray[np.int64]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    at_start: NDArray[np.bool_]
    number: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        ids = {entry["id"]: k for k, entry in enumerate(self.songs)}
        object.__setattr__(self, "number", ids)


def open_catalogue(path: Path) -> Catalogue:
    """Open a catalogue and check every file of it.

    Raises:
        QbhError: if it is missing, unfinished, of another format, or a file is damaged.
    """
    path = Path(path)
    manifest_path = path / "manifest.json"
    if not manifest_path.is_file() and (path / "building.json").is_file():
        raise QbhError(f"{path} is unfinished: run the command that builds it again.")
    manifest = read_json(manifest_path, _CURE)
    try:
        if manifest["format"] != FORMAT:
            raise QbhError(f"{path} has format {manifest['format']}, not {FORMAT}: {_CURE}.")
        grid = build_config(WindowGrid, manifest["grid"], str(manifest_path))
        shards = [_read_shard(path, entry) for entry in manifest["shards"]]
        model, tracker = str(manifest["model"]), str(manifest["tracker"])
    except (KeyError, TypeError, AttributeError):
        raise QbhError(f"{manifest_path} is damaged: {_CURE}.") from None
    if not shards:
        raise QbhError(f"{path} holds no songs: {_CURE}.")
    offsets = np.cumsum([0, *(len(shard.songs) for shard in shards)])
    return Catalogue(
        path,
        model,
        tracker,
        grid,
        [entry for shard in shards for entry in shard.songs],
        [contour for shard in shards for contour in shard.contours],
        np.concatenate([shard.vectors for shard in shards]),
        np.concatenate(
            [shard.song.astype(np.int64) + at for shard, at in zip(shards, offsets, strict=False)]
        ),
        np.concatenate([shard.start for shard in shards]) * shards[0].contours[0].hop_s,
        np.concatenate([shard.end for shard in shards]) * shards[0].contours[0].hop_s,
        np.concatenate([shard.at_start for shard in shards]),
    )


class _Shard(NamedTuple):
    songs: list[dict[str, str]]
    contours: list[Contour]
    vectors: NDArray[np.float16]  # (W, D)
    song: NDArray[np.int32]  # (W,) within the shard
    start: NDArray[np.int32]  # (W,) frames
    end: NDArray[np.int32]
    at_start: NDArray[np.bool_]


def _read_shard(folder: Path, entry: dict[str, Any]) -> _Shard:
    from safetensors import SafetensorError, safe_open

    name = str(entry["file"])
    path = folder / "shards" / name
    if Path(name).name != name or not path.is_file():
        raise QbhError(f"{path} is missing: {_CURE}.")
    if sha256_file(path) != entry["sha256"]:
        raise QbhError(f"{path} is damaged (its checksum differs): {_CURE}.")
    try:
        with safe_open(path, framework="numpy") as stored:
            songs = json.loads(stored.metadata()["songs"])
            part = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        pitches = np.split(part["pitch"], np.cumsum(part["frames"])[:-1])
        contours = [from_pitch(pitch) for pitch in pitches]
        shard = _Shard(
            songs,
            contours,
            *(part[key] for key in ("vectors", "song", "start", "end", "at_start")),
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise QbhError(f"{path} is damaged ({error}): {_CURE}.") from None
    return shard


def _write_shard(path: Path, shard: _Shard) -> None:
    from safetensors.numpy import save_file

    arrays = {
        "pitch": np.concatenate([contour.pitch_st for contour in shard.contours]),
        "frames": np.array([len(contour) for contour in shard.contours], np.int64),
        "vectors": shard.vectors,
        "song": shard.song,
        "start": shard.start,
        "end": shard.end,
        "at_start": shard.at_start,
    }
    with atomic_path(path) as part:
        save_file(arrays, part, metadata={"songs": json.dumps(shard.songs)})


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


def build_catalogue(
    songs: Sequence[Song],
    path: Path,
    embedder: Embedder,
    tracker: str | None = None,
    get_tracker: Callable[[str], Tracker] = trackers.get_tracker,
    grid: WindowGrid | None = None,
    progress: bool = True,
) -> BuildReport:
    """Build a catalogue, or bring one up to date; an interrupted build goes on where it stopped.

    Args:
        songs: as :func:`read_sources` gives them.
        path: folder of the catalogue; made if it is missing.
        embedder: makes the vectors.
        tracker: name of the tracker for recordings; the default one for songs if None.
        get_tracker: makes it, when the first recording comes.
        grid: the windows; by default those of :func:`grid_of`.
        progress: show a bar on standard error.

    Returns:
        Counts, and the songs that could not be indexed.

    Raises:
        QbhError: if not a single song could be indexed; an older catalogue there stays as it was.
    """
    path, grid = Path(path), grid or grid_of(embedder.reading)
    name = tracker or trackers.default_song_tracker()
    made_by = {
        "format": FORMAT,
        "model": embedder.identity,
        "grid": json.loads(json.dumps(asdict(grid))),
    }
    head = made_by | {"tracker": trackers.identity_of(name)}
    listener = cache(lambda: get_tracker(name))
    known = _known_shards(path)
    entries: list[dict[str, Any]] = []
    reused = 0
    with tqdm(total=len(songs), desc="catalogue", unit="song", disable=not progress) as bar:
        for group in _groups(songs):
            key = _fingerprint(made_by if group[0].audio is None else head, group)
            entry = known.get(key)
            if entry is not None:
                reused += entry["songs"]
            else:
                shard, failures = _make_shard(group, embedder, grid, listener)
                entry = _store(path, key, shard, failures)
            entries.append(entry)
            write_json(path / "building.json", head | {"shards": entries})
            bar.update(len(group))
    kept = [entry for entry in entries if entry["songs"]]
    failures = [Failure(*failure) for entry in entries for failure in entry["failures"]]
    if not kept:
        (path / "building.json").unlink(missing_ok=True)
        reason = f": {failures[0].reason}" if failures else "."
        raise QbhError(f"Not one song could be indexed{reason}")
    write_json(path / "manifest.json", head | {"shards": kept})
    (path / "building.json").unlink(missing_ok=True)
    _forget_old_shards(path, {entry["file"] for entry in kept})
    return BuildReport(
        sum(entry["songs"] for entry in kept),
        sum(entry["windows"] for entry in kept),
        reused,
        failures,
    )


def _groups(songs: Sequence[Song]) -> Iterator[Sequence[Song]]:
    """Put up to 256 songs into a shard, and every recording into one of its own.

    A recording takes seconds to listen to: stopping a build, or adding a song before others, must
    not make it be heard again.
    """
    symbolic = [song for song in songs if song.audio is None]
    for begin in range(0, len(symbolic), _SONGS_A_SHARD):
        yield symbolic[begin : begin + _SONGS_A_SHARD]
    for song in songs:
        if song.audio is not None:
            yield [song]


def _fingerprint(head: dict[str, Any], songs: Sequence[Song]) -> str:
    """Hash everything a shard is made from; recordings by their bytes, so that none is decoded.

    Args:
        head: what made it; the tracker only where something is listened to.
        songs: what it holds.
    """
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for song in songs:
        digest.update(json.dumps([song.id, song.title, song.source, song.licence]).encode())
        if song.notes is not None:
            digest.update(np.ascontiguousarray(song.notes).tobytes())
        elif song.f0 is not None:
            digest.update(np.float64(song.f0.hop_s).tobytes())
            digest.update(song.f0.frequency_hz.tobytes() + song.f0.voicing.tobytes())
        elif song.audio is not None:
            with suppress(OSError):  # who decodes it will say what is wrong
                digest.update(sha256_file(song.audio).encode())
    return digest.hexdigest()


def _known_shards(path: Path) -> dict[str, dict[str, Any]]:
    """Return the whole shards of earlier or unfinished builds; a key says all they were made of."""
    known = {}
    for name in ("manifest.json", "building.json"):
        try:
            manifest = read_json(path / name, _CURE)
            for entry in manifest["shards"]:
                file = path / "shards" / Path(entry["file"]).name
                if entry["failures"]:
                    continue  # what failed may be mended by now
                if sha256_file(file) == entry["sha256"]:
                    known[entry["key"]] = entry
        except (QbhError, OSError, KeyError, TypeError, AttributeError):
            continue  # a damaged shard or manifest is simply made again
    return known


def _make_shard(
    group: Sequence[Song],
    embedder: Embedder,
    grid: WindowGrid,
    listener: Callable[[], Tracker],
) -> tuple[_Shard | None, list[Failure]]:
    songs, contours, cuts, failures = [], [], [], []
    for song in group:
        try:
            contour = _contour_of(song, listener)
            cut = cut_song(contour, grid, embedder.reading)
            if not len(cut.frames):
                raise QbhError(f"{song.source} holds no melody: nothing in it is voiced.")
        except QbhError as error:
            failures.append(Failure(song.source, str(error)))
            continue
        songs.append(
            {"id": song.id, "title": song.title, "source": song.source, "licence": song.licence}
        )
        contours.append(contour)
        cuts.append(cut)
    if not cuts:
        return None, failures
    shard = _Shard(
        songs,
        contours,
        embedder.embed(np.concatenate([cut.frames for cut in cuts])).astype(np.float16),
        np.repeat(np.arange(len(cuts)), [len(cut.frames) for cut in cuts]).astype(np.int32),
        np.concatenate([cut.start for cut in cuts]),
        np.concatenate([cut.end for cut in cuts]),
        np.concatenate([cut.at_start for cut in cuts]),
    )
    return shard, failures


def _contour_of(song: Song, listener: Callable[[], Tracker]) -> Contour:
    if song.audio is None:
        return song.contour()
    tracker = listener()
    audio = load(song.audio, tracker.rate_hz)
    refuse_silence(audio, song.audio)
    return from_f0(tracker.track(audio))


def _store(path: Path, key: str, shard: _Shard | None, failures: list[Failure]) -> dict[str, Any]:
    """Write a shard, if any of its songs could be indexed, and return its manifest entry."""
    entry: dict[str, Any] = {"key": key, "file": "", "sha256": "", "songs": 0, "windows": 0}
    if shard is not None:
        file = path / "shards" / f"{key[:32]}.safetensors"
        _write_shard(file, shard)
        entry |= {"file": file.name, "sha256": sha256_file(file)}
        entry |= {"songs": len(shard.songs), "windows": len(shard.vectors)}
    return entry | {"failures": [list(failure) for failure in failures]}


def _forget_old_shards(path: Path, kept: set[str]) -> None:
    for file in (path / "shards").glob("*.safetensors"):
        if file.name not in kept:
            file.unlink()
