"""swift-f0: a small convolutional network in ONNX, the default for hums.

Licence: MIT; the weights are in the wheel. Range: 47 to 2,094 Hz. Threshold: 0.65, chosen on the
hand-labelled pitch of the MIR-QBSH training singers (``data/results/tracker_tuning.json``).
"""

import math

from numpy.typing import NDArray

from qbhkit.contour import Floats
from qbhkit.pitch.trackers import FrameTracker


class SwiftF0Tracker(FrameTracker):
    """Track with swift-f0.

    Source: Nieradzik, "SwiftF0: Fast and Accurate Monophonic Pitch Detection", 2025.
    """

    name = "swift-f0"
    threshold = 0.65
    chunk_s = math.inf  # swift-f0 cuts long recordings by itself

    def __init__(self) -> None:
        package = self.require("swift_f0", "swift-f0, or use pyin")
        self._model = package.SwiftF0(spin=False)  # spinning threads would take cores from torch

    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track samples at 16 kHz."""
        found = self._model.detect(samples, self.rate_hz)
        return found.timestamps, found.pitch_hz, found.confidence
