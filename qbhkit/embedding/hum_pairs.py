"""Training pairs of real hums: a part of a hum, and the window of the song that it sings.

The hums are aligned with their songs first.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qbhkit.audio import load
from qbhkit.config import check_range
from qbhkit.contour import CONTOUR_HOP_S, Contour, Normalisation, from_f0, held_pitch
from qbhkit.corpora.folders import HumRecording
from qbhkit.corpora.hum_csv import Pair, read_pairs
from qbhkit.corpora.songs import Song
from qbhkit.dtw import warping_path
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.sampling import ContourBank, Humming, PairBatch
from qbhkit.embedding.song_faults import AS_WRITTEN, SongFaults
from qbhkit.embedding.windows import Reading
from qbhkit.errors import Failure, QbhError, naming
from qbhkit.pitch.trackers import Tracker

_CAP_ST = 4.0  # highest cost of a frame of an alignment
_STEP_COST_ST = 0.01  # so that the tempo is steady within a held note
_TEMPI = (0.5, 0.7, 1.0, 1.4, 2.0)
_KEY_STEPS_ST = (-1.0, -0.5, 0.0, 0.5, 1.0)


class Alignment(NamedTuple):
    """Where each frame of a hum is in its song."""

    hum_s: NDArray[np.floating]  # (P,) seconds in the hum, rising from its first voiced frame
    song_s: NDArray[np.floating]  # (P,) seconds in the song
    key_st: float  # how much higher the hum is than the song
    distance_st: float  # mean over frames, each counted as 4 semitones at most


class AlignedHum(NamedTuple):
    """A real hum, and where its frames are in its song."""

    hum: Contour
    song: int  # number of the song
    at: Alignment


def align_hum(
    recording: Path,
    number: int,
    song: Contour,
    tracker: Tracker,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> AlignedHum:
    """Track a recorded hum and align it with its song, as :func:`align_contours` does.

    Args:
        recording: of the hum.
        number: the song's number among the songs, kept in the result.
        song: its contour, whose hop the hum's contour gets.
        tracker: of the hum's pitch.
        start_s: where in the song the hum begins.
        end_s: where it ends at the latest; None for the song's end.

    Raises:
        QbhError: if the recording cannot be read, or nothing can be aligned.

    Notebook: notebooks/07_train_supervised.py
    """
    audio = load(recording, tracker.rate_hz)
    with naming(recording):
        hum = from_f0(tracker.track(audio), song.hop_s)
    if end_s is not None:
        song = Contour(song.frames[: round(end_s / song.hop_s)], song.hop_s)
    try:
        return AlignedHum(hum, number, align_contours(hum, song, start_s))
    except QbhError as error:
        raise QbhError(f"{recording}: {error}.") from None


def align_contours(hum: Contour, song: Contour, start_s: float = 0.0) -> Alignment:
    """Align a hum with its song from a known beginning; the end is found.

    The alignment is the path of least distance in pitch, at half to twice the song's tempo, in the
    best of the likely keys. Rests hold the pitch before them.

    Args:
        hum: aligned from its first to its last voiced frame.
        song: with the same hop.
        start_s: where in the song the hum begins; the path begins at the first note from there on.

    Raises:
        QbhError: if hum or song has no voiced frame (from there on), or the song is too short.

    Source: :mod:`qbhkit.dtw`.
    Notebook: notebooks/04_augmentation.py, notebooks/07_train_supervised.py
    """
    skipped = round(start_s / song.hop_s)
    rest, lead_s = Contour(song.frames[skipped:], song.hop_s).trimmed()
    sung, hum_from_s = hum.trimmed()
    if not len(sung) or not len(rest):
        raise QbhError("there is nothing voiced to align")
    pitch = held_pitch(sung)
    tune = held_pitch(rest)[: 2 * len(pitch)]
    found = warping_path(pitch, tune, _keys(pitch, tune), True, _CAP_ST, _STEP_COST_ST)
    if not len(found.frames):
        raise QbhError("the song is less than half as long as the hum")
    hum_s = (np.arange(len(pitch)) + 0.5) * hum.hop_s + hum_from_s
    song_s = (found.frames + 0.5) * song.hop_s + (skipped * song.hop_s + lead_s)
    return Alignment(hum_s, song_s, found.key_st, found.distance_st)


def _keys(pitch: NDArray, tune: NDArray) -> list[float]:
    keys = set()
    for tempo in _TEMPI:
        middle = np.median(pitch) - np.median(tune[: max(1, int(len(pitch) * tempo))])
        keys |= {round(2 * (middle + step)) / 2 for step in _KEY_STEPS_ST}
    return sorted(keys)


# A real hum has the errors that augmentation imitates, so little is added to them.
_FOR_REAL_HUMS = Distortions(
    start_shift=0.04, tempo_octaves=0.1, slice_tempo=0.1, key_st=3.0, offset_chance=0.1,
    drift_chance=0.2, note_st=0.2, wrong_note=0.005, jitter_st=0.1, absurd_chance=0.05,
    crop_chance=0.02,
    modulation_chance=0, left_out_chance=0, added_chance=0, glide_chance=0, legato_chance=0,
    octave_note_chance=0, lost_frame_chance=0,
)  # fmt: skip


@dataclass(frozen=True)
class HumConfig:
    """Say how pairs of real hums are drawn.

    Raises:
        QbhError: if a number is out of its range.
    """

    share: float = 0.4  # of each batch; the rest are self-supervised pairs
    borrowed: float = 0.0  # share of these that have the errors of real hums (hum_errors)
    farthest_st: float = 1.2  # hums that are farther from their song are left out
    shortest_s: float = 3.0  # part of a hum; lengths are log-uniform up to the whole hum
    at_start: float = 0.4  # share of the parts that begin with the hum
    # Windows of a catalogue do not begin and end where a hum does: the song's window is shifted by
    # a share of its length at most, and is 2 ** uniform(-x, x) times as long. One that keeps its
    # speed has the catalogue's length, and begins up to song_early_s early (published: every 5 s).
    song_shift: float = 0.05
    song_octaves: float = 0.12
    song_early_s: float = 5.0
    plain: float = 0.2  # share of the hums that are not augmented
    augmentation: Distortions = field(default_factory=lambda: _FOR_REAL_HUMS)

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "share", "borrowed", "at_start", "plain")
        check_range(self, 0, math.inf, "farthest_st", "song_shift", "song_octaves", "song_early_s")
        check_range(self, CONTOUR_HOP_S, math.inf, "shortest_s")


class HumPairs:
    """Draw parts of real hums with the windows of songs that they sing (stage 2).

    Args:
        hums: aligned with their songs.
        songs: by number.
        config: how to draw.
        reading: how a window becomes L frames.
        how: normalisation.
        faults: of the trackers that heard the songs.

    Raises:
        QbhError: if no hum is near enough to its song.

    Source: fixed facts, "Loss" (stage 2).
    Notebook: notebooks/07_train_supervised.py
    """

    def __init__(
        self,
        hums: Sequence[AlignedHum],
        songs: Sequence[Contour],
        config: HumConfig,
        reading: Reading,
        how: Normalisation,
        faults: SongFaults = AS_WRITTEN,
    ) -> None:
        self.hums = [hum for hum in hums if hum.at.distance_st <= config.farthest_st]
        self.songs = songs
        if not self.hums:
            raise QbhError(
                f"Not one of {len(hums)} hums lies within {config.farthest_st:g} semitones of its "
                "song: check song_id and start_s of the pairs."
            )
        self._sung = ContourBank([hum.hum for hum in self.hums])
        self._songs = ContourBank(songs)
        self._song = np.array([hum.song for hum in self.hums])
        self._config = config
        self._humming = Humming(reading, config.augmentation, how, faults)
        self.tunes = self._songs.tunes

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw ``count`` parts of hums; a hum may come more than once."""
        humming, reading = self._humming, self._humming.reading
        which = rng.integers(len(self.hums), size=count)
        part_s, window_s = self._parts(which, rng)  # (B, 2) beginning and length
        begin, length = part_s.T / self._sung.hop_s
        warped = humming.positions(begin, length, rng)
        plain = rng.random((count, 1)) < self._config.plain
        sung = self._sung.read(which, np.where(plain, reading.positions(begin, length), warped))
        sung = np.where(plain[..., None], sung, humming.distorted(sung, rng))
        begin, length = self._song_windows(window_s, rng).T / self._songs.hop_s
        song = self._song[which]
        read = self._songs.read(song, reading.positions(begin, length))
        return humming.batch(read, sung, self._songs.groups[song], rng)

    def _song_windows(self, window_s: NDArray, rng: Generator) -> NDArray:
        """Move (B, 2) begins and lengths, in seconds, to where a catalogue's windows may lie."""
        config, (begin_s, length_s) = self._config, window_s.T
        fixed_s = self._humming.reading.window_s
        if fixed_s is not None:
            begin_s = np.maximum(0, begin_s - rng.uniform(0, config.song_early_s, len(begin_s)))
            return np.stack([begin_s, np.full_like(begin_s, fixed_s)], axis=1)
        shift = rng.uniform(-config.song_shift, config.song_shift, len(begin_s))
        octaves = rng.uniform(-config.song_octaves, config.song_octaves, len(begin_s))
        return np.stack([begin_s + shift * length_s, length_s * 2**octaves], axis=1)

    def _parts(self, which: NDArray, rng: Generator) -> tuple[NDArray, NDArray]:
        """Draw a part of each hum: (B, 2) begin and length in seconds, in hum and in song."""
        parts, windows = np.empty((2, len(which), 2))
        for row, number in enumerate(which):
            at = self.hums[number].at
            first_s, whole_s = at.hum_s[0], at.hum_s[-1] - at.hum_s[0]
            shortest = min(1.0, self._config.shortest_s / max(whole_s, 1e-6))
            length_s = whole_s * np.exp2(rng.uniform(np.log2(shortest), 0))
            late = rng.random() >= self._config.at_start
            begin_s = first_s + late * rng.random() * (whole_s - length_s)
            song_s = np.interp([begin_s, begin_s + length_s], at.hum_s, at.song_s)
            parts[row] = begin_s, length_s
            windows[row] = song_s[0], max(song_s[1] - song_s[0], CONTOUR_HOP_S)
        return parts, windows


def align_pairs(
    path: Path, songs: Iterable[Song], hop_s: float, tracker: Tracker, progress: bool = True
) -> tuple[list[AlignedHum], list[Contour]]:
    """Read a list of hums, and align each with the stretch of its song that it hums.

    Args:
        path: the list (:func:`qbhkit.corpora.hum_csv.read_pairs`).
        songs: all those that the list names, and perhaps others.
        hop_s: between frames of the contours.
        tracker: of the hums' pitch.
        progress: show a bar on standard error.

    Raises:
        QbhError: if a file cannot be read, a song is missing, or a hum cannot be aligned.
    """
    pairs, songs = read_pairs(path), list(songs)
    number = {song.id: k for k, song in enumerate(songs)}
    contours = [song.contour(hop_s) for song in songs]
    hums = []
    for pair in tqdm(pairs, "melody", unit="hum", disable=not progress):
        if pair.song_id not in number:
            raise QbhError(f"{path} names the song {pair.song_id}, which is not in 'songs'.")
        song = number[pair.song_id]
        hums.append(align_hum(pair.hum, song, contours[song], tracker, pair.start_s, pair.end_s))
    return hums, contours


def find_pairs(
    hums: Iterable[HumRecording], songs: Iterable[Song], tracker: Tracker, progress: bool = True
) -> tuple[list[Pair], list[Failure]]:
    """Align each hum with its song from the song's first note; return pairs and failures."""
    contours = {song.id: song.contour() for song in songs}
    half_s = CONTOUR_HOP_S / 2  # an alignment's times are the middles of frames
    pairs, failures = [], []
    for hum in tqdm(hums, "melody", unit="hum", disable=not progress):
        try:
            at = align_hum(hum.path, 0, contours[hum.song_id], tracker).at
        except QbhError as error:
            failures.append(Failure(str(hum.path), str(error)))
            continue
        ends_s = float(at.song_s[0] - half_s), float(at.song_s[-1] + half_s)
        pairs.append(Pair(hum.path.resolve(), hum.song_id, *ends_s))
    return pairs, failures
