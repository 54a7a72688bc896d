"""A recorded song among 2,048 others, found by distorted hums of itself: ``qbhkit bench song``.

The song's melody is extracted from the full mix, as ``qbhkit catalogue build`` does; its hums are
windows of that melody in another key, at another speed, with a singer's errors. What is measured is
whether a real song survives the whole way; that a stranger's hum finds it cannot be seen from this.
"""

import argparse

import numpy as np
from common import DATABASE, RESULTS, machine, save

from qbhkit.audio import load
from qbhkit.cli import main as qbhkit
from qbhkit.contour import Contour, Reading, from_f0, stretch
from qbhkit.embedding.augment import Distortions, distort, warp_positions
from qbhkit.embedding.encoders import ContourEmbedder
from qbhkit.figures import melody_figure
from qbhkit.melody.lite import LiteExtractor
from qbhkit.melody.trackers import identity_of
from qbhkit.retrieval.catalogue import open_catalogue
from qbhkit.retrieval.evaluate import metrics
from qbhkit.retrieval.search import Searcher
from qbhkit.runs import generator
from qbhkit.storage import cache_dir, data_dir
from qbhkit.weights import DEFAULT_EMBEDDING

PICTURE = RESULTS.parents[1] / "notebooks" / "song_melody.png"  # of notebook 01
SONG = "Karissa_Hobbs_-_Lets_Go_Fishin.hq"
TITLE = "Karissa Hobbs, Let's Go Fishin' (CC BY 3.0)"
SHOWN_S = (62.0, 72.0)
HUM_S = 12.0
VOICED = 0.5  # share of a hum that is sung, at the least
SEED = 20261122


def draw_hums(melody: Contour, count: int) -> tuple[list[Contour], list[float]]:
    """Return distorted windows of a melody, and where in the song each begins (seconds)."""
    length = round(HUM_S / melody.hop_s)
    share = np.convolve(melody.voiced, np.ones(length) / length, mode="valid")
    starts = np.flatnonzero(share >= VOICED)
    rng = generator(SEED)
    chosen = np.sort(rng.choice(starts, count, replace=False))
    rules = Distortions()
    positions = warp_positions(chosen, np.full(count, length), Reading(length), rules, rng)
    sung = distort(stretch(melody.frames, positions), rules, rng)
    sung[..., 0] += np.where(sung[..., 1] > 0, rng.integers(-6, 7, (count, 1)), 0)
    return [Contour(frames) for frames in sung], list(chosen * melody.hop_s)


def main() -> int:
    """Build the catalogue with the recording in it, and search it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hums", type=int, default=50)
    options = parser.parse_args()
    recording = data_dir() / "singing" / "songs" / f"{SONG}.ogg"
    folder = cache_dir() / "mirex-2048-and-a-song"
    arguments = ["catalogue", "build", *DATABASE, str(recording), "--out", str(folder)]
    arguments += ["--tracker", "crnn-lite"]
    if code := qbhkit(arguments):
        return code
    tracker = LiteExtractor()
    audio = load(recording, tracker.rate_hz)
    heard = tracker.melody(audio)
    melody = from_f0(heard.f0)
    figure = melody_figure(audio, heard.f0, heard.posteriors, TITLE, span_s=SHOWN_S)
    figure.savefig(PICTURE, dpi=150, metadata={"Software": None})
    hums, starts_s = draw_hums(melody, options.hums)
    catalogue = open_catalogue(folder)
    searcher = Searcher(catalogue, ContourEmbedder(DEFAULT_EMBEDDING))
    ranks, near = [], 0
    for hum, start_s in zip(hums, starts_s, strict=True):
        answers = searcher.search(hum, k=len(catalogue.songs))
        ids = [answer.song_id for answer in answers]
        ranks.append(ids.index(SONG) + 1)
        found = answers[ranks[-1] - 1]
        near += found.start_s < start_s + HUM_S and found.end_s > start_s
    result = {
        "song": TITLE,
        "songs": len(catalogue.songs),
        "tracker": identity_of("crnn-lite"),
        "voiced": round(float(melody.voiced.mean()), 4),
        "hum_s": HUM_S,
        "ranks": ranks,
        "matched_seconds_overlap": near / len(hums),
        **metrics(ranks)._asdict(),
        "machine": machine(),
    }
    save("song_end_to_end", result)
    print({key: result[key] for key in ("songs", "top1", "top10", "mrr")})
    return 0


if __name__ == "__main__":
    main()
