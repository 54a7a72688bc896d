"""swift-f0: a small convolutional network in ONNX, the default for hums.

Licence: MIT; the weights are in the wheel. Range: 47 to 2,094 Hz. Threshold: 0.65.
"""

from qbhkit.audio import Audio
from qbhkit.contour import F0Track, rescale_confidence
from qbhkit.errors import missing_package
from qbhkit.pitch.trackers import on_f0_grid


class SwiftF0Tracker:
    """Track with swift-f0, which splits long recordings into overlapping chunks by itself.

    The threshold was chosen on the hand-labelled pitch of the MIR-QBSH training singers
    (``data/results/tracker_tuning.json``).

    Raises:
        MissingPackageError: if swift-f0 is not installed.

    Source: Nieradzik, "SwiftF0: Fast and Accurate Monophonic Pitch Detection", 2025.
    """

    name = "swift-f0"
    rate_hz = 16000
    threshold = 0.65

    def __init__(self) -> None:
        try:
            from swift_f0 import SwiftF0
        except ImportError:
            raise missing_package(f"The tracker {self.name}", "swift-f0, or use pyin") from None
        self._model = SwiftF0(spin=False)  # spinning threads would take cores from torch

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz."""
        found = self._model.detect(audio.samples, self.rate_hz)
        voicing = rescale_confidence(found.confidence, self.threshold)
        return on_f0_grid(found.timestamps, found.pitch_hz, voicing, audio.duration_s)
