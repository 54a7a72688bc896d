"""Align a hum in any key with the songs of a catalogue, frame by frame."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.files import SongEntry
from qbhkit.contour import Contour, held_pitch
from qbhkit.dtw import distances_to_songs, end_to_end, flatten, paths_through_songs, warping_path

CAP_ST = 3.0  # highest cost of a frame, so that no wrong note outweighs the others
# The first key comes from the song's window that is most similar to the hum. That window may hold a
# note more at either end, so the keys beside it are tried too.
_KEYS_ST = np.array([0.0, -1.5, 1.5])
_PITCH_CLASSES = np.arange(12, dtype=np.float32)
# A hum may go on after a short song's end. Hums are compared by segments of up to 14 s.
_SHORTEST_FRAMES = 140


class Alignments(NamedTuple):
    """The alignments of a hum with each of C songs."""

    distance_st: NDArray[np.float64]  # (C,) mean over the hum's frames; CAP_ST without a path
    start: NDArray[np.int64]  # (C,) first frame of the song
    end: NDArray[np.int64]  # (C,) frame after the last; equal to start where there is no path
    transposition_st: NDArray[np.float64]  # (C,) how much higher than the song the hum is
    frames: NDArray[np.int64]  # (C,) number of the hum's frames


class Aligner:
    """Find the stretch of a song that a hum follows, at half to double speed at every moment.

    Rests of the song hold the pitch before them. A single frame costs at most 3 semitones, and so
    much where the hum goes on after the end of a song that is shorter than 14 s.

    Args:
        contours: the songs.
        unvoiced_st: the highest cost of a frame where a song is unvoiced, or (songs,) of each. A
            melody that a tracker heard has lost notes, and nobody knows what was sung there.

    Source: :mod:`qbhkit.dtw`.
    Notebook: notebooks/09_search_and_align.py
    """

    def __init__(
        self, contours: Sequence[Contour], unvoiced_st: float | NDArray[np.float64] = CAP_ST
    ) -> None:
        trimmed = [contour.trimmed() for contour in contours]
        self.lead = np.array([round(lead_s / sung.hop_s) for sung, lead_s in trimmed], np.int64)
        self._length = np.array([len(sung) for sung, _ in trimmed], np.int64)
        costs = frame_costs([sung for sung, _ in trimmed], unvoiced_st)
        self._songs = flatten(
            [_padded(held_pitch(sung), np.nan) for sung, _ in trimmed],
            [_padded(cost, CAP_ST) for cost in costs],
        )

    def align(
        self,
        hum: Contour,
        songs: NDArray[np.int64],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        from_start: bool = False,
    ) -> Alignments:
        """Align a hum with some of the songs.

        Args:
            hum: with at least one voiced frame.
            songs: (C,) their numbers.
            start: (C,) first frames of the stretches that suggest the key; paths may lie elsewhere.
            end: (C,) frames after the last ones of these stretches.
            from_start: whether paths begin at the songs' first notes.
        """
        lead, pitch = self.lead[songs], held_pitch(hum)
        found = paths_through_songs(
            pitch, self._songs, songs, start - lead, end - lead, _KEYS_ST, from_start
        )
        ends = self._length[songs]
        return Alignments(
            np.minimum(found.distance_st, CAP_ST),
            np.minimum(found.start, ends) + lead,
            np.minimum(found.end, ends) + lead,
            found.key_st,
            np.full(len(songs), len(pitch)),
        )

    def folded_distance(
        self, hum: Contour, songs: NDArray[np.int64], from_start: bool = False
    ) -> NDArray[np.float64]:
        """Return the distance (C,) of pitch classes between a hum and some songs, in the best key.

        The octave is what trackers of recordings get wrong most. Arguments as for :meth:`align`;
        3 semitones where there is no path.
        """
        chosen = flatten(*zip(*map(self._curve, songs), strict=True))
        keys, ends = end_to_end([_PITCH_CLASSES] * len(songs))
        found = distances_to_songs(
            held_pitch(hum), chosen, keys, ends, from_start, folded=True, refined=True
        )
        return np.minimum(found, CAP_ST)

    def path(
        self, hum: Contour, song: int, transposition_st: float, from_start: bool = False
    ) -> NDArray[np.int64]:
        """Return which frame of a song each frame of a hum follows, in a key that is known.

        Args:
            hum: with at least one voiced frame.
            song: its number.
            transposition_st: as :meth:`align` gives it.
            from_start: whether the path begins at the song's first note.

        Returns:
            (N,) frames of the song, for those of the hum from its first to its last voiced one; the
            last frame where the hum goes on after the song's end; empty where there is no path.
        """
        notes, most = self._curve(song)
        found = warping_path(held_pitch(hum), notes, [transposition_st], from_start, most)
        return np.minimum(found.frames, self._length[song] - 1) + self.lead[song]

    def _curve(self, song: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the pitch of a song, and the highest cost of each frame."""
        pitch, most, offset = self._songs
        return pitch[offset[song] : offset[song + 1]], most[offset[song] : offset[song + 1]]


def heard(songs: Sequence[SongEntry]) -> NDArray[np.bool_]:
    """Return (songs,) whether a tracker heard the melody of a catalogue's song, or it is notes."""
    return np.array(["melody" not in song for song in songs])


def frame_costs(
    contours: Sequence[Contour], unvoiced_st: float | NDArray[np.float64]
) -> list[NDArray[np.float32]]:
    """Return the highest cost (N,) of each frame of songs; the arguments are those of Aligner."""
    of_each = np.broadcast_to(np.float32(unvoiced_st), len(contours))
    return [
        np.where(contour.voiced, np.float32(CAP_ST), unvoiced)
        for contour, unvoiced in zip(contours, of_each, strict=True)
    ]


def _padded(row: NDArray[np.float32], with_value: float) -> NDArray[np.float32]:
    """Append frames that no hum is near to, where a song is short."""
    return np.pad(row, (0, max(0, _SHORTEST_FRAMES - len(row))), constant_values=with_value)
