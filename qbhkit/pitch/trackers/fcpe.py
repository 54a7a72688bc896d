"""FCPE: a conformer on a mel spectrogram, for singing voice conversion; robust to noise.

Licence: MIT, weights in the wheel. Range: 32.7 to 1,975 Hz. Threshold: 0.3. Extra: ``trackers``.
"""

import os
from contextlib import redirect_stdout
from io import StringIO

import numpy as np

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, rescale_confidence
from qbhkit.errors import missing_package
from qbhkit.pitch.trackers import in_chunks, on_f0_grid
from qbhkit.pitch.trackers._torchaudio import import_beside


class FcpeTracker:
    """Track with torchfcpe; the confidence is the height of its highest bin.

    Raises:
        MissingPackageError: if torchfcpe is not installed.

    Source: Luo et al., "FCPE: a fast context-based pitch estimation model", 2025.
    """

    name = "fcpe"
    rate_hz = 16000
    threshold = 0.3

    def __init__(self) -> None:
        cache = os.environ.get("LRU_CACHE_CAPACITY")
        try:
            package = import_beside("torchfcpe")
        except ImportError:
            raise missing_package(f"The tracker {self.name}", "'qbhkit[trackers]'") from None
        finally:  # torchfcpe sets it, which slows down all other networks of the process
            os.environ.pop("LRU_CACHE_CAPACITY", None)
            if cache is not None:
                os.environ["LRU_CACHE_CAPACITY"] = cache
        with redirect_stdout(StringIO()):  # torchfcpe prints the device
            self._model = package.spawn_bundled_infer_model(device="cpu")

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz."""
        return in_chunks(self._track_chunk, audio)

    def _track_chunk(self, audio: Audio) -> F0Track:
        import torch

        with torch.inference_mode():
            samples = audio.samples - audio.samples.mean()  # an offset disturbs the network
            waveform = torch.from_numpy(samples).clamp(-1, 1)[None, :, None]  # (1, N, 1)
            network = self._model.model
            heights = network(self._model.wav2mel(waveform, self.rate_hz))  # (1, T, 360)
            cents = network.latent2cents_local_decoder(heights, mask=False)  # (1, T, 1)
            frequency = network.cent_to_f0(cents)[0, :, 0].numpy()
        voicing = rescale_confidence(heights[0].amax(dim=-1).numpy(), self.threshold)
        centres_s = (np.arange(len(frequency)) + 0.5) * F0_HOP_S
        return on_f0_grid(centres_s, frequency, voicing, audio.duration_s)
