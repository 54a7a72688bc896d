"""crnn-lite: the kit's own melody network, which finds the voice in a full mix, fast on a CPU.

Licence: MIT; the weights are in the package. Range: 82 to 1,976 Hz. Threshold: it travels with the
weights, chosen on mixtures of two singers that the network was not trained on.
"""

from qbhkit.melody.lite import LiteExtractor


class CrnnLiteTracker(LiteExtractor):
    """Track with :class:`~qbhkit.melody.lite.LiteExtractor` and its shipped weights."""
