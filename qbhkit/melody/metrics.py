"""The field's measures of melody extraction, by mir_eval."""

from typing import NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import hz_to_midi
from qbhkit.errors import MissingPackageError


class MelodyScore(NamedTuple):
    """Shares of frames, 0 to 1.

    Raw accuracies count the truly voiced frames whose pitch is within 50 cents (chroma: octaves
    apart are equal), whatever the voicing decision; overall accuracy counts all frames.
    """

    raw_pitch_accuracy: float
    raw_chroma_accuracy: float
    voicing_recall: float
    voicing_false_alarm: float
    overall_accuracy: float


def melody_score(
    true_hz: NDArray, found_hz: NDArray, voicing: NDArray, threshold: float = 0.5
) -> MelodyScore:
    """Score a pitch track frame by frame.

    Args:
        true_hz: (N,) Hz, 0 = unvoiced.
        found_hz: (N,) Hz; a pitch may be given for frames that are called unvoiced.
        voicing: (N,) 0 to 1.
        threshold: of voicing.

    Raises:
        MissingPackageError: if mir_eval is not installed.

    Source: Salamon et al., "Melody extraction from polyphonic music signals", 2014.
    Notebook: notebooks/01_audio_to_melody.py, notebooks/02_trackers.py
    """
    try:
        from mir_eval import melody
    except ImportError:
        raise MissingPackageError("mir_eval is not installed: pip install mir_eval.") from None
    true_voiced, found_voiced = true_hz > 0, (voicing >= threshold) & (found_hz > 0)
    frames = (true_voiced, _cents(true_hz), found_voiced, _cents(found_hz))
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # a track without a voice is a result, no mishap
        recall, false_alarm = melody.voicing_measures(true_voiced, found_voiced)
        values = (
            melody.raw_pitch_accuracy(*frames),
            melody.raw_chroma_accuracy(*frames),
            recall,
            false_alarm,
            melody.overall_accuracy(*frames),
        )
    return MelodyScore(*map(float, values))


def _cents(hz: NDArray) -> NDArray:
    """Return cents above MIDI 0, and 0 (mir_eval's sign for none) where there is no pitch."""
    return np.where(hz > 0, 100 * hz_to_midi(np.maximum(hz, 1e-3)), 0.0)
