"""ABC notation: tune books, and the public collections inside the installed music21 package.

Repeats are played; grace notes, chord symbols and decorations are not, because nobody hums them.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbhkit.corpora.midi import LONGEST_S, melody_notes
from qbhkit.corpora.songs import Song, natural_key, stem_of
from qbhkit.errors import QbhError

FEWEST_NOTES = 8
MUSIC21_COLLECTIONS = {
    "essenFolksong": "Essen Folksong Collection; its file calls the licence unclear "
    "(non-commercial use with music21 permitted): read it, never redistribute it",
    "oneills1850": "public domain (O'Neill's Music of Ireland, 1903)",
    "airdsAirs": "public domain (Aird's Airs, 1782 to 1803)",
    "ryansMammoth": "public domain (Ryan's Mammoth Collection, 1883)",
    "miscFolk": "public domain tunes, transcriptions by their editors",
}
_NOT_HUMMED = re.compile(
    r'\{[^}\n]*\}|"[^"\n]*"|![^!\n]*!|\+[a-z.]+\+|[~HLMOPSTuv](?=[_=^]*[A-Ga-g])'
)
_TOGETHER = "%%MIDI chordattack 0"  # otherwise the notes of a chord begin one after the other
_FIELD = re.compile(r"^[A-Za-z]:|^%")
_COMMENT = re.compile(r"%.*")  # %%abc-include would make the parser open any file it names
_NOTE = re.compile(r"[A-Ga-g]")
_BARS = re.compile(r"[XZ](\d+)")
_MOST_BYTES = 50_000_000
_MOST_TUNE_CHARS = 100_000
_MOST_BARS_OF_REST = 1000  # the parser writes out each of them


@dataclass(frozen=True)
class Tune:
    """Hold one tune of a book: its number (X:), title (T:) and ABC text."""

    number: str
    title: str
    text: str


def split_tunes(text: str) -> list[Tune]:
    """Split an ABC book at its ``X:`` fields; text without one is a single tune numbered 1."""
    parts = [part for part in re.split(r"(?m)^(?=X:)", text) if part.startswith("X:")]
    tunes = []
    for part in parts or [f"X:1\n{text}"]:
        number = part.split("\n", 1)[0][2:].split("%")[0].strip() or "0"
        title = re.search(r"(?m)^T:[ \t]*(.*?)\s*$", part)
        tunes.append(Tune(number, title.group(1) if title else "", part))
    return tunes


def tune_notes(tune: Tune) -> NDArray[np.float64]:
    """Return the (M, 3) notes of a tune: onset, duration (s), MIDI pitch; or raise QbhError."""
    import symusic

    if len(tune.text) > _MOST_TUNE_CHARS:
        raise QbhError(f"Tune {tune.number} is longer than {_MOST_TUNE_CHARS} characters.")
    lines = _COMMENT.sub("%", tune.text.replace("\r", "").replace("\0", "")).split("\n")
    body = [line if _FIELD.match(line) else _NOT_HUMMED.sub("", line) for line in lines]
    music = "\n".join(line for line in body if not _FIELD.match(line))
    if not _NOTE.search(music):
        raise QbhError(f"Tune {tune.number} holds no notes.")  # the parser takes 9 ms to find out
    if sum(int(bars[:9]) for bars in _BARS.findall(music)) > _MOST_BARS_OF_REST:
        raise QbhError(f"Tune {tune.number} rests for over {_MOST_BARS_OF_REST} bars.")
    text = "\n".join([body[0], _TOGETHER, *body[1:], ""])
    try:
        with _silent_stdout():
            score = symusic.Score.from_abc(text, ttype="second")
    except Exception as error:  # symusic raises plain RuntimeErrors of many texts
        raise QbhError(f"Tune {tune.number} cannot be read ({error}).") from None
    notes = melody_notes(score)
    if len(notes):
        notes[:, 0] -= notes[0, 0]  # the parser puts a millisecond before the first note
        if notes[-1, 0] + notes[-1, 1] > LONGEST_S:
            raise QbhError(f"Tune {tune.number} claims to last over 6 hours.")
    return notes


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """Redirect file descriptor 1: the parser's C code prints warnings there."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # there is no descriptor 1
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(sink)


def read_text(path: Path) -> str:
    """Read an ABC file as UTF-8 or else Latin-1; raise QbhError if it is missing or over 50 MB."""
    path = Path(path)
    if not path.is_file():
        raise QbhError(f"{path} does not exist: check the path.")
    if path.stat().st_size > _MOST_BYTES:
        raise QbhError(f"{path} is larger than {_MOST_BYTES // 10**6} MB: is it an ABC file?")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise QbhError(f"{path} cannot be read ({error.strerror or error}).") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


@dataclass(frozen=True)
class AbcFiles:
    """Give the tunes of ABC files.

    The id is the file name without suffix for a file of one tune, else ``NAME-X`` with the tune's
    number. A number that a file repeats gets ``-2``, ``-3``.
    """

    files: tuple[Path, ...]
    name: str = "abc"
    licence: str = "unknown"
    prefix: str = ""  # of each id, for example ``oneills1850-``
    fewest_notes: int = 1  # shorter tunes are left out

    def read(self, path: Path) -> Iterator[Song]:
        """Yield the readable tunes of a file; raise QbhError if there is none."""
        tunes = split_tunes(read_text(path))
        seen: Counter[str] = Counter()
        readable = 0
        for tune in tunes:
            song_id = self.prefix + stem_of(path) + (f"-{tune.number}" if len(tunes) > 1 else "")
            seen[song_id] += 1
            if seen[song_id] > 1:
                song_id = f"{song_id}-{seen[song_id]}"
            try:
                notes = tune_notes(tune)
            except QbhError:
                continue
            if len(notes):
                readable += 1
            if len(notes) >= self.fewest_notes:
                yield Song(song_id, tune.title or song_id, str(path), self.licence, notes=notes)
        if not readable:
            raise QbhError(f"{path} holds no readable ABC tune.")


def music21_collection(name: str) -> AbcFiles:
    """Return one of ``MUSIC21_COLLECTIONS`` inside music21, which is not imported.

    Raises:
        QbhError: if music21 is not installed or has no such collection.
    """
    spec = find_spec("music21")
    if spec is None or spec.origin is None:
        raise QbhError(f"{name} lies inside the music21 package: pip install music21.")
    folder = Path(spec.origin).parent / "corpus" / name
    paths = tuple(sorted(folder.glob("*.abc"), key=lambda path: natural_key(path.name)))
    if not paths:
        raise QbhError(f"{folder} holds no ABC files: reinstall music21.")
    licence = MUSIC21_COLLECTIONS[name]
    return AbcFiles(paths, name, licence, f"{name}-", FEWEST_NOTES)
