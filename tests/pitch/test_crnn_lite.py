from dataclasses import replace

import numpy as np
import pytest
import soxr
import torch

from qbhkit.audio import Audio
from qbhkit.contour import F0Track, from_f0
from qbhkit.errors import QbhError
from qbhkit.metrics import melody_score
from qbhkit.pitch.crnn import CLASSES
from qbhkit.pitch.crnn_lite import (
    LITE_HOP,
    MARGIN,
    HarmonicStack,
    LeadExtractor,
    LiteConfig,
    LiteExtractor,
    LiteNetwork,
    Melodies,
    every_10_ms,
    export_lite,
    start_from,
)
from qbhkit.pitch.training import features
from qbhkit.synthesis import degrade
from qbhkit.synthesis.accompaniment import render_accompaniment
from qbhkit.synthesis.mixing import mix
from qbhkit.synthesis.singer import Voice, render_hum
from qbhkit.weights import load_weights, save_weights

RATE_HZ = 8000
THRESHOLD = 0.4
TINY = LiteConfig(harmonics=(0.5, 1, 2), channels=4, wide=(4, 4), states=8)


@pytest.fixture(scope="module")
def network():
    """Random weights that still tell frames apart."""
    torch.manual_seed(0)
    network = LiteNetwork(TINY)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.1, 0.5)
            elif isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        for direction in ("l0", "l0_reverse"):  # states that forget within half a second
            bias = getattr(network.recurrent, f"bias_ih_{direction}")
            bias[TINY.states : 2 * TINY.states] = -2
        network.classes.weight.normal_(0, 1)
        network.eval()
        samples = torch.from_numpy(sound(24000).samples)[None]
        logits = network(features(HarmonicStack(TINY.harmonics), samples, torch.zeros(1)))[:, 0]
        likely = logits[..., 1:].logsumexp(-1) - logits[..., 0]
        # half of the frames reach the threshold: a voice of 0.4 against no voice of 0.6
        network.classes.bias[0] += likely.median() + np.log(1 / THRESHOLD - 1)
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    export_lite(network, path, THRESHOLD)
    return path


@pytest.fixture(scope="module")
def extractor(weights):
    return LiteExtractor(str(weights))


def sound(count, seed=0):
    """A gliding tone over noise around 0, with a silent third."""
    rng = np.random.default_rng(seed)
    at = np.arange(count) / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * (200 * at + 40 * np.sin(at)))
    samples = tone + rng.normal(0, 0.01, count)
    samples[count // 3 : count // 2] = 0
    return Audio((samples - samples.mean()).astype(np.float32), RATE_HZ)


def sine(frequency_hz, seconds=0.5, amplitude=1.0):
    at = np.arange(round(seconds * RATE_HZ) + 2 * MARGIN) / RATE_HZ
    return torch.from_numpy((amplitude * np.sin(2 * np.pi * frequency_hz * at)).astype(np.float32))


def stack_of(samples, harmonics=(0.5, 1, 2), reference=0.5):
    """(W, H, T, P) for one signal with its margins."""
    stack = HarmonicStack(harmonics)
    found = stack(stack.magnitudes(samples[None]), torch.tensor([reference]))
    return found[0].unflatten(0, (2, len(harmonics)))


class TestHarmonicStack:
    @pytest.mark.parametrize("midi", [45, 57.25, 80.5])
    def test_a_tone_is_loudest_at_its_pitch_in_every_harmonic(self, midi):
        frequency_hz = 440 * 2 ** ((midi - 69) / 12)
        found = stack_of(sine(frequency_hz)).mean(dim=2)  # (W, H, P)
        for harmonic, octaves_st in enumerate((12, 0, -12)):  # half, once, twice the pitch
            wanted = (midi + octaves_st - 40) * 4
            if 0 <= wanted <= 220:
                for window in range(2):
                    assert found[window, harmonic].argmax().item() == pytest.approx(wanted, abs=1)

    def test_a_full_scale_tone_has_half_its_amplitude_and_so_0_db(self):
        magnitudes = HarmonicStack((1,)).magnitudes(sine(1000)[None])
        assert magnitudes.shape == (1, 25, 2, 1025)
        half = torch.full((1, 25, 2), 0.5)
        torch.testing.assert_close(magnitudes.amax(3), half, rtol=0.01, atol=0)
        softer = stack_of(sine(440, amplitude=0.1)).amax(dim=(2, 3))
        torch.testing.assert_close(softer[:, 1], torch.full((2,), 0.75), atol=0.02, rtol=0)

    def test_80_db_below_the_reference_is_zero(self):
        assert not stack_of(1e-5 * sine(440)).any()

    def test_what_lies_over_half_the_rate_is_silent(self):
        noise = torch.randn(4000 + 2 * MARGIN, generator=torch.Generator().manual_seed(0))
        found = stack_of(noise, harmonics=(1, 8))
        over = 4 * (84 - 40)  # MIDI 84 is 1046 Hz: eight times that is over 4 kHz
        assert not found[:, 1, :, over:].any()
        assert found[:, 0, :, over:].all()

    def test_a_frame_is_centred_on_its_own_20_ms(self):
        click = torch.zeros(25 * LITE_HOP + 2 * MARGIN)
        click[MARGIN + 10 * LITE_HOP + LITE_HOP // 2] = 1
        level = stack_of(click).mean(dim=(0, 1, 3))
        assert level.argmax() == 10
        torch.testing.assert_close(level[9], level[11], rtol=0.02, atol=0)


def test_frames_double_and_their_sums_stay_one():
    rows = np.random.default_rng(0).dirichlet(np.ones(5), size=7)
    drawn = every_10_ms(rows)
    assert drawn.shape == (14, 5)
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    wanted = 0.75 * rows[1:-1] + 0.125 * (rows[:-2] + rows[2:])
    np.testing.assert_allclose(drawn.reshape(7, 2, 5)[1:-1].mean(axis=1), wanted)


def test_the_threshold_becomes_one_half_and_every_class_is_its_pitch(extractor):
    posteriors = np.zeros((5, CLASSES), np.float32)
    posteriors[:, 0] = [1.0, 0.61, 0.59, 0.3, 0.0]
    classes = 1 + np.array([3, 0, 1, 8 * 29, 440])
    posteriors[np.arange(5), classes] = 1 - posteriors[:, 0]
    track = extractor.decode(posteriors)
    assert track.voiced.tolist() == [False, False, True, True, True]
    assert track.voicing[3] == pytest.approx(0.75)
    midi = 69 + 12 * np.log2(track.frequency_hz[1:] / 440)  # unvoiced ones too
    np.testing.assert_allclose(midi, [40, 40.125, 69, 95], atol=1e-4)


class TestExtractor:
    @pytest.mark.parametrize("count", [1, 41, 799, 801, 12345])
    def test_there_is_a_frame_every_10_ms_and_states_every_100_ms(self, extractor, count):
        melody, found = extractor.melody(sound(count)), extractor.track_with_states(sound(count))
        frames = max(1, round(count / 80))
        assert melody.posteriors.shape == (frames, CLASSES)
        assert len(melody.f0.voicing) == len(melody.f0.frequency_hz) == frames
        np.testing.assert_allclose(melody.posteriors.sum(axis=1), 1, atol=1e-4)
        assert found.states.shape == (-(-count // 800), 2 * TINY.states)
        assert found.states.dtype == np.float32
        assert len(found.f0.voicing) == frames

    def test_pieces_give_what_the_whole_gives_and_what_training_sees(self, extractor, network):
        audio = sound(23 * RATE_HZ + 277)  # three stretches of 10 s, and two frames of 20 ms
        frames = -(-len(audio.samples) // LITE_HOP)
        padded = np.pad(audio.samples, (0, frames * LITE_HOP - len(audio.samples)))
        with torch.inference_mode():
            inputs = features(
                HarmonicStack(TINY.harmonics), torch.from_numpy(padded)[None], torch.zeros(1)
            )
            logits, whole = network.logits_and_states(inputs)
            torch.testing.assert_close(network(inputs), logits)
        logits = logits[:, 0]
        melody, track = extractor.melody(audio), extractor.track(audio)
        wanted = every_10_ms(logits[0].softmax(-1).numpy())[: len(melody.posteriors)]
        np.testing.assert_allclose(melody.posteriors, wanted, atol=1e-3)
        found = extractor.track_with_states(audio)
        for f0 in (melody.f0, found.f0):
            np.testing.assert_array_equal(track.frequency_hz, f0.frequency_hz)
            np.testing.assert_array_equal(track.voicing, f0.voicing)
        assert whole.std() > 0.1
        wanted = [whole[0, first : first + 5].mean(0) for first in range(0, frames, 5)]
        np.testing.assert_allclose(found.states, np.stack(wanted), atol=2e-3)
        late = np.abs(found.states[1:] - np.stack(wanted)[:-1])
        assert late.max() > 0.1  # one frame late would show

    def test_level_and_offset_do_not_matter(self, extractor):
        apart = extractor.track(sound(24000))  # the weights tell frames apart
        assert 0.1 < apart.voiced.mean() < 0.9
        assert len(np.unique(apart.frequency_hz)) > 5
        audio = sound(16000)
        usual = extractor.track(audio)
        half = extractor.track(Audio(audio.samples / 2, RATE_HZ))
        np.testing.assert_array_equal(half.frequency_hz, usual.frequency_hz)
        np.testing.assert_allclose(half.voicing, usual.voicing, atol=1e-4)
        lifted = extractor.track(Audio(audio.samples + np.float32(0.25), RATE_HZ))
        np.testing.assert_array_equal(lifted.voiced, usual.voiced)
        assert np.mean(lifted.frequency_hz == usual.frequency_hz) > 0.99

    @pytest.mark.parametrize("offset", [0.0, 0.5])
    def test_silence_is_unvoiced_and_has_states_of_zero(self, extractor, offset):
        audio = Audio(np.full(8100, offset, np.float32), RATE_HZ)
        found = extractor.track_with_states(audio)
        np.testing.assert_array_equal(found.states, np.zeros((11, 2 * TINY.states)))
        for f0 in (found.f0, extractor.track(audio)):
            assert len(f0.voicing) == 101
            assert not f0.voiced.any()

    def test_another_rate_is_refused(self, extractor):
        for refusing in (extractor.track, extractor.track_with_states):
            with pytest.raises(QbhError, match="takes audio at 8000 Hz, not 16000"):
                refusing(Audio(np.zeros(16000, np.float32), 16000))


class TestWeights:
    def test_weights_of_another_kind_are_refused(self, tmp_path, weights):
        stored = load_weights(str(weights))
        wrong = {
            "kind": {**stored.config, "kind": "crnn"},
            "no threshold": {k: v for k, v in stored.config.items() if k != "thresholds"},
            "two thresholds": {**stored.config, "thresholds": [0.4, 0.6]},
            "size": {**stored.config, "states": 16},
        }
        for name, config in wrong.items():
            save_weights(tmp_path / f"{name}.safetensors", stored.arrays, config)
            with pytest.raises(QbhError, match=f"{name}.* does not hold crnn-lite"):
                LiteExtractor(str(tmp_path / f"{name}.safetensors"))
        with pytest.raises(QbhError, match="best does not hold crnn-lite"):
            LiteExtractor("best")
        save_weights(tmp_path / "a.safetensors", stored.arrays, {**stored.config, "colour": 3})
        with pytest.raises(QbhError, match="colour"):
            LiteExtractor(str(tmp_path / "a.safetensors"))


SONG = np.array([[0, 0.5, 57], [0.5, 0.5, 60], [1, 1, 64], [2, 0.5, 62], [2.5, 1.5, 57.0]])


@pytest.fixture(scope="module")
def shipped():
    return LiteExtractor()


class TestShipped:
    def test_a_voice_over_an_accompaniment_is_found(self, shipped):
        vowels = render_hum(SONG, Voice("vowels", consonants=0.5), np.random.default_rng(1))
        voice = soxr.resample(vowels.audio.samples, vowels.audio.rate_hz, RATE_HZ)
        roots = (45, 41, 48, 43, 45)
        chords = np.array([[k, 1.0, root + p] for k, root in enumerate(roots) for p in (0, 7, 16)])
        length_s = len(voice) / RATE_HZ
        rng = np.random.default_rng(2)
        backing = render_accompaniment(chords, 0.5, length_s, RATE_HZ, rng)[: len(voice)]
        mixed = mix(voice, vowels.f0.frequency_hz, backing, 5.0)
        track, count = shipped.track(Audio(mixed, RATE_HZ)), len(vowels.f0.voicing)
        score = melody_score(
            vowels.f0.frequency_hz, track.frequency_hz[:count], track.voicing[:count]
        )
        assert score.raw_pitch_accuracy > 0.7
        assert score.overall_accuracy > 0.6

    def test_silence_and_noise_are_not_sung(self, shipped):
        assert not shipped.track(Audio(np.zeros(16000, np.float32), RATE_HZ)).voiced.any()
        for colour in (0, 1):
            noise = 0.1 * degrade.noise(5 * RATE_HZ, colour, np.random.default_rng(colour))
            track = shipped.track(Audio(noise.astype(np.float32), RATE_HZ))
            assert track.voiced.mean() < 0.05


BOTH = replace(TINY, targets=("voice", "lead"))


@pytest.fixture(scope="module")
def both_weights(weights, tmp_path_factory):
    """Weights with two outputs that started from the voice's, with the lead an octave higher."""
    torch.manual_seed(1)
    network = LiteNetwork(BOTH)
    start_from(network, str(weights))
    with torch.no_grad():
        pitched = network.classes.weight[CLASSES + 1 :]
        pitched.copy_(pitched.roll(96, 0))
    path = tmp_path_factory.mktemp("both") / "both.safetensors"
    export_lite(network.eval(), path, THRESHOLD, 0.7)
    return path


class TestLead:
    def test_weights_of_version_1_have_one_threshold_and_give_the_same_track(
        self, weights, extractor, tmp_path
    ):
        stored = load_weights(str(weights))
        (threshold,) = stored.config.pop("thresholds")
        del stored.config["targets"]
        old = {**stored.config, "threshold": threshold}
        save_weights(tmp_path / "old.safetensors", stored.arrays, old)
        found = LiteExtractor(str(tmp_path / "old.safetensors"))
        assert found.threshold == THRESHOLD
        audio = sound(20000)
        np.testing.assert_array_equal(
            found.melody(audio).posteriors, extractor.melody(audio).posteriors
        )

    def test_a_network_starts_from_weights_for_the_voice(self, weights, network):
        started = LiteNetwork(BOTH)
        start_from(started, str(weights))
        samples = torch.from_numpy(sound(24000).samples)[None]
        inputs = features(HarmonicStack(TINY.harmonics), samples, torch.zeros(1))
        with torch.inference_mode():
            found, wanted = started.eval()(inputs), network(inputs)
        assert found.shape == (1, 2, 150, CLASSES)
        for target in range(2):
            torch.testing.assert_close(found[:, target], wanted[:, 0])

    def test_what_does_not_fit_is_left_and_other_weights_are_refused(self, weights):
        wider = LiteNetwork(replace(BOTH, states=4))
        before = wider.classes.weight.clone()
        start_from(wider, str(weights))
        assert torch.equal(wider.classes.weight, before)
        stored = torch.from_numpy(load_weights(str(weights)).arrays["salience.weight"])
        assert torch.equal(wider.salience.weight, stored)
        with pytest.raises(QbhError, match=r"best does not hold crnn-lite.*'init_from'"):
            start_from(wider, "best")

    def test_both_melodies_come_from_one_run(self, both_weights, extractor):
        audio = sound(23 * RATE_HZ + 277)  # three chunks
        lead, voice = (kind(str(both_weights)) for kind in (LeadExtractor, LiteExtractor))
        assert (voice.threshold, lead.threshold) == (THRESHOLD, 0.7)
        both = lead.track_both(audio)
        for found, alone in ((both.voice, voice.track(audio)), (both.lead, lead.melody(audio).f0)):
            np.testing.assert_array_equal(found.frequency_hz, alone.frequency_hz)
            np.testing.assert_array_equal(found.voicing, alone.voicing)
        usual = extractor.track(audio)
        assert np.mean(both.voice.frequency_hz == usual.frequency_hz) > 0.99
        assert np.mean(both.lead.frequency_hz == usual.frequency_hz) < 0.9

    def test_the_lead_instrument_counts_where_nobody_sings_for_seconds(
        self, both_weights, monkeypatch
    ):
        count = 3000
        sung = np.zeros(count)
        sung[600:1000] = sung[1150:1600] = 1  # a rest of 1.5 s between
        sung[2300:2310] = 1  # a tenth of a second, by mistake
        voice = F0Track(220 * sung, sung)
        instrument = F0Track(np.full(count, 880.0), np.full(count, 0.9))
        lead = LeadExtractor(str(both_weights))
        monkeypatch.setattr(lead, "track_both", lambda audio: Melodies(voice, instrument))
        audio = sound(30 * RATE_HZ)
        found, contour = lead.track(audio), lead.song_contour(audio)
        for kept in (slice(600, 1000), slice(1150, 1600)):
            np.testing.assert_array_equal(found.frequency_hz[kept], np.float32(220))
        assert not found.voiced[1000:1150].any()  # it rests, though an instrument plays
        for played in (slice(0, 400), slice(1800, count)):
            np.testing.assert_array_equal(found.frequency_hz[played], np.float32(880))
            np.testing.assert_array_equal(found.voicing[played], np.float32(0.9))
        np.testing.assert_allclose(contour.frames, from_f0(found).frames, atol=1e-4)
        assert contour.instrumental[:40].all()
        assert contour.instrumental[180:].all()
        assert not contour.instrumental[60:160].any()
        assert not contour.instrumental.all()

    def test_silence_has_no_melody_and_another_rate_is_refused(self, both_weights):
        lead = LeadExtractor(str(both_weights))
        found = lead.track_both(Audio(np.zeros(8100, np.float32), RATE_HZ))
        assert len(found.voice.voicing) == len(found.lead.voicing) == 101
        assert not found.lead.voiced.any()
        with pytest.raises(QbhError, match="takes audio at 8000 Hz, not 16000"):
            lead.track_both(Audio(np.zeros(16000, np.float32), 16000))

    def test_weights_without_a_lead_say_what_to_do(self):
        with pytest.raises(QbhError, match=r"crnn-lite has no output .* 'qbhkit train crnn-lite-2"):
            LeadExtractor("crnn-lite")

    @pytest.mark.parametrize("targets", [("lead",), ("voice", "bass"), ()])
    def test_other_targets_are_refused(self, targets):
        with pytest.raises(QbhError, match=r"targets must be \[voice\] or \[voice, lead\]"):
            LiteConfig(targets=targets)
