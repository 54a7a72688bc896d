"""Turn queries of any kind into contours, with the frontend that an embedder needs.

Contour embedders need the pitch, which any tracker gives. State embedders also need the states of
the melody network, every 100 ms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d

from qbhkit.audio import Audio, Recording, name_of, open_audio
from qbhkit.contour import F0_HOP_S, Contour, F0Track, Floats, from_f0
from qbhkit.errors import QbhError, naming
from qbhkit.f0_csv import read_f0_csv
from qbhkit.pitch.trackers import Tracker, get_tracker, identity_of

STATE_NETWORK = "crnn-lite"  # whose states are embedded
_QUIET = 0.25  # peak; a quieter hum is amplified to it, since trackers hear faint voices badly
_ROOM_DB = 25.0  # a voiced frame so far below the voice's own level is mains hum or an echo

Source = Recording | F0Track | Contour


@dataclass(frozen=True, eq=False)
class StateContour(Contour):
    """Hold a contour together with the states of the network that tracked it.

    Args:
        frames: (N, 2 + C) float32: MIDI semitones, voiced, and C states, which are embedded.
        hop_s: seconds between frames.

    Raises:
        QbhError: as for a contour; and if there are no states.
    """

    def __post_init__(self) -> None:
        frames = np.asarray(self.frames, np.float32)
        if frames.ndim != 2 or frames.shape[1] < 3:
            raise QbhError(f"A contour with states has shape (N, 2 + C), not {frames.shape}.")
        Contour(frames[:, :2], self.hop_s)  # raises if pitch or voicing are wrong
        object.__setattr__(self, "frames", frames)

    @property
    def states(self) -> Floats:
        """(N, C) states of the network, one row every ``hop_s``."""
        return self.frames[:, 2:]


class PitchFrontend(NamedTuple):
    """Track the pitch with any tracker."""

    tracker: Tracker

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the audio it takes."""
        return self.tracker.rate_hz

    def contour_of(self, audio: Audio) -> Contour:
        """Return the contour of a recording, mono at ``rate_hz``."""
        audio = levelled(audio)
        return from_f0(without_room(self.tracker.track(audio), audio))


class StateFrontend:
    """Track the pitch with ``crnn-lite`` and keep the states of the network."""

    def __init__(self) -> None:
        from qbhkit.pitch.crnn_lite import LiteExtractor

        self._network = LiteExtractor()
        self.rate_hz = self._network.rate_hz

    def contour_of(self, audio: Audio) -> StateContour:
        """Return the contour and the states of a recording, mono at 8 kHz."""
        found = self._network.track_with_states(audio)
        contour = from_f0(found.f0)
        return StateContour(np.concatenate([contour.frames, found.states[: len(contour)]], axis=1))


Frontend = PitchFrontend | StateFrontend


def levelled(audio: Audio) -> Audio:
    """Amplify a quiet recording to a peak of -12 dB, without its constant offset."""
    middle, peak = np.ptp(audio.samples) / 2 + audio.samples.min(), np.ptp(audio.samples) / 2
    if audio.silent or peak >= _QUIET:
        return audio
    return Audio((audio.samples - middle) * (_QUIET / peak), audio.rate_hz)


def without_room(track: F0Track, audio: Audio) -> F0Track:
    """Make frames unvoiced that are over 25 dB quieter than the voice, as mains hum is.

    The voice's level is the one that 5% of the voiced frames exceed.

    Args:
        track: N frames of 10 ms.
        audio: what was tracked.
    """
    if not track.voiced.any():
        return track
    hop = round(F0_HOP_S * audio.rate_hz)
    power = uniform_filter1d(np.square(audio.samples, dtype=np.float64), 5 * hop)
    middles = (np.arange(len(track.voicing)) * hop + hop // 2).clip(max=len(power) - 1)
    level_db = 10 * np.log10(power[middles].clip(1e-12))
    faint = level_db < np.quantile(level_db[track.voiced], 0.95) - _ROOM_DB
    return F0Track(track.frequency_hz, np.where(faint, 0, track.voicing))


def frontend_for(states_of: str | None = None, tracker: str | None = None) -> Frontend:
    """Return the frontend of an embedder.

    Args:
        states_of: identity of the network whose states the embedder reads; None for contours.
        tracker: name of the pitch tracker for contours; by default the one for hums.

    Raises:
        QbhError: if there is no such tracker, or the states are those of another network.
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
        Frames of 100 ms: MIDI semitones (0 where unvoiced), and voiced (0 or 1).

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
    """Return :func:`to_contour` for an embedder; the arguments are those of :func:`frontend_for`.

    For a state embedder, a source must be a recording or a contour with states.
    """
    # opened for the first recording: f0 tracks and contours need no tracker
    frontend = cache(lambda: frontend_for(states_of, tracker))

    def load_query(source: Source) -> Contour:
        if isinstance(source, Contour):
            if states_of is not None and not isinstance(source, StateContour):
                raise QbhError("This embedder needs recordings: a contour holds no states.")
            return source
        name = "An f0 track" if isinstance(source, F0Track) else name_of(source)
        if isinstance(source, str | PathLike) and name.lower().endswith(".csv"):
            source = read_f0_csv(Path(source))
        if isinstance(source, F0Track):
            if states_of is not None:
                raise QbhError(f"{name} holds no sound, which this embedder needs.")
            return from_f0(source)
        audio = open_audio(source, frontend().rate_hz)
        with naming(name):
            return frontend().contour_of(audio)

    return load_query
