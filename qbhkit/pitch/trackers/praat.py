"""Praat's autocorrelation method: by far the fastest, made for speech.

Licence: GPL-3 (praat-parselmouth), so it is in the optional extra ``trackers``. Range: 65 to
1,100 Hz. Threshold: Praat's own decision, 0.45 of the autocorrelation peak.
"""

from importlib.util import find_spec

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track
from qbhkit.errors import missing_package
from qbhkit.pitch.trackers import in_chunks, on_f0_grid


class PraatTracker:
    """Track with Praat through parselmouth.

    Raises:
        MissingPackageError: if parselmouth is not installed.

    Source: Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", 1993.
    """

    name = "praat"
    rate_hz = 16000
    lowest_hz, highest_hz = 65.0, 1100.0

    def __init__(self) -> None:
        if find_spec("parselmouth") is None:
            raise missing_package(f"The tracker {self.name}", "'qbhkit[trackers]' (GPL-3)")

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz."""
        return in_chunks(self._track_chunk, audio)

    def _track_chunk(self, audio: Audio) -> F0Track:
        import parselmouth

        sound = parselmouth.Sound(audio.samples.astype(float), audio.rate_hz)
        pitch = sound.to_pitch_ac(F0_HOP_S, self.lowest_hz, pitch_ceiling=self.highest_hz)
        frequency = pitch.selected_array["frequency"]
        return on_f0_grid(pitch.xs(), frequency, (frequency > 0).astype(float), audio.duration_s)
