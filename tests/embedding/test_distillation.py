import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qbhkit.catalogue.build import build_catalogue
from qbhkit.catalogue.read import open_catalogue
from qbhkit.cli import main as qbhkit
from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.contour import from_notes
from qbhkit.corpora import Song
from qbhkit.embedding import distillation
from qbhkit.embedding.distillation import (
    DistillationConfig,
    StateEmbedder,
    export_student,
    train_student,
)
from qbhkit.embedding.embedder import ContourEmbedder, export_encoder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.rendered_pairs import RenderedBank, RenderedHum, read_rendered, write_rendered
from qbhkit.embedding.sampling import ContourBank, SongPairs
from qbhkit.embedding.training import TrainConfig, train_encoder
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.pitch.frontends import StateContour
from qbhkit.retrieval.searcher import Searcher
from qbhkit.weights import load_weights

CHANNELS = 40
NOTES = 40


def notes_of(number):
    rng = np.random.default_rng([7, number])
    pitch = 62 + np.cumsum(rng.integers(-3, 4, NOTES)) % 12
    return np.stack([0.4 * np.arange(NOTES), np.full(NOTES, 0.4), pitch], axis=1)


def states_of(contour, rng):
    """What a network might know of a pitch: a bump over its channels, and noise."""
    pitch = contour.pitch_st + rng.normal(0, 0.2, len(contour))
    bump = np.exp(-0.5 * ((np.arange(CHANNELS) + 45) - pitch[:, None]) ** 2)
    return np.float32(bump + rng.normal(0, 0.05, bump.shape))


def sung(number, begin=10, count=120, key_st=0.0):
    """A song from frame ``begin`` on as it is tracked, in another key."""
    rng = np.random.default_rng([8, number])
    whole = from_notes(notes_of(number))
    part = replace(whole, frames=whole.frames[begin : begin + count]).transposed(key_st)
    return StateContour(np.concatenate([part.frames, states_of(part, rng)], axis=1))


def hums(count=120):
    rng = np.random.default_rng(0)
    for number in range(count):
        begin, key = int(rng.integers(30)), rng.integers(-5, 6)
        contour = sung(number, begin, key_st=float(key))
        frames = begin + np.arange(len(contour))
        spans = np.stack([frames, frames + 1], axis=1)
        yield RenderedHum(contour.states, spans, from_notes(notes_of(number)), number)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small teacher of contours, and a bank."""
    folder = tmp_path_factory.mktemp("home")
    config = TrainConfig(
        epochs=2, steps_per_epoch=40, batch=48, loss="infonce", negatives=None, threads=1,
        encoder=EncoderConfig((16, 32), 1, heads=2, embedding_dim=64),
    )  # fmt: skip
    songs = ContourBank([from_notes(notes_of(k)) for k in range(300, 500)])
    pairs = SongPairs(songs, config.window, config.augmentation, config.normalisation)
    encoder = train_encoder(config, pairs, folder, folder / "log.json", progress=False)
    export_encoder(encoder, folder / "teacher.safetensors", Reading(80), "key")
    write_rendered(folder / "bank.safetensors", list(hums()), {"states_of": "a bump"})
    return folder


@pytest.fixture(scope="module")
def config(home):
    return DistillationConfig(
        epochs=2, steps_per_epoch=4, batch=32, learning_rate=3e-3, threads=1, watched=64,
        teacher=str(home / "teacher.safetensors"),
        encoder=EncoderConfig((32, 64), 1, heads=2, embedding_dim=64, inputs=CHANNELS),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bank(home):
    return RenderedBank(read_rendered(home / "bank.safetensors"))


def run(folder, config, bank, **kwargs):
    encoder = train_student(config, bank, folder, folder / "log.json", progress=False, **kwargs)
    curve = json.loads((folder / "log.json").read_text())["curve"]
    return encoder, [{k: v for k, v in line.items() if k != "parts_per_s"} for line in curve]


@pytest.fixture(scope="module")
def learnt(home, config, bank):
    """A trained encoder's weights, and its curve."""
    longer = replace(config, epochs=4, steps_per_epoch=40, batch=48)
    encoder, curve = run(home / "learnt", longer, bank)
    teacher = ContourEmbedder(config.teacher)
    export_student(encoder, home / "audio.safetensors", teacher, bank.states_of)
    return home / "audio.safetensors", curve


def room_won(cosine, bank, config):
    """How far a cosine lies on the way from the best single vector for all parts (0) to 1."""
    _, held_back = bank.split(10)
    drawn = held_back.draw(200, Reading(80), config.parts, np.random.default_rng(0))
    truth = ContourEmbedder(config.teacher).embed(drawn.windows)
    floor = float(np.linalg.norm(truth.mean(axis=0)))
    return (cosine - floor) / (1 - floor)


class TestTraining:
    def test_it_lands_near_its_teacher_on_tunes_it_has_not_learnt(self, learnt, bank, config):
        curve = learnt[1]
        assert room_won(curve[-1]["validation_cosine"], bank, config) > 0.2
        assert room_won(curve[-1]["cosine"], bank, config) > 0.2
        assert room_won(curve[0]["validation_cosine"], bank, config) < 0.1
        assert curve[-1]["validation_mrr"] > max(0.3, 2 * curve[0]["validation_mrr"])

    def test_a_seed_gives_a_curve_and_a_stopped_run_goes_on_with_it(
        self, home, config, bank, tmp_path, monkeypatch
    ):
        before = (home / "teacher.safetensors").read_bytes()
        torch.manual_seed(5)
        _, whole = run(tmp_path / "whole", config, bank)
        assert (home / "teacher.safetensors").read_bytes() == before
        torch.manual_seed(6)
        assert run(tmp_path / "other", replace(config, seed=1), bank)[1] != whole
        calls = []

        def stop(found, truth):
            calls.append(len(found))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return 0.0

        with monkeypatch.context() as patch:
            patch.setattr(distillation, "pair_mrr", stop)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "part", config, bank)
        _, resumed = run(tmp_path / "part", config, bank, resume=True)
        assert len(whole) == config.epochs
        assert [line["loss"] for line in resumed] == [line["loss"] for line in whole]
        assert resumed[1:] == whole[1:]

    def test_hums_of_the_same_tune_are_no_negatives(self, home, config, tmp_path):
        """Of two tunes in a batch, all hums but those of the other are left out of the contrast."""
        stored = read_rendered(home / "bank.safetensors")
        losses = []
        for tunes in (np.arange(120), np.arange(120) % 20):
            arrays = {**stored.arrays, "tunes": tunes}
            bank = RenderedBank(stored._replace(arrays=arrays))
            bank.split = lambda _, bank=bank: (bank, bank)  # the same hums, whatever their tunes
            fixed = replace(config, epochs=1, steps_per_epoch=1, batch=120)
            _, curve = run(tmp_path / str(len(losses)), fixed, bank)
            losses.append(curve[0])
        apart, alike = losses
        assert alike["cosine"] == apart["cosine"]
        assert alike["loss"] < apart["loss"] - 1e-3

    def test_without_contrast_the_loss_is_one_minus_the_cosine(self, config, bank, tmp_path):
        _, curve = run(tmp_path, replace(config, contrast=0.0, epochs=1), bank)
        assert curve[0]["loss"] == pytest.approx(1 - curve[0]["cosine"], abs=1e-5)

    def test_what_does_not_fit_is_refused(self, config, bank, tmp_path):
        write_rendered(tmp_path / "one.safetensors", list(hums(1)), {})
        one = RenderedBank(read_rendered(tmp_path / "one.safetensors"))
        nine, short = replace(config.encoder, inputs=9), replace(config.encoder, embedding_dim=32)
        for change, given, message in (
            ({"encoder": nine}, bank, "40 states .*encoder.inputs"),
            ({"encoder": short}, bank, "64 long: set encoder.embedding_dim"),
            ({}, one, r"too few tunes .* render more hums"),
            ({"kind": "melody"}, bank, "kind must be 'state-distillation'"),
            ({"contrast": -1}, bank, "contrast must be at least 0"),
            ({"watched": 0}, bank, "watched must be at least 1"),
        ):
            with pytest.raises(QbhError, match=message):
                run(tmp_path, replace(config, **change), given)
        with pytest.raises(QbhError, match="takes one device"):
            run(tmp_path, config, bank, fabric=SimpleNamespace(world_size=2))

    def test_weights_are_half_as_precise_and_not_too_large(self, config, tmp_path):
        encoder, path = ContourEncoder(config.encoder), tmp_path / "a.safetensors"
        export_student(encoder, path, ContourEmbedder(config.teacher), "x")
        half = load_weights(str(path)).arrays["output.weight"]
        assert half.dtype == np.float16
        np.testing.assert_allclose(half, encoder.output.weight.detach(), rtol=1e-3, atol=1e-6)
        with torch.no_grad():
            encoder.output.bias[3] = 1e5
        with pytest.raises(QbhError, match=r"output\.bias holds values too large for half"):
            export_student(encoder, path, ContourEmbedder(config.teacher), "x")


class TestEmbedder:
    def test_pitch_has_no_part_in_a_vector_and_states_have(self, learnt):
        embedder = StateEmbedder(str(learnt[0]))
        assert (embedder.states_of, embedder.weights[:6]) == ("a bump", "audio-")
        frames = sung(0).frames[None, :80]
        vector = embedder.embed(frames)
        np.testing.assert_allclose(np.linalg.norm(vector, axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(embedder.embed(frames * ([0] * 2 + [1] * CHANNELS)), vector)
        assert np.abs(embedder.embed(frames[:, ::-1]) - vector).max() > 0.01
        assert embedder.embed(frames[:0]).shape == (0, 64)

    def test_other_weights_are_refused_in_both_directions(self, learnt):
        with pytest.raises(QbhError, match=r"stage1 do not hold .*qbhkit train end-to-end"):
            StateEmbedder("stage1")
        with pytest.raises(QbhError, match="do not hold a contour encoder"):
            ContourEmbedder(str(learnt[0]))

    def test_states_are_searched_in_the_teachers_catalogue(self, learnt, config, tmp_path):
        """Songs that neither encoder has seen, sung in other keys."""
        songs = [Song(f"{k:03}", f"Song {k}", "made", notes=notes_of(k)) for k in range(600, 625)]
        build_catalogue(songs, tmp_path, ContourEmbedder(config.teacher), progress=False)
        searcher = Searcher(open_catalogue(tmp_path), StateEmbedder(str(learnt[0])))
        for match_from, begin in (("start", 0), ("anywhere", 20)):
            hits = 0
            for number in range(600, 625):
                hum = sung(number, begin, 110, key_st=float(number % 9 - 4))
                found = searcher.search(hum, 4, match_from)
                hits += f"{number:03}" in [answer.song_id for answer in found]
            assert hits > 16  # 4 of 25 by chance


class TestCommand:
    def write(self, home, folder, **values):
        config = folder / "small.yaml"
        lines = {
            "kind": "state-distillation", "teacher": str(home / "teacher.safetensors"), "epochs": 1,
            "steps_per_epoch": 2, "batch": 8, "threads": 1, "watched": 8,
            "bank": "bank.safetensors",
            "encoder": {"widths": [8], "convolutions": 1, "embedding_dim": 64, "inputs": CHANNELS},
        } | values  # fmt: skip
        config.write_text(json.dumps(lines))
        return config

    def test_it_trains_on_the_bank_beside_its_configuration(self, home, tmp_path, capsys):
        config = self.write(home, home)
        log = ["--log", str(tmp_path / "log.json")]
        assert qbhkit(["train", str(config), "--out", str(tmp_path), *log]) == 0
        assert "120 rendered hums" in capsys.readouterr().err
        assert StateEmbedder(str(tmp_path / "small.safetensors")).states_of == "a bump"
        assert (tmp_path / "curve.svg").is_file()

    def test_a_missing_bank_says_how_to_make_it(self, home, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path))
        config = self.write(home, tmp_path, bank="nothing.safetensors")
        assert qbhkit(["train", str(config), "--out", str(tmp_path)]) == 2
        assert "make it with 'qbhkit data render'" in capsys.readouterr().err

    def test_the_shipped_configuration_fits_the_shipped_network(self):
        path = config_path("end-to-end")
        shipped = build_config(DistillationConfig, read_yaml(path), str(path))
        states = load_weights("crnn-lite").config["states"]
        assert shipped.encoder.inputs == 2 * states
        assert shipped.encoder.embedding_dim == ContourEmbedder(shipped.teacher).embedding_dim
