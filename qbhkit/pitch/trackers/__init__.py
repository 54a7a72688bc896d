"""One protocol for all pitch trackers, and a lazy registry; each has a module in this package.

A tracker takes mono audio and returns an :class:`~qbhkit.contour.F0Track` on the 10 ms grid. Its
voicing has the threshold 0.5, whatever the scale of the tracker's own confidence.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio, Recording, name_of, open_audio
from qbhkit.contour import F0_HOP_S, F0Track
from qbhkit.errors import QbhError, naming
from qbhkit.storage import asset, sha256_file
from qbhkit.weights import crnn_path

# name -> "module:class" (or function that returns a tracker), imported when it is needed
TRACKERS = {
    "swift-f0": "qbhkit.pitch.trackers.swift_f0:SwiftF0Tracker",
    "pyin": "qbhkit.pitch.trackers.pyin:PyinTracker",
    "praat": "qbhkit.pitch.trackers.praat:PraatTracker",
    "torchcrepe-tiny": "qbhkit.pitch.trackers.torchcrepe:TorchcrepeTinyTracker",
    "torchcrepe-full": "qbhkit.pitch.trackers.torchcrepe:TorchcrepeFullTracker",
    "fcpe": "qbhkit.pitch.trackers.fcpe:FcpeTracker",
    "pesto": "qbhkit.pitch.trackers.pesto:PestoTracker",
    "melodia": "qbhkit.pitch.trackers.melodia:MelodiaTracker",
    "whistle": "qbhkit.pitch.trackers.whistle:WhistleTracker",
    "crnn-lite": "qbhkit.pitch.crnn_lite:LiteExtractor",
    "crnn": "qbhkit.pitch.crnn:load_crnn",
}
_CHUNK_S, _OVERLAP_S = 60.0, 2.0


class Tracker(Protocol):
    """Protocol of a tracker: its name, the sampling rate it needs, and a method."""

    name: str
    rate_hz: int

    def track(self, audio: Audio) -> F0Track:
        """Return f0 and voicing every 10 ms; ``audio`` is at ``rate_hz``."""
        ...


def track(source: Recording | F0Track, tracker: str | None = None) -> F0Track:
    """Track the pitch of a voice, in a full song or alone.

    Args:
        source: path of a recording; or (samples, rate_hz) with samples (N,) or (N, channels). An f0
            track is returned as it is.
        tracker: a name in ``TRACKERS``. By default a melody network, which finds the voice over an
            accompaniment; ``swift-f0`` suits a voice alone, as in a hum.

    Returns:
        N frames of 10 ms: ``frequency_hz`` (0 where no pitch was found), ``voicing`` from 0 to 1
        (0.5 is the threshold).

    Raises:
        QbhError: if the recording cannot be read or is silent, or there is no such tracker.
        MissingPackageError: if the tracker's package is not installed.

    Notebook: notebooks/01_audio_to_melody.py, notebooks/02_trackers.py
    """
    if isinstance(source, F0Track):
        return source
    chosen = get_tracker(tracker or default_song_tracker())
    audio = open_audio(source, chosen.rate_hz)
    with naming(name_of(source)):
        return chosen.track(audio)


def default_tracker() -> str:
    """Return ``swift-f0`` where it is installed, else ``pyin``."""
    return "swift-f0" if find_spec("swift_f0") is not None else "pyin"


def default_song_tracker() -> str:
    """Return ``crnn`` where the data folder holds its converted weights, else ``crnn-lite``.

    Notebook: notebooks/01_audio_to_melody.py
    """
    return "crnn" if crnn_path().is_file() else "crnn-lite"


def identity_of(name: str) -> str:
    """Return what results depend on: the tracker's name, and the hash of weights that may change.

    Raises:
        QbhError: if there is no such tracker, or its weights are not there.
    """
    if name not in TRACKERS:
        raise _unknown(name)
    if name not in ("crnn", "crnn-lite"):
        return name
    path = _weights_of(name)
    if not path.is_file():
        get_tracker(name)  # raises the error that says what to do
    return f"{name}@{sha256_file(path)[:12]}"


def _weights_of(name: str) -> Path:
    return crnn_path() if name == "crnn" else asset(f"weights/{name}.safetensors")


def get_tracker(name: str | None = None) -> Tracker:
    """Return a tracker by name, the default one for None.

    Raises:
        QbhError: if there is no such tracker; names the known ones.
        MissingPackageError: if its package is not installed; says what to install.

    Notebook: notebooks/02_trackers.py
    """
    name = name or default_tracker()
    if name not in TRACKERS:
        raise _unknown(name)
    module, make = TRACKERS[name].split(":")
    tracker: Tracker = getattr(import_module(module), make)()
    return tracker


def _unknown(name: str) -> QbhError:
    return QbhError(f"There is no tracker {name!r}: use one of {', '.join(TRACKERS)}.")


def on_f0_grid(
    centres_s: NDArray, frequency_hz: NDArray, voicing: NDArray, duration_s: float
) -> F0Track:
    """Put a tracker's frames on the 10 ms grid: the nearest frame counts.

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


def keep_range(frequency_hz: NDArray, lowest_hz: float, highest_hz: float) -> NDArray:
    """Return (N,) frequencies with those out of range set to 0 Hz, which means no pitch."""
    inside = (frequency_hz >= lowest_hz) & (frequency_hz <= highest_hz)
    return np.where(inside, frequency_hz, 0.0)


def in_chunks(
    track: Callable[[Audio], F0Track],
    audio: Audio,
    chunk_s: float = _CHUNK_S,
    overlap_s: float = _OVERLAP_S,
) -> F0Track:
    """Track a long recording in chunks, so that memory does not grow with its length.

    Each chunk is tracked with some overlap on both sides, which is discarded, so that a track has
    no seams.

    Args:
        track: tracks one chunk.
        audio: at a rate that is a multiple of 100 Hz.
        chunk_s: length of a chunk, seconds; a recording no longer than this is one chunk.
        overlap_s: overlap on each side, seconds.

    Returns:
        A track of round(duration / 10 ms) frames.
    """
    if audio.duration_s <= chunk_s:
        return track(audio)
    hop = round(F0_HOP_S * audio.rate_hz)
    count = round(audio.duration_s / F0_HOP_S)
    chunk, overlap = round(chunk_s / F0_HOP_S), round(overlap_s / F0_HOP_S)
    frequency, voicing = np.zeros((2, count), np.float32)
    for begin in range(0, count, chunk):
        first, end = max(0, begin - overlap), min(begin + chunk, count)
        last = min(end + overlap, count)
        samples = audio.samples[first * hop : last * hop]
        samples = np.pad(samples, (0, (last - first) * hop - len(samples)))
        found = track(Audio(samples, audio.rate_hz))
        frequency[begin:end] = found.frequency_hz[begin - first : end - first]
        voicing[begin:end] = found.voicing[begin - first : end - first]
    return F0Track(frequency, voicing)
