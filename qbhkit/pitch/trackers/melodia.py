"""MELODIA: pitch salience and contour selection, the classic for a voice over a band.

Licence: AGPL-3 (essentia). Whoever offers a service that runs it must offer the service's source
too, so it has an extra of its own, ``melodia``, that no other extra pulls in. Range: 55 to
1,760 Hz. Threshold: 0.55 of smoothness.
"""

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio
from qbhkit.contour import F0Track
from qbhkit.errors import missing_package
from qbhkit.pitch.trackers import in_chunks, on_f0_grid, rescale_confidence

_FRAME, _HOP = 2048, 128  # samples, as in the paper
_LAG = 3  # frames, 9 ms
_WANDER_CENTS = 25.0  # a contour that wanders by this much is trusted by one half


class MelodiaTracker:
    """Track with essentia's PredominantPitchMelodia.

    MELODIA takes it that there is a melody: it finds contours in 88% of white noise. So a contour
    counts only as far as it is smooth, whatever its level beside a band; the confidence of one that
    bends by ``wander`` cents within 9 ms, on average, is 1 / (1 + wander / 25).

    Raises:
        MissingPackageError: if essentia is not installed.

    Source: Salamon and Gomez, "Melody extraction from polyphonic music signals using pitch contour
    characteristics", IEEE TASLP 20(6), 2012.
    """

    name = "melodia"
    rate_hz = 44100
    lowest_hz, highest_hz = 55.0, 1760.0
    threshold = 0.55

    def __init__(self) -> None:
        try:
            import essentia

            essentia.log.infoActive = False  # it greets on import
            import essentia.standard
        except ImportError:
            raise missing_package(
                f"The tracker {self.name}", "'qbhkit[melodia]' (AGPL-3)"
            ) from None
        self._algorithms = essentia.standard

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 44.1 kHz."""
        return in_chunks(self._piece, audio)

    def _piece(self, audio: Audio) -> F0Track:
        louder = self._algorithms.EqualLoudness(sampleRate=self.rate_hz)
        melodia = self._algorithms.PredominantPitchMelodia(
            frameSize=_FRAME,
            hopSize=_HOP,
            sampleRate=self.rate_hz,
            minFrequency=self.lowest_hz,
            maxFrequency=self.highest_hz,
        )
        frequency, salience = melodia(louder(np.ascontiguousarray(audio.samples)))  # (T,) each
        voicing = rescale_confidence(_smoothness(frequency, salience), self.threshold)
        centres_s = np.arange(len(frequency)) * _HOP / self.rate_hz
        return on_f0_grid(centres_s, frequency, voicing, audio.duration_s)


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
