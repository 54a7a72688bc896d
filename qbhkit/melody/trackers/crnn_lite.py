"""The kit's own melody network: finds the voice in a full mix, fast on a CPU."""

from qbhkit.melody.lite import LiteExtractor


class CrnnLiteTracker(LiteExtractor):
    """Track with ``crnn-lite`` (MIT, weights in the package): the default for songs.

    Range: MIDI 40 to 95 (82 to 1976 Hz). The threshold travels with the weights; it was chosen on
    mixtures of two training singers that the network was not trained on.
    """
