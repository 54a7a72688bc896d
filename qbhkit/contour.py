"""Pitch over time: the f0 track (Hz every 10 ms) and the contour (semitones every 100 ms)."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from qbhkit.errors import QbhError

Floats = NDArray[np.float32]

F0_HOP_S = 0.01
CONTOUR_HOP_S = 0.1
VOICING_THRESHOLD = 0.5
# Mean and standard deviation of sung MIDI pitch in the published training set (fixed facts).
PUBLISHED_MEAN_ST = 61.702336487738215
PUBLISHED_STD_ST = 5.5201786930065415
# Trackers take consonants and breath for very high or very low notes, for a frame or a few.
STRAY_ST = 8.0
_STRAY_AMONG = 9  # voiced frames, whose median a stray frame is far from
LOWEST_HZ, HIGHEST_HZ = 8.18, 22050.0  # just above MIDI 0, which means unvoiced

Normalisation = Literal["key", "published"]


def rescale_confidence(confidence: NDArray, threshold: float) -> NDArray:
    """Map (N,) confidences piecewise linearly: 0 to 0, ``threshold`` to 0.5 and 1 to 1."""
    return np.interp(confidence, [0.0, threshold, 1.0], [0.0, 0.5, 1.0])


def hz_to_midi(frequency_hz: NDArray) -> NDArray:
    """Convert Hz (> 0) of any shape to MIDI semitones: 69 + 12 log2(f / 440)."""
    return 69.0 + 12.0 * np.log2(np.asarray(frequency_hz) / 440.0)


def midi_to_hz(midi_st: NDArray) -> NDArray:
    """Convert MIDI semitones of any shape to Hz."""
    return 440.0 * 2.0 ** ((np.asarray(midi_st) - 69.0) / 12.0)


@dataclass(frozen=True, eq=False)
class F0Track:
    """Hold the fundamental frequency of a recording on a regular grid.

    Raises:
        QbhError: if shapes differ, values are not finite, or one is out of its range.

    Notebook: notebooks/03_contours.py
    """

    frequency_hz: Floats  # (N,) 0 where no pitch was found, else 8.18 to 22,050
    voicing: Floats  # (N,) 0 to 1, the tracker's confidence that there is a pitch
    hop_s: float = F0_HOP_S

    def __post_init__(self) -> None:
        frequency = np.asarray(self.frequency_hz, np.float32)
        voicing = np.asarray(self.voicing, np.float32)
        if frequency.ndim != 1 or frequency.shape != voicing.shape:
            raise QbhError(
                "An f0 track needs two equally long rows, frequency and voicing, but got shapes "
                f"{frequency.shape} and {voicing.shape}."
            )
        if not (np.isfinite(frequency).all() and np.isfinite(voicing).all()):
            raise QbhError("An f0 track holds NaN or infinite values: write 0 Hz where unvoiced.")
        pitched = frequency[frequency != 0]
        if pitched.size and (pitched.min() < LOWEST_HZ or pitched.max() > HIGHEST_HZ):
            raise QbhError(
                f"An f0 track must hold 0 or {LOWEST_HZ:g} to {HIGHEST_HZ:g} Hz, but holds values "
                f"from {pitched.min():g} to {pitched.max():g}: is it in semitones?"
            )
        if voicing.size and (voicing.min() < 0 or voicing.max() > 1):
            raise QbhError("An f0 track's voicing must lie between 0 and 1.")
        if not self.hop_s > 0:
            raise QbhError("An f0 track's hop must be positive.")
        object.__setattr__(self, "frequency_hz", frequency)
        object.__setattr__(self, "voicing", voicing)

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """(N,) true where there is a pitch and voicing is at least 0.5."""
        return (self.frequency_hz > 0) & (self.voicing >= VOICING_THRESHOLD)

    @property
    def duration_s(self) -> float:
        """Length of the track in seconds."""
        return len(self.frequency_hz) * self.hop_s


@dataclass(frozen=True, eq=False)
class Contour:
    """Hold a melody: frame k covers the time from k * hop_s to (k + 1) * hop_s.

    Raises:
        QbhError: if the shape is wrong, a value is not finite, or one is out of its range.

    Source: fixed facts, "Contour".
    Notebook: notebooks/03_contours.py
    """

    frames: Floats  # (N, 2): MIDI semitones, -12 to 140, 0 where unvoiced; voiced, 0 or 1
    hop_s: float = CONTOUR_HOP_S
    # (N,) where a song's melody is played, not sung; None if that is not known
    instrumental: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        frames = np.asarray(self.frames, np.float32)
        if frames.ndim != 2 or frames.shape[1] != 2:
            raise QbhError(f"A contour has shape (N, 2), not {frames.shape}.")
        if not np.isfinite(frames).all():
            raise QbhError("A contour holds NaN or infinite values.")
        voiced = frames[:, 1] == 1
        if not (voiced | (frames[:, 1] == 0)).all():
            raise QbhError("A contour's voicing column must be 0 or 1.")
        if frames[~voiced, 0].any():
            raise QbhError("A contour's unvoiced frames must have pitch 0.")
        pitch = frames[voiced, 0]
        if pitch.size and (pitch.min() < -12 or pitch.max() > 140):
            raise QbhError("A contour's pitch must be in MIDI semitones, -12 to 140.")
        if not self.hop_s > 0:
            raise QbhError("A contour's hop must be positive.")
        if self.instrumental is not None and self.instrumental.shape != (len(frames),):
            raise QbhError("A contour needs as many instrumental marks as frames.")
        object.__setattr__(self, "frames", frames)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def pitch_st(self) -> Floats:
        """(N,) MIDI semitones, 0 where unvoiced."""
        return self.frames[:, 0]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """(N,) true where voiced."""
        return self.frames[:, 1] == 1

    @property
    def voiced_s(self) -> float:
        """Seconds of voiced frames."""
        return float(self.voiced.sum()) * self.hop_s

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self) * self.hop_s

    def transposed(self, semitones_st: float) -> "Contour":
        """Return the contour with every voiced frame moved by ``semitones_st``."""
        frames = self.frames[:, :2].copy()  # network states, which a subclass adds, do not move
        frames[self.voiced, 0] += semitones_st
        return Contour(frames, self.hop_s)

    def without_rests(self) -> "Contour":
        """Return the voiced frames alone, one after another."""
        return Contour(self.frames[self.voiced], self.hop_s)

    def without_strays(self, farthest_st: float = STRAY_ST) -> Self:
        """Make frames unvoiced that are too far from the median of the nine around them.

        Unvoiced frames are skipped. A note that is far away stays if it lasts for five frames.
        """
        where = np.flatnonzero(self.voiced)
        if not where.size:
            return self
        pitch = self.pitch_st[where]
        padded = np.pad(pitch, _STRAY_AMONG // 2, "symmetric")
        around = np.median(np.lib.stride_tricks.sliding_window_view(padded, _STRAY_AMONG), axis=1)
        frames = self.frames.copy()
        frames[where[np.abs(pitch - around) > farthest_st], :2] = 0
        return replace(self, frames=frames)

    def trimmed(self) -> tuple[Self, float]:
        """Cut unvoiced frames off both ends; return the seconds cut off the beginning, too."""
        where = np.flatnonzero(self.voiced)
        if not where.size:
            return replace(self, frames=self.frames[:0], instrumental=None), 0.0
        first, last = where[0], where[-1] + 1
        cut = replace(self, frames=self.frames[first:last], instrumental=None)
        return cut, float(first) * self.hop_s


def from_pitch(pitch_st: NDArray, hop_s: float = CONTOUR_HOP_S) -> Contour:
    """Build a contour from (N,) MIDI semitones in which 0 means unvoiced."""
    pitch = np.asarray(pitch_st, np.float32)
    return Contour(np.stack([pitch, (pitch > 0).astype(np.float32)], axis=1), hop_s)


def from_notes(notes: NDArray, hop_s: float = CONTOUR_HOP_S) -> Contour:
    """Sample notes on the contour grid: each frame has the note that sounds at its centre.

    Args:
        notes: (M, 3) onset and duration in seconds, MIDI pitch, sorted by onset. If notes overlap,
            the later one counts.
        hop_s: seconds between frames.

    Returns:
        A contour from time 0 to the end of the last note.

    Notebook: notebooks/03_contours.py
    """
    if not len(notes):
        return Contour(np.zeros((0, 2), np.float32), hop_s)
    ends_s = notes[:, 0] + notes[:, 1]
    centres_s = (np.arange(int(np.ceil(ends_s.max() / hop_s - 1e-6))) + 0.5) * hop_s
    latest = np.searchsorted(notes[:, 0], centres_s, side="right") - 1
    sounding = (latest >= 0) & (centres_s < ends_s[latest])
    return from_pitch(np.where(sounding, notes[latest, 2], 0.0), hop_s)


def from_f0(
    track: F0Track,
    hop_s: float = CONTOUR_HOP_S,
    method: Literal["median", "pick"] = "median",
) -> Contour:
    """Downsample an f0 track to a contour; no pitch is interpolated across unvoiced frames.

    Args:
        track: on any constant hop.
        hop_s: seconds between contour frames.
        method: ``median`` is the median of the voiced 10 ms frames, or unvoiced if fewer than half
            of them are voiced; ``pick`` is the first 10 ms frame, as in the published system.

    Returns:
        A contour of ceil(duration / hop_s) frames.

    Raises:
        QbhError: if there is no such method.

    Source: fixed facts, "Contour".
    Notebook: notebooks/03_contours.py
    """
    if method not in ("median", "pick"):
        raise QbhError(f"Unknown method {method!r}: use 'median' or 'pick'.")
    count = int(np.ceil(track.duration_s / hop_s - 1e-6))
    if count <= 0:
        return Contour(np.zeros((0, 2), np.float32), hop_s)
    per_frame = max(1, round(hop_s / F0_HOP_S))
    midi = np.full(len(track.frequency_hz), np.nan)
    midi[track.voiced] = hz_to_midi(track.frequency_hz[track.voiced])
    fine_s = (np.arange(count * per_frame) + 0.5) * (hop_s / per_frame)
    nearest = np.floor(fine_s / track.hop_s + 1e-9).astype(int)
    inside = nearest < len(midi)
    fine = np.where(inside, midi[np.minimum(nearest, len(midi) - 1)], np.nan)
    groups = fine.reshape(count, per_frame)  # (count, per_frame)
    if method == "pick":
        return from_pitch(np.nan_to_num(groups[:, 0], nan=0.0), hop_s)
    present = np.maximum(inside.reshape(count, per_frame).sum(axis=1), 1)
    voiced = 2 * np.isfinite(groups).sum(axis=1) >= present
    median = voiced_median(groups, np.isfinite(groups))
    return from_pitch(np.where(voiced, median, 0.0), hop_s)


def normalise(frames: NDArray, how: Normalisation) -> Floats:
    """Normalise the pitch column of contours, (..., L, 2); unvoiced frames stay 0.

    Args:
        frames: MIDI semitones and voiced (0 or 1).
        how: ``published``: (midi - 61.70) / 5.52. ``key``: the median of the voiced frames of each
            contour instead of 61.70, so that a change of key changes nothing.

    Raises:
        QbhError: if there is no such normalisation.

    Source: fixed facts, "Contour"; the median is this kit's own choice (DECISIONS.md).
    Notebook: notebooks/03_contours.py
    """
    frames = np.asarray(frames, np.float32)
    pitch, voiced = frames[..., 0], frames[..., 1] > 0
    if how == "published":
        centre: NDArray | float = PUBLISHED_MEAN_ST
    elif how == "key":
        centre = voiced_median(pitch, voiced)[..., None]
    else:
        raise QbhError(f"Unknown normalisation {how!r}: use 'key' or 'published'.")
    out = np.zeros_like(frames)
    out[..., 0] = np.where(voiced, (pitch - centre) / PUBLISHED_STD_ST, 0.0)
    out[..., 1] = voiced
    return out


def held_pitch(contour: Contour) -> NDArray[np.float32]:
    """Return pitch (N,) from first to last voiced frame; rests hold the pitch before them."""
    sung, _ = contour.trimmed()
    last = np.maximum.accumulate(np.where(sung.voiced, np.arange(len(sung)), 0))
    return sung.pitch_st[last]


def voiced_median(pitch: NDArray, voiced: NDArray[np.bool_]) -> NDArray:
    """Return the median of the voiced frames along the last axis, 0 where none is voiced.

    Of an even number of frames it is the lower of the middle two, so the pitch does occur.
    """
    ordered = np.sort(np.where(voiced, pitch, np.inf), axis=-1)
    middle = np.maximum(voiced.sum(axis=-1) - 1, 0) // 2
    median = np.take_along_axis(ordered, middle[..., None], axis=-1)[..., 0]
    return np.where(np.isfinite(median), median, 0.0)
