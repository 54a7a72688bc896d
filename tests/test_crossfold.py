import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from qbhkit.audio import Audio
from qbhkit.contour import Contour, F0Track, from_pitch, midi_to_hz
from qbhkit.corpora.pairs import align
from qbhkit.corpora.songs import Song
from qbhkit.embedding.encoders import EncoderConfig, export_encoder
from qbhkit.embedding.sampling import ContourBank, HumConfig, Hummed, HumPairs, SongPairs
from qbhkit.embedding.training import TrainConfig, train
from qbhkit.errors import QbhError
from qbhkit.retrieval import crossfold
from qbhkit.retrieval.catalogue import WindowGrid
from qbhkit.retrieval.crossfold import Folds, Ground, SongBook, SungHum, cross_fold, hear, sung_hums
from qbhkit.retrieval.evaluate import Query

CONFIG = TrainConfig(
    epochs=2, steps=4, batch=32, threads=1, loss="infonce", negatives=None, hums=HumConfig(),
    encoder=EncoderConfig((8, 16), 1, heads=2, size=32),
)  # fmt: skip
FOLDS = Folds([["0", "1"], ["2", "3"]], [["ann"], ["bob"]])


def song(number, rng):
    pitch = np.repeat(rng.integers(55, 75, 40), 3)
    track = F0Track(midi_to_hz(pitch), np.ones(len(pitch)), 0.1)
    return Song(str(number), f"song {number}", "here", f0=track)


@pytest.fixture(scope="module")
def ground():
    return small_ground()


def small_ground():
    """Return 8 hums by two singers of 4 of 12 songs."""
    rng = np.random.default_rng(0)
    book = SongBook([song(number, rng) for number in range(12)], WindowGrid(), 80, 0.1)
    hums = []
    for number, singer in product(range(4), ("ann", "bob")):
        sung = Contour(book.contours[number].frames[:70]).transposed(3)
        at = align(sung, book.contours[number])
        query = Query(f"{singer}/{number}", str(number), singer)
        hums.append(SungHum(query, Hummed(sung, number, at)))
    bank = ContourBank([from_pitch(np.repeat(rng.integers(55, 75, 40), 3)) for _ in range(40)])
    pairs = SongPairs(bank, CONFIG.window, CONFIG.rules, CONFIG.normalisation)
    return Ground(hums, FOLDS, book, pairs)


def fold(ground, folder, config=CONFIG, **kwargs):
    return cross_fold(config, ground, folder, progress=False, **kwargs)


def test_a_model_knows_neither_song_nor_singer_of_what_it_scores(ground, tmp_path, monkeypatch):
    learnt, scored = [], []

    class Watched(HumPairs):
        def __init__(self, hums, *rest):
            learnt.append([ground.hums[[h.hummed for h in ground.hums].index(x)] for x in hums])
            super().__init__(hums, *rest)

    def rank(searcher, contour, song_id, anchor):
        if anchor == "start":
            scored.append((len(learnt) - 1, song_id))
        return 1

    monkeypatch.setattr(crossfold, "HumPairs", Watched)
    monkeypatch.setattr(crossfold, "_rank", rank)
    fold(ground, tmp_path)
    assert len(learnt) == 4
    assert sorted(name for _, name in scored) == sorted(hum.query.song_id for hum in ground.hums)
    for number, name in scored:
        assert name not in {hum.query.song_id for hum in learnt[number]}
    singers = [{hum.query.singer for hum in hums} for hums in learnt]
    assert singers == [{"bob"}, {"ann"}, {"bob"}, {"ann"}]


def test_the_ranks_of_all_hums_are_pooled_with_intervals(ground, tmp_path):
    found = fold(ground, tmp_path)
    assert set(found) == {"start", "anywhere"}
    for block in found.values():
        assert block["n"] == len(block["ranks"]) == 8
        assert all(1 <= rank <= 12 for rank in block["ranks"])
        assert set(block["per_singer"]) == {"ann", "bob"}
        assert set(block["intervals"]) == {"top1", "top5", "top10", "mrr"}
    json.dumps(found)


def test_stress_searches_the_same_hums_in_other_keys_and_tempi(ground, tmp_path):
    found = fold(ground, tmp_path, stress=True)
    assert len(found) == 10
    for anchor in ("start", "anywhere"):
        for semitones in ("+7", "-5"):
            moved = found[f"{anchor}, {semitones} semitones"]["ranks"]
            assert moved == found[anchor]["ranks"]  # key-invariant by construction
        assert {f"{anchor}, stretched by {factor}" for factor in ("0.7", "1.4")} <= set(found)


def test_stretching_keeps_the_tune():
    contour = from_pitch(np.repeat([60, 62, 64], 10))
    for factor in (0.7, 1.4):
        longer = crossfold._stretched(contour, factor)
        assert len(longer) == round(30 * factor)
        values, counts = np.unique(longer.pitch_st, return_counts=True)
        assert list(values) == [60, 62, 64]
        np.testing.assert_allclose(counts, 10 * factor, atol=1)


def test_a_stopped_run_uses_the_models_it_has(ground, tmp_path, monkeypatch):
    whole = fold(ground, tmp_path)
    missing = tmp_path / "fold-2" / "encoder.safetensors"
    missing.unlink()
    trained = []

    def counted(*args, **kwargs):
        trained.append(args)
        return train(*args, **kwargs)

    monkeypatch.setattr(crossfold, "train", counted)
    assert fold(ground, tmp_path) == whole
    assert len(trained) == 1


def test_without_hums_the_weights_are_scored_as_they_are(ground, tmp_path, monkeypatch):
    config = replace(CONFIG, hums=None)
    encoder = train(config, ground.source, tmp_path, tmp_path / "log.json", progress=False)
    export_encoder(encoder, tmp_path / "one.safetensors", 80, "key")
    monkeypatch.setattr(crossfold, "train", None)
    found = fold(ground, tmp_path, replace(config, start=str(tmp_path / "one.safetensors")))
    assert found["start"]["n"] == 8


class Tracker:
    name, rate_hz = "stub", 8000

    def __init__(self, contour):
        self.contour = contour

    def track(self, audio):
        pitch = np.repeat(self.contour.pitch_st, 10)
        return F0Track(np.where(pitch > 0, midi_to_hz(pitch), 0), (pitch > 0).astype(np.float32))


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setattr(
        crossfold, "load", lambda path, rate_hz: Audio(np.ones(rate_hz, np.float32), rate_hz)
    )
    return Path("hum.wav")


def test_a_hum_is_heard_and_laid_along_its_stretch(ground, recording):
    whole = ground.book.contours[1]
    tracker = Tracker(Contour(whole.frames[30:90]))
    found = hear(recording, 1, whole, tracker, start_s=3.0, end_s=9.0)
    assert found.song == 1
    assert (found.at.song_s[0], found.at.song_s[-1]) == pytest.approx((3.05, 8.95), abs=0.3)
    assert found.at.distance_st < 0.1
    assert hear(recording, 1, whole, tracker).at.distance_st > 0.5  # not from the beginning


def test_an_unvoiced_hum_or_an_unknown_song_is_named(ground, recording):
    silent = Tracker(Contour(np.zeros((50, 2))))
    with pytest.raises(QbhError, match=r"hum\.wav: there is nothing voiced"):
        hear(recording, 0, ground.book.contours[0], silent)
    with pytest.raises(QbhError, match=r"hum\.wav hums 77, which is not among the songs"):
        sung_hums([Query("hum.wav", "77", None)], ground.book, silent, progress=False)
