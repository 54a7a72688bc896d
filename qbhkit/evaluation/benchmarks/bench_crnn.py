"""How fast the published melody network is, and how much memory an hour takes.

``qbhkit bench crnn``. The rival is what the same machine can do at most: the network's sixteen
convolutions alone, in the same layout and the batches that suit them best, in the same run. Weights
are random (speed does not depend on them), the signal is noise. Peak memory is that of a process of
its own which tracks M minutes.
"""

import time
from typing import Any

import numpy as np
import torch

from qbhkit.audio import Audio
from qbhkit.evaluation.benchmarks import common
from qbhkit.pitch.crnn import CRNN_RATE_HZ, PATCH, PATCH_FRAMES, WIDTHS, CrnnExtractor, MelodyCrnn

BATCHES = (1, 2, 4, 8, 16)  # the rival's best one counts


def noise(length_s: float) -> Audio:
    """Return mono noise at 8 kHz."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(round(length_s * CRNN_RATE_HZ), np.float32)
    return Audio(samples / np.float32(10), CRNN_RATE_HZ)


def extractor() -> CrnnExtractor:
    """Return the network with random weights."""
    return CrnnExtractor(MelodyCrnn(), np.full(PATCH, -30.0), np.full(PATCH, 15.0))


def convolutions_s(batch: int) -> float:
    """Return the seconds that the convolutions alone take for one patch."""
    layers, frequencies, inputs = [], PATCH[1], 1
    layout: Any = {"memory_format": torch.channels_last}
    for width in WIDTHS:
        for kernel in (1, 3, 3, 1):
            conv = torch.nn.Conv2d(inputs, width, kernel, padding=kernel // 2)
            x = torch.randn(batch, inputs, PATCH_FRAMES, frequencies)
            layers.append((conv.to(**layout), x.to(**layout)))
            inputs = width
        frequencies //= 4
    with torch.inference_mode():
        return common.seconds(lambda: [conv(x) for conv, x in layers]) / batch


def peak_memory(minutes: float) -> dict[str, Any]:
    """Track noise, and return what it took."""
    audio, model = noise(60 * minutes), extractor()
    began = time.perf_counter()
    model.track(audio)
    taken_s = time.perf_counter() - began
    return {"peak_mb": round(common.memory_mb("VmHWM")), "seconds": taken_s}


def main() -> None:
    options = common.parse(common.arguments(__doc__, minutes=60.0, seconds=60.0))
    memory = common.in_a_process(peak_memory, options.minutes)
    audio, model = noise(options.seconds), extractor()
    network = options.seconds / common.seconds(lambda: model.track(audio))
    per_batch = {batch: PATCH_FRAMES / 100 / convolutions_s(batch) for batch in BATCHES}
    best = max(per_batch, key=lambda batch: per_batch[batch])
    result = {
        "machine": {"threads": torch.get_num_threads()},
        "signal_s": options.seconds,
        "times_real_time": {
            "network": round(network, 2),
            "convolutions_alone": round(per_batch[best], 2),
        },
        "convolutions_batch": best,
        "ratios": {"network_over_convolutions": round(network / per_batch[best], 3)},
        "memory": {
            "minutes": options.minutes,
            "peak_mb": memory["peak_mb"],
            "times_real_time": round(60 * options.minutes / memory["seconds"], 2),
        },
    }
    print(result)
    common.save(options, "bench_crnn", result)
