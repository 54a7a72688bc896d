import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.errors import QbhError
from qbhkit.pitch import training
from qbhkit.pitch.crnn import CLASS_MIDI, CLASSES
from qbhkit.pitch.crnn_lite import HarmonicStack, LiteConfig, LiteExtractor, export_lite
from qbhkit.pitch.training import (
    MelodyTrainConfig,
    features,
    mixture_evaluator,
    pitch_loss,
    targets,
    train_melody_network,
    watch,
)
from qbhkit.synthesis.mixing import MIX_HOP, MIX_RATE_HZ, Excerpt, MixConfig

TINY = MelodyTrainConfig(
    epochs=3, steps_per_epoch=3, batch=2, learning_rate=1e-2,
    watched=2, threads=1, workers=0, bfloat16=False,
    mix=MixConfig(vocal_free=0.2, degraded=0.05),
    network=LiteConfig(harmonics=(1, 2), channels=4, wide=(4, 4), states=8),
)  # fmt: skip


def excerpt(seed):
    """Eight seconds: a voice with two harmonics that changes its note, over noise."""
    rng = np.random.default_rng(seed)
    f0 = np.repeat(440 * 2 ** ((rng.integers(52, 68, 8) - 69) / 12), 100)
    f0[::100] = f0[50:100] = 0
    phase = 2 * np.pi * np.cumsum(np.repeat(f0, MIX_HOP)) / MIX_RATE_HZ
    voice = 0.2 * (np.sin(phase) + 0.5 * np.sin(2 * phase)) * np.repeat(f0 > 0, MIX_HOP)
    accompaniment, lead = rng.normal(0, 0.1, (2, len(voice)))
    return Excerpt(*(stem.astype(np.float32) for stem in (accompaniment, lead, voice, f0)))


@pytest.fixture(scope="module")
def bank():
    return [excerpt(seed) for seed in range(3)]


def run(bank, folder, config=TINY, **kwargs):
    train_melody_network(config, bank, [], folder, folder / "log.json", progress=False, **kwargs)
    return curve(folder / "log.json")


def curve(path):
    """The curve without its only figure that depends on the clock."""
    return [
        {key: value for key, value in line.items() if key != "audio_s_per_s"}
        for line in json.loads(path.read_text())["curve"]
    ]


def stop_at(call):
    def evaluate(network):
        evaluate.calls += 1
        if evaluate.calls == call:
            raise KeyboardInterrupt
        return {}

    evaluate.calls = 0
    return evaluate


@pytest.fixture(scope="module")
def whole(bank, tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    run(bank, folder)
    return folder


class TestTrain:
    def test_the_loss_falls(self, whole):
        losses = [line["loss"] for line in curve(whole / "log.json")]
        assert len(losses) == TINY.epochs
        assert losses[-1] < 0.8 * losses[0]

    def test_a_stopped_run_resumes_with_the_same_curve(self, bank, whole, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            run(bank, tmp_path, evaluate=stop_at(2))
        assert len(curve(tmp_path / "log.json")) == 1
        assert run(bank, tmp_path, resume=True) == curve(whole / "log.json")
        one, other = (
            torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
            for folder in (whole, tmp_path)
        )
        assert all(torch.equal(one[key], other[key]) for key in one)

    def test_what_was_trained_is_what_is_exported(self, bank, tmp_path):
        config = replace(TINY, epochs=1, steps_per_epoch=1)
        network = train_melody_network(
            config, bank, [], tmp_path, tmp_path / "log.json", progress=False
        )
        assert not network.training
        export_lite(network, tmp_path / "lite.safetensors")
        loaded = LiteExtractor(str(tmp_path / "lite.safetensors"))
        kept = loaded._network.state_dict()
        assert all(torch.equal(value, kept[key]) for key, value in network.state_dict().items())


def f0_of(*midi):
    """One row of Hz; None is unvoiced."""
    hz = [0.0 if one is None else 440 * 2 ** ((one - 69) / 12) for one in midi]
    return torch.tensor([hz], dtype=torch.float32)


class TestTargets:
    @pytest.mark.parametrize("midi", [40, 69.0625, 95])
    def test_a_voiced_frame_is_a_bell_around_its_pitch(self, midi):
        bell = targets(f0_of(midi, midi), 0.2)[0, 0].numpy()
        assert bell[0] == 0
        assert bell.sum() == pytest.approx(1, abs=1e-5)
        naive = np.exp(-0.5 * ((CLASS_MIDI - midi) / 0.2) ** 2)
        np.testing.assert_allclose(bell[1:], naive / naive.sum(), atol=1e-4)

    def test_half_voiced_is_half_class_0(self):
        wanted = targets(f0_of(69, None), 0.2)[0, 0]
        assert wanted[0] == 0.5
        assert wanted[1:].sum() == pytest.approx(0.5, abs=1e-5)
        assert wanted[1:].argmax() == 8 * 29

    @pytest.mark.parametrize("midi", [None, 39.9, 95.1])
    def test_without_a_pitch_in_range_a_frame_is_class_0(self, midi):
        wanted = targets(f0_of(midi, midi), 0.2)
        assert wanted.shape == (1, 1, CLASSES)
        assert wanted[0, 0, 0] == 1
        assert not wanted[0, 0, 1:].any()


def test_the_loss_is_the_naive_one():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 3, CLASSES))
    wanted = rng.dirichlet(np.ones(CLASSES), (2, 3))
    naive = -np.sum(wanted * np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)))
    found = pitch_loss(torch.from_numpy(logits), torch.from_numpy(wanted))
    assert found.item() == pytest.approx(naive / 6)


def test_features_have_a_frame_every_20_ms_and_ignore_the_level():
    stack = HarmonicStack((1, 2))
    samples = torch.from_numpy(np.stack([excerpt(0).voice, excerpt(1).voice]))
    inputs = features(stack, samples, torch.zeros(2))
    assert inputs.shape == (2, 4, 400, 221)
    torch.testing.assert_close(features(stack, samples / 4, torch.zeros(2)), inputs)
    softer = features(stack, samples, torch.tensor([0.0, 8.0]))  # 8 of 80 dB
    torch.testing.assert_close(softer[0], inputs[0])
    both = (softer[1] > 0) & (inputs[1] > 0.5)  # nowhere near the floor of 80 dB
    torch.testing.assert_close(softer[1][both], inputs[1][both] - 0.1, atol=1e-3, rtol=0)


class TestValidation:
    def test_validation_mixtures_are_drawn_once_and_are_not_those_of_training(self, bank):
        config = replace(TINY, watched=3)
        one, again = watch(config, bank, []), watch(config, bank, [])
        assert len(one) == 3
        for mixture, same in zip(one, again, strict=True):
            np.testing.assert_array_equal(mixture.samples, same.samples)
        trained = training._Mixtures(bank, [], config, 0, [])
        assert not any(np.array_equal(trained[k][0], one[k].samples) for k in range(3))

    def test_a_network_that_knows_the_truth_has_a_perfect_score(self, bank):
        config = replace(TINY, mix=replace(TINY.mix, vocal_free=0), watched=2)
        mixtures = watch(config, bank, [])
        answers = [targets(torch.from_numpy(mixture.f0)[None], 0.2) for mixture in mixtures]

        class Knows(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.config = config.network
                self.anything = torch.nn.Parameter(torch.zeros(1))

            def forward(self, inputs):
                return torch.cat(answers)[:, None].clamp_min(1e-9).log()

        found = mixture_evaluator(config, mixtures)(Knows())
        assert found["raw_pitch_accuracy"] > 0.98
        assert found["voicing_recall"] > 0.98
        assert found["voicing_false_alarm"] < 0.02
        assert np.isfinite(found["validation_loss"])


def test_the_shipped_configuration_is_of_this_kind_and_another_is_refused():
    config = build_config(MelodyTrainConfig, read_yaml(config_path("crnn-lite")), "crnn-lite")
    assert config.kind == "melody"
    with pytest.raises(QbhError, match="kind must be 'melody'"):
        MelodyTrainConfig(kind="embedding")


LEAD = replace(
    TINY, epochs=2, mix=replace(TINY.mix, split=0.5),
    network=replace(TINY.network, targets=("voice", "lead")),
)  # fmt: skip


class TestTwoTargets:
    def test_the_loss_of_both_falls_and_both_are_scored(self, bank, tmp_path):
        with_leads = [one._replace(lead_f0=np.full(800, 440, np.float32)) for one in bank]
        evaluate = mixture_evaluator(LEAD, watch(LEAD, with_leads, []))
        first, last = run(with_leads, tmp_path, LEAD, evaluate=evaluate)
        assert last["loss"] < first["loss"]
        scored = {key for key in last if not key.startswith("lead_")}
        assert {"validation_loss", "raw_pitch_accuracy"} < scored
        assert {f"lead_{key}" for key in scored if f"lead_{key}" in last} == {
            key for key in last if key.startswith("lead_")
        }
        assert "lead_raw_pitch_accuracy" in last

    def test_voice_and_lead_are_scored_by_their_own_truth(self, bank):
        lead_f0 = np.full(800, 440, np.float32)
        config = replace(LEAD, mix=replace(LEAD.mix, vocal_free=1, split=1))
        mixtures = watch(config, [one._replace(lead_f0=lead_f0) for one in bank], [])

        class Knows(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.config = LEAD.network
                self.anything = torch.nn.Parameter(torch.zeros(1))

            def forward(self, inputs):
                silent, lead = np.zeros(800, np.float32), lead_f0
                both = targets(torch.from_numpy(np.stack([silent, lead])), 0.2)
                return both.expand(len(inputs), -1, -1, -1).clamp_min(1e-9).log()

        voice, lead = training.estimate_pitch(Knows(), mixtures, 0.2)
        assert not voice.true_hz.any()
        assert voice.voicing.max() < 0.01
        np.testing.assert_allclose(lead.true_hz, 440)
        np.testing.assert_allclose(lead.found_hz, 440, rtol=1e-3)
        assert lead.voicing.min() > 0.99

    def test_the_loss_is_the_mean_over_targets_and_weights(self):
        rng = np.random.default_rng(0)
        logits = torch.from_numpy(rng.normal(0, 3, (2, 2, 3, CLASSES)))
        wanted = torch.from_numpy(rng.dirichlet(np.ones(CLASSES), (2, 2, 3)))
        one_by_one = [pitch_loss(logits[:, k], wanted[:, k]) for k in range(2)]
        assert pitch_loss(logits, wanted).item() == pytest.approx(sum(one_by_one).item() / 2)
        weight = torch.zeros(2, 2, 6)
        weight[:, 1] = 1
        found = pitch_loss(logits, wanted, weight).item()
        assert found == pytest.approx(one_by_one[1].item() / 2)

    def test_a_lead_needs_soloists(self):
        with pytest.raises(QbhError, match="set 'split' of 'mix'"):
            replace(LEAD, mix=TINY.mix)

    def test_a_run_starts_from_the_weights_it_names(self, bank, tmp_path):
        config = replace(TINY, epochs=1, steps_per_epoch=1, learning_rate=0.0)
        log = tmp_path / "log.json"
        network = train_melody_network(config, bank, [], tmp_path, log, progress=False)
        export_lite(network, tmp_path / "one.safetensors")
        started = replace(LEAD, epochs=1, steps_per_epoch=1, learning_rate=0.0)
        started = replace(started, init_from=str(tmp_path / "one.safetensors"), seed=5)
        both = train_melody_network(started, bank, [], tmp_path, log, progress=False)
        twice = torch.cat([network.classes.weight] * 2)
        assert torch.equal(both.classes.weight, twice)


def test_the_next_recipe_has_two_targets_and_starts_from_the_shipped_weights():
    config = build_config(MelodyTrainConfig, read_yaml(config_path("crnn-lite-2")), "crnn-lite-2")
    assert config.network.targets == ("voice", "lead")
    assert (config.init_from, config.batch) == ("crnn-lite", 12)
    shipped = LiteExtractor(config.init_from)._network.config
    assert replace(config.network, targets=("voice",)) == shipped
