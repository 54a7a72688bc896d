"""The files of a catalogue: immutable shards named by a hash of their bytes, and a manifest.

A shard stores the recipe that it was made from. A build may be killed at any moment, because the
next one reuses every shard whose recipe it needs. ``manifest.json`` lists the shards of the
catalogue; it is replaced when all shards of the new catalogue are written.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.memmap import map_float16
from qbhkit.config import build_config
from qbhkit.contour import Contour, from_pitch
from qbhkit.embedding.windows import WindowGrid
from qbhkit.errors import QbhError
from qbhkit.storage import atomic_path, sha256_file

CATALOGUE_FORMAT = 2
CURE = "build the catalogue again"
MANIFEST = "manifest.json"
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARD_NAME = re.compile(r"[0-9a-f]{32,64}\.safetensors")  # 32 digits: format 1
_ARRAYS = {
    "pitch": np.float32,  # (all frames,) MIDI semitones, 0 = unvoiced
    "frames": np.int64,  # (songs,)
    "vectors": np.float16,  # (W, D)
    "song": np.int32,  # (W,)
    "start": np.int32,
    "end": np.int32,
    "at_start": np.bool_,
}
_MARKS = "instrumental"  # (all frames,) bool; only where it is known

_WRONG = (OSError, RecursionError, ValueError, KeyError, TypeError, AttributeError)  # of bad files

SongEntry = dict[str, str]
"""id, title, source, licence and content (a hash) of a song. Songs in notes have melody too: a hash
that is the same in any key and tempo; recordings have tracker, the identity of their tracker."""


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest lists it: the SHA-256 of its file, and its size."""

    sha256: str
    songs: int
    windows: int

    def __post_init__(self) -> None:
        if not _HEX_SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.sha256!r} is not a checksum")

    def path(self, folder: Path) -> Path:
        """Return the shard's file in the folder of a catalogue."""
        return folder / "shards" / f"{self.sha256}.safetensors"


@dataclass(frozen=True)
class Manifest:
    """What a catalogue was built with, and its shards in order."""

    format: int
    model: str  # identity of the weights
    tracker: str  # identity of the tracker for recordings
    grid: WindowGrid
    shards: tuple[ShardEntry, ...]  # none of them twice

    def __post_init__(self) -> None:
        if len(set(self.shards)) < len(self.shards):
            raise ValueError("it lists a shard twice")

    @property
    def songs(self) -> int:
        """Number of songs."""
        return sum(entry.songs for entry in self.shards)

    @property
    def windows(self) -> int:
        """Number of windows."""
        return sum(entry.windows for entry in self.shards)


class Shard(NamedTuple):
    """Songs, their contours, and their windows in order."""

    songs: list[SongEntry]
    contours: list[Contour]
    vectors: NDArray  # (W, D) of length 1
    song: NDArray  # (W,) number within the shard, ascending
    start: NDArray  # (W,) first frame
    end: NDArray  # (W,) frame after the last
    at_start: NDArray  # (W,) begins at the first note

    def only(self, kept: Sequence[int]) -> "Shard":
        """Return the shard of some of its songs, given by their ascending numbers."""
        rows = np.isin(self.song, kept)
        songs, contours = [self.songs[k] for k in kept], [self.contours[k] for k in kept]
        cut = Shard(songs, contours, *(column[rows] for column in self[2:]))
        return cut._replace(song=np.searchsorted(kept, cut.song))


class Melodies(NamedTuple):
    """The songs of a shard without their windows."""

    songs: list[SongEntry]
    contours: list[Contour]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a catalogue; raise QbhError if the catalogue cannot be searched."""
    path = folder / MANIFEST
    if not path.is_file() and (folder / "shards").is_dir():
        raise QbhError(f"{folder} is unfinished: run the command that builds it again.")
    try:
        text = path.read_bytes().decode()
        values = json.loads(text)
        found = values["format"]
    except FileNotFoundError:
        raise QbhError(
            f"{path} does not exist: check the path, or build a catalogue there with 'qbhkit "
            "catalogue build SONGS --out CATALOGUE'."
        ) from None
    except _WRONG as error:
        raise QbhError(f"{path} is damaged ({error}): {CURE}.") from None
    if found != CATALOGUE_FORMAT:
        raise QbhError(f"{folder} has format {found}, not {CATALOGUE_FORMAT}: {CURE}.")
    values.pop("sha256", None)
    if _signed(values) != text:
        raise QbhError(f"{path} is damaged (its checksum differs): {CURE}.")
    try:
        manifest = build_config(Manifest, values, "it")
    except (QbhError, OverflowError) as error:
        raise QbhError(f"{path} is damaged ({str(error).rstrip('.')}): {CURE}.") from None
    if not manifest.shards:
        raise QbhError(f"{folder} holds no songs: {CURE}.")
    return manifest


def publish(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest, then delete partial files and the shards that it does not list."""
    with atomic_path(folder / MANIFEST) as part:
        part.write_bytes(_signed(asdict(manifest)).encode())
    listed = {entry.path(folder) for entry in manifest.shards}
    for file in (folder / "shards").iterdir():
        if _SHARD_NAME.fullmatch(file.name) and file not in listed:
            file.unlink()
    for where in (folder, folder / "shards"):
        for file in where.glob(".partial-*"):
            file.unlink()


def _signed(values: dict[str, Any]) -> str:
    """Return the text of a manifest with its checksum; a file that differs from it is damaged."""
    checksum = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return json.dumps(values | {"sha256": checksum}, indent=1) + "\n"


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a folder (created if missing) for writing; raise QbhError if another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # not a Unix: two builds at the same time are not noticed
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QbhError(
                f"{folder} is being written by another process: wait until it has ended."
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def recipe_of(model: str, grid: WindowGrid, songs: Sequence[SongEntry]) -> str:
    """Return everything that determines the content of a shard, as text."""
    values = {"format": CATALOGUE_FORMAT, "model": model, "grid": asdict(grid), "songs": songs}
    return json.dumps(values, sort_keys=True)


def write_shard(folder: Path, model: str, grid: WindowGrid, shard: Shard) -> ShardEntry:
    """Write a shard, and return its entry; its file is named by the hash of its bytes."""
    from safetensors.numpy import save

    pitch = np.concatenate([contour.pitch_st for contour in shard.contours])
    frames = np.array([len(contour) for contour in shard.contours])
    arrays = dict(zip(_ARRAYS, (pitch, frames, *shard[2:]), strict=True))
    arrays = {key: array.astype(_ARRAYS[key]) for key, array in arrays.items()}
    marks = [one.instrumental for one in shard.contours if one.instrumental is not None]
    if len(marks) == len(shard.contours):  # a recording, which has a shard of its own
        arrays[_MARKS] = np.concatenate(marks)
    content = save(arrays, {"recipe": recipe_of(model, grid, shard.songs)})
    sha256 = hashlib.sha256(content).hexdigest()
    entry = ShardEntry(sha256, len(shard.songs), len(shard.vectors))
    with atomic_path(entry.path(folder)) as part:
        part.write_bytes(content)
    return entry


def read_shard(folder: Path, entry: ShardEntry, mapped: bool = False) -> Shard:
    """Read a shard, and check every byte and offset; raise QbhError if it is damaged.

    Args:
        folder: of the catalogue.
        entry: of the shard.
        mapped: leave the vectors in the file, as a read-only memory map.
    """
    path = _checked(folder, entry)
    with _reading(path) as stored:
        songs = _songs_of(stored)
        part = {key: stored.get_tensor(key) for key in _ARRAYS if key != "vectors" or not mapped}
        if mapped:
            part["vectors"] = map_float16(path, "vectors")
        if len(songs) != entry.songs or not _consistent(part, entry):
            raise ValueError("its parts do not fit together")
        _, _, *windows = (part[key] for key in _ARRAYS)
        return Shard(songs, _contours(stored), *windows)


def _checked(folder: Path, entry: ShardEntry) -> Path:
    """Return the path of a shard that is there and undamaged."""
    path = entry.path(folder)
    if not path.is_file():
        raise QbhError(f"{path} is missing: {CURE}.")
    if sha256_file(path) != entry.sha256:
        raise QbhError(f"{path} is damaged (its checksum differs): {CURE}.")
    return path


def read_melodies(folder: Path, entry: ShardEntry) -> Melodies:
    """Read the songs and contours of a shard, unchecked; raise QbhError if it cannot be read."""
    with _reading(entry.path(folder)) as stored:
        return Melodies(_songs_of(stored), _contours(stored))


def read_songs(folder: Path, entry: ShardEntry) -> list[SongEntry]:
    """Read only the songs of a shard; raises as :func:`read_melodies`."""
    with _reading(entry.path(folder)) as stored:
        return _songs_of(stored)


def read_recipe(folder: Path, entry: ShardEntry) -> str:
    """Read the recipe of a shard; raises as :func:`read_melodies`."""
    with _reading(entry.path(folder)) as stored:
        return str(stored.metadata()["recipe"])


def shard_files(folder: Path) -> list[Path]:
    """Return the files in the folder of a catalogue that are named as shards."""
    files = sorted((folder / "shards").glob("*.safetensors"))
    return [file for file in files if _HEX_SHA256.fullmatch(file.stem)]


def intact_shards(folder: Path) -> dict[ShardEntry, str]:
    """Return the undamaged shards in a folder and their recipes, listed in a manifest or not."""
    found = {}
    for path in shard_files(folder):
        with suppress(QbhError):  # of another format, or not a shard: built again
            if path.stem == sha256_file(path):
                with _reading(path) as stored:
                    windows = stored.get_slice("song").get_shape()[0]
                    entry = ShardEntry(path.stem, len(_songs_of(stored)), windows)
                    found[entry] = str(stored.metadata()["recipe"])
    return found


def copy_shard(source: Path, target: Path, entry: ShardEntry) -> None:
    """Copy a shard of one catalogue into another; raise QbhError if it is missing or damaged."""
    content, copy = _checked(source, entry).read_bytes(), entry.path(target)
    if not copy.is_file() or sha256_file(copy) != entry.sha256:
        with atomic_path(copy) as part:
            part.write_bytes(content)


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Open a shard; whatever is wrong with it is raised as QbhError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stored:
            yield stored
    except FileNotFoundError:
        raise QbhError(f"{path} is missing: {CURE}.") from None
    except (SafetensorError, *_WRONG) as error:
        raise QbhError(f"{path} is damaged ({error}): {CURE}.") from None


def _songs_of(stored: Any) -> list[SongEntry]:
    recipe = json.loads(stored.metadata()["recipe"])
    if recipe["format"] != CATALOGUE_FORMAT:
        raise ValueError("it has another format")
    songs: list[SongEntry] = recipe["songs"]
    for song in songs:
        if not {"id", "title", "source", "licence", "content"} <= set(song):
            raise ValueError("a song lacks its description")
        if not all(isinstance(value, str) for value in song.values()):
            raise ValueError("the description of a song is not text")
    return songs


def _contours(stored: Any) -> list[Contour]:
    ends = np.cumsum(stored.get_tensor("frames"))[:-1]
    contours = [from_pitch(part) for part in np.split(stored.get_tensor("pitch"), ends)]
    if _MARKS not in set(stored.keys()):
        return contours
    marks = stored.get_tensor(_MARKS)
    if len(marks) != sum(map(len, contours)):
        raise ValueError("its marks do not fit its contours")
    parts = np.split(marks, ends)
    return [replace(one, instrumental=part) for one, part in zip(contours, parts, strict=True)]


def _consistent(part: dict[str, NDArray], entry: ShardEntry) -> bool:
    """Return whether the arrays of a shard have shapes and offsets that fit together."""
    frames, vectors, song = part["frames"], part["vectors"], part["song"]
    start, end = part["start"], part["end"]
    return bool(
        all(part[key].dtype == kind for key, kind in _ARRAYS.items())
        and vectors.ndim == 2
        and vectors.shape[:1] == (entry.windows,)
        and all(part[key].shape == (entry.windows,) for key in ("song", "start", "end", "at_start"))
        and frames.shape == (entry.songs,)
        and part["pitch"].shape == (frames.sum(),)
        and (frames >= 0).all()
        and np.array_equal(np.unique(song), np.arange(entry.songs))  # every song has a window
        and (np.diff(song) >= 0).all()
        and ((start >= 0) & (start < end) & (end <= frames[song])).all()
    )
