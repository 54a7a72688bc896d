"""MIDI files: the named melody track, else the skyline of everything that is not drums."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.corpora.songs import Song, skyline, stem_of
from qbhkit.errors import QbhError

MELODY_TRACK = re.compile(r"melod|vocal|voice|\bvox\b|\blead\b|singer|major_track", re.IGNORECASE)
LONGEST_S = 6 * 3600.0


def read_midi(path: Path) -> NDArray[np.float64]:
    """Read the melody of a MIDI file: its named track, else the skyline of all but drums.

    Returns:
        (M, 3) onset and duration in seconds, MIDI pitch; monophonic, sorted.

    Raises:
        QbhError: if the file is missing, damaged, or holds no notes.
    """
    notes = melody_notes(open_score(path))
    if not len(notes):
        raise QbhError(f"{path} holds no notes: choose a MIDI file with a melody.")
    if notes[-1, 0] + notes[-1, 1] > LONGEST_S:
        raise QbhError(f"{path} claims to last over 6 hours: is its tempo damaged?")
    return notes


def open_score(path: Path) -> Any:
    """Return the symusic score of a MIDI file, in seconds; raise QbhError if it is unreadable."""
    import symusic

    path = Path(path)
    if not path.is_file():
        raise QbhError(f"{path} does not exist: check the path.")
    try:
        return symusic.Score(path, ttype="second")
    except Exception as error:  # symusic raises plain RuntimeErrors of many texts
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QbhError(f"{path} is not a readable MIDI file ({reason}).") from None


def melody_notes(score: Any) -> NDArray[np.float64]:
    """Return the melody, (M, 3), of a symusic score in seconds; see :func:`read_midi`."""
    tracks = pitched_tracks(score)
    named = [track for track in tracks if MELODY_TRACK.search(track.name)]
    chosen = [max(named, key=lambda track: len(track.notes))] if named else tracks
    table = note_table(chosen)
    return skyline(table[(table[:, 1] > 0) & (table[:, 0] >= 0)])


def pitched_tracks(score: Any) -> list[Any]:
    """Return the tracks of a symusic score that have notes and are not drums."""
    return [track for track in score.tracks if len(track.notes) and not track.is_drum]


def note_table(tracks: list[Any]) -> NDArray[np.float64]:
    """Return the notes of symusic tracks in turn: (M, 3) onset, duration, MIDI pitch."""
    tables = [np.zeros((0, 3))]
    for notes in (track.notes.numpy() for track in tracks):
        tables.append(np.stack([notes["time"], notes["duration"], notes["pitch"]], axis=1))
    return np.concatenate(tables)


@dataclass(frozen=True)
class MidiFiles:
    """Give one song for each MIDI file; its id is the file name without suffix."""

    files: tuple[Path, ...]
    name: str = "midi"
    licence: str = "unknown"
    titles: Mapping[str, str] = field(default_factory=dict)  # by song id, where one is known

    def read(self, path: Path) -> Iterator[Song]:
        """Yield the one song of a file; raise QbhError if it is unreadable."""
        song_id = stem_of(path)
        title = self.titles.get(song_id, song_id)
        yield Song(song_id, title, str(path), self.licence, notes=read_midi(path))
