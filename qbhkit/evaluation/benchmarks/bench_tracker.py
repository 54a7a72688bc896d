"""Choose the voicing thresholds of the trackers on the training singers' labelled pitch.

``qbhkit bench tracker [NAME ...]``: for each tracker (every installed one without names) and every
threshold the mir_eval melody metrics on a part of the training singers' recordings, and the share
of noise that it calls voiced. The chosen threshold has the best overall accuracy of those that call
less than 3% of any noise voiced. The results of other trackers are kept.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio, load
from qbhkit.contour import F0_HOP_S, F0Track, midi_to_hz
from qbhkit.corpora.folders import MIR_QBSH_LABEL_HOP_S, HumRecording
from qbhkit.evaluation.benchmarks import common
from qbhkit.metrics import melody_score
from qbhkit.pitch.trackers import TRACKERS, Tracker, get_tracker
from qbhkit.synthesis import degrade

SWEEP = (0.01, 0.02, 0.03, *(round(0.05 * step, 2) for step in range(1, 20)))
NOISES = {"white": 0, "pink": 1, "brown": 2}  # power falls with this power of frequency
MOST_NOISE = 0.03
# Slow trackers get every k-th of the 224 labelled recordings (others every 4th), and less noise.
EVERY = {"torchcrepe-full": 56, "torchcrepe-tiny": 8, "pyin": 8}
NOISE_S = {"torchcrepe-full": 3.0}


def confidence_of(track: F0Track, threshold: float) -> NDArray:
    """Return a track's confidence before ``rescale_confidence`` made 0.5 of the threshold."""
    return np.interp(track.voicing, [0.0, 0.5, 1.0], [0.0, threshold, 1.0])


def measure(tracker: Tracker, recordings: list[HumRecording]) -> dict[str, Any]:
    """Track recordings and noises once; sweep the threshold, if the tracker has one."""
    own = getattr(tracker, "threshold", None)
    labels, pitches, confidences = [], [], []
    for hum in recordings:
        assert hum.labelled_st is not None
        track = tracker.track(load(hum.path, tracker.rate_hz))
        middle_s = (np.arange(len(hum.labelled_st)) + 0.5) * MIR_QBSH_LABEL_HOP_S
        at = np.minimum((middle_s / F0_HOP_S).astype(int), len(track.frequency_hz) - 1)
        labels.append(np.where(hum.labelled_st > 0, midi_to_hz(hum.labelled_st), 0.0))
        pitches.append(track.frequency_hz[at])
        confidences.append(confidence_of(track, own or 0.5)[at])
    label, pitch, confidence = map(np.concatenate, (labels, pitches, confidences))
    count, noise = round(NOISE_S.get(tracker.name, 10.0) * tracker.rate_hz), {}
    for name, colour in NOISES.items():
        samples = 0.1 * degrade.noise(count, colour, np.random.default_rng(0))
        track = tracker.track(Audio(samples.astype(np.float32), tracker.rate_hz))
        noise[name] = confidence_of(track, own or 0.5)
    table, quiet = {}, []
    for threshold in SWEEP if own else (0.5,):
        voiced = {f"voiced_{k}_noise": float((c >= threshold).mean()) for k, c in noise.items()}
        scores = melody_score(label, pitch, confidence, threshold)._asdict()
        table[str(threshold)] = scores | voiced
        if max(voiced.values()) < MOST_NOISE:
            quiet.append(str(threshold))
    best = max(quiet or table, key=lambda threshold: table[threshold]["overall_accuracy"])
    chosen = float(best) if own else None
    return {"recordings": len(recordings), "chosen_threshold": chosen, "thresholds": table}


def main() -> None:
    parser = common.arguments(__doc__, hums=0)  # 0: all
    parser.add_argument("names", nargs="*", metavar="NAME", help="trackers (default: all)")
    options = common.parse(parser)
    hums, training = common.hums(), common.training_singers()
    labelled = [hum for hum in hums if hum.labelled_st is not None and hum.singer in training]
    for name in common.available(options.names or TRACKERS)[0]:
        found = measure(get_tracker(name), labelled[:: EVERY.get(name, 4)][: options.hums or None])
        values = found["thresholds"][str(found["chosen_threshold"] or 0.5)]
        print(name, found["chosen_threshold"], {key: round(v, 3) for key, v in values.items()})
        common.save(options, "tracker_tuning", found, "trackers", name)
