"""Praat's autocorrelation method: by far the fastest, made for speech.

Licence: GPL-3 (praat-parselmouth), so it is in the optional extra ``trackers``. Range: 65 to
1,100 Hz. Threshold: Praat's own decision, 0.45 of the autocorrelation peak.
"""

from numpy.typing import NDArray

from qbhkit.contour import F0_HOP_S, Floats
from qbhkit.pitch.trackers import FrameTracker

_LOWEST_HZ, _HIGHEST_HZ = 65.0, 1100.0


class PraatTracker(FrameTracker):
    """Track with Praat through parselmouth.

    Source: Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", 1993.
    """

    name = "praat"
    threshold = 0.5  # of a confidence that is 0 or 1

    def __init__(self) -> None:
        self._package = self.require("parselmouth", "'qbhkit[trackers]' (GPL-3)")

    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track samples at 16 kHz."""
        sound = self._package.Sound(samples.astype(float), self.rate_hz)
        pitch = sound.to_pitch_ac(F0_HOP_S, _LOWEST_HZ, pitch_ceiling=_HIGHEST_HZ)
        frequency = pitch.selected_array["frequency"]
        return pitch.xs(), frequency, (frequency > 0).astype(float)
