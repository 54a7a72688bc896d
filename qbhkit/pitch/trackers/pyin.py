"""pYIN: autocorrelation with a distribution of thresholds and a Viterbi path; no network.

Licence: ISC (librosa). Range: 65 to 1,100 Hz. Threshold: 0.02 of pYIN's voiced probability.
"""

import numpy as np

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, rescale_confidence
from qbhkit.pitch.trackers import in_chunks, on_f0_grid

_FRAME = 1024  # samples


class PyinTracker:
    """Track with librosa's pYIN: slower, weak in noise, but always installed.

    pYIN's own voicing decision, a Viterbi path, calls up to a third of brown noise voiced. Its
    probability stays at 0.01 in noise of any colour, so the threshold is just above that.

    Source: Mauch and Dixon, "pYIN: a fundamental frequency estimator using probabilistic threshold
    distributions", ICASSP 2014.
    """

    name = "pyin"
    rate_hz = 16000
    lowest_hz, highest_hz = 65.0, 1100.0
    threshold = 0.02

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz."""
        return in_chunks(self._track_chunk, audio)

    def _track_chunk(self, audio: Audio) -> F0Track:
        import librosa

        samples = np.pad(audio.samples, (0, max(0, 2 * _FRAME - len(audio.samples))))
        frequency, _, probability = librosa.pyin(
            samples,
            fmin=self.lowest_hz,
            fmax=self.highest_hz,
            sr=self.rate_hz,
            hop_length=round(F0_HOP_S * self.rate_hz),
            frame_length=_FRAME,
            fill_na=None,
        )
        voicing = rescale_confidence(probability, self.threshold)
        centres_s = np.arange(len(frequency)) * F0_HOP_S
        return on_f0_grid(centres_s, frequency, voicing, audio.duration_s)
