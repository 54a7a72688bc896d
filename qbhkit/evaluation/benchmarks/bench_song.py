"""A recorded song among 2,048 others, found by distorted hums of itself: ``qbhkit bench song``.

The song's melody is extracted from the full mix, as ``qbhkit catalogue build`` does; its hums are
windows of that melody in another key, at another speed, with a singer's errors. What is measured is
whether a real song survives the whole way; that a stranger's hum finds it cannot be seen from this.
"""

import numpy as np

from qbhkit.audio import load
from qbhkit.catalogue.build import read_sources
from qbhkit.contour import from_f0
from qbhkit.corpora import open_source
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.evaluation.benchmarks import common
from qbhkit.figures import melody_figure
from qbhkit.metrics import metrics, rank_of
from qbhkit.pitch.crnn_lite import LiteExtractor
from qbhkit.pitch.trackers import identity_of
from qbhkit.storage import data_dir
from qbhkit.training_loop import generator

TRACKER = "crnn-lite"
SHOWN_S = (62.0, 72.0)
HUM_S = 12.0
SEED = 20261122


def main() -> None:
    options = common.parse(common.arguments(__doc__, hums=50))
    recording = data_dir() / "singing" / "songs" / f"{common.RECORDING}.ogg"
    (song,), _ = read_sources(open_source(str(recording), data_dir()))
    songs = [*common.read_corpora(*common.DATABASE), song]
    searcher = common.searcher_of(songs, "mirex-2048-and-a-song", ContourEmbedder(), TRACKER)
    tracker = LiteExtractor()
    audio = load(recording, tracker.rate_hz)
    tracked = tracker.melody(audio)
    melody = from_f0(tracked.f0)
    if options.out == common.RESULTS:  # the picture of notebook 01
        figure = melody_figure(
            audio, tracked.f0, tracked.posteriors, common.RECORDING_TITLE, span_s=SHOWN_S
        )
        figure.savefig("notebooks/song_melody.png", dpi=150, metadata={"Software": None})
    length, rng = round(HUM_S / melody.hop_s), generator(SEED)
    starts = np.sort(rng.choice(common.voiced_starts(melody, length), options.hums, replace=False))
    hums = common.hummed(melody, starts, length, rng)
    truth = searcher.catalogue.number[common.RECORDING]
    ranks = [rank_of(found.score, truth) for found in searcher.scores_many(hums)]
    result = {
        "song": common.RECORDING_TITLE,
        "songs": len(songs),
        "tracker": identity_of(TRACKER),
        "hum_s": HUM_S,
        "ranks": ranks,
        **metrics(ranks)._asdict(),
    }
    print(common.brief(result))
    common.save(options, "song_end_to_end", result)
