"""One protocol for all pitch trackers, and a lazy registry; most have a module in this package."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio, Recording, name_of, open_audio
from qbhkit.contour import F0_HOP_S, Contour, F0Track, Floats, from_f0, rescale_confidence
from qbhkit.errors import QbhError, missing_package, naming
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
    "crnn-lite-lead": "qbhkit.pitch.crnn_lite:LeadExtractor",
    "crnn": "qbhkit.pitch.crnn:load_crnn",
}
_SHIPPED = {"crnn-lite": "crnn-lite", "crnn-lite-lead": "crnn-lite-2"}  # weights by tracker

Target = Literal["voice", "lead"]


class Tracker(Protocol):
    """Protocol of a tracker: its name, the sampling rate it needs, and a method."""

    name: str
    rate_hz: int

    def track(self, audio: Audio) -> F0Track:
        """Return f0 and voicing every 10 ms (threshold 0.5); ``audio`` is at ``rate_hz``."""
        ...


class FrameTracker(ABC):
    """Base of trackers that give a pitch and a confidence for each of their own frames.

    Raises:
        MissingPackageError: if the tracker's package is not installed.
    """

    name: str
    rate_hz = 16000
    threshold: float  # confidence from which a frame is voiced
    chunk_s = 60.0  # see in_chunks

    @abstractmethod
    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track a chunk of (N,) samples at ``rate_hz``.

        Returns:
            (T,) middles of the frames in seconds, rising; (T,) Hz, 0 or NaN where there is no
            pitch; (T,) confidence from 0 to 1.
        """

    def track(self, audio: Audio) -> F0Track:
        """Return f0 and voicing every 10 ms; ``audio`` is at ``rate_hz``."""
        return in_chunks(self._track_chunk, audio, self.chunk_s)

    def _track_chunk(self, audio: Audio) -> F0Track:
        centres_s, frequency_hz, confidence = self.frames(audio.samples)
        voicing = rescale_confidence(confidence, self.threshold)
        return on_f0_grid(centres_s, frequency_hz, voicing, audio.duration_s)

    def require(
        self, package: str, install: str, load: Callable[[str], ModuleType] = import_module
    ) -> Any:
        """Return the tracker's package; raise MissingPackageError that says what to install."""
        try:
            return load(package)
        except ImportError:
            raise missing_package(f"The tracker {self.name}", install) from None


def track(
    source: Recording | F0Track, tracker: str | None = None, target: Target = "voice"
) -> F0Track:
    """Track the pitch of a voice, in a full song or alone.

    Args:
        source: path of a recording; or (samples, rate_hz) with samples (N,) or (N, channels). An f0
            track is returned as it is.
        tracker: a name in ``TRACKERS``. By default a melody network, which finds the voice over an
            accompaniment; ``swift-f0`` suits a voice alone, as in a hum.
        target: ``voice``; or ``lead``, to track the lead instrument where nobody sings.

    Returns:
        Frames of 10 ms: Hz (0 where no pitch was found), and voicing from 0 to 1 (threshold 0.5).

    Raises:
        QbhError: if the recording cannot be read or is silent, there is no such tracker, or it does
            not track the target.
        MissingPackageError: if the tracker's package is not installed.

    Notebook: notebooks/01_audio_to_melody.py, notebooks/02_trackers.py
    """
    if isinstance(source, F0Track):
        return source
    chosen = get_tracker(tracker_for(target, tracker))
    audio = open_audio(source, chosen.rate_hz)
    with naming(name_of(source)):
        return chosen.track(audio)


def default_tracker() -> str:
    """Return ``swift-f0`` where it is installed, else ``pyin``."""
    return "swift-f0" if find_spec("swift_f0") is not None else "pyin"


def default_song_tracker(target: Target = "voice") -> str:
    """Return the name of the default tracker for songs.

    Args:
        target: ``lead`` for ``crnn-lite-lead``, which also tracks the lead instrument where nobody
            sings; for ``voice``, ``crnn`` where the data folder holds its converted weights, else
            ``crnn-lite``.

    Notebook: notebooks/01_audio_to_melody.py
    """
    if target == "lead":
        return "crnn-lite-lead"
    return "crnn" if crnn_path().is_file() else "crnn-lite"


def tracker_for(target: Target, tracker: str | None = None) -> str:
    """Return the name of a tracker for a target, the default one for None.

    Raises:
        QbhError: if the tracker does not track the lead melody, which is wanted.
    """
    lead = default_song_tracker("lead")
    if target == "lead" and tracker not in (None, lead):
        raise QbhError(f"{tracker} tracks voices only: use {lead} for the lead melody.")
    return tracker or default_song_tracker(target)


def song_contour(tracker: Tracker, audio: Audio) -> Contour:
    """Return a song's contour; a tracker that also hears lead instruments marks where they play."""
    own: Callable[[Audio], Contour] | None = getattr(tracker, "song_contour", None)
    return own(audio) if own else from_f0(tracker.track(audio))


def identity_of(name: str) -> str:
    """Return what results depend on: the tracker's name, and the hash of weights that may change.

    Raises:
        QbhError: if there is no such tracker, or its weights are not there.
    """
    _entry(name)
    if name not in ("crnn", *_SHIPPED):
        return name
    path = crnn_path() if name == "crnn" else asset(f"weights/{_SHIPPED[name]}.safetensors")
    if not path.is_file():
        get_tracker(name)  # raises the error that says what to do
    return f"{name}@{sha256_file(path)[:12]}"


def get_tracker(name: str | None = None) -> Tracker:
    """Return a tracker by name, the default one for None.

    Raises:
        QbhError: if there is no such tracker; names the known ones.
        MissingPackageError: if its package is not installed; says what to install.

    Notebook: notebooks/02_trackers.py
    """
    module, make = _entry(name or default_tracker()).split(":")
    tracker: Tracker = getattr(import_module(module), make)()
    return tracker


def _entry(name: str) -> str:
    if name not in TRACKERS:
        raise QbhError(f"There is no tracker {name!r}: use one of {', '.join(TRACKERS)}.")
    return TRACKERS[name]


def on_f0_grid(
    centres_s: NDArray, frequency_hz: NDArray, voicing: NDArray, duration_s: float
) -> F0Track:
    """Put a tracker's frames on the 10 ms grid: the nearest frame counts.

    Args:
        centres_s: (N,) the middle of each frame, seconds, rising.
        frequency_hz: (N,) Hz; 0 or NaN where there is none.
        voicing: (N,) 0 to 1, threshold 0.5.
        duration_s: length of the recording.
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


def in_chunks(
    track: Callable[[Audio], F0Track], audio: Audio, chunk_s: float, overlap_s: float = 2.0
) -> F0Track:
    """Track a long recording in chunks, so that memory does not grow with its length.

    Args:
        track: tracks one chunk.
        audio: at a rate that is a multiple of 100 Hz.
        chunk_s: length of a chunk, seconds; a recording no longer than this is one chunk.
        overlap_s: tracked on both sides of a chunk and discarded, so that there are no seams.
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
