"""How fast the published melody network is, and how much memory an hour takes.

``qbhkit bench crnn``. The rival is what the same machine can do at most: the network's sixteen
convolutions alone, in the same layout and the batches that suit them best, in the same run. Weights
are random (speed does not depend on them), the signal is noise. Peak memory is that of a process of
its own which tracks M minutes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from qbhkit.audio import Audio
from qbhkit.evaluation.benchmarks import common
from qbhkit.pitch.crnn import CRNN_RATE_HZ, PATCH, PATCH_FRAMES, WIDTHS, CrnnExtractor, MelodyCrnn

BATCHES = (1, 2, 4, 8, 16)  # the rival's best one counts


def tracking(length_s: float) -> Callable[[], object]:
    """Return what tracks so many seconds of noise, with random weights."""
    samples = np.random.default_rng(0).standard_normal(round(length_s * CRNN_RATE_HZ), np.float32)
    audio = Audio(samples / np.float32(10), CRNN_RATE_HZ)
    model = CrnnExtractor(MelodyCrnn(), np.full(PATCH, -30.0), np.full(PATCH, 15.0))
    return lambda: model.track(audio)


def convolutions_s(batch: int) -> float:
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
    tracking(60 * minutes)()
    return {"minutes": minutes, "peak_mb": round(common.memory_mb("VmHWM"))}


def main() -> None:
    options = common.parse(common.arguments(__doc__, minutes=60.0, seconds=60.0))
    memory = common.in_a_process(peak_memory, options.minutes)
    network = options.seconds / common.seconds(tracking(options.seconds))
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
        "memory": memory,
    }
    print(result)
    common.save(options, "bench_crnn", result)
