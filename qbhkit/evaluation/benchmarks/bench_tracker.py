"""Choose the voicing thresholds of the trackers on the training singers' labelled pitch.

Run as ``qbhkit bench tracker [NAME ...]``. Writes data/results/tracker_tuning.json: for the default
tracker and every threshold the mir_eval melody metrics on training singers (the choice) and on the
other singers (the check), and the worth of octave clean-up; for each tracker the same sweep on a
part of the training singers' recordings, and the share of noise it calls voiced. The chosen
threshold has the best overall accuracy of those that call less than 3% of any noise voiced. Without
names every installed tracker is measured; with names the results of the others are kept.
"""

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from swift_f0 import SwiftF0

from qbhkit.audio import Audio, load
from qbhkit.contour import F0_HOP_S, F0Track, hz_to_midi, midi_to_hz
from qbhkit.corpora.folders import MIR_QBSH_LABEL_HOP_S, HumRecording
from qbhkit.corpora.training_songs import read_split
from qbhkit.errors import MissingPackageError
from qbhkit.evaluation.benchmarks.common import RESULTS, hums, save
from qbhkit.metrics import melody_score
from qbhkit.pitch.trackers import TRACKERS, Tracker, get_tracker
from qbhkit.storage import read_json

THRESHOLDS = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
SWEEP = (0.01, 0.02, 0.03, *(round(0.05 * step, 2) for step in range(1, 20)))
NOISES = {"white": 0, "pink": 1, "brown": 2}  # power falls with this power of frequency
MOST_NOISE = 0.03
# Slow trackers get every k-th of the 224 labelled recordings (others every 4th), and less noise.
EVERY = {"torchcrepe-full": 56, "torchcrepe-tiny": 8, "pyin": 8}
NOISE_S = {"torchcrepe-full": 3.0}


def without_octave_jumps(pitch_hz: NDArray) -> NDArray:
    """Fold frames that lie an octave off the median of the 0.5 s around them onto it."""
    pitch_st = hz_to_midi(pitch_hz)
    around = median_filter(pitch_st, 31, mode="nearest")
    return midi_to_hz(pitch_st - np.round((pitch_st - around) / 12) * 12)


def score(rows: Iterable[tuple[NDArray, NDArray, NDArray]], threshold: float) -> dict[str, float]:
    """Pool all frames of (label, pitch, confidence) rows, in Hz, and return the melody metrics."""
    label, pitch, confidence = (np.concatenate(column) for column in zip(*rows, strict=True))
    return melody_score(label, pitch, confidence, threshold)._asdict()


def labels_of(hum: HumRecording) -> tuple[NDArray, NDArray]:
    """Return the labelled pitch of a hum (Hz, 0 where unvoiced) and the moments (s) it is of."""
    assert hum.labelled_st is not None
    middle_s = (np.arange(len(hum.labelled_st)) + 0.5) * MIR_QBSH_LABEL_HOP_S
    return np.where(hum.labelled_st > 0, midi_to_hz(hum.labelled_st), 0.0), middle_s


def coloured_noise(slope: float, rate_hz: int, duration_s: float) -> Audio:
    """Return noise at -20 dB whose power falls with frequency to the ``slope``, above 20 Hz."""
    count = round(duration_s * rate_hz)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / rate_hz), 20.0)
    samples = np.fft.irfft(spectrum * frequency ** (-slope / 2), count)
    return Audio((0.1 * samples / samples.std()).astype(np.float32), rate_hz)


def confidence_of(track: F0Track, threshold: float) -> NDArray:
    """Return a track's confidence before ``rescale_confidence`` made 0.5 of the threshold."""
    return np.interp(track.voicing, [0.0, 0.5, 1.0], [0.0, threshold, 1.0])


def measure(tracker: Tracker, recordings: list[HumRecording]) -> dict[str, Any]:
    """Track recordings and noises once; sweep the threshold, if the tracker has one."""
    own = getattr(tracker, "threshold", None)
    rows = []
    tracks = [tracker.track(load(hum.path, tracker.rate_hz)) for hum in recordings]
    for hum, track in zip(recordings, tracks, strict=True):
        label, middle_s = labels_of(hum)
        at = np.minimum((middle_s / F0_HOP_S).astype(int), len(track.frequency_hz) - 1)
        rows.append((label, track.frequency_hz[at], confidence_of(track, own or 0.5)[at]))
    noise = {
        name: confidence_of(
            tracker.track(coloured_noise(slope, tracker.rate_hz, NOISE_S.get(tracker.name, 10.0))),
            own or 0.5,
        )
        for name, slope in NOISES.items()
    }
    table = {
        str(threshold): score(rows, threshold)
        | {f"voiced_{name}_noise": float((c >= threshold).mean()) for name, c in noise.items()}
        for threshold in (SWEEP if own else (0.5,))
    }
    quiet = [
        threshold
        for threshold, values in table.items()
        if max(values[f"voiced_{name}_noise"] for name in NOISES) < MOST_NOISE
    ]
    best = max(quiet or table, key=lambda threshold: table[threshold]["overall_accuracy"])
    return {
        "recordings": len(recordings),
        "chosen_threshold": float(best) if own else None,
        "thresholds": table,
    }


def tune_default(labelled: list[HumRecording], training: set[str]) -> dict[str, Any]:
    """Track every hum once with swift-f0 and score all thresholds on its own frames."""
    model = SwiftF0(spin=False)
    rows: dict[str, list[tuple[NDArray, NDArray, NDArray]]] = {"training": [], "other": []}
    for hum in labelled:
        label, middle_s = labels_of(hum)
        found = model.detect(load(hum.path, 16000).samples, 16000)
        at = np.clip(np.round(middle_s / 0.016).astype(int), 0, len(found.pitch_hz) - 1)
        side = "training" if hum.singer in training else "other"
        rows[side].append((label, found.pitch_hz[at], found.confidence[at]))
    table = {
        side: {str(t): score(rows[side], t) for t in THRESHOLDS} for side in ("training", "other")
    }
    chosen = max(THRESHOLDS, key=lambda t: table["training"][str(t)]["overall_accuracy"])
    folded = [(label, without_octave_jumps(p), c) for label, p, c in rows["training"]]
    clean = score(folded, chosen)
    result = {
        "tracker": "swift-f0",
        "recordings": {side: len(rows[side]) for side in rows},
        "chosen_threshold": chosen,
        "thresholds": table,
        "with_octave_clean_up": clean,
    }
    for side in ("training", "other"):
        print(side, {key: round(value, 4) for key, value in table[side][str(chosen)].items()})
    print("octave clean-up", {key: round(value, 4) for key, value in clean.items()})
    print("threshold", chosen)
    return result


def main() -> None:
    """Track every hum once with the default tracker, a part of them with each of the trackers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="trackers (default: all)")
    names = parser.parse_args().names
    training = set(read_split("mir_qbsh")["training_singers"])
    labelled = [hum for hum in hums() if hum.labelled_st is not None]
    if not names:
        save("tracker_tuning", {**tune_default(labelled, training), "trackers": {}})
    singers = [hum for hum in labelled if hum.singer in training]
    for name in names or TRACKERS:
        try:
            tracker = get_tracker(name)
        except MissingPackageError as error:
            print(error)
            continue
        found = measure(tracker, singers[:: EVERY.get(name, 4)])
        result = read_json(RESULTS / "tracker_tuning.json", "run it without names first")
        result.setdefault("trackers", {})[name] = found
        values = found["thresholds"][str(found["chosen_threshold"] or 0.5)]
        print(name, found["chosen_threshold"])
        print("    ", {key: round(value, 3) for key, value in values.items()})
        save("tracker_tuning", result)
