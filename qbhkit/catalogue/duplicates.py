"""Recognise songs that a catalogue holds already, by their melodies."""

from collections import defaultdict
from typing import NamedTuple

from qbhkit.catalogue.files import SongEntry
from qbhkit.contour import Contour
from qbhkit.corpora.duplicates import MelodyMatcher, note_pitches
from qbhkit.errors import QbhError


class Duplicate(NamedTuple):
    """A song that was left out because the catalogue holds its melody already."""

    id: str
    existing_id: str  # of the song with that melody; the same id if it is the same song


class DuplicateIndex:
    """The songs of a catalogue: those in notes by their notes, others by their contours."""

    def __init__(self) -> None:
        self._songs: dict[str, SongEntry] = {}
        self._ids_by_hash: dict[str, list[str]] = defaultdict(list)  # of content or melody
        self._by_contour = MelodyMatcher({})

    def add(self, song: SongEntry, contour: Contour | None) -> None:
        """Add a song; its contour is used only if it has no notes."""
        self._songs[song["id"]] = song
        for key in ("content", "melody"):
            if key in song:
                self._ids_by_hash[song[key]].append(song["id"])
        if contour is not None and "melody" not in song:
            self.add_contour(song["id"], contour)

    def add_contour(self, song_id: str, contour: Contour) -> None:
        """Add the melody of a song without notes."""
        self._by_contour.add(song_id, note_pitches(contour.pitch_st))

    def near(self, contour: Contour) -> list[str]:
        """Return the ids of songs without notes that have this melody, nearest first."""
        shares = self._by_contour.near(note_pitches(contour.pitch_st))
        return sorted(shares, key=lambda key: -shares[key])

    def duplicate_of(self, song: SongEntry, contour: Contour | None) -> Duplicate | None:
        """Return the duplicate that a song would be, or None if its melody is new.

        Raises:
            QbhError: if its id belongs to a song with another melody.
        """
        same = [*self._ids_by_hash.get(song["content"], ())]
        if "melody" in song:
            same += self._ids_by_hash.get(song["melody"], ())
        elif contour is not None:
            same += self.near(contour)
        if song["id"] in same:
            return Duplicate(song["id"], song["id"])
        if song["id"] in self._songs:
            raise QbhError(
                f"The id {song['id']} is taken by {self._songs[song['id']]['source']}, which is "
                f"not the same as {song['source']}: remove {song['id']} first."
            )
        return Duplicate(song["id"], same[0]) if same else None
