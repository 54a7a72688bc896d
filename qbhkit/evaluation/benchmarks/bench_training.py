"""Training pairs a second: at ten thousand and a million songs, and of the whole loop.

``qbhkit bench training [--songs N ...]``. First, drawing batches: synthetic songs (30 s, 300 frames
on average, so 1.2 KB each) are written into shards in the cache, and processes of their own draw
from them, mapped and, as the rival, kept in memory as contours. RssAnon is memory that belongs to
the process; RssFile are pages of the mapped file that it has touched, which the system shares
between processes and takes back when it needs them: only the former may not grow with the songs.
Draws are timed with the file in the page cache, and for the mapped bank also after it was dropped
from there (cold).

Second, the whole loop with the encoder, loss and batches of configs/stage1.yaml (and all of today's
distortions), against a straightforward loop: the same network as Conv1d in float32, and pairs made
one at a time, either by the kit's own functions with a batch of one (``batch_of_one``) or by code
written for one contour (``per_item``, see bench_augment). Each takes its turn in every round;
medians count. Both halves of a loop, drawing and the network's step, are also timed alone, which
says what the rest waits for.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.contour import Contour, from_pitch
from qbhkit.embedding.contour_shards import open_shards, write_shards
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.losses import make_loss
from qbhkit.embedding.pooling import ContextAttention
from qbhkit.embedding.sampling import ContourBank, PairBatch, SongPairs, sample_pairs
from qbhkit.embedding.training import TrainConfig, train_encoder
from qbhkit.evaluation.benchmarks.bench_augment import RULES, WINDOW, naive_pairs
from qbhkit.evaluation.benchmarks.common import (
    bytes_in,
    in_a_process,
    machine,
    memory_mb,
    save,
    seconds,
)
from qbhkit.storage import cache_dir, sha256_file
from qbhkit.training_loop import generator

CONFIG = replace(
    build_config(TrainConfig, read_yaml(config_path("stage1")), "stage1.yaml"),
    augmentation=RULES, window=WINDOW, normalisation="key",  # what bench_augment's code does
)  # fmt: skip
NOTES = 75  # of a synthetic song, 2 to 6 frames each
BATCHES, COLD_BATCHES = 40, 10  # of a timed draw
ROUNDS, STEPS = 3, 8  # steps of an epoch; the first epoch warms up
TARGET = 5.0
FOLDER = cache_dir() / "bench-training"


def songs(count: int) -> Iterator[Contour]:
    """Make up melodies: steps of up to three semitones, and rests."""
    rng = generator(0)
    for _ in range(count):
        notes = np.clip(62 + np.cumsum(rng.integers(-3, 4, NOTES)), 40, 90)
        notes[rng.random(NOTES) < 0.1] = 0
        yield from_pitch(np.repeat(notes, rng.integers(2, 7, NOTES)))


def write(count: int) -> dict[str, float]:
    """Write synthetic songs into shards, in a process of its own."""
    began = time.perf_counter()
    bank = write_shards(songs(count), FOLDER / str(count), progress=False)
    taken_s = time.perf_counter() - began
    return {
        "songs_per_s": count / taken_s,
        "frames": len(bank.pitch),
        "disk_mb": bytes_in(FOLDER / str(count)) / 1e6,
        "peak_mb": memory_mb("VmHWM"),
    }


def draw(count: int, mapped: bool) -> dict[str, float]:
    """Draw batches from so many songs, in a process of its own."""
    small = SongPairs(ContourBank([*songs(500)]), WINDOW, RULES, CONFIG.normalisation)
    small.draw(CONFIG.batch, generator(0))  # what is loaded at the first draw
    anon_mb, file_mb = memory_mb("RssAnon"), memory_mb("RssFile")
    began = time.perf_counter()
    bank = open_shards(FOLDER / str(count))
    if not mapped:
        bank = ContourBank([from_pitch(one) for one in np.split(bank.pitch, bank.offsets[1:])])
    found = {"open_s": time.perf_counter() - began}
    source, most = SongPairs(bank, WINDOW, RULES, CONFIG.normalisation), 0.0

    def batches(number: int) -> None:
        nonlocal most
        for item in range(number):
            pairs = source.draw(CONFIG.batch, generator(0, number, item))
            most = max(most, memory_mb("RssAnon"))
            del pairs

    if mapped:
        path = FOLDER / str(count) / "pitch.npy"
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        batches(COLD_BATCHES)
        cold_s = time.perf_counter() - began
        found["cold_pairs_per_s"] = COLD_BATCHES * CONFIG.batch / cold_s
        sha256_file(path)  # back into the page cache
    found["pairs_per_s"] = BATCHES * CONFIG.batch / seconds(lambda: batches(BATCHES))
    return found | {
        "anon_mb_before": anon_mb,
        "anon_mb_most": most,
        "file_mb_more": memory_mb("RssFile") - file_mb,
        "peak_mb": memory_mb("VmHWM"),
    }


def apart(*arguments: object) -> dict[str, float]:
    """Measure in a process of its own and return what it found."""
    found = in_a_process("bench_training", "--only", *arguments)
    return {key: digits(value) for key, value in found.items()}


def digits(value: float) -> float:
    """Round to four digits, whole numbers from 1,000."""
    return round(value) if value >= 1000 else float(f"{value:.4g}")


class PlainEncoder(nn.Module):
    """The same network as one would write it at first."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 2
        for width, pool in zip(config.widths, config.pools, strict=True):
            for _ in range(config.convolutions):
                layers.append(
                    nn.Conv1d(inputs, width, config.kernel, padding=config.kernel // 2, bias=False)
                )
                layers += [nn.BatchNorm1d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool1d(pool))
        self.stages = nn.Sequential(*layers)
        self.pooling = ContextAttention(inputs, config.heads)
        self.output = nn.Linear(inputs, config.embedding_dim)

    def forward(self, contours: Tensor) -> Tensor:
        """Embed (B, L, 2) as (B, D)."""
        frames = self.stages(contours.transpose(1, 2)).transpose(1, 2)  # (B, T, C)
        return nn.functional.normalize(self.output(self.pooling(frames)), dim=1)


def check_the_networks() -> None:
    """See that both networks are one: equal weights give equal embeddings."""
    torch.manual_seed(0)
    ours, plain = ContourEncoder(CONFIG.encoder).eval(), PlainEncoder(CONFIG.encoder).eval()
    plain.load_state_dict(ours.state_dict())
    contours = torch.randn(8, WINDOW.frames, 2)
    with torch.inference_mode():
        torch.testing.assert_close(ours(contours), plain(contours), rtol=0, atol=1e-4)


Draw = Callable[[Generator], PairBatch]


@dataclass
class Drawn:
    """Make a function of a generator a source of pairs."""

    make: Draw
    tunes: int = 0

    def draw(self, count: int, rng: Generator) -> PairBatch:
        """Draw a batch of the size it was made for."""
        return self.make(rng)


def kit_loop(make: Draw) -> float:
    """Return the pairs a second of the kit's own loop, by its own log."""
    config = replace(CONFIG, epochs=2, steps_per_epoch=STEPS)
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log.json"
        train_encoder(config, Drawn(make), Path(name), log, progress=False)
        return float(json.loads(log.read_text())["curve"][-1]["pairs_per_s"])


def plain_loop(make: Draw) -> float:
    """Return the pairs a second of a straightforward loop, in float32."""
    torch.manual_seed(CONFIG.seed)
    network = PlainEncoder(CONFIG.encoder)
    loss = make_loss(CONFIG.loss, CONFIG.mining, temperature=CONFIG.temperature)
    parameters = [*network.parameters(), *loss.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, CONFIG.learning_rate, weight_decay=CONFIG.weight_decay
    )
    for step in range(2 * STEPS):
        if step == STEPS:
            began = time.perf_counter()
        pairs = make(generator(CONFIG.seed, step))
        contours = torch.from_numpy(np.concatenate([pairs.anchors, pairs.positives]))
        anchors, positives = network(contours).chunk(2)
        value = loss(anchors, positives, torch.from_numpy(pairs.groups))
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CONFIG.max_grad_norm)
        optimiser.step()
        value.item()
    return STEPS * CONFIG.batch / (time.perf_counter() - began)


def draw_alone(make: Draw) -> float:
    """Return the pairs a second of drawing."""
    return CONFIG.batch / seconds(lambda: make(generator(0)))


def loops(count: int) -> dict[str, Any]:
    """Time the whole loop, its network and its drawing, ours and the straightforward ones."""
    bank, contours = open_shards(FOLDER / str(count)), [*songs(count)]

    def batch(rng: Generator) -> PairBatch:
        return sample_pairs(bank, CONFIG.batch, WINDOW, RULES, CONFIG.normalisation, rng)

    def batch_of_one(rng: Generator) -> PairBatch:
        single = [
            sample_pairs(bank, 1, WINDOW, RULES, CONFIG.normalisation, rng)
            for _ in range(CONFIG.batch)
        ]
        return PairBatch(*(np.concatenate(part) for part in zip(*single, strict=True)))

    def per_item(rng: Generator) -> PairBatch:
        return naive_pairs(contours, rng.choice(count, CONFIG.batch, replace=False), rng)

    ready = batch(generator(0))
    work: dict[str, dict[str, Callable[[], float]]] = {
        "loop": {
            "kit": lambda: kit_loop(batch),
            "batch_of_one": lambda: plain_loop(batch_of_one),
            "per_item": lambda: plain_loop(per_item),
        },
        "network_alone": {
            "kit": lambda: kit_loop(lambda _: ready),
            "plain": lambda: plain_loop(lambda _: ready),
        },
        "drawing_alone": {
            "kit": lambda: draw_alone(batch),
            "batch_of_one": lambda: draw_alone(batch_of_one),
            "per_item": lambda: draw_alone(per_item),
        },
    }
    rounds = [
        {part: {name: time_it() for name, time_it in ways.items()} for part, ways in work.items()}
        for _ in range(ROUNDS)
    ]
    return {
        part: {name: digits(median(found[part][name] for found in rounds)) for name in ways}
        for part, ways in work.items()
    }


def ratios(speeds: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the kit's speed over every rival's."""
    return {
        part: {f"kit_over_{name}": round(of["kit"] / of[name], 1) for name in of if name != "kit"}
        for part, of in speeds.items()
    }


def main() -> None:
    """Write songs, draw from them, then train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--songs", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        what, count = options.only[0], int(options.only[1])
        found = write(count) if what == "write" else draw(count, mapped=what == "mapped")
        print(json.dumps(found))
        return
    check_the_networks()
    try:
        drawing = {
            str(count): {what: apart(what, count) for what in ("write", "mapped", "in_memory")}
            for count in options.songs
        }
        print(json.dumps(drawing, indent=1))
        speeds = loops(options.songs[0])
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
    first, last = (drawing[str(count)]["mapped"] for count in (options.songs[0], options.songs[-1]))
    against = ratios(speeds)
    result = {
        "machine": machine() | {"threads": CONFIG.threads, "torch": torch.__version__},
        "batch": CONFIG.batch,
        "drawing": drawing,
        "mapped_anon_mb_more": {
            count: digits(of["mapped"]["anon_mb_most"] - of["mapped"]["anon_mb_before"])
            for count, of in drawing.items()
        },
        "most_over_fewest_songs": round(last["pairs_per_s"] / first["pairs_per_s"], 2),
        "pairs_per_s": speeds,
        "ratios": against,
        "network_share_of_kit_loop": round(
            speeds["loop"]["kit"] / speeds["network_alone"]["kit"], 2
        ),
        "target": {"loop_at_least": TARGET}
        | {name: value >= TARGET for name, value in against["loop"].items()},
    }
    save("bench_training", result)
    for key in ("mapped_anon_mb_more", "most_over_fewest_songs", "pairs_per_s", "ratios", "target"):
        print(key, result[key])


if __name__ == "__main__":
    main()
