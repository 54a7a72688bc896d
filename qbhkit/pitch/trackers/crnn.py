"""crnn: the published melody network, with its authors' weights once they are converted.

Licence: MIT (network and weights); the weights are not part of the kit. Range: 110 to 1,976 Hz.
Threshold: none, a frame is voiced where a pitch is the most likely class.
"""

from qbhkit.audio import Audio
from qbhkit.contour import F0Track
from qbhkit.errors import QbhError
from qbhkit.pitch.crnn import CRNN_RATE_HZ, Melody, crnn_path, find_crnn_weights, load_crnn


class CrnnTracker:
    """Track with the network of Kum et al.

    Raises:
        QbhError: if the converted weights are not in the data folder; says how to make them.

    Source: Kum et al., "Semi-supervised learning using teacher-student models for vocal melody
    extraction", ISMIR 2020.
    """

    name = "crnn"
    rate_hz = CRNN_RATE_HZ

    def __init__(self) -> None:
        path = find_crnn_weights()
        if path is None:
            raise QbhError(
                f"{crnn_path()} does not exist: convert the published weights with 'qbhkit weights "
                f"convert ResNet_NS.hdf5 MEAN.npy STD.npy --out {crnn_path().parent}', or use "
                "crnn-lite."
            )
        self._extractor = load_crnn(path)

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 8 kHz."""
        return self._extractor.track(audio)

    def melody(self, audio: Audio) -> Melody:
        """Return f0 and class probabilities of mono audio at 8 kHz."""
        return self._extractor.melody(audio)
