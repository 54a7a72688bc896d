"""Which song has the same melody as another: nothing is in a catalogue twice."""

from collections import defaultdict
from typing import NamedTuple

from qbhkit.catalogue.files import SongEntry
from qbhkit.contour import Contour
from qbhkit.corpora.duplicates import MelodyMatcher, note_pitches
from qbhkit.errors import QbhError


class Duplicate(NamedTuple):
    """A song that was left out because its melody is there already."""

    id: str
    there: str  # id of the song with that melody; its own where the same song is there


class DuplicateIndex:
    """The songs that are there, and what tells whether another song is one of them.

    Songs in notes are compared by their notes, in any key and tempo; others by the pitch changes of
    their contours.
    """

    def __init__(self) -> None:
        self._songs: dict[str, SongEntry] = {}
        self._alike: dict[str, list[str]] = defaultdict(list)  # content or melody -> ids
        self._by_contour = MelodyMatcher({})

    def add(self, song: SongEntry, contour: Contour | None) -> None:
        """Add a song; its contour counts if it has no notes."""
        self._songs[song["id"]] = song
        for key in ("content", "melody"):
            if key in song:
                self._alike[song[key]].append(song["id"])
        if contour is not None and "melody" not in song:
            self.add_contour(song["id"], contour)

    def add_contour(self, song_id: str, contour: Contour) -> None:
        """Add the melody of a song without notes."""
        self._by_contour.add(song_id, note_pitches(contour.pitch_st))

    def near(self, contour: Contour) -> list[str]:
        """Return the songs without notes that have a melody, nearest first."""
        shares = self._by_contour.near(note_pitches(contour.pitch_st))
        return sorted(shares, key=lambda key: -shares[key])

    def duplicate_of(self, song: SongEntry, contour: Contour | None) -> Duplicate | None:
        """Return which song has this melody already.

        Raises:
            QbhError: if the id is that of another one.
        """
        alike = [*self._alike.get(song["content"], ())]
        if "melody" in song:
            alike += self._alike.get(song["melody"], ())
        elif contour is not None:
            alike += self.near(contour)
        if song["id"] in self._songs and song["id"] not in alike:
            raise QbhError(
                f"The id {song['id']} is taken by {self._songs[song['id']]['source']}, which is "
                f"not the same as {song['source']}: remove {song['id']} first."
            )
        if song["id"] in alike:
            return Duplicate(song["id"], song["id"])
        return Duplicate(song["id"], alike[0]) if alike else None
