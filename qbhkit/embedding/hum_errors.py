"""The errors of real hums, to hum other songs with.

Rules (:mod:`qbhkit.embedding.augment`) have the errors that somebody thought of. A real hum that is
aligned with its song has all of them, but few songs were ever hummed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from qbhkit.contour import Contour
from qbhkit.embedding.augment import Distortions, Frames, after_warp, distort, hold
from qbhkit.embedding.hum_pairs import AlignedHum
from qbhkit.embedding.sampling import ContourBank
from qbhkit.embedding.windows import Reading, inside_window

_SMOOTH_FRAMES = 9  # of a path, which waits and hurries at the notes of its own song
_SHORTEST_S = 3.0  # part of a hum
_LENGTH_OCTAVES = 0.5  # a part is 2 ** uniform(-x, x) times as long as the window
_FILLED = 0.5  # share of the windows whose rests are sung through


class HumErrors:
    """Hum songs with the wrong pitch, the pauses and the timing of real hums of other songs.

    Args:
        hums: aligned with their songs.
        songs: by number.
        rules: what else is distorted.

    Notebook: notebooks/07_train_supervised.py
    """

    def __init__(
        self, hums: Sequence[AlignedHum], songs: Sequence[Contour], rules: Distortions
    ) -> None:
        error_st, voiced, follows = [], [], []
        for hum, number, at in hums:
            song, sung = songs[number], np.floor(at.hum_s / hum.hop_s + 1e-6).astype(int)
            follows.append(uniform_filter1d(at.song_s / song.hop_s, _SMOOTH_FRAMES, mode="nearest"))
            tune = hold(song.pitch_st[None], song.voiced[None])[0]
            frame = np.floor(at.song_s / song.hop_s + 1e-6).astype(int)
            voiced.append(hum.voiced[sung])
            wrong = hum.pitch_st[sung] - at.key_st - tune[np.minimum(frame, len(tune) - 1)]
            error_st.append(np.where(voiced[-1], wrong, 0))
        self._error_st = np.concatenate(error_st)
        self._voiced = np.concatenate(voiced)
        self._follows = np.concatenate(follows)  # frames of the song, rising along each hum
        self._lengths = np.array([len(row) for row in voiced])
        self._offsets = np.cumsum(self._lengths) - self._lengths
        self._rules = rules

    def hum(
        self,
        bank: ContourBank,
        song: NDArray[np.int64],
        start: NDArray,
        length: NDArray,
        reading: Reading,
        rng: Generator,
    ) -> Frames:
        """Return windows of songs as if they were hummed: (B, L, 2) semitones and voiced.

        Args:
            bank: the songs.
            song: (B,) their numbers.
            start: (B,) first frame of each window in its song.
            length: (B,) in frames.
            reading: how a window becomes L frames.
            rng: the random generator.
        """
        batch = len(song)
        which = rng.integers(len(self._lengths), size=batch)
        whole, first = self._lengths[which], self._offsets[which]
        part = length * np.exp2(rng.uniform(-_LENGTH_OCTAVES, _LENGTH_OCTAVES, batch))
        part = np.minimum(whole, np.maximum(part, _SHORTEST_S / bank.hop_s))
        begin = rng.uniform(0, 1, batch) * (whole - part)
        share = reading.shares(length)
        hummed = begin[:, None] + np.clip(share, 0, 1) * part[:, None]
        at = first[:, None] + np.minimum(hummed.astype(int), whole[:, None] - 1)
        ends = np.minimum(np.stack([begin, begin + part], axis=1).astype(int), whole[:, None] - 1)
        since, until = self._follows[first[:, None] + ends].T[..., None]
        passed = (self._follows[at] - since) / np.maximum(until - since, 1)
        positions = inside_window(share, start[:, None] + passed * length[:, None])
        sung = self._sung(bank.read(song, positions), at, rng)
        return distort(sung, after_warp(reading, self._rules), rng)

    def _sung(self, frames: Frames, at: NDArray[np.int64], rng: Generator) -> Frames:
        """Give what was read the errors and pauses of the frames ``at`` (B, L) of real hums."""
        given = frames[..., 1] > 0
        sung = given | (rng.random((len(given), 1)) < _FILLED)
        sung &= self._voiced[at]
        sung = np.where(sung.any(axis=1, keepdims=True), sung, given)
        pitch = hold(frames[..., 0], given) + self._error_st[at]
        return np.stack([np.where(sung, pitch, 0.0), sung], axis=-1).astype(np.float32)
