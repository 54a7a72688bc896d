"""Train on a user's own recordings: the present weights, as a teacher, label what they are sure of.

Source: Kum, Lin, Su and Nam, "Semi-supervised learning using teacher-student models for vocal
melody extraction", ISMIR 2020.
"""

import hashlib
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qbhkit.audio import AUDIO_SUFFIXES, load
from qbhkit.errors import QbhError
from qbhkit.pitch.crnn_lite import LiteExtractor
from qbhkit.storage import sha256_file, write_arrays
from qbhkit.synthesis import degrade
from qbhkit.synthesis.mixing import EXCERPT_S, MIX_HOP, MIX_RATE_HZ, by_chance
from qbhkit.weights import weights_path

_SAMPLES = round(EXCERPT_S * MIX_RATE_HZ)
_SURE = 0.7  # confidence from which a frame counts as labelled
_SURE_SHARE = 0.8  # of the frames of a segment that is kept
_SUNG_SHARE = 0.2  # of its frames: instruments alone teach little
_NEAR = 4  # classes of 1/8 semitone on each side of the best one


class Segment(NamedTuple):
    """Name 8 s of a recording in the file that holds its samples and labels."""

    path: Path
    number: int


class LabelledAudio(NamedTuple):
    """Hold 8 s of a recording at 8 kHz, and the teacher's labels."""

    samples: NDArray[np.float32]  # (64000,)
    f0: NDArray[np.float32]  # (800,) Hz every 10 ms, 0 = unvoiced
    weight: NDArray[np.float32]  # (800,) confidence of the teacher, 0 where it is not sure


def label_recordings(
    folder: Path, teacher: str, cache: Path, progress: bool = True
) -> list[Segment]:
    """Label recordings by trained weights, and return the segments of which these are sure.

    Samples and labels of each recording are kept as one file in the cache, and read by later runs
    as long as weights and recording are the same. A recording that cannot be read is left out with
    a warning.

    Args:
        folder: holds recordings, also in folders of its own.
        teacher: weights of ``crnn-lite``, shipped or a ``.safetensors`` file.
        cache: folder of the labels; 130 KB for each segment.
        progress: show a bar.

    Raises:
        QbhError: if the folder holds no recording, or none with a segment to keep.
    """
    from safetensors import safe_open

    paths = sorted(p for p in folder.rglob("*") if p.name.lower().endswith(AUDIO_SUFFIXES))
    if not paths:
        raise QbhError(f"{folder} holds no recordings: name another folder in 'recordings'.")
    extractor, weights = LiteExtractor(teacher), sha256_file(weights_path(teacher))
    segments: list[Segment] = []
    for path in tqdm(paths, "label", unit="file", disable=not progress):
        found = path.stat()
        stamp = f"{weights} {path.resolve()} {found.st_size} {found.st_mtime_ns}"
        target = cache / f"{hashlib.sha256(stamp.encode()).hexdigest()}.safetensors"
        if not target.is_file():
            try:
                write_arrays(target, _labelled(path, extractor), {})
            except QbhError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
                continue
        with safe_open(target, framework="numpy") as stored:
            count = stored.get_slice("f0").get_shape()[0]
        segments += [Segment(target, number) for number in range(count)]
    if not segments:
        raise QbhError(f"{folder} holds no melody of which {teacher} is sure: add recordings.")
    return segments


def _labelled(path: Path, extractor: LiteExtractor) -> dict[str, NDArray]:
    """Return samples (S, 64000), f0 (S, 800) and weight (S, 800) of the segments to keep."""
    audio = load(path, MIX_RATE_HZ)
    track, posteriors = extractor.melody(audio)
    best = posteriors[:, 1:].argmax(1)[:, None] + np.arange(1 - _NEAR, 2 + _NEAR)
    near = np.take_along_axis(posteriors, best.clip(1, posteriors.shape[1] - 1), 1).sum(1)
    sure = np.where(track.voiced, near, posteriors[:, 0])
    frames, count = _SAMPLES // MIX_HOP, len(audio.samples) // _SAMPLES
    whole = [row[: count * frames].reshape(count, frames) for row in (track.frequency_hz, sure)]
    hz, sure = whole[0] * track.voiced[: count * frames].reshape(count, frames), whole[1]
    kept = ((sure >= _SURE).mean(1) >= _SURE_SHARE) & ((hz > 0).mean(1) >= _SUNG_SHARE)
    samples = audio.samples[: count * _SAMPLES].reshape(count, _SAMPLES)[kept]
    return {
        "samples": np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16),
        "f0": hz[kept].astype(np.float32),
        "weight": np.where(sure >= _SURE, np.minimum(sure, 1), 0)[kept].astype(np.float32),
    }


def draw_labelled(
    segments: list[Segment], degraded: float, produced: float, rng: Generator
) -> LabelledAudio:
    """Draw a segment, and degrade it so that the student has it harder than the teacher.

    ``degraded`` and ``produced`` are the shares of a :class:`MixConfig`.
    """
    from safetensors import safe_open

    path, number = segments[int(rng.integers(len(segments)))]
    with safe_open(path, framework="numpy") as stored:
        whole, f0, weight = (stored.get_slice(k)[number] for k in ("samples", "f0", "weight"))
    samples = whole.astype(np.float32) / 32768
    if by_chance(produced, rng):
        samples = degrade.produce(samples, rng)
    return LabelledAudio(degrade.degrade_recording(samples, degraded, rng), f0, weight)
