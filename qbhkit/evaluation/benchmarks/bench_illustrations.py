"""What the pictures of the method show, in numbers: ``qbhkit bench illustrations``.

One bundled hum on its way through the kit, with the tensors of the shipped encoder and its path
through the song that it finds, and every distortion on one melody. Notebook 12 draws from these
numbers alone, and so does its test.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qbhkit.audio import load
from qbhkit.config import read_yaml
from qbhkit.contour import from_f0, from_notes, normalise
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.embedding.augment import Distortions, distort, warp_positions, with_only
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.encoders import activations
from qbhkit.embedding.windows import Reading, cut_query, stretch
from qbhkit.evaluation.benchmarks import common
from qbhkit.pitch.trackers import get_tracker
from qbhkit.storage import asset

HUM = "demo_2.flac"
COLLECTIONS = ("oneills1850", "ryansMammoth")
TUNE = "THE BRAVE VOLUNTEERS"  # from its fourth second on "Oh! Susanna", as in notebook 04
RULES = Path(__file__).with_name("distortions.yaml")


def rounded(values: NDArray[Any], digits: int) -> list[Any]:
    listed: list[Any] = np.round(np.asarray(values, np.float64), digits).tolist()
    return listed


def hum_to_song(embedder: ContourEmbedder) -> dict[str, Any]:
    searcher = common.searcher_of(common.read_corpora(*COLLECTIONS), "illustrations", embedder)
    catalogue = searcher.catalogue
    tracker = get_tracker()
    audio = load(asset(f"hums/{HUM}"), tracker.rate_hz)
    f0 = tracker.track(audio)
    hum = from_f0(f0)
    answers = searcher.search(hum, k=6)
    frames = cut_query(hum, "anywhere", searcher.windows, embedder.reading).frames
    tensors = activations(
        embedder.encoder, torch.from_numpy(normalise(frames[:1], embedder.normalisation))
    )
    number, key_st = catalogue.number[answers[0].song_id], answers[0].transposition_st
    assert key_st is not None
    count = len(f0.voicing)
    edges = np.linspace(0, len(audio.samples), count + 1).astype(int)[:-1]
    lowest, highest = (ends.reduceat(audio.samples, edges) for ends in (np.minimum, np.maximum))
    return {
        "hum": HUM,
        "envelope": rounded(np.stack([lowest, highest], axis=1), 3),
        "f0_hz": rounded(np.where(f0.voiced, f0.frequency_hz, 0), 1),
        "contour": rounded(hum.frames, 2),
        "vector": rounded(embedder.embed(frames)[0], 3),
        "answers": [[answer.title, round(answer.score, 3)] for answer in answers],
        # of each tensor's largest value, as the picture shows it
        "tensors": {
            name: rounded(out[0] / np.abs(out[0]).max(), 2) for name, out in tensors.items()
        },
        "song": rounded(catalogue.contours[number].frames, 2),
        "path": searcher.aligner.path(hum, number, key_st).tolist(),
        "transposition_st": round(key_st, 2),
    }


def distortions() -> dict[str, Any]:
    songs = songs_of(music21_collection("oneills1850"))
    whole = next(song.notes for song in songs if song.title == TUNE)
    assert whole is not None
    notes = whole[(whole[:, 0] >= 4.0) & (whole[:, 0] < 9.3)]
    notes = (notes - [4.0, 0, 14]) * [1.6, 1.6, 1]
    notes[:-1, 1] = np.diff(notes[:, 0])  # each is held until the next ...
    notes[2::4, 1] *= 0.6  # ... but for a few, so that there are rests for the rules of voicing
    melody = from_notes(notes)
    versions = {}
    for name, drawn in read_yaml(RULES).items():
        rules = replace(with_only(Distortions()), **drawn["rules"])
        span, reading = (np.zeros(1), np.full(1, len(melody))), Reading(len(melody))
        at = warp_positions(*span, reading, rules, np.random.default_rng(drawn["seed"]))
        rng = np.random.default_rng(drawn["seed"])
        frames = distort(stretch(melody.frames, at), rules, rng)[0]
        versions[name] = {"rules": drawn["rules"], "frames": rounded(frames, 2)}
    return {"melody": rounded(melody.frames, 2), "versions": versions}


def main() -> None:
    options, embedder = common.parse(common.arguments(__doc__)), ContourEmbedder()
    result = {
        "weights": embedder.identity,
        "hum_to_song": hum_to_song(embedder),
        "distortions": distortions(),
    }
    common.save(options, "illustrations", result)
