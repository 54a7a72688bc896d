"""Training pairs a second: a batch at once against one pair at a time: ``qbhkit bench augment``.

Both make anchor and positive by the same rules, read from the same songs and normalised. The rival
calls the kit's functions for one pair at a time, as a data loader's worker would; code written for
one contour, note by note, took half as long as that.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.random import Generator

from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.sampling import ContourBank, PairBatch, SongPairs
from qbhkit.embedding.windows import WindowRange
from qbhkit.evaluation.benchmarks import common
from qbhkit.training_loop import generator

RULES, WINDOW = Distortions(), WindowRange()
NORMALISATION: Final = "key"
Draw = Callable[[Generator], PairBatch]


def ways(bank: ContourBank, count: int) -> tuple[Draw, Draw]:
    """Return what draws so many pairs at once, and what draws them one by one."""
    source = SongPairs(bank, WINDOW, RULES, NORMALISATION)

    def per_item(rng: Generator) -> PairBatch:
        pairs = [source.draw(1, rng) for _ in range(count)]
        return PairBatch(*(np.concatenate(part) for part in zip(*pairs, strict=True)))

    return lambda rng: source.draw(count, rng), per_item


def main() -> None:
    options = common.parse(common.arguments(__doc__, pairs=512))
    songs = [song.contour() for song in songs_of(music21_collection("oneills1850"))]
    fast, slow = (
        options.pairs / common.seconds(partial(draw, generator(0)))
        for draw in ways(ContourBank(songs), options.pairs)
    )
    result = {
        "pairs_per_s": {"vectorised": round(fast), "per_item": round(slow)},
        "ratio": round(fast / slow, 1),
    }
    print(result)
    common.save(options, "bench_augment", result)
