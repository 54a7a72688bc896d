"""Baselines without training: linear scaling, and three forms of subsequence DTW in any key."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from qbhkit.contour import Contour, held_pitch, voiced_median
from qbhkit.dtw import distances_to_songs, end_to_end, flatten
from qbhkit.embedding.windows import MatchFrom, is_long_enough
from qbhkit.errors import QbhError
from qbhkit.retrieval.align import CAP_ST, frame_costs
from qbhkit.retrieval.confidence import Calibration

# Length of the song's stretch over the hum's: from half as fast to twice as fast.
SCALES = np.exp2(np.linspace(-1, 1, 17))
_FAR = 1e9  # distance to a song without a voiced frame


class LinearScaling:
    """Stretch the hum as a whole, place it on the song, and measure the mean distance.

    The best of 17 scales and, for ``anywhere``, of starts every 0.2 s counts. Score: minus the mean
    absolute difference in semitones, after the mean difference (the key) is removed.

    Args:
        contours: the songs.

    Source: Jang and Lee, "Hierarchical filtering method for content-based music retrieval via
    acoustic input", ACM Multimedia 2001.
    Notebook: notebooks/10_evaluation.py
    """

    def __init__(self, contours: list[Contour]) -> None:
        self._songs = end_to_end([held_pitch(contour) for contour in contours])

    def scores(self, hum: Contour, match_from: MatchFrom) -> NDArray[np.float64]:
        """Return the scores (songs,); raise QbhError if under 1 s of the hum is voiced."""
        _refuse_short(hum)
        sung, _ = hum.trimmed()
        at = np.flatnonzero(sung.voiced).astype(np.float32) + np.float32(0.5)
        pitch = sung.pitch_st[sung.voiced]
        distance_st = _linear_scaling(
            at, pitch, *self._songs, SCALES, np.float64(len(sung)), match_from == "start"
        )
        return np.where(distance_st < _FAR, -distance_st, -np.inf)


class SubsequenceDtw:
    """Align hum and song, without their pauses, by DTW, each step at half to double speed.

    Score: minus the mean absolute difference in semitones along the best path. The keys tried put
    the hum's median on the median of each stretch of the song that is about as long as the hum.

    Args:
        contours: the songs.

    Source: Mueller, "Fundamentals of music processing", 2015, section 7.2 (subsequence DTW with
    slope constraint).
    Notebook: notebooks/10_evaluation.py
    """

    def __init__(self, contours: list[Contour]) -> None:
        self._pitches = [contour.pitch_st[contour.voiced] for contour in contours]
        self._songs = flatten(self._pitches)

    def scores(self, hum: Contour, match_from: MatchFrom) -> NDArray[np.float64]:
        """Return the scores (songs,); raise QbhError if under 1 s of the hum is voiced."""
        _refuse_short(hum)
        pitch = hum.pitch_st[hum.voiced]
        middle = voiced_median(pitch, pitch > 0)
        spans = [_medians(song, len(pitch), match_from) for song in self._pitches]
        medians, offset = end_to_end(spans)
        return -distances_to_songs(
            pitch, self._songs, middle - medians, offset, match_from == "start"
        )


class CappedDtw:
    """Align hum and song as ``full`` does, without windows that suggest where and in which key.

    As :class:`SubsequenceDtw`, but rests hold the pitch before them, a frame costs at most 3
    semitones (1 where a song that a tracker heard is unvoiced), the keys beside those of the
    stretches are tried too, and the best one is estimated again along its path.

    Args:
        contours: the songs.
        heard: (songs,) whether a tracker heard a song.

    Source: :mod:`qbhkit.dtw`.
    """

    def __init__(self, contours: list[Contour], heard: bool | NDArray[np.bool_] = False) -> None:
        self._pitches = [held_pitch(contour) for contour in contours]
        unvoiced_st = np.where(heard, Calibration().unvoiced, CAP_ST)
        costs = frame_costs([contour.trimmed()[0] for contour in contours], unvoiced_st)
        self._songs = flatten(self._pitches, costs)

    def scores(self, hum: Contour, match_from: MatchFrom) -> NDArray[np.float64]:
        """Return the scores (songs,); raise QbhError if under 1 s of the hum is voiced."""
        _refuse_short(hum)
        pitch = held_pitch(hum)
        medians = [_medians(song, len(pitch), match_from) for song in self._pitches]
        beside = [np.unique(np.add.outer(median, [-1, 0, 1])) for median in medians]
        keys, offset = end_to_end(beside)
        keys = voiced_median(pitch, pitch > 0) - keys
        from_start = match_from == "start"
        return -distances_to_songs(pitch, self._songs, keys, offset, from_start, refined=True)


class FoldedDtw:
    """Align hum and song, without their pauses, by pitch class: octaves do not count.

    A difference is folded to at most 6 semitones and costs at most 3. All 12 keys are tried, and
    the best one is estimated again along its path.

    Args:
        contours: the songs.

    Source: :mod:`qbhkit.dtw`.
    """

    def __init__(self, contours: list[Contour]) -> None:
        self._songs = flatten([contour.pitch_st[contour.voiced] for contour in contours], CAP_ST)

    def scores(self, hum: Contour, match_from: MatchFrom) -> NDArray[np.float64]:
        """Return the scores (songs,); raise QbhError if under 1 s of the hum is voiced."""
        _refuse_short(hum)
        pitch = hum.pitch_st[hum.voiced]
        keys, offset = end_to_end([np.arange(12, dtype=np.float32)] * (len(self._songs.offset) - 1))
        return -distances_to_songs(
            pitch, self._songs, keys, offset, match_from == "start", folded=True, refined=True
        )


def _refuse_short(hum: Contour) -> None:
    if not is_long_enough(hum):
        raise QbhError(f"only {hum.voiced_s:.1f} s of the hum is voiced")


def _medians(song: NDArray[np.float32], length: int, match_from: MatchFrom) -> NDArray[np.float32]:
    """Return the distinct medians of the song's stretches, in whole semitones."""
    spans = [song[: max(1, round(length * scale))] for scale in (0.6, 0.8, 1.0, 1.25, 1.6)]
    if match_from == "anywhere":
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
