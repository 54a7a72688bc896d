"""How recordings are heard: as an embedder reads them, by pitch or by a network's states."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from qbhkit.audio import Audio, load, refuse_silence
from qbhkit.contour import Contour, from_f0
from qbhkit.embedding.end_to_end import AudioEmbedder
from qbhkit.embedding.performances import Heard
from qbhkit.errors import QbhError, naming
from qbhkit.f0_csv import read_f0_csv
from qbhkit.melody.lite import LiteExtractor
from qbhkit.melody.trackers import Tracker, get_tracker, identity_of
from qbhkit.retrieval.catalogue import Embedder

LISTENER = "crnn-lite"  # whose states are embedded end to end


class Ear(Protocol):
    """What turns recordings into queries."""

    @property
    def rate_hz(self) -> int:
        """Sampling rate that it takes."""
        ...

    def hear(self, audio: Audio) -> Contour:
        """Return the query of a recording, mono at ``rate_hz``."""
        ...


class PitchEar(NamedTuple):
    """Hear the pitch alone, by any tracker."""

    tracker: Tracker

    @property
    def rate_hz(self) -> int:
        """Sampling rate that the tracker takes."""
        return self.tracker.rate_hz

    def hear(self, audio: Audio) -> Contour:
        """Return the contour of a recording."""
        return from_f0(self.tracker.track(audio))


class StateEar(NamedTuple):
    """Hear the pitch and, beside it, the states of the network that hears it."""

    listener: LiteExtractor

    @property
    def rate_hz(self) -> int:
        """Sampling rate that the network takes."""
        return self.listener.rate_hz

    def hear(self, audio: Audio) -> Heard:
        """Return the contour and the states of a recording."""
        hearing = self.listener.hear(audio)
        contour = from_f0(hearing.f0)
        return Heard(np.concatenate([contour.frames, hearing.states[: len(contour)]], axis=1))


def ear_of(embedder: Embedder, tracker: str | None = None) -> Ear:
    """Return what hears recordings for an embedder.

    Args:
        embedder: of contours or end to end.
        tracker: name of what hears the pitch of a contour; the default one for hums if None.

    Raises:
        QbhError: if there is no such tracker, or a tracker is named for an end-to-end embedder, or
            that has learnt from the states of another network than the kit's.
        MissingPackageError: if the tracker's package is not installed.
    """
    if not isinstance(embedder, AudioEmbedder):
        return PitchEar(get_tracker(tracker))
    if tracker not in (None, LISTENER):
        raise QbhError(f"End to end hums are heard by {LISTENER}: leave --tracker {tracker} out.")
    if embedder.heard_by != identity_of(LISTENER):
        raise QbhError(
            f"The end-to-end encoder reads states of {embedder.heard_by}, not "
            f"{identity_of(LISTENER)}: make performances and train it again."
        )
    return StateEar(LiteExtractor())


def query_reader(embedder: Embedder, tracker: str | None = None) -> Callable[[Path], Contour]:
    """Return what reads queries from files: an f0 CSV as it is, a recording by the embedder's ear.

    Args:
        embedder: as of :func:`ear_of`, whose errors come with the first recording.
        tracker: the same.

    Returns:
        Takes a path. It raises QbhError if the file cannot be read or is silent, or if it is an f0
        CSV and the embedder is end to end.
    """
    ear = cache(lambda: ear_of(embedder, tracker))

    def read(path: Path) -> Contour:
        if path.name.lower().endswith(".csv"):
            if isinstance(embedder, AudioEmbedder):
                raise QbhError(f"{path} holds no sound, which is what end to end needs.")
            return from_f0(read_f0_csv(path))
        audio = load(path, ear().rate_hz)
        refuse_silence(audio, path)
        with naming(path):
            return ear().hear(audio)

    return read
