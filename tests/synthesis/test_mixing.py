import json
import os
from dataclasses import replace

import numpy as np
import pytest
import soxr
from conftest import pop_song

from qbhkit.audio import Audio
from qbhkit.errors import QbhError
from qbhkit.metrics import melody_score
from qbhkit.pitch.trackers import get_tracker
from qbhkit.synthesis.mixing import (
    MIX_HOP,
    MIX_RATE_HZ,
    Excerpt,
    MixConfig,
    Recorded,
    StemBank,
    build_bank,
    draw_mixture,
    lead_melody,
    mix,
    played_f0,
)
from qbhkit.synthesis.singer import Voice, render_hum
from qbhkit.synthesis.timbre import analyse
from qbhkit.training_loop import generator

SAMPLES, FRAMES = 64000, 800
FEW = MixConfig(excerpts=2)
CLEAN = MixConfig(vocal_free=0, recorded=0, bare=0, doubled=0, degraded=0)
WIDE = MixConfig(
    excerpts=2, dense=1, melisma=0.5, breaths=1, harmonised=0.5, split=0.5, produced=0.5
)  # fmt: skip


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    (folder / "damaged.mid").write_bytes(b"rubbish")
    return [pop_song(folder / "a.mid"), folder / "damaged.mid", pop_song(folder / "b.mid")]


@pytest.fixture(scope="module")
def timbre():
    """A voice for WORLD, which the source-filter singer stands in for."""
    notes = np.array([[0.5 * k, 0.5, 57 + k] for k in range(4)])
    hum = render_hum(notes, Voice("vowels", gap=0.3), np.random.default_rng(0))
    return analyse(hum.audio, hum.f0)


@pytest.fixture(scope="module")
def bank_folder(songs, timbre, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stems")
    build_bank(folder, songs, [timbre], FEW, 0, workers=1, progress=False)
    return folder


@pytest.fixture
def bank(bank_folder):
    return StemBank(bank_folder)


def made_excerpts(count=3):
    """Excerpts without any synthesiser: a tone over noise."""
    excerpts = []
    for number in range(count):
        rng = np.random.default_rng(number)
        f0 = np.zeros(FRAMES, np.float32)
        f0[100:350] = f0[400:700] = 200 + 20 * number
        phase = 2 * np.pi * np.cumsum(np.repeat(f0, MIX_HOP)) / MIX_RATE_HZ
        voice = (0.3 * np.sin(phase) * np.repeat(f0 > 0, MIX_HOP)).astype(np.float32)
        backing, lead = rng.normal(0, 0.1, (2, SAMPLES)).astype(np.float32)
        excerpts.append(Excerpt(backing, lead, voice, f0))
    return excerpts


def recorded(timbre=None):
    f0 = np.full(300, 150, np.float32)
    f0[:20] = 0
    phase = 2 * np.pi * np.cumsum(np.repeat(f0, MIX_HOP)) / MIX_RATE_HZ
    return Recorded((0.4 * np.sin(phase)).astype(np.float32), f0, timbre)


def files_of(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


class TestBank:
    def test_stems_have_their_shapes_and_the_voice_its_pitch(self, bank):
        assert len(bank) == 2
        for index in range(2):
            excerpt = bank[index]
            for stem in excerpt[:3]:
                assert stem.shape == (SAMPLES,)
                assert stem.dtype == np.float32
                assert 0.1 < np.abs(stem).max() <= 1
            assert excerpt.f0.shape == (FRAMES,)
            assert (excerpt.f0 > 0).mean() > 0.1
            assert excerpt.f0[excerpt.f0 > 0].min() > 50

    def test_the_f0_lies_where_the_voice_is(self, bank):
        excerpt = bank[0]
        voice = Audio(soxr.resample(excerpt.voice, MIX_RATE_HZ, 16000), 16000)
        found = get_tracker("swift-f0").track(voice)
        score = melody_score(excerpt.f0, found.frequency_hz, found.voicing)
        assert score.raw_pitch_accuracy > 0.85

    def test_a_second_call_reads_what_is_there_also_of_version_1(self, bank_folder, songs, timbre):
        before = files_of(bank_folder)
        assert set(before) == {"bank.json", "band.npy", "lead.npy", "voice.npy", "f0.npy"}
        config = json.loads((bank_folder / "bank.json").read_text())["config"]
        assert config == {
            "excerpts": 2, "snr_db": [-5.0, 20.0], "vocal_free": 0.12, "recorded": 0.3,
            "bare": 0.08, "doubled": 0.3, "source_filter": 0.12, "spoilt": 0.15,
        }  # fmt: skip
        build_bank(bank_folder, songs, [timbre], FEW, 0, workers=1, progress=False)
        assert files_of(bank_folder) == before

    def test_another_seed_size_or_timbre_builds_again(self, bank, songs, timbre, tmp_path):
        def first(seed, voice):
            config = replace(FEW, excerpts=1)
            return build_bank(tmp_path, songs, [voice], config, seed, workers=1, progress=False)[0]

        np.testing.assert_array_equal(first(0, timbre).voice, bank[0].voice)  # whatever follows it
        darker = timbre._replace(envelope=np.roll(timbre.envelope, -8, axis=1))
        dark = first(0, darker).voice
        assert not np.array_equal(dark, bank[0].voice)
        assert not np.array_equal(first(1, darker).voice, dark)

    def test_a_damaged_or_unfinished_bank_is_refused(self, bank_folder, tmp_path):
        for path in bank_folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        os.truncate(tmp_path / "f0.npy", 1000)
        with pytest.raises(QbhError, match=r"is damaged \(.*\): delete it, and train again\."):
            StemBank(tmp_path)
        (tmp_path / "f0.npy").unlink()
        with pytest.raises(QbhError, match="is damaged"):
            StemBank(tmp_path)
        (tmp_path / "bank.json").unlink()  # which is written last
        with pytest.raises(QbhError, match=r"bank\.json does not exist: build the bank again"):
            StemBank(tmp_path)

    def test_useless_songs_are_refused(self, songs, tmp_path):
        for given, says in (([], "There is no song"), (songs[1:2], "None of the songs drawn has")):
            with pytest.raises(QbhError, match=says):
                build_bank(tmp_path, given, [], FEW, 0, workers=1, progress=False)
        assert not (tmp_path / "bank.json").exists()


class TestMix:
    @pytest.mark.parametrize("snr_db", [-5.0, 20.0])
    def test_the_ratio_is_that_of_voiced_voice_to_accompaniment(self, snr_db):
        excerpt = made_excerpts(1)[0]
        added = mix(excerpt.voice, excerpt.f0, excerpt.accompaniment, snr_db) - excerpt.voice
        voiced = np.repeat(excerpt.f0 > 0, MIX_HOP)
        ratio = np.mean(excerpt.voice[voiced] ** 2.0) / np.mean(added**2.0)
        assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=1e-3)
        shape = np.corrcoef(added, excerpt.accompaniment)[0, 1]
        assert shape == pytest.approx(1, abs=1e-6)

    def test_a_silent_part_leaves_the_other_alone(self):
        backing, _, voice, f0 = made_excerpts(1)[0][:4]
        silence = np.zeros(SAMPLES, np.float32)
        np.testing.assert_array_equal(mix(voice, f0, silence, 0), voice)
        np.testing.assert_array_equal(mix(silence, np.zeros(FRAMES), backing, 0), backing)


class TestDrawMixture:
    def test_draws_are_finite_audible_and_as_long_as_said(self):
        bank, voices = made_excerpts(), [recorded()]
        config = replace(MixConfig(), degraded=0.2)
        silent = 0
        for item in range(120):
            mixture = draw_mixture(bank, voices, config, generator(0, 1, 0, item))
            assert mixture.samples.shape == (SAMPLES,)
            assert mixture.f0.shape == (FRAMES,)
            assert mixture.samples.dtype == mixture.f0.dtype == np.float32
            assert np.isfinite(mixture.samples).all()
            assert np.abs(mixture.samples).max() > 1e-4
            silent += not mixture.f0.any()
        assert 4 <= silent <= 25  # 14 of 120 are vocal-free: three standard deviations

    def test_a_bare_voice_is_the_voice(self):
        bank = made_excerpts(1)
        mixture = draw_mixture(bank, [], replace(CLEAN, bare=1), generator(0, 1))
        np.testing.assert_array_equal(mixture.samples, bank[0].voice)
        np.testing.assert_array_equal(mixture.f0, bank[0].f0)

    def test_the_ratio_is_drawn_from_the_range(self):
        bank, config = made_excerpts(1), replace(CLEAN, snr_db=(-2.0, 4.0))
        drawn = [draw_mixture(bank, [], config, generator(0, 1, 0, k)).samples for k in range(60)]
        levels = np.array([np.std(samples - bank[0].voice) for samples in drawn])
        levels = levels[levels > 0]
        assert 40 < len(levels) < 60  # a tenth has no accompaniment
        assert 4 < 20 * np.log10(levels.max() / levels.min()) < 6.01

    def test_a_recorded_voice_keeps_its_pitch_where_it_sounds(self, timbre):
        config = replace(CLEAN, recorded=1, bare=1)
        for item in range(4):
            voices = [recorded(timbre if item % 2 else None)]
            mixture = draw_mixture(made_excerpts(1), voices, config, generator(0, 1, 0, item))
            assert (mixture.f0 > 0).any()
            level = np.sqrt((mixture.samples.reshape(FRAMES, MIX_HOP) ** 2.0).mean(axis=1))
            loud = level > 0.1 * level.max()
            assert np.mean(loud == (mixture.f0 > 0)) > 0.95


def heard_within_30_cents(samples, f0):
    """The share of voiced frames in which swift-f0 finds the stated pitch."""
    found = get_tracker("swift-f0").track(Audio(soxr.resample(samples, MIX_RATE_HZ, 16000), 16000))
    both = (f0 > 0) & found.voiced[: len(f0)]
    assert both.sum() > 0.8 * (f0 > 0).sum()
    apart = 1200 * np.log2(found.frequency_hz[: len(f0)][both] / f0[both])
    return np.mean(np.abs(apart) < 30)


@pytest.fixture(scope="module")
def wide(songs, timbre, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    return build_bank(folder, songs, [timbre], WIDE, 0, workers=1, progress=False)


class TestWide:
    """The wider synthesis, which leaves the recipe of version 1 as it was."""

    def test_voice_and_lead_sound_at_their_f0(self, wide):
        for index in range(len(wide)):
            excerpt = wide[index]
            assert heard_within_30_cents(excerpt.voice, excerpt.f0) > 0.8
            assert heard_within_30_cents(excerpt.lead, excerpt.lead_f0) > 0.7
            assert np.abs(excerpt.backing).max() > 0.1

    def test_a_bank_of_version_1_has_no_later_stems(self, bank):
        assert not bank[0].backing.any()
        assert not bank[0].lead_f0.any()

    def test_a_bank_is_read_again_and_is_not_one_of_version_1(self, wide, bank, songs, timbre):
        assert wide.info["config"]["split"] == 0.5
        assert wide.info["stems"] == ["band", "lead", "voice", "f0", "backing", "lead_f0"]
        assert "stems" not in bank.info
        assert "split" not in bank.info["config"]


def test_notes_become_f0_and_the_last_begun_counts():
    found = played_f0(np.array([[1.0, 3.0, 69], [2.0, 0.5, 81]]))
    assert found.shape == (FRAMES,)
    np.testing.assert_allclose(found[[99, 100, 199, 200, 249]], [0, 440, 440, 880, 880])
    assert not found[250:].any()


class TestLeadMelody:
    LEAD = np.full(FRAMES, 440, np.float32)

    def test_the_instrument_leads_only_in_long_rests_of_the_voice(self):
        f0 = np.full(FRAMES, 200, np.float32)
        f0[100:399] = f0[450:750] = 0  # 2.99 s and 3 s
        found = lead_melody(f0, self.LEAD)
        np.testing.assert_array_equal(found[:450], f0[:450])
        np.testing.assert_array_equal(found[450:750], self.LEAD[450:750])
        np.testing.assert_array_equal(found[750:], f0[750:])

    @pytest.mark.parametrize("split", [0.0, 1.0])
    def test_without_a_voice_the_soloist_leads(self, split):
        bank = [made_excerpts(1)[0]._replace(lead_f0=self.LEAD)]
        config = replace(CLEAN, vocal_free=1, split=split, doubled=0.5)
        drawn = [draw_mixture(bank, [], config, generator(0, 1, 0, k)) for k in range(30)]
        leads = np.array([(mixture.lead_f0 == 440).all() for mixture in drawn])
        rests = np.array([not mixture.lead_f0.any() for mixture in drawn])
        assert (leads | rests).all()
        assert leads.any()
        assert rests.any() == (split == 0)  # a lead that is too soft is no melody
        assert not any(mixture.f0.any() for mixture in drawn)

    def test_in_a_split_mixture_voice_and_soloist_take_a_half_each(self):
        bank = [made_excerpts(1)[0]._replace(lead_f0=self.LEAD)]
        firsts = set()
        for item in range(20):
            mixture = draw_mixture(bank, [], replace(CLEAN, split=1), generator(0, 1, 0, item))
            solo, voice = mixture.lead_f0 == 440, mixture.f0 > 0
            assert solo.any()
            assert not (solo & voice).any()
            np.testing.assert_array_equal(mixture.lead_f0[voice], mixture.f0[voice])
            at = np.flatnonzero(solo)
            assert at[-1] - at[0] + 1 == len(at)  # one stretch, at one end
            assert (at[0] == 0) != (at[-1] == FRAMES - 1)
            firsts.add(bool(at[0] == 0))
        assert firsts == {True, False}

    def test_a_doubling_instrument_under_a_voice_is_not_the_melody(self):
        f0 = np.full(FRAMES, 220, np.float32)
        bank = [made_excerpts(1)[0]._replace(lead_f0=self.LEAD, f0=f0)]
        mixture = draw_mixture(bank, [], replace(CLEAN, doubled=1), generator(0, 1))
        np.testing.assert_array_equal(mixture.lead_f0, f0)


def test_harmonies_are_softer_than_the_voice_and_leave_its_f0():
    excerpt = made_excerpts(1)[0]
    backing = np.roll(excerpt.voice, 400)
    bank = [excerpt._replace(backing=backing)]
    config = replace(CLEAN, harmonised=1, bare=1)
    for item in range(10):
        mixture = draw_mixture(bank, [], config, generator(0, 1, 0, item))
        added = mixture.samples - excerpt.voice
        below_db = 20 * np.log10(np.std(excerpt.voice) / np.std(added))
        assert 2.9 < below_db < 12.1
        np.testing.assert_array_equal(mixture.f0, excerpt.f0)


def test_produced_mixtures_are_of_the_same_pitch_and_length():
    f0 = np.zeros(FRAMES, np.float32)
    f0[100:700] = 220
    phase = 2 * np.pi * 220 * np.arange(SAMPLES) / MIX_RATE_HZ
    voice = sum(np.sin(k * phase) / k for k in range(1, 9)) * np.repeat(f0 > 0, MIX_HOP)
    bank = [made_excerpts(1)[0]._replace(voice=voice.astype(np.float32), f0=f0)]
    drawn = [
        draw_mixture(bank, [], replace(CLEAN, produced=1, bare=1), generator(0, 1, 0, k))
        for k in range(6)
    ]
    for mixture in drawn:
        assert mixture.samples.shape == (SAMPLES,)
        assert mixture.samples.dtype == np.float32
        np.testing.assert_array_equal(mixture.f0, bank[0].f0)
        assert heard_within_30_cents(mixture.samples, mixture.f0) > 0.9
    assert not any(np.array_equal(mixture.samples, bank[0].voice) for mixture in drawn)
