"""PESTO: a tiny network on a constant-Q transform, trained without labels.

Licence: LGPL-3 (pesto-pitch), weights in the wheel. Range kept: 50 to 2,000 Hz. Threshold: 0.8.
Extra: ``trackers``.
"""

import numpy as np

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, rescale_confidence
from qbhkit.errors import missing_package
from qbhkit.pitch.trackers import in_chunks, keep_range, on_f0_grid
from qbhkit.pitch.trackers._torchaudio import import_beside

_WEIGHTS = "mir-1k_g7"
_SHORTEST = 4096  # samples: one frame of the constant-Q transform
_LEVEL, _SILENCE = 0.1, 1e-4  # standard deviation of samples


class PestoTracker:
    """Track with PESTO, whose second head gives the confidence.

    That head depends on the level, so recordings are scaled to -20 dB first. pesto-pitch unpickles
    its checkpoint, which is a file of its own wheel.

    Raises:
        MissingPackageError: if pesto-pitch is not installed.

    Source: Riou, Lattner, Hadjeres and Peeters, "PESTO: pitch estimation with self-supervised
    transposition-equivariant objective", ISMIR 2023.
    """

    name = "pesto"
    rate_hz = 16000
    lowest_hz, highest_hz = 50.0, 2000.0
    threshold = 0.8

    def __init__(self) -> None:
        try:
            package = import_beside("pesto")
        except ImportError:
            raise missing_package(
                f"The tracker {self.name}", "'qbhkit[trackers]' (LGPL-3)"
            ) from None
        step_ms = 1000 * F0_HOP_S
        self._model = package.load_model(_WEIGHTS, step_ms, sampling_rate=self.rate_hz)

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz."""
        gain = _LEVEL / max(float(audio.samples.std()), _SILENCE)
        return in_chunks(
            self._track_chunk, Audio(gain * audio.samples, audio.rate_hz), chunk_s=20.0
        )

    def _track_chunk(self, audio: Audio) -> F0Track:
        import torch

        missing = max(0, _SHORTEST - len(audio.samples))
        samples = torch.from_numpy(np.pad(audio.samples, (0, missing)))  # (N,)
        with torch.inference_mode():
            frequency, confidence, _ = self._model(
                samples, sr=self.rate_hz, convert_to_freq=True, return_activations=False
            )  # (T,) each
        frequency = keep_range(frequency.numpy(), self.lowest_hz, self.highest_hz)
        voicing = rescale_confidence(confidence.numpy(), self.threshold)
        centres_s = np.arange(len(frequency)) * F0_HOP_S
        return on_f0_grid(centres_s, frequency, voicing, audio.duration_s)
