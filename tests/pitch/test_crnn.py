from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from qbhkit.audio import Audio
from qbhkit.contour import hz_to_midi
from qbhkit.errors import QbhError
from qbhkit.f0_csv import read_f0_csv, write_f0_csv
from qbhkit.pitch.crnn import (
    CLASS_MIDI,
    CLASSES,
    CRNN_RATE_HZ,
    PATCH,
    CrnnExtractor,
    MelodyCrnn,
    decode,
    export_crnn,
    load_crnn,
)
from qbhkit.weights import load_weights, save_weights


def sound(seconds: float, seed: int = 0) -> Audio:
    """A gliding tone over noise, loudest at its end, with a silent third."""
    rng = np.random.default_rng(seed)
    count = round(seconds * CRNN_RATE_HZ)
    at = np.arange(count) / CRNN_RATE_HZ
    tone = np.sin(2 * np.pi * (200 * at + 40 * np.sin(at)))
    samples = np.linspace(0.05, 0.5, count) * tone + rng.normal(0, 1e-3, count)
    samples[count // 3 : count // 2] = 0
    return Audio(samples.astype(np.float32), CRNN_RATE_HZ)


def published_features(samples, mean, std):
    """The published input, written down frame by frame: (P, 31, 513)."""
    spectrum = librosa.stft(samples, n_fft=1024, hop_length=80, win_length=1024)
    level = librosa.power_to_db(np.abs(spectrum), ref=np.max)
    if missing := -level.shape[1] % 31:
        level = np.concatenate([level, np.zeros((513, missing), np.float32)], axis=1)
    patches = [level[:, first : first + 31].T for first in range(0, level.shape[1], 31)]
    return (np.array(patches) - mean) / (std + 0.0001)


@pytest.fixture(scope="module")
def network() -> MelodyCrnn:
    """Random weights that still tell frames apart."""
    torch.manual_seed(0)
    network = MelodyCrnn()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.3)
                module.bias.uniform_(-0.3, 0.3)
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 1.5)
        network.output.weight.normal_(0, 1)
    return network.eval()


@pytest.fixture(scope="module")
def normalisation():
    rng = np.random.default_rng(1)
    return rng.uniform(-60, -40, PATCH), rng.uniform(8, 16, PATCH)


@pytest.fixture(scope="module")
def weights(network, normalisation, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "crnn.safetensors"
    export_crnn(network, *normalisation, path, note="random")
    return path


@pytest.fixture(scope="module")
def extractor(weights) -> CrnnExtractor:
    return load_crnn(weights)


class TestExtractor:
    @pytest.mark.parametrize("seconds", [0.31, 1.3345])  # the latter is processed in two stretches
    def test_posteriors_are_those_of_the_published_pipeline(
        self, extractor, network, normalisation, seconds
    ):
        audio = sound(seconds)
        before = audio.samples.copy()
        features = published_features(audio.samples, *normalisation).astype(np.float32)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(features)).softmax(2)
        melody = extractor.melody(audio)
        count = round(seconds * 100)
        assert melody.posteriors.shape == (count, CLASSES)
        assert melody.posteriors.dtype == np.float32
        assert len(melody.f0.voicing) == count
        np.testing.assert_allclose(
            melody.posteriors, wanted.flatten(0, 1)[:count].numpy(), atol=1e-4
        )
        track = extractor.track(audio)
        np.testing.assert_array_equal(track.frequency_hz, melody.f0.frequency_hz)
        np.testing.assert_allclose(track.voicing, melody.f0.voicing, atol=1e-4)
        np.testing.assert_array_equal(audio.samples, before)

    @pytest.mark.parametrize("count", [1, 39, 41, 2440, 2519])
    def test_the_track_is_on_the_kits_grid(self, extractor, count):
        track = extractor.track(Audio(sound(1.0).samples[-count:], CRNN_RATE_HZ))
        assert len(track.voicing) == max(1, round(count / 80))
        assert track.hop_s == 0.01

    @pytest.mark.parametrize(("count", "level"), [(0, 0.0), (8000, 0.25), (9999, 1e-6)])
    def test_silence_is_unvoiced(self, extractor, count, level):
        melody = extractor.melody(Audio(np.full(count, level, np.float32), CRNN_RATE_HZ))
        assert len(melody.posteriors) == max(1, round(count / 80))
        assert not melody.f0.voiced.any()
        assert not melody.f0.frequency_hz.any()
        assert np.isfinite(melody.posteriors).all()


def row(**classes):
    """One frame: probabilities by class (c0=...), the rest shared among the other classes."""
    out = np.zeros(CLASSES, np.float32)
    for name, value in classes.items():
        out[int(name[1:])] = value
    out[out == 0] = (1 - out.sum()) / (out == 0).sum()
    return out


class TestDecode:
    @pytest.mark.parametrize(
        ("frame", "midi", "voiced"),
        [
            (row(c40=0.9), None, False),  # just under MIDI 45
            (row(c41=0.9), 45, True),
            (row(c441=0.9), 95, True),
            (row(c0=0.9, c233=0.05), 69, False),
            (row(c0=0.4, c233=0.3), 69, False),  # 1 - P(0) is 0.6, yet no voice is likeliest
            (row(c20=0.5, c233=0.4), 69, False),  # a pitch too low wins
            (row(c0=0.45, c233=0.45), 69, False),  # argmax takes the first of equals
        ],
    )
    def test_the_published_decision(self, frame, midi, voiced):
        track = decode(frame[None])
        assert bool(track.voiced[0]) is voiced
        if midi is not None:
            assert hz_to_midi(track.frequency_hz)[0] == pytest.approx(midi, abs=1e-5)

    def test_voicing_agrees_with_the_argmax_everywhere(self, tmp_path):
        rng = np.random.default_rng(0)
        logits = rng.normal(0, 4, (2000, CLASSES))
        logits[:, 0] += rng.uniform(0, 20, 2000)
        posteriors = torch.from_numpy(logits).softmax(1).numpy().astype(np.float32)
        winner = posteriors.argmax(1)
        pitch = np.concatenate([[0], CLASS_MIDI])[winner]
        track = decode(posteriors)
        np.testing.assert_array_equal(track.voiced, pitch >= 45)
        voiced = track.voiced
        assert 0.2 < voiced.mean() < 0.8
        np.testing.assert_allclose(hz_to_midi(track.frequency_hz[voiced]), pitch[voiced], atol=1e-4)
        np.testing.assert_allclose(track.voicing[voiced], 1 - posteriors[voiced, 0], atol=1e-6)
        assert (track.voicing <= 1 - posteriors[:, 0] + 1e-6).all()
        write_f0_csv(track, tmp_path / "f0.csv")  # which keeps three digits
        np.testing.assert_array_equal(read_f0_csv(tmp_path / "f0.csv").voiced, voiced)


class TestFiles:
    def test_other_weights_are_refused(self, weights, tmp_path):
        with pytest.raises(QbhError, match=r"best does not hold a melody network.*convert"):
            load_crnn("best")
        stored = load_weights(str(weights))
        path = tmp_path / "w.safetensors"

        def without(name):
            return {key: value for key, value in stored.arrays.items() if key != name}

        for arrays, config in (
            (stored.arrays, {"kind": "embedding"}),
            (stored.arrays, {}),
            (without("mean"), stored.config),
            (without("output.bias"), stored.config),
            ({**stored.arrays, "extra": np.zeros(3)}, stored.config),
            ({**stored.arrays, "std": stored.arrays["std"].T}, stored.config),
            ({**stored.arrays, "output.bias": np.zeros(3)}, stored.config),
        ):
            save_weights(path, arrays, config)
            with pytest.raises(QbhError, match=r"w\.safetensors does not hold a melody network"):
                load_crnn(path)
