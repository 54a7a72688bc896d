"""pYIN: autocorrelation with a distribution of thresholds and a Viterbi path; no network.

Licence: ISC (librosa). Range: 65 to 1,100 Hz. Threshold: 0.02 of pYIN's voiced probability.
"""

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import F0_HOP_S, Floats
from qbhkit.pitch.trackers import FrameTracker

_FRAME = 1024  # samples
_LOWEST_HZ, _HIGHEST_HZ = 65.0, 1100.0


class PyinTracker(FrameTracker):
    """Track with librosa's pYIN: slower, weak in noise, but always installed.

    pYIN's own voicing decision, a Viterbi path, calls up to a third of brown noise voiced. Its
    probability stays at 0.01 in noise of any colour, so the threshold is just above that.

    Source: Mauch and Dixon, "pYIN: a fundamental frequency estimator using probabilistic threshold
    distributions", ICASSP 2014.
    """

    name = "pyin"
    threshold = 0.02

    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track samples at 16 kHz."""
        import librosa

        frequency, _, probability = librosa.pyin(
            np.pad(samples, (0, max(0, 2 * _FRAME - len(samples)))),
            fmin=_LOWEST_HZ,
            fmax=_HIGHEST_HZ,
            sr=self.rate_hz,
            hop_length=round(F0_HOP_S * self.rate_hz),
            frame_length=_FRAME,
            fill_na=None,
        )
        return np.arange(len(frequency)) * F0_HOP_S, frequency, probability
