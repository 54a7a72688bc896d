"""Folders of recordings and f0 CSVs, and corpora in the layout in which they are published."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import read_tags
from qbhkit.contour import F0_HOP_S, PUBLISHED_MEAN_ST, PUBLISHED_STD_ST, F0Track, midi_to_hz
from qbhkit.corpora.midi import MidiFiles
from qbhkit.corpora.songs import Song, stem_of
from qbhkit.errors import QbhError
from qbhkit.f0_csv import read_f0_csv
from qbhkit.storage import cache_dir, read_json


@dataclass(frozen=True)
class F0Files:
    """Give one song for each f0 CSV (``NAME.f0.csv`` has the id ``NAME``)."""

    files: tuple[Path, ...]
    name: str = "f0"
    licence: str = "unknown"

    def read(self, path: Path) -> Iterator[Song]:
        """Yield the song; raise QbhError if the CSV is malformed."""
        song_id = stem_of(path)
        yield Song(song_id, song_id, str(path), self.licence, f0=read_f0_csv(path))


@dataclass(frozen=True)
class AudioFiles:
    """Give one song for each recording, titled by its tags; its melody is not extracted yet."""

    files: tuple[Path, ...]
    name: str = "audio"
    licence: str = "unknown"

    def read(self, path: Path) -> Iterator[Song]:
        """Yield the song; only the tags of the recording are read."""
        song_id = stem_of(path)
        tags = read_tags(path)
        title = " - ".join(part for part in (tags.artist, tags.title) if part)
        yield Song(song_id, title or song_id, str(path), self.licence, audio=path)


class HumRecording(NamedTuple):
    """A recorded hum: of which song, by whom, and its pitch if somebody labelled it by hand."""

    path: Path
    song_id: str
    singer: str  # YEAR/PERSON, such as year2009/person00001
    labelled_st: NDArray[np.float64] | None  # (N,) MIDI semitones every 32 ms, 0 = unvoiced


MIR_QBSH_LABEL_HOP_S = 256 / 8000
# Results and splits of the kit that name MIR-QBSH use the 423 hums of this year, 26 singers.
EVALUATION_YEAR = "year2009"
# MIR-QBSH numbers its singers anew each year. These sang in two years (source: the corpus's notes).
_SAME_SINGER = {
    "year2004a/person00001": "year2003/person00002",
    "year2004a/person00005": "year2003/person00014",
    "year2005/person00010": "year2004a/person00007",
    "year2005/person00011": "year2004a/person00008",
    "year2005/person00012": "year2004a/person00010",
    "year2006b/person00003": "year2006a/person00002",
    "year2006b/person00004": "year2006a/person00003",
    "year2006b/person00010": "year2006a/person00005",
    "year2006b/person00017": "year2006a/person00006",
    "year2006b/person00023": "year2006a/person00007",
}


@dataclass(frozen=True)
class MirQbsh:
    """Read MIR-QBSH in its official layout: ``midiFile/``, ``waveFile/YEAR/PERSON/SONG.wav``.

    Raises:
        QbhError: if there is no ``midiFile``.

    Source: J.-S. Roger Jang, "MIR-QBSH Corpus", MIR Lab, National Taiwan University.
    """

    root: Path
    name: str = "mir-qbsh"
    licence: str = "public research corpus (R. Jang)"
    files: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        files = tuple(sorted((self.root / "midiFile").glob("*.mid")))
        if not files:
            raise QbhError(
                f"{self.root} holds no midiFile/*.mid: run 'qbhkit data fetch mir-qbsh', or point "
                "QBHKIT_DATA or --data at the folder that holds mir-qbsh."
            )
        object.__setattr__(self, "files", files)

    def read(self, path: Path) -> Iterator[Song]:
        """Yield one of the 48 songs; the hums are not songs."""
        yield from MidiFiles(self.files, self.name, self.licence, self._titles()).read(path)

    def _titles(self) -> dict[str, str]:
        path = self.root / "midiFile" / "songList.txt"
        if not path.is_file():
            return {}
        titles = {}
        for line in path.read_bytes().decode("big5", errors="replace").splitlines():
            cells = [cell.strip() for cell in line.split("\t")]
            named = [cell for cell in cells[1:3] if cell not in ("", "-")]
            if named:
                titles[cells[0]] = " / ".join(named)
        return titles

    def hums(self, year: str = "*") -> list[HumRecording]:
        """Return the recordings of all years or one, sorted by path; QbhError if there are none."""
        hums = []
        for path in sorted(self.root.glob(f"waveFile/{year}/*/*.wav")):
            label = path.with_suffix(".pv")
            pitch = read_pitch_vector(label) if label.is_file() else None
            singer = f"{path.parent.parent.name}/{path.parent.name}"
            singer = _SAME_SINGER.get(singer, singer)  # the name of the first year
            hums.append(HumRecording(path, path.stem, singer, pitch))
        if not hums:
            wanted = "YEAR" if year == "*" else year
            raise QbhError(
                f"{self.root} holds no waveFile/{wanted}/PERSON/SONG.wav: fetch it again."
            )
        return hums


def read_pitch_vector(path: Path) -> NDArray[np.float64]:
    """Read a MIR-QBSH label: one MIDI pitch a line for every 32 ms, 0 = unvoiced.

    Raises:
        QbhError: if it cannot be read, or holds anything but numbers from 0 to 127.
    """
    try:
        pitch = np.array([float(word) for word in path.read_text("ascii").split()])
    except (OSError, ValueError) as error:
        raise QbhError(f"{path} is not a pitch vector ({error}).") from None
    if not np.isfinite(pitch).all() or (pitch.size and (pitch.min() < 0 or pitch.max() > 127)):
        raise QbhError(f"{path} holds values that are not MIDI pitches.")
    return pitch


_IOACAS_SONGS = "ioacas_melodies_100ms_midi.npz"
_IOACAS_QUERIES = "ioacas_queries_parselmouth_340"


@dataclass(frozen=True)
class Ioacas:
    """Read the IOACAS melodies (100 ms grid) and queries (10 ms semitones, rests dropped).

    Raises:
        QbhError: if the melodies are not there.
    """

    root: Path
    name: str = "ioacas"
    licence: str = "research use"
    files: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        path = self.root / _IOACAS_SONGS
        if not path.is_file():
            raise QbhError(f"{path} does not exist: point QBHKIT_DATA at the folder with ioacas.")
        object.__setattr__(self, "files", (path,))

    def read(self, path: Path) -> Iterator[Song]:
        """Yield the 298 melodies."""
        for song_id, pitch in _npz(path).items():
            f0 = pitch_track(pitch, hop_s=0.1)
            yield Song(song_id, song_id, f"{path}:{song_id}", self.licence, f0=f0)

    def queries(self) -> dict[str, tuple[F0Track, str]]:
        """Return, by query id, its f0 track and the id of its song.

        Raises:
            QbhError: if a file is missing or damaged, or a query has no label.
        """
        tracks = _npz(self.root / f"{_IOACAS_QUERIES}.npz")
        path = self.root / f"{_IOACAS_QUERIES}_labels.json"
        labels = read_json(path, "point QBHKIT_DATA at the folder with ioacas")
        if missing := sorted(set(tracks) - set(labels)):
            raise QbhError(f"{path} names no song for the query {missing[0]}.")
        return {key: (pitch_track(pitch, hop_s=0.01), labels[key]) for key, pitch in tracks.items()}


def _npz(path: Path, dtype: type | None = float) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: np.asarray(archive[key], dtype) for key in archive.files}
    except (
        OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error, TokenError,
    ) as error:  # fmt: skip
        raise QbhError(f"{path} cannot be read ({error}): copy it again.") from None


@dataclass(frozen=True)
class MelodyTable:
    """Read many melodies from one NumPy archive, by notes or by f0.

    Rows ``first[k]`` to ``first[k + 1]`` of its columns are the melody ``names[k]``. The columns
    are ``onset_ms``, ``duration_ms`` and ``midi`` of notes, or ``hz`` every 10 ms (0 = unvoiced).

    Raises:
        QbhError: if it is not there.
    """

    path: Path
    name: str
    licence: str
    files: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise QbhError(f"{self.path} does not exist: put it there, see 'qbhkit data list'.")
        object.__setattr__(self, "files", (self.path,))

    def read(self, path: Path) -> Iterator[Song]:
        """Yield the melodies; raise QbhError if the file is damaged or has another layout."""
        table = _npz(path, None)
        columns = ["hz"] if "hz" in table else ["onset_ms", "duration_ms", "midi"]
        try:
            names, first = table["names"].tolist(), table["first"].tolist()
            rows = np.stack([table[key] for key in columns], axis=1).astype(float)  # (R, columns)
            if len(first) != len(names) + 1 or [first[0], first[-1]] != [0, len(rows)]:
                raise ValueError("first does not fit its other columns")
            parts = np.split(rows, first[1:-1])
            songs = [self._song(str(name), part) for name, part in zip(names, parts, strict=True)]
        except (KeyError, IndexError, TypeError, ValueError, QbhError) as error:
            reason = str(error).rstrip(".")
            text = f"{path} is not a table of melodies ({reason}): copy it again."
            raise QbhError(text) from None
        yield from songs

    def _song(self, song_id: str, rows: NDArray) -> Song:
        source = f"{self.path}:{song_id}"
        if not len(rows):
            raise ValueError(f"{song_id} is empty")
        if rows.shape[1] == 1:
            hz = rows[:, 0]
            f0 = F0Track(hz, (hz > 0).astype(np.float32), F0_HOP_S)
            return Song(song_id, song_id, source, self.licence, f0=f0)
        notes = rows[np.argsort(rows[:, 0], kind="stable")] / [1000, 1000, 1]
        if not ((notes[:, 2] > 0) & (notes[:, 2] < 128)).all():
            raise ValueError(f"{song_id} holds values that are not MIDI pitches")
        notes[:, 0] -= min(notes[0, 0], 0)  # some begin before the time 0 of their recording
        return Song(song_id, song_id, source, self.licence, notes=notes)


def pitch_track(pitch_st: NDArray, hop_s: float) -> F0Track:
    """Build an f0 track from (N,) MIDI semitones in which 0 means unvoiced."""
    voiced = pitch_st > 0
    return F0Track(np.where(voiced, midi_to_hz(pitch_st), 0.0), voiced.astype(np.float32), hop_s)


def pop909(root: Path) -> MidiFiles:
    """Return POP909's 909 songs (``NNN/NNN.mid``, track MELODY), without the alternative versions.

    Raises:
        QbhError: if the folder holds none.

    Source: Wang et al., "POP909: a pop-song dataset for music arrangement generation", 2020.
    """
    files = tuple(sorted(path for path in root.glob("*/*.mid") if path.stem == path.parent.name))
    if not files:
        raise QbhError(f"{root} holds no NNN/NNN.mid: clone the POP909 dataset there.")
    return MidiFiles(files, "pop909", "MIT")


def transcribed(root: Path) -> F0Files:
    """Return the melodies of ``qbhkit data transcribe``, from the cache if there is no ``root``.

    Raises:
        QbhError: if the folder holds none.
    """
    folder = root if root.is_dir() else cache_dir() / root.name
    files = tuple(sorted(folder.glob("*.f0.csv")))
    if not files:
        raise QbhError(f"{folder} holds no melodies: run 'qbhkit data transcribe pop909'.")
    return F0Files(files, root.name, "MIT, as POP909")


_SEEDS = "contour_tiny.json"


@dataclass(frozen=True)
class SeedContours:
    """Read 100 excerpts of melodies that the published network extracted from commercial songs.

    ``contour_tiny.json`` is a list of ``song_id``, ``frame_pos`` (first 10 ms frame and end),
    ``melody`` (normalised pitch every 10 ms) and ``is_vocal``; ids are ``SONG-FRAME``.

    Raises:
        QbhError: if it is not there.
    """

    root: Path
    name: str = "seed-contours"
    licence: str = "none stated"
    files: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        path = self.root / _SEEDS
        if not path.is_file():
            raise QbhError(f"{path} does not exist: put it into DATA/seed-contours.")
        object.__setattr__(self, "files", (path,))

    def read(self, path: Path) -> Iterator[Song]:
        """Yield the excerpts; raise QbhError if the file is damaged or has another layout."""
        entries = read_json(path, "copy it again")
        try:
            songs = [self._song(path, entry) for entry in entries]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
            raise QbhError(f"{path} is not a list of melodies ({reason}): copy it again.") from None
        yield from songs

    def _song(self, path: Path, entry: dict[str, Any]) -> Song:
        song_id = f"{int(entry['song_id'])}-{int(entry['frame_pos'][0])}"
        pitch_st = np.array(entry["melody"], float) * PUBLISHED_STD_ST + PUBLISHED_MEAN_ST
        voiced = np.array(entry["is_vocal"], bool)
        if pitch_st.shape != voiced.shape:
            raise ValueError(f"melody and is_vocal of {song_id} differ in length")
        sung = pitch_st[voiced]
        if not ((sung > 0) & (sung < 128)).all():  # false for NaN too
            raise ValueError(f"{song_id} holds values that are not normalised pitch")
        f0 = pitch_track(np.where(voiced, pitch_st, 0.0), F0_HOP_S)
        return Song(song_id, song_id, f"{path}:{song_id}", self.licence, f0=f0)
