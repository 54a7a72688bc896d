"""How recordings are heard: as an embedder reads them, a contour or a network's states beside it."""

from typing import NamedTuple, Protocol

import numpy as np

from qbhkit.audio import Audio
from qbhkit.contour import Contour, from_f0
from qbhkit.embedding.end_to_end import AudioEmbedder
from qbhkit.embedding.performances import Heard
from qbhkit.errors import QbhError
from qbhkit.melody.lite import LiteExtractor
from qbhkit.melody.trackers import Tracker, get_tracker, identity_of
from qbhkit.retrieval.catalogue import Embedder

LISTENER = "crnn-lite"  # whose states are embedded end to end


class Ear(Protocol):
    """What turns recordings into queries."""

    rate_hz: int

    def hear(self, audio: Audio) -> Contour:
        """Return the query of a recording, mono at ``rate_hz``."""
        ...


class PitchEar(NamedTuple):
    """Hear the pitch alone."""

    tracker: Tracker

    @property
    def rate_hz(self) -> int:
        """Sampling rate that the tracker takes."""
        return self.tracker.rate_hz

    def hear(self, audio: Audio) -> Contour:
        """Return the contour of a recording."""
        return from_f0(self.tracker.track(audio))
