"""Contours of many songs on disk, memory-mapped: even a million songs need little memory.

A folder holds three files. ``pitch.npy`` is (frames,) float32, the MIDI semitones of all songs one
after another, 0 where unvoiced. ``index.npy`` is (3, songs) int64: first frame, frames and tune.
``manifest.json`` has the hop, the counts and the checksums, and is written last.
"""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qbhkit.contour import Contour
from qbhkit.embedding.sampling import ContourBank
from qbhkit.errors import QbhError
from qbhkit.storage import atomic_path, map_array, read_json, sha256_file, write_json

CONTOUR_SHARDS_FORMAT = 1
_CURE = "write the contours again (qbhkit.embedding.contour_shards.write_shards)"
_PITCH, _INDEX = np.dtype("<f4"), np.dtype("<i8")


def write_shards(
    contours: Iterable[Contour],
    folder: Path,
    groups: Iterable[int] | None = None,
    progress: bool = True,
) -> ContourBank:
    """Write contours as they come, with no more than one of them in memory.

    Old files are replaced only when all new ones are written; training that has opened them goes on
    with the old ones.

    Args:
        contours: all with the same hop.
        folder: where they are kept; created if it is missing.
        groups: (songs,) tune of each song; by default every song is its own. Read last, so it may
            be a list that is filled while the contours are written.
        progress: show a bar on standard error.

    Raises:
        QbhError: if no contour has a voiced frame, their hops differ, or there are not as many
            groups as songs.
    """
    folder = Path(folder)
    bar = tqdm(contours, "contours", unit="song", disable=not progress)
    with atomic_path(folder / "index.npy") as index, atomic_path(folder / "pitch.npy") as pitch:
        lengths, hop_s = _write_pitch(bar, pitch)
        ends = np.cumsum(lengths)
        tunes = np.arange(len(lengths)) if groups is None else np.array([*groups], _INDEX)
        if len(tunes) != len(lengths):
            raise QbhError(f"There are {len(tunes)} groups for {len(lengths)} songs.")
        np.save(index, np.stack([ends - lengths, lengths, tunes]).astype(_INDEX))
        manifest = {
            "kind": "contours",
            "format": CONTOUR_SHARDS_FORMAT,
            "hop_s": hop_s,
            "songs": len(lengths),
            "frames": int(ends[-1]),
            "sha256": {"pitch.npy": sha256_file(pitch), "index.npy": sha256_file(index)},
        }
    write_json(folder / "manifest.json", manifest)
    return open_shards(folder)


def _write_pitch(contours: Iterable[Contour], path: Path) -> tuple[NDArray[np.int64], float]:
    """Write the pitch of all contours; return their lengths and their hop."""
    lengths = array("q")
    hops, voiced = set[float](), False
    with open(path, "wb") as stream:
        _write_header(stream, 0)
        for contour in contours:
            stream.write(contour.pitch_st.astype(_PITCH).tobytes())
            lengths.append(len(contour))
            hops.add(contour.hop_s)
            voiced = voiced or bool(contour.voiced.any())
            if len(hops) > 1:
                raise QbhError("The contours of a bank must all have the same hop.")
        if not voiced:
            raise QbhError("There is no melody to train on: every contour is empty or unvoiced.")
        stream.seek(0)
        _write_header(stream, sum(lengths))
    return np.array(lengths, np.int64), hops.pop()


def _write_header(stream: Any, frames: int) -> None:
    """Write the header of (frames,) numbers; numpy leaves room for the count to grow."""
    header = {"descr": _PITCH.str, "fortran_order": False, "shape": (frames,)}
    np.lib.format.write_array_header_1_0(stream, header)


def open_shards(folder: Path) -> ContourBank:
    """Map contours that :func:`write_shards` wrote, after the checksum of every file is verified.

    Raises:
        QbhError: if the folder holds no contours, they have another format, or a file is missing
            or damaged.
    """
    folder = Path(folder)
    manifest = read_json(folder / "manifest.json", _CURE)
    if not isinstance(manifest, dict) or manifest.get("kind") != "contours":
        raise QbhError(f"{folder} does not hold contours: name another folder.")
    if manifest.get("format") != CONTOUR_SHARDS_FORMAT:
        raise QbhError(
            f"{folder} has format {manifest.get('format')}, not {CONTOUR_SHARDS_FORMAT}: {_CURE}."
        )
    try:
        hop_s, sums = float(manifest["hop_s"]), dict(manifest["sha256"])
        songs, frames = int(manifest["songs"]), int(manifest["frames"])
    except (KeyError, TypeError, ValueError):
        raise QbhError(f"{folder / 'manifest.json'} is damaged: {_CURE}.") from None
    pitch = _map(folder / "pitch.npy", sums, _PITCH, (frames,))
    offsets, lengths, groups = _map(folder / "index.npy", sums, _INDEX, (3, songs))
    return ContourBank.over(pitch, offsets, lengths, groups, hop_s)


def _map(path: Path, sums: dict[str, str], kind: np.dtype, shape: tuple[int, ...]) -> NDArray:
    """Map a file into memory, if checksum, type and shape are those of the manifest."""
    if not path.is_file():
        raise QbhError(f"{path} is missing: {_CURE}.")
    try:
        if sha256_file(path) != sums.get(path.name):
            raise ValueError("its checksum differs")
        found = map_array(path)
        if found.dtype != kind or found.shape != shape:
            raise ValueError(f"it holds {found.dtype} {found.shape}")
    except (OSError, ValueError) as error:
        raise QbhError(f"{path} is damaged ({error}): {_CURE}.") from None
    return np.asarray(found)  # still mapped, but indexed faster than a np.memmap
