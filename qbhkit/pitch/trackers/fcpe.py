"""FCPE: a conformer on a mel spectrogram, for singing voice conversion; robust to noise.

Licence: MIT, weights in the wheel. Range: 32.7 to 1,975 Hz. Threshold: 0.3. Extra: ``trackers``.
"""

import os
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import F0_HOP_S, Floats
from qbhkit.pitch.trackers import FrameTracker
from qbhkit.pitch.trackers._torchaudio import import_beside


class FcpeTracker(FrameTracker):
    """Track with torchfcpe; the confidence is the height of its highest bin.

    Source: Luo et al., "FCPE: a fast context-based pitch estimation model", 2025.
    """

    name = "fcpe"
    threshold = 0.3

    def __init__(self) -> None:
        cache = os.environ.get("LRU_CACHE_CAPACITY")
        try:
            package = self.require("torchfcpe", "'qbhkit[trackers]'", import_beside)
        finally:  # torchfcpe sets it, which slows down all other networks of the process
            os.environ.pop("LRU_CACHE_CAPACITY", None)
            if cache is not None:
                os.environ["LRU_CACHE_CAPACITY"] = cache
        with redirect_stdout(StringIO()):  # torchfcpe prints the device
            self._model = package.spawn_bundled_infer_model(device="cpu")

    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track samples at 16 kHz."""
        import torch

        samples = samples - samples.mean()  # an offset disturbs the network
        with torch.inference_mode():
            waveform = torch.from_numpy(samples).clamp(-1, 1)[None, :, None]  # (1, N, 1)
            network = self._model.model
            heights = network(self._model.wav2mel(waveform, self.rate_hz))  # (1, T, 360)
            cents = network.latent2cents_local_decoder(heights, mask=False)  # (1, T, 1)
            frequency = network.cent_to_f0(cents)[0, :, 0].numpy()
        centres_s = (np.arange(len(frequency)) + 0.5) * F0_HOP_S
        return centres_s, frequency, heights[0].amax(dim=-1).numpy()
