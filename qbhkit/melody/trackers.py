"""One protocol for every pitch tracker, and a lazy registry of them.

A tracker takes mono samples and gives an :class:`~qbhkit.contour.F0Track` on the 10 ms grid in
which 0.5 is the threshold of voicing, whatever scale its own confidence has.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track
from qbhkit.errors import MissingPackageError, QbhError


class Tracker(Protocol):
    """What a tracker is: a name, the rate it wants, and a method."""

    name: str
    rate_hz: int

    def track(self, audio: Audio) -> F0Track:
        """Return f0 and voicing every 10 ms; ``audio`` is at ``rate_hz``."""
        ...


def on_f0_grid(
    centres_s: NDArray, frequency_hz: NDArray, voicing: NDArray, duration_s: float
) -> F0Track:
    """Put a tracker's frames on the 10 ms grid by taking the nearest one.

    Args:
        centres_s: (N,) the middle of each frame, seconds, rising.
        frequency_hz: (N,) Hz; 0 or NaN where there is none.
        voicing: (N,) 0 to 1, threshold 0.5.
        duration_s: length of the recording.

    Returns:
        A track of round(duration / 10 ms) frames.
    """
    count = max(1, round(duration_s / F0_HOP_S))
    if not len(centres_s):
        return F0Track(np.zeros(count, np.float32), np.zeros(count, np.float32))
    middles_s = (np.arange(count) + 0.5) * F0_HOP_S
    after = np.clip(np.searchsorted(centres_s, middles_s), 1, max(1, len(centres_s) - 1))
    after = np.minimum(after, len(centres_s) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(centres_s[after] - middles_s) < np.abs(centres_s[before] - middles_s)
    index = np.where(nearer, after, before)
    frequency = np.nan_to_num(frequency_hz[index])
    return F0Track(frequency, np.where(frequency > 0, voicing[index], 0.0))


def rescale_confidence(confidence: NDArray, threshold: float) -> NDArray:
    """Map 0 to 0, ``threshold`` to 0.5 and 1 to 1, in two straight lines."""
    return np.interp(confidence, [0.0, threshold, 1.0], [0.0, 0.5, 1.0])


class SwiftF0Tracker:
    """Track with swift-f0 (MIT, ONNX, weights in the wheel): the default for hums.

    The threshold was chosen on the hand-labelled pitch of the MIR-QBSH training singers
    (``data/results/tracker_tuning.json``).

    Raises:
        MissingPackageError: if swift-f0 is not installed.
    """

    name = "swift-f0"
    rate_hz = 16000
    threshold = 0.65

    def __init__(self) -> None:
        try:
            from swift_f0 import SwiftF0
        except ImportError:
            raise MissingPackageError(
                "The tracker swift-f0 is not installed: pip install swift-f0, or use pyin."
            ) from None
        self._model = SwiftF0(spin=False)  # spinning threads would fight with torch for two cores

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz."""
        found = self._model.detect(audio.samples, self.rate_hz)
        voicing = rescale_confidence(found.confidence, self.threshold)
        return on_f0_grid(found.timestamps, found.pitch_hz, voicing, audio.duration_s)


class PyinTracker:
    """Track with librosa's pYIN: slower, weak in noise, but needs no model.

    Source: Mauch and Dixon, "pYIN: a fundamental frequency estimator using probabilistic threshold
    distributions", ICASSP 2014.
    """

    name = "pyin"
    rate_hz = 16000
    lowest_hz, highest_hz = 65.0, 1100.0
    chunk_s = 60.0  # pYIN's Viterbi step would need gigabytes for an hour

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio at 16 kHz; pYIN's own voicing decision is kept."""
        import librosa

        hop = round(F0_HOP_S * self.rate_hz)
        chunk = round(self.chunk_s * self.rate_hz)
        parts = []
        for begin in range(0, len(audio.samples), chunk):
            samples = audio.samples[begin : begin + chunk]
            samples = np.pad(samples, (0, max(0, 2048 - len(samples))))
            f0, voiced, _ = librosa.pyin(
                samples,
                fmin=self.lowest_hz,
                fmax=self.highest_hz,
                sr=self.rate_hz,
                hop_length=hop,
                frame_length=1024,
            )
            parts.append(np.where(voiced, np.nan_to_num(f0), 0.0)[: chunk // hop])
        frequency = np.concatenate(parts)
        centres_s = np.arange(len(frequency)) * F0_HOP_S
        return on_f0_grid(centres_s, frequency, (frequency > 0).astype(float), audio.duration_s)


class PraatTracker:
    """Track with Praat's autocorrelation method (parselmouth, GPL-3: an optional extra).

    Raises:
        MissingPackageError: if parselmouth is not installed.

    Source: Boersma, "Accurate short-term analysis of the fundamental frequency", 1993.
    """

    name = "praat"
    rate_hz = 16000
    lowest_hz, highest_hz = 65.0, 1100.0

    def __init__(self) -> None:
        if find_spec("parselmouth") is None:
            raise MissingPackageError(
                "The tracker praat is not installed: pip install 'qbhkit[trackers]' (GPL-3)."
            )

    def track(self, audio: Audio) -> F0Track:
        """Return f0 of mono audio; Praat's own voicing decision is kept."""
        import parselmouth

        sound = parselmouth.Sound(audio.samples.astype(float), audio.rate_hz)
        pitch = sound.to_pitch_ac(F0_HOP_S, self.lowest_hz, pitch_ceiling=self.highest_hz)
        frequency = pitch.selected_array["frequency"]
        return on_f0_grid(pitch.xs(), frequency, (frequency > 0).astype(float), audio.duration_s)


TRACKERS: dict[str, Callable[[], Tracker]] = {
    "swift-f0": SwiftF0Tracker,
    "pyin": PyinTracker,
    "praat": PraatTracker,
}


def default_tracker() -> str:
    """Return ``swift-f0`` where it is installed, else ``pyin``."""
    return "swift-f0" if find_spec("swift_f0") is not None else "pyin"


def get_tracker(name: str | None = None) -> Tracker:
    """Return a tracker by name, the default one for None.

    Raises:
        QbhError: if there is no such tracker; names those there are.
        MissingPackageError: if its package is not installed; says what to install.
    """
    name = name or default_tracker()
    if name not in TRACKERS:
        raise QbhError(f"There is no tracker {name!r}: use one of {', '.join(TRACKERS)}.")
    return TRACKERS[name]()
