import json
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import soundfile

from qbhkit.cli import main as qbhkit
from qbhkit.contour import Contour, F0Track, from_pitch, midi_to_hz
from qbhkit.corpora.folders import EVALUATION_YEAR
from qbhkit.corpora.hum_csv import read_pairs
from qbhkit.corpora.songs import Song
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.encoders import EncoderConfig
from qbhkit.embedding.hum_pairs import AlignedHum, HumConfig, HumPairs, align_contours
from qbhkit.embedding.sampling import ContourBank, SongPairs
from qbhkit.embedding.training import FineTune, TrainConfig
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.evaluation import cross_validation
from qbhkit.evaluation.cross_validation import (
    CrossValidationData,
    EmbeddedSongs,
    ExternalTest,
    Folds,
    LabelledHum,
    cross_validate,
    ioacas_test,
    label_hums,
)
from qbhkit.metrics import LabelledQuery
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval.confidence import Calibration, Case
from qbhkit.synthesis.singer import Voice, render_hum

CONFIG = TrainConfig(
    epochs=2, steps_per_epoch=4, batch=32, threads=1, loss="infonce", negatives=None,
    hums=HumConfig(), encoder=EncoderConfig((8, 16), 1, heads=2, embedding_dim=32),
)  # fmt: skip
FOLDS = Folds([["0", "1"], ["2", "3"]], [["ann"], ["bob"]])


def song(number, rng, rest_s=0.0):
    pitch = np.repeat(rng.integers(55, 75, 40), 3)
    pitch = np.insert(pitch.astype(float), 60, np.zeros(round(rest_s / 0.1)))
    hz = np.where(pitch > 0, midi_to_hz(pitch), 0.0)
    track = F0Track(hz, (pitch > 0).astype(float), 0.1)
    return Song(str(number), f"song {number}", "here", f0=track)


@pytest.fixture(scope="module")
def cv_data():
    return small_data()


def small_data():
    """Return 8 hums by two singers of 4 of 12 songs."""
    rng = np.random.default_rng(0)
    embedded = EmbeddedSongs([song(number, rng) for number in range(12)], Reading(80), 0.1)
    hums = []
    for number, singer in product(range(4), ("ann", "bob")):
        sung = Contour(embedded.contours[number].frames[:70]).transposed(3)
        at = align_contours(sung, embedded.contours[number])
        query = LabelledQuery(f"{singer}/{number}", str(number), singer)
        hums.append(LabelledHum(query, AlignedHum(sung, number, at)))
    bank = ContourBank([from_pitch(np.repeat(rng.integers(55, 75, 40), 3)) for _ in range(40)])
    pairs = SongPairs(bank, CONFIG.window, CONFIG.augmentation, CONFIG.normalisation)
    return CrossValidationData(hums, FOLDS, embedded, pairs)


def fold(cv_data, folder, config=CONFIG, **kwargs):
    return cross_validate(config, cv_data, folder, progress=False, **kwargs)


@pytest.fixture(scope="module")
def folded(cv_data, tmp_path_factory):
    """The result by three methods, under stress, and the folder of the models."""
    folder = tmp_path_factory.mktemp("folds")
    return fold(cv_data, folder, stress=True, methods=("vote", "full", "vector")), folder


def watched(monkeypatch, name):
    """Record what a function of the module is called with, and call it still."""
    calls, function = [], getattr(cross_validation, name)

    def call(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    monkeypatch.setattr(cross_validation, name, call)
    return calls


def test_no_hum_is_scored_by_a_model_trained_on_its_song_or_its_singer(
    cv_data, tmp_path, monkeypatch
):
    trained_on, scored = [], []

    class Watched(HumPairs):
        def __init__(self, hums, *rest):
            trained_on.append(
                [cv_data.hums[[h.aligned for h in cv_data.hums].index(x)] for x in hums]
            )
            super().__init__(hums, *rest)

    def score_hums(match_from, contours, truths):
        if match_from == "start":
            scored.extend((len(trained_on) - 1, str(song)) for song in truths)
        return [Case(np.array([0.5]), 0)] * len(truths)

    monkeypatch.setattr(cross_validation, "HumPairs", Watched)
    monkeypatch.setattr(
        cross_validation, "by_search", lambda searcher, method, match_from: match_from
    )
    monkeypatch.setattr(cross_validation, "score_hums", score_hums)
    fold(cv_data, tmp_path)
    assert len(trained_on) == 4
    assert sorted(name for _, name in scored) == sorted(hum.query.song_id for hum in cv_data.hums)
    for number, name in scored:
        assert name not in {hum.query.song_id for hum in trained_on[number]}
    singers = [{hum.query.singer for hum in hums} for hums in trained_on]
    assert singers == [{"bob"}, {"ann"}, {"bob"}, {"ann"}]


def test_the_best_copy_is_chosen_on_hums_held_out(cv_data, tmp_path, monkeypatch):
    """Neither on hums that it learnt, nor on those that the fold is scored on."""

    class Kept(HumPairs):
        def __init__(self, hums, *rest):
            self.given = list(hums)
            super().__init__(hums, *rest)

    def train_encoder(config, source, folder, log, pairs, evaluate, **kwargs):
        learnt, held = pairs.given, chosen[-1][1].given
        assert len(learnt) == len(held) == 1  # of 4 songs by 2 singers in one fold of each
        assert learnt[0].song != held[0].song
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "HumPairs", Kept)
    chosen = watched(monkeypatch, "hum_evaluator")
    monkeypatch.setattr(cross_validation, "train_encoder", train_encoder)
    with pytest.raises(KeyboardInterrupt):
        fold(cv_data, tmp_path, replace(CONFIG, fine_tune=FineTune(every=1, steps=1)))


def test_the_ranks_of_all_hums_are_pooled_by_every_method(cv_data, folded):
    found, folder = folded
    alone = fold(cv_data, folder, methods=("vector",))  # the models are there
    assert alone == found["methods"]["vector"]
    assert list(found["methods"]) == ["full", "vector"]
    for block in (found, *found["methods"].values()):
        for match_from in ("start", "anywhere"):
            part = block[match_from]
            assert part["n"] == len(part["ranks"]) == 8
            assert all(1 <= rank <= 12 for rank in part["ranks"])
            assert set(part["per_singer"]) == {"ann", "bob"}
            assert set(part["intervals"]) == {"top1", "top5", "top10", "mrr"}
    # the hums are their songs in another key: what aligns them finds them
    assert found["methods"]["full"]["start"]["top1"] == 1
    Calibration(**found["calibration"])
    assert set(found["refusal"]) == {"start", "anywhere"}
    assert found["refusal"]["start"]["kept"] > 0.5
    json.dumps(found)


def test_hums_of_a_part_are_scored_apart_by_the_same_models(cv_data, folded):
    found, folder = folded
    parted = [
        hum._replace(part="later") if hum.query.singer == "bob" else hum for hum in cv_data.hums
    ]
    again = fold(cv_data._replace(hums=parted), folder, methods=("vote", "full", "vector"))
    for match_from in ("start", "anywhere"):
        whole, ann, bob = (
            block["per_singer"]
            for block in (found[match_from], again[match_from], again[f"{match_from}, later"])
        )
        assert ann == {"ann": whole["ann"]}
        assert bob == {"bob": whole["bob"]}
    assert again["calibration"] == pytest.approx(found["calibration"])
    assert set(again["refusal"]) >= {"start, later", "anywhere, later"}


def test_stress_searches_the_same_hums_in_other_keys_and_tempi(folded):
    found, _ = folded
    for match_from in ("start", "anywhere"):
        for semitones in ("+7", "-5"):
            moved = found[f"{match_from}, {semitones} semitones"]["ranks"]
            assert moved == found[match_from]["ranks"]  # key-invariant by construction
        assert {f"{match_from}, stretched by {factor}" for factor in ("0.7", "1.4")} <= set(found)
    hum = small_data().hums[0]
    contour = from_pitch(np.repeat([60, 62, 64], 10))
    hums = [hum._replace(aligned=hum.aligned._replace(hum=contour)), hum._replace(part="others")]
    searches = [*cross_validation._searched(hums, [0, 1], True)]
    searched = {name: contours for name, _, _, contours in searches}
    assert [which for _, _, which, _ in searches] == 2 * [*5 * [[0]], [1]]
    assert set(searched) - set(found) == {"start, others", "anywhere, others"}  # no stress test
    for factor in (0.7, 1.4):  # the tune is kept
        (longer,) = searched[f"anywhere, stretched by {factor}"]
        values, counts = np.unique(longer.pitch_st, return_counts=True)
        assert list(values) == [60, 62, 64]
        np.testing.assert_allclose(counts, 10 * factor, atol=1)


def test_models_are_made_once_and_again_for_another_recipe_or_other_hums(
    cv_data, folded, tmp_path, monkeypatch
):
    found, folder = folded
    shutil.copytree(folder, tmp_path / "folds")
    (tmp_path / "folds" / "fold-2" / "encoder.safetensors").unlink()  # a run that was stopped
    trained = watched(monkeypatch, "train_encoder")
    assert fold(cv_data, tmp_path / "folds")["start"] == found["start"]
    assert len(trained) == 1
    other = replace(CONFIG, learning_rate=2e-3)
    fold(cv_data, tmp_path / "folds", other)
    assert [config.learning_rate for config, *_ in trained[1:]] == [2e-3] * 4
    moved = [
        hum._replace(aligned=hum.aligned._replace(hum=hum.aligned.hum.transposed(1)))
        for hum in cv_data.hums
    ]
    fold(cv_data._replace(hums=moved), tmp_path / "folds", other)
    assert len(trained) == 9


def test_models_are_made_again_when_the_alignments_change(cv_data, folded):
    hums = [hum.aligned for hum in cv_data.hums]
    late = [hum._replace(at=hum.at._replace(song_s=hum.at.song_s + 0.1)) for hum in hums]
    far = [hum._replace(at=hum.at._replace(distance_st=9.0)) for hum in hums]
    hashes = [cross_validation._made_of(CONFIG, some)["hums"] for some in (hums, hums, late, far)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_recipe_that_finds_nothing_has_a_result_too(cv_data, folded, monkeypatch):
    nowhere = Case(np.array([0.9, 0.1]), 1)
    monkeypatch.setattr(cross_validation, "score_hums", lambda *args: [nowhere] * len(args[1]))
    found = fold(cv_data, folded[1], methods=("vote", "full"))
    assert set(found) == {"start", "anywhere", "methods"}
    monkeypatch.setattr(cross_validation, "score_hums", lambda *args: [None] * len(args[1]))
    assert fold(cv_data, folded[1], methods=("full",))["start"]["top1"] == 0


def test_without_hums_to_calibrate_on_one_sentence_says_so():
    found = [(Case(np.array([0.9, 0.1, 0.2]), truth), str(truth)) for truth in (0, 1)]
    with pytest.raises(QbhError, match="needs hums that find their songs"):
        cross_validation._calibrated({"start": [], "anywhere": found}, Calibration())


def test_an_unvoiced_hum_or_an_unknown_song_is_named(cv_data, tmp_path):
    soundfile.write(tmp_path / "hum.wav", np.zeros(32000), 16000)
    for song_id, says in (("0", ": there is nothing voiced"), ("77", " hums 77, which is not")):
        query = LabelledQuery(str(tmp_path / "hum.wav"), song_id, None)
        with pytest.raises(QbhError, match=rf"hum\.wav{says}"):
            label_hums([query], cv_data.songs, get_tracker(), progress=False)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, tunes, write_midi):
    """Three songs of MIR-QBSH and three others, hummed by two singers of different folds."""
    data = tmp_path_factory.mktemp("data")
    split = read_split("mir_qbsh")
    ids = [fold[0] for fold in split["song_folds"]]
    folds = split["singer_folds"][:2]
    singers = [next(name for name in fold if EVALUATION_YEAR in name) for fold in folds]
    rng = np.random.default_rng(0)
    for number, (song_id, tune) in enumerate(zip(ids, tunes[:3], strict=True)):
        write_midi(data / "mir-qbsh" / "midiFile" / f"{song_id}.mid", tune.notes)
        write_midi(data / "mirex-essen-2000" / f"{number + 49:05}.mid", tunes[number + 3].notes)
        for singer in singers:
            begun = tune.notes[tune.notes[:, 0] < 7]
            hum = render_hum(begun, Voice(key_st=float(rng.integers(-4, 5))), rng)
            path = data / "mir-qbsh" / "waveFile" / singer / f"{song_id}.wav"  # year/person
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, hum.audio.samples, hum.audio.rate_hz)
    return data


SMALL = """corpora: [miscFolk]
epochs: 1
steps_per_epoch: 2
batch: 16
threads: 1
loss: infonce
mining: all
pairs: pairs.csv
songs: [mir-qbsh]
hums: {share: 0.5}
encoder: {widths: [8, 16], convolutions: 1, heads: 2, embedding_dim: 32}
"""


def test_the_commands_from_pairs_to_cross_validation(corpora, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.yaml").write_text(SMALL)
    data = ["--data", str(corpora)]
    assert qbhkit(["data", "pairs", *data]) == 0
    pairs = read_pairs(tmp_path / "cache" / "pairs.csv")
    assert len(pairs) == 6
    assert all(pair.start_s < 0.3 and 4 < pair.end_s < 12 for pair in pairs)
    one = ["--out", str(tmp_path / "run"), "--log", str(tmp_path / "log.json")]
    assert qbhkit(["train", str(tmp_path / "small.yaml"), *one, *data]) == 0
    weights = str(tmp_path / "run" / "small.safetensors")
    config = tmp_path / "tuned.yaml"
    config.write_text(f"{SMALL}init_from: {weights}\n")
    out = tmp_path / "folds.json"
    fold = ["cross-validate", str(config), "--out", str(out), *data]
    assert qbhkit([*fold, "--models", str(tmp_path / "folds"), "--stress"]) == 0
    found = json.loads(out.read_text())
    assert found["songs"] == 6
    assert found["anywhere"]["n"] == 6
    assert found["anywhere, +7 semitones"]["ranks"] == found["anywhere"]["ranks"]
    assert sorted(path.name for path in (tmp_path / "folds").iterdir()) == [
        f"fold-{number}" for number in range(9)
    ]
    assert qbhkit([*fold, "--no-finetune"]) == 0
    assert json.loads(out.read_text())["config"]["hums"] is None
    assert "top1" in capsys.readouterr().out


def test_the_command_of_the_ablation(corpora, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "grid.yaml").write_text(
        "base: {corpora: [miscFolk], threads: 1, loss: infonce, mining: all, batch: 16,\n"
        "  encoder: {widths: [8, 16], convolutions: 1, heads: 2, embedding_dim: 32}}\n"
        "tune: {hums: {share: 0.5}}\n"
        "budgets: {tiny: {songs: {epochs: 1, steps_per_epoch: 2},\n"
        "  tune: {epochs: 1, steps_per_epoch: 2}}}\n"
        "rows: [{name: whole}, {name: songs alone, stages: songs}]\n"
    )
    command = ["ablate", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "t.json")]
    assert qbhkit([*command, "--budget", "tiny", "--data", str(corpora)]) == 0
    assert "songs alone" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "t.json").read_text())["rows"]) == 2
    assert qbhkit([*command, "--budget", "huge", "--data", str(corpora)]) == 2
    assert "no budget 'huge'" in capsys.readouterr().err


def test_a_corpus_without_the_singers_of_the_folds_is_refused(corpora, tmp_path, capsys):
    folder = tmp_path / "mir-qbsh"
    shutil.copytree(corpora / "mir-qbsh" / "midiFile", folder / "midiFile")
    shutil.copytree(corpora / "mirex-essen-2000", tmp_path / "mirex-essen-2000")
    wav = next(corpora.glob("mir-qbsh/waveFile/*/*/*.wav"))
    for year, singer in (("year2009", "somebody"), ("year2010", wav.parent.name)):
        other = folder / "waveFile" / year / singer / wav.name
        other.parent.mkdir(parents=True)
        shutil.copy(wav, other)
    (tmp_path / "small.yaml").write_text(SMALL + "init_from: best\n")
    command = ["cross-validate", str(tmp_path / "small.yaml"), "--data", str(tmp_path)]
    assert qbhkit([*command, "--out", str(tmp_path / "o.json")]) == 2
    assert "no hum of the singers" in capsys.readouterr().err


def test_queries_without_rests_are_searched_among_songs_without_rests(cv_data, folded):
    rng = np.random.default_rng(3)
    songs = [song(number, rng, rest_s=1.0) for number in range(12)]
    embedded = EmbeddedSongs(songs, Reading(80), 0.1, rests=False)
    assert all(contour.voiced.all() for contour in embedded.contours)
    assert not any(one.contour().voiced.all() for one in songs)
    contours = [Contour(embedded.contours[k].frames[20:90]) for k in range(5)]
    queries = [LabelledQuery(f"q{k}", str(k), None) for k in range(5)]
    cv_data = cv_data._replace(external=ExternalTest(queries, contours, embedded))
    found = fold(cv_data, folded[1])
    assert set(found) == {"start", "anywhere", "ioacas"}
    assert found["ioacas"]["n"] == 5
    assert found["ioacas"]["top10"] > 0.5  # of 12 songs, by a model trained for 8 steps


def test_songs_of_two_corpora_with_the_same_number_are_not_mixed_up(tmp_path):
    """IOACAS numbers its songs as MIREX does; a query must find its own."""
    folder = tmp_path / "ioacas"
    folder.mkdir()
    pitch = np.repeat(np.arange(60, 90), 4)
    np.savez(folder / "ioacas_melodies_100ms_midi.npz", **{"00003": pitch})
    np.savez(folder / "ioacas_queries_parselmouth_340.npz", q1=np.repeat(pitch, 10))
    (folder / "ioacas_queries_parselmouth_340_labels.json").write_text('{"q1": "00003"}')
    others = [replace(song(3, np.random.default_rng(0)), id="00003")]
    found = ioacas_test(Reading(80), 0.1, tmp_path, others)
    (number,) = (found.songs.number[query.song_id] for query in found.queries)
    np.testing.assert_allclose(found.songs.contours[number].pitch_st, pitch, atol=1e-3)
    assert len(found.songs.contours) == 2
    with pytest.raises(QbhError, match="same id"):
        EmbeddedSongs([*others, *others], Reading(80), 0.1)
