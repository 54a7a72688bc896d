"""Choose the voicing threshold and judge octave clean-up on the training singers' labelled pitch.

Run as ``qbhkit bench tracker``. Writes data/results/tracker_tuning.json: for every threshold the
mir_eval melody metrics on training singers (the choice) and on the other singers (the check).
"""

from collections.abc import Iterable

import mir_eval.melody
import numpy as np
from common import hums, save
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from swift_f0 import SwiftF0

from qbhkit.audio import load
from qbhkit.corpora.folders import MIR_QBSH_LABEL_HOP_S
from qbhkit.corpora.training_songs import read_split

THRESHOLDS = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)


def without_octave_jumps(pitch_st: NDArray) -> NDArray:
    """Fold frames that lie an octave off the median of the 0.5 s around them onto it."""
    around = median_filter(pitch_st, 31, mode="nearest")
    jump = np.round((pitch_st - around) / 12) * 12
    return pitch_st - jump


def score(rows: Iterable[tuple[NDArray, NDArray, NDArray]], threshold: float) -> dict[str, float]:
    """Pool all frames of (label, pitch, confidence) rows and return mir_eval's metrics."""
    label, pitch, confidence = (np.concatenate(column) for column in zip(*rows, strict=True))
    cents = 100 * (pitch - 69) + 6900
    true_cents = 100 * (label - 69) + 6900
    voiced, found = label > 0, confidence >= threshold
    frames = (voiced, true_cents, found, cents)
    recall, false_alarm = mir_eval.melody.voicing_measures(voiced, found)
    values = {
        "raw_pitch_accuracy": mir_eval.melody.raw_pitch_accuracy(*frames),
        "raw_chroma_accuracy": mir_eval.melody.raw_chroma_accuracy(*frames),
        "voicing_recall": recall,
        "voicing_false_alarm": false_alarm,
        "overall_accuracy": mir_eval.melody.overall_accuracy(*frames),
    }
    return {name: float(value) for name, value in values.items()}


def main() -> None:
    """Track every hum once, then score all thresholds."""
    training = set(read_split("mir_qbsh")["training_singers"])
    model = SwiftF0(spin=False)
    rows: dict[str, list[tuple[NDArray, NDArray, NDArray]]] = {"training": [], "other": []}
    for hum in hums():
        if hum.labelled_st is None:
            continue
        found = model.detect(load(hum.path, 16000).samples, 16000)
        middle_s = (np.arange(len(hum.labelled_st)) + 0.5) * MIR_QBSH_LABEL_HOP_S
        at = np.clip(np.round(middle_s / 0.016).astype(int), 0, len(found.pitch_hz) - 1)
        pitch = 69 + 12 * np.log2(found.pitch_hz / 440)
        side = "training" if hum.singer in training else "other"
        rows[side].append((hum.labelled_st, pitch[at], found.confidence[at]))
    table = {
        side: {str(t): score(rows[side], t) for t in THRESHOLDS} for side in ("training", "other")
    }
    chosen = max(THRESHOLDS, key=lambda t: table["training"][str(t)]["overall_accuracy"])
    folded = [(label, without_octave_jumps(p), c) for label, p, c in rows["training"]]
    result = {
        "tracker": "swift-f0",
        "recordings": {side: len(rows[side]) for side in rows},
        "chosen_threshold": chosen,
        "thresholds": table,
        "with_octave_clean_up": score(folded, chosen),
    }
    save("tracker_tuning", result)
    for side in ("training", "other"):
        print(side, {key: round(value, 4) for key, value in table[side][str(chosen)].items()})
    clean = result["with_octave_clean_up"]
    print("octave clean-up", {key: round(value, 4) for key, value in clean.items()})
    print("threshold", chosen)


if __name__ == "__main__":
    main()
