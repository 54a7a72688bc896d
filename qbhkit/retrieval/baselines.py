"""Two classic rivals: linear scaling, and key-invariant subsequence dynamic time warping.

Both compare the hum's pitch with the songs' own contours, song by song, without any training.
Compiled with numba; songs are shared among threads.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from qbhkit.contour import Contour, held_pitch, voiced_median
from qbhkit.errors import QbhError
from qbhkit.retrieval.align import flatten
from qbhkit.retrieval.queries import SHORTEST_QUERY_S, Anchor

# Length of the song's stretch over the hum's: from half as fast to twice as fast.
SCALES = np.exp2(np.linspace(-1, 1, 17))
_FAR = 1e9
_FARTHEST_ST = 1000.0  # beyond any distance between pitches


def voiced_pitch(contour: Contour) -> NDArray[np.float32]:
    """Return the pitch (N,) of the voiced frames, pauses left out."""
    return contour.pitch_st[contour.voiced]


class LinearScaling:
    """Stretch the hum as a whole, lay it on the song, and measure the mean distance.

    The key is removed by the mean difference; the best of 17 scales and, for ``anywhere``, of
    starts every 0.2 s counts. Score: minus the mean absolute difference in semitones.

    Args:
        contours: the songs.

    Source: Jang and Lee, "Hierarchical filtering method for content-based music retrieval via
    acoustic input", ACM Multimedia 2001.

    Notebook: notebooks/10_evaluation.py
    """

    def __init__(self, contours: list[Contour]) -> None:
        self._songs = flatten([held_pitch(contour) for contour in contours])

    def scores(self, hum: Contour, anchor: Anchor) -> NDArray[np.float64]:
        """Score every song (songs,); raise QbhError if under 1 s of the hum is voiced."""
        _refuse_unvoiced(hum)
        sung, _ = hum.trimmed()
        at = np.flatnonzero(sung.voiced).astype(np.float32) + np.float32(0.5)
        pitch = sung.pitch_st[sung.voiced]
        return _scores(
            _linear_scaling(
                at, pitch, *self._songs, SCALES, np.float64(len(sung)), anchor == "start"
            )
        )


class SubsequenceDtw:
    """Align hum and song by dynamic time warping, each step at half to double speed.

    Pauses are left out on both sides. Keys tried: the hum's median moved to each median of the
    song's stretches of about the hum's length. Score: minus the mean absolute difference in
    semitones of the best path that uses the whole hum and begins anywhere, or at the song's start.

    Args:
        contours: the songs.

    Source: Mueller, "Fundamentals of music processing", 2015, section 7.2 (subsequence DTW with
    slope constraint).
    Notebook: notebooks/10_evaluation.py
    """

    def __init__(self, contours: list[Contour]) -> None:
        pitches = [voiced_pitch(contour) for contour in contours]
        self._pitches, self._songs = pitches, flatten(pitches)

    def scores(self, hum: Contour, anchor: Anchor) -> NDArray[np.float64]:
        """Score every song (songs,); raise QbhError if under 1 s of the hum is voiced."""
        _refuse_unvoiced(hum)
        pitch = voiced_pitch(hum)
        pitch = pitch - voiced_median(pitch, pitch > 0)  # as the song's keys, a note's own pitch
        keys = [_keys(song, len(pitch), anchor) for song in self._pitches]
        offset = np.concatenate([[0], np.cumsum([len(key) for key in keys])]).astype(np.int64)
        return _scores(
            _subsequence_dtw(
                pitch.astype(np.float32),
                *self._songs,
                np.concatenate(keys).astype(np.float32),
                offset,
                anchor == "start",
            )
        )


def _scores(distance_st: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn distances into scores; no path at all, as for a hum far longer than a song, is -inf."""
    return np.where(distance_st < _FARTHEST_ST, -distance_st, -np.inf)


def _refuse_unvoiced(hum: Contour) -> None:
    if hum.voiced_s < SHORTEST_QUERY_S - 1e-9:
        raise QbhError(f"only {hum.voiced_s:.1f} s of the hum is voiced")


def _keys(song: NDArray[np.float32], length: int, anchor: Anchor) -> NDArray[np.float32]:
    """Return the distinct medians of the song's stretches, at most one a semitone."""
    spans = [song[: max(1, round(length * scale))] for scale in (0.6, 0.8, 1.0, 1.25, 1.6)]
    if anchor == "anywhere":
        width = min(len(song), length)
        step = max(1, width // 4)
        spans += [song[k : k + width] for k in range(0, len(song) - width + 1, step)]
    medians = {round(float(voiced_median(span, span > 0))) for span in spans if len(span)}
    return np.array(sorted(medians), np.float32)


@njit(parallel=True, cache=True)
def _linear_scaling(at, hum, songs, offset, scales, length, start_only):  # type: ignore[no-untyped-def]
    best = np.full(len(offset) - 1, _FAR)
    for song in prange(len(offset) - 1):
        begin, end = offset[song], offset[song + 1]
        count = end - begin
        if count == 0:
            continue
        lowest = _FAR
        for scale in scales:
            span = length * scale
            # a song shorter than the stretch is held at its last pitch, once, from its start
            last = 0 if start_only else max(0, int(count - span))
            for start in range(0, last + 1, 2):  # every 0.2 s
                total = 0.0
                for k in range(len(hum)):
                    index = min(int(start + at[k] * scale), count - 1)
                    total += songs[begin + index] - hum[k]
                key = total / len(hum)
                distance = 0.0
                for k in range(len(hum)):
                    index = min(int(start + at[k] * scale), count - 1)
                    distance += abs(songs[begin + index] - hum[k] - key)
                lowest = min(lowest, distance / len(hum))
        best[song] = lowest
    return best


@njit(parallel=True, cache=True)
def _subsequence_dtw(hum, songs, offset, keys, key_offset, start_only):  # type: ignore[no-untyped-def]
    best = np.full(len(offset) - 1, _FAR)
    for song in prange(len(offset) - 1):
        pitch = songs[offset[song] : offset[song + 1]]
        for k in range(key_offset[song], key_offset[song + 1]):
            best[song] = min(best[song], _path_cost(hum, pitch - keys[k], start_only))
    return best


@njit(cache=True)
def _path_cost(hum, song, start_only):  # type: ignore[no-untyped-def]
    """Cost a hum frame of the best path; steps (1, 1), (1, 2) and (2, 1) in (hum, song) frames."""
    width = len(song)
    before = np.full(width + 2, _FAR)  # two rows back; two columns of padding on the left
    row = np.full(width + 2, _FAR)
    for j in range(width):
        if not start_only or j == 0:
            row[j + 2] = abs(hum[0] - song[j])
    for i in range(1, len(hum)):
        new = np.full(width + 2, _FAR)
        for j in range(width):
            here = abs(hum[i] - song[j])
            one = row[j + 1] + here
            two = row[j] + here
            half = before[j + 1] + abs(hum[i - 1] - song[j]) + here
            new[j + 2] = min(one, min(two, half))
        before, row = row, new
    return row.min() / len(hum)
