"""MELODIA: pitch salience and contour selection, the classic for a voice over accompaniment.

Licence: AGPL-3 (essentia). Anyone who offers a service that runs it must offer the source of the
service, so it has an extra of its own, ``melodia``, that no other extra includes. Range: 55 to
1,760 Hz. Threshold: 0.55 of smoothness.
"""

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import Floats
from qbhkit.pitch.trackers import FrameTracker

_FRAME, _HOP = 2048, 128  # samples, as in the paper
_LOWEST_HZ, _HIGHEST_HZ = 55.0, 1760.0
_LAG = 3  # frames, 9 ms
_WANDER_CENTS = 25.0  # a contour that bends by this much has confidence 0.5


class MelodiaTracker(FrameTracker):
    """Track with essentia's PredominantPitchMelodia.

    MELODIA assumes that there is a melody: in white noise it finds contours 88% of the time. So
    the confidence of a contour is its smoothness, whatever its level over the accompaniment:
    1 / (1 + bend / 25), if it bends by ``bend`` cents within 9 ms on average.

    Source: Salamon and Gomez, "Melody extraction from polyphonic music signals using pitch contour
    characteristics", IEEE TASLP 20(6), 2012.
    """

    name = "melodia"
    rate_hz = 44100
    threshold = 0.55

    def __init__(self) -> None:
        self._algorithms = self.require("essentia", "'qbhkit[melodia]' (AGPL-3)", _quietly)

    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track samples at 44.1 kHz."""
        louder = self._algorithms.EqualLoudness(sampleRate=self.rate_hz)
        melodia = self._algorithms.PredominantPitchMelodia(
            frameSize=_FRAME,
            hopSize=_HOP,
            sampleRate=self.rate_hz,
            minFrequency=_LOWEST_HZ,
            maxFrequency=_HIGHEST_HZ,
        )
        frequency, salience = melodia(louder(np.ascontiguousarray(samples)))  # (T,) each
        centres_s = np.arange(len(frequency)) * _HOP / self.rate_hz
        return centres_s, frequency, _smoothness(frequency, salience)


def _quietly(_: str) -> ModuleType:
    import essentia

    essentia.log.infoActive = False  # no message on import
    import essentia.standard

    return essentia.standard


def _smoothness(frequency_hz: NDArray, salience: NDArray) -> NDArray:
    """Return (T,) 0 to 1 for each contour: a run of frames with the same salience."""
    smoothness = np.zeros(len(frequency_hz))
    cents = 1200 * np.log2(np.maximum(frequency_hz, 1.0))
    ends = np.flatnonzero(np.diff(salience, append=-1.0)) + 1
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        if frequency_hz[begin] > 0 and end - begin > 2 * _LAG:
            run = cents[begin:end]
            bend = np.abs(run[2 * _LAG :] - 2 * run[_LAG:-_LAG] + run[: -2 * _LAG]).mean()
            smoothness[begin:end] = 1 / (1 + bend / _WANDER_CENTS)
    return smoothness
