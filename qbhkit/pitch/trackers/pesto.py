"""PESTO: a tiny network on a constant-Q transform, trained without labels.

Licence: LGPL-3 (pesto-pitch), weights in the wheel. Range kept: 50 to 2,000 Hz. Threshold: 0.8.
Extra: ``trackers``.
"""

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, Floats
from qbhkit.pitch.trackers import FrameTracker
from qbhkit.pitch.trackers._torchaudio import import_beside

_WEIGHTS = "mir-1k_g7"
_LOWEST_HZ, _HIGHEST_HZ = 50.0, 2000.0
_SHORTEST = 4096  # samples: one frame of the constant-Q transform
_LEVEL, _SILENCE = 0.1, 1e-4  # standard deviation of samples


class PestoTracker(FrameTracker):
    """Track with PESTO, whose second head gives the confidence.

    pesto-pitch unpickles its checkpoint, which is a file of its own wheel.

    Source: Riou, Lattner, Hadjeres and Peeters, "PESTO: pitch estimation with self-supervised
    transposition-equivariant objective", ISMIR 2023.
    """

    name = "pesto"
    threshold = 0.8
    chunk_s = 20.0

    def __init__(self) -> None:
        package = self.require("pesto", "'qbhkit[trackers]' (LGPL-3)", import_beside)
        self._model = package.load_model(_WEIGHTS, 1000 * F0_HOP_S, sampling_rate=self.rate_hz)

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz."""
        # The confidence depends on the level.
        gain = _LEVEL / max(float(audio.samples.std()), _SILENCE)
        return super().track(Audio(gain * audio.samples, audio.rate_hz))

    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track samples at 16 kHz."""
        import torch

        samples = np.pad(samples, (0, max(0, _SHORTEST - len(samples))))
        with torch.inference_mode():
            frequency, confidence, _ = self._model(
                torch.from_numpy(samples),
                sr=self.rate_hz,
                convert_to_freq=True,
                return_activations=False,
            )  # (T,) each
        hz = frequency.numpy()
        hz = np.where((hz >= _LOWEST_HZ) & (hz <= _HIGHEST_HZ), hz, 0.0)
        return np.arange(len(hz)) * F0_HOP_S, hz, confidence.numpy()
