"""Training pairs a second: at ten thousand and a million songs, and of the whole loop.

``qbhkit bench training``. First, drawing batches: synthetic songs (30 s, 300 frames on average, so
1.2 KB each) are written into shards in the cache, and drawn from there, mapped from disk.

Second, the whole loop with the encoder, loss and batches of configs/stage1.yaml (and all of today's
distortions), against a straightforward loop: the same network as Conv1d in float32, and pairs made
one at a time, as in ``bench augment``. Each takes its turn in every round; medians count.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.contour import Contour, from_pitch
from qbhkit.embedding.contour_shards import open_shards, write_shards
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.losses import make_loss
from qbhkit.embedding.pooling import ContextAttention
from qbhkit.embedding.sampling import ContourBank, SongPairs
from qbhkit.embedding.training import TrainConfig, train_encoder
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.benchmarks.bench_augment import NORMALISATION, RULES, WINDOW, Draw, ways
from qbhkit.storage import cache_dir
from qbhkit.training_loop import generator

CONFIG = replace(
    build_config(TrainConfig, read_yaml(config_path("stage1")), "stage1.yaml"),
    augmentation=RULES, window=WINDOW, normalisation=NORMALISATION,
)  # fmt: skip
NOTES = 75  # of a synthetic song, 2 to 6 frames each
BATCHES = 40  # of a timed draw
ROUNDS, STEPS = 3, 8  # steps of an epoch; the first epoch warms up
FOLDER = cache_dir() / "bench-training"


def songs(count: int) -> Iterator[Contour]:
    """Make up melodies: steps of up to three semitones, and rests."""
    rng = generator(0)
    for _ in range(count):
        notes = np.clip(62 + np.cumsum(rng.integers(-3, 4, NOTES)), 40, 90)
        notes[rng.random(NOTES) < 0.1] = 0
        yield from_pitch(np.repeat(notes, rng.integers(2, 7, NOTES)))


def draw(count: int) -> int:
    write_shards(songs(count), FOLDER / str(count), progress=False)
    batch, _ = ways(open_shards(FOLDER / str(count)), CONFIG.batch)
    taken_s = common.seconds(lambda: [batch(generator(0, item)) for item in range(BATCHES)])
    return round(BATCHES * CONFIG.batch / taken_s)


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


def kit_loop(bank: ContourBank) -> float:
    """Return the pairs a second of the kit's own loop, by its own log."""
    config = replace(CONFIG, epochs=2, steps_per_epoch=STEPS)
    with tempfile.TemporaryDirectory() as name:
        log, source = Path(name) / "log.json", SongPairs(bank, WINDOW, RULES, NORMALISATION)
        train_encoder(config, source, Path(name), log, progress=False)
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


def main() -> None:
    options = common.parse(common.arguments(__doc__, songs=(10_000, 1_000_000)))
    check_the_networks()
    loop: dict[str, list[float]] = {"kit": [], "per_item": []}
    try:
        drawn = {str(count): draw(count) for count in options.songs}
        bank = open_shards(FOLDER / str(options.songs[0]))
        _, per_item = ways(bank, CONFIG.batch)
        for _ in range(ROUNDS):
            loop["kit"].append(kit_loop(bank))
            loop["per_item"].append(plain_loop(per_item))
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
    speeds = list(drawn.values())
    kit, plain = (median(found) for found in loop.values())
    result = {
        "machine": {"threads": CONFIG.threads},
        "batch": CONFIG.batch,
        "drawing": drawn,
        "most_over_fewest_songs": round(speeds[-1] / speeds[0], 2),
        "pairs_per_s": {"loop": {"kit": round(kit), "per_item": round(plain, 1)}},
        "ratios": {"loop": {"kit_over_per_item": round(kit / plain, 1)}},
    }
    print(result)
    common.save(options, "bench_training", result)
