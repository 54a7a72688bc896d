"""From any kind of query to its contour: a frontend tracks recordings, as an embedder needs them.

Contour embedders need the pitch, which any tracker gives. State embedders need the states of the
melody network too, one row every 100 ms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from qbhkit.audio import Audio, as_audio, load, refuse_silence, resample
from qbhkit.contour import Contour, F0Track, Floats, from_f0
from qbhkit.errors import QbhError, naming
from qbhkit.f0_csv import read_f0_csv
from qbhkit.pitch.trackers import Tracker, get_tracker, identity_of

STATE_NETWORK = "crnn-lite"  # whose states are embedded

Samples = tuple[ArrayLike, int]  # (N,) or (N, channels) samples, and how many there are a second
Source = str | PathLike[str] | Samples | Audio | F0Track | Contour


@dataclass(frozen=True, eq=False)
class StateContour(Contour):
    """Hold a contour and, beside it, the states of the network that tracked it.

    It is trimmed and cut as a contour is, by its voicing; pitch is there for that only.

    Args:
        frames: (N, 2 + C) float32: MIDI semitones, voiced, and C states.
        hop_s: seconds between frames.

    Raises:
        QbhError: as of a contour; and if there are no states.
    """

    def __post_init__(self) -> None:
        frames = np.asarray(self.frames, np.float32)
        if frames.ndim != 2 or frames.shape[1] < 3:
            raise QbhError(f"A contour with states has shape (N, 2 + C), not {frames.shape}.")
        Contour(frames[:, :2], self.hop_s)  # says what is wrong with it
        object.__setattr__(self, "frames", frames)

    @property
    def states(self) -> Floats:
        """(N, C) states of the network, a row every ``hop_s``."""
        return self.frames[:, 2:]


class Frontend(Protocol):
    """What turns recordings into queries."""

    @property
    def rate_hz(self) -> int:
        """Sampling rate that it takes."""
        ...

    def contour_of(self, audio: Audio) -> Contour:
        """Return the query of a recording, mono at ``rate_hz``."""
        ...


class PitchFrontend(NamedTuple):
    """Track the pitch alone, with any tracker."""

    tracker: Tracker

    @property
    def rate_hz(self) -> int:
        """Sampling rate that the tracker takes."""
        return self.tracker.rate_hz

    def contour_of(self, audio: Audio) -> Contour:
        """Return the contour of a recording."""
        return from_f0(self.tracker.track(audio))


class StateFrontend:
    """Track the pitch and keep, beside it, the states of the melody network."""

    def __init__(self) -> None:
        from qbhkit.pitch.crnn_lite import LiteExtractor

        self._network = LiteExtractor()
        self.rate_hz = self._network.rate_hz

    def contour_of(self, audio: Audio) -> StateContour:
        """Return the contour and the states of a recording."""
        found = self._network.track_with_states(audio)
        contour = from_f0(found.f0)
        return StateContour(np.concatenate([contour.frames, found.states[: len(contour)]], axis=1))


def frontend_for(states_of: str | None = None, tracker: str | None = None) -> Frontend:
    """Return what tracks recordings for an embedder.

    Args:
        states_of: identity of the network whose states the embedder reads; None for contours.
        tracker: name of the pitch tracker for contours; the default one for hums if None.

    Raises:
        QbhError: if there is no such tracker, if one is named for a state embedder, or if that has
            learnt from the states of another network than the kit's.
        MissingPackageError: if the tracker's package is not installed.
    """
    if states_of is None:
        return PitchFrontend(get_tracker(tracker))
    if tracker not in (None, STATE_NETWORK):
        raise QbhError(
            f"This embedder reads the states of {STATE_NETWORK}: leave --tracker {tracker} out."
        )
    if states_of != identity_of(STATE_NETWORK):
        raise QbhError(
            f"This embedder reads the states of {states_of}, not {identity_of(STATE_NETWORK)}: "
            "render its training hums again ('qbhkit data render') and train it again."
        )
    return StateFrontend()


def to_contour(source: Source, tracker: str | None = None) -> Contour:
    """Return the contour of a recording, an f0 track or a contour.

    Args:
        source: path of a recording or of an f0 CSV; (samples, rate_hz); or what
            :func:`qbhkit.track` returns. A contour is returned as it is.
        tracker: name of the pitch tracker for recordings; by default the one for hums.

    Returns:
        Contour of N frames of 100 ms: MIDI semitones (0 where unvoiced), and voiced (0 or 1).

    Raises:
        QbhError: if the source cannot be read, is silent, or is none of these.
        MissingPackageError: if the tracker's package is not installed.

    Source: fixed facts, "Contour".
    Notebook: notebooks/00_hum_to_song.py, notebooks/03_contours.py
    """
    return query_loader(tracker=tracker)(source)


def query_loader(
    states_of: str | None = None, tracker: str | None = None
) -> Callable[[Source], Contour]:
    """Return what loads queries for an embedder; its tracker is made at the first recording.

    Args:
        states_of: as of :func:`frontend_for`, whose errors come with the first recording.
        tracker: the same.

    Returns:
        Takes a source as :func:`to_contour` does, and raises the same errors. A state embedder takes
        recordings only, and contours that hold states.
    """
    frontend = cache(lambda: frontend_for(states_of, tracker))

    def load_query(source: Source) -> Contour:
        if isinstance(source, Contour):
            if states_of is not None and not isinstance(source, StateContour):
                raise QbhError("This embedder needs recordings: a contour holds no states.")
            return source
        name = source if isinstance(source, str | PathLike) else "The given sound"
        if isinstance(source, str | PathLike) and str(source).lower().endswith(".csv"):
            source = read_f0_csv(Path(source))
        if isinstance(source, F0Track):
            if states_of is not None:
                raise QbhError(f"{name} holds no sound, which this embedder needs.")
            return from_f0(source)
        rate_hz = frontend().rate_hz
        if isinstance(source, str | PathLike):
            audio = load(Path(source), rate_hz)
        else:
            audio = resample(as_audio(source), rate_hz)
        refuse_silence(audio, name)
        with naming(name):
            return frontend().contour_of(audio)

    return load_query
