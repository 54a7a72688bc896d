from dataclasses import replace

import numpy as np
import pytest
import torch

from qbhkit.audio import Audio
from qbhkit.cli import main as qbhkit
from qbhkit.corpora.training_songs import TrainingSongs
from qbhkit.embedding import render_hums as rendering
from qbhkit.embedding.render_hums import (
    RenderConfig,
    SynthesisPool,
    draw_stretch,
    make_pool,
    render_all,
    render_one,
    sung_spans,
)
from qbhkit.embedding.rendered_pairs import read_rendered
from qbhkit.errors import QbhError
from qbhkit.pitch.frontends import StateFrontend
from qbhkit.synthesis.singer import LEAD_IN_S, Voice, sung_line

CONFIG = RenderConfig(speech=(), accompanied=0.0, degraded=0.0, length_s=(6.0, 8.0))
NOTES = np.array([[10, 0.5, 57], [10.5, 0.5, 60], [11, 1, 64], [12, 0.5, 62], [12.5, 1.5, 57.0]])
EXACT = Voice(note_error_st=0, timing_error=0, gap=0, jitter_st=0, vibrato_st=0)


@pytest.fixture(scope="module")
def frontend():
    torch.set_num_threads(1)
    return StateFrontend()


@pytest.fixture(scope="module")
def songs(tunes):
    return TrainingSongs(
        [tune.id for tune in tunes], [tune.contour() for tune in tunes], [*range(len(tunes))], [],
        tunes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool(songs):
    return make_pool(CONFIG, songs)


class TestSpans:
    @pytest.mark.parametrize("tempo", [0.8, 1.6])
    def test_they_follow_the_song_at_the_singers_tempo_and_stand_still_around_it(self, tempo):
        voice = replace(EXACT, tempo=tempo)
        line = sung_line(NOTES, voice, np.random.default_rng(0))
        late_s = 0.3
        spans = sung_spans(NOTES, line, voice, late_s, 60)
        edges_s = late_s + 0.1 * np.arange(61)
        wanted = 10 * np.clip(10 + (edges_s - LEAD_IN_S) * tempo, 10, 14)
        np.testing.assert_allclose(spans[:, 0], wanted[:-1], atol=0.15)
        np.testing.assert_allclose(spans[:, 1], wanted[1:], atol=0.15)

    def test_a_hurried_note_takes_the_song_along(self):
        voice = replace(EXACT, timing_error=0.3)
        line = sung_line(NOTES, voice, np.random.default_rng(1))
        assert np.abs(np.diff(line.onsets_s) - np.diff(NOTES[:, 0])).max() > 0.1
        spans = sung_spans(NOTES, line, voice, 0.0, 40)
        at_onset = np.interp(line.onsets_s, 0.1 * np.arange(40), spans[:, 0])
        np.testing.assert_allclose(at_onset, 10 * NOTES[:, 0], atol=1.1)


class TestStretch:
    def test_it_has_its_length_and_ends_at_a_long_rest(self):
        onsets = np.concatenate([0.5 * np.arange(40), 60 + 0.5 * np.arange(40)])
        notes = np.stack([onsets, np.full(80, 0.4), np.full(80, 60.0)], axis=1)
        for seed in range(20):
            found = draw_stretch(notes, CONFIG, np.random.default_rng(seed))
            assert len(found) <= 16
            assert np.diff(found[:, 0]).max(initial=0) < 1
            assert any(np.array_equal(found, notes[k : k + len(found)]) for k in range(80))

    def test_some_begin_with_the_song(self):
        notes = np.stack([np.arange(99.0), np.full(99, 0.9), np.full(99, 60.0)], axis=1)
        rng = np.random.default_rng(0)
        firsts = [draw_stretch(notes, CONFIG, rng)[0, 0] for _ in range(300)]
        assert 0.2 < np.mean(np.array(firsts) == 0) < 0.45


class TestRenderOne:
    def test_what_is_tracked_is_the_song_at_its_spans_and_not_beside_them(
        self, pool, frontend, monkeypatch
    ):
        contours = []

        def keep(self, audio):
            contours.append(contour_of(self, audio))
            return contours[-1]

        contour_of = StateFrontend.contour_of
        monkeypatch.setattr(StateFrontend, "contour_of", keep)
        errors = []
        first = render_one(0, pool, frontend)
        for number in range(3):
            found = render_one(number, pool, frontend)
            assert np.array_equal(found.states, first.states) == (number == 0)
            contour, _ = contours[-1].trimmed()
            np.testing.assert_array_equal(found.states, contour.states)
            assert len(found.spans) == len(found.states)
            row = []
            for late in range(-2, 3):
                at = np.floor(found.spans.mean(axis=1)).astype(int) + late
                song = found.song.frames[np.clip(at, 0, len(found.song) - 1)]
                both = (song[:, 1] > 0) & contour.voiced
                apart = contour.pitch_st[both] - song[both, 0]
                row.append(np.mean(np.abs(apart - np.median(apart))))
            errors.append(row)
        before2, before, right, after, after2 = np.mean(errors, axis=0)
        assert right < 1.0
        assert right < 0.85 * min(before, after)
        assert max(before, after) < min(before2, after2)

    def test_keys_are_those_of_real_singers(self, pool):
        rng = np.random.default_rng(0)
        sung = [
            rendering._with_errors(pool.notes[number], CONFIG, rng)
            for number in rng.integers(len(pool.notes), size=60)
        ]
        medians = [np.median(notes[:, 2]) for notes in sung]
        assert 43 < min(medians) < 55 < 63 < max(medians) < 72
        assert min(notes[:, 2].min() for notes in sung) > 37

    def test_accompaniment_and_degradation_change_the_recording(self, pool, frontend):
        line = sung_line(NOTES, EXACT, np.random.default_rng(0))

        def recorded(**change):
            changed = pool._replace(config=replace(CONFIG, **change))
            return rendering._record(line, EXACT, changed, np.random.default_rng(0)).samples

        plain = recorded()
        for change in ({"accompanied": 1.0, "snr_db": (0.0, 5.0)}, {"degraded": 1.0}):
            other = recorded(**change)
            assert len(other) == len(plain)
            assert np.corrcoef(plain, other)[0, 1] < 0.99
            assert np.isfinite(other).all()

    def test_songs_without_notes_are_refused(self, songs):
        few = songs._replace(songs=songs.songs[:0], groups=[])
        with pytest.raises(QbhError, match="nothing to sing"):
            make_pool(CONFIG, few)

    def test_silence_is_not_kept(self, pool, frontend, monkeypatch):
        silence = Audio(np.zeros(80000, np.float32), 8000)
        monkeypatch.setattr(rendering, "_record", lambda *_: silence)
        with pytest.raises(QbhError, match="No voice was found"):
            render_one(0, pool, frontend)


class TestAll:
    def bank(self, path, songs, count=5, **change):
        config = replace(CONFIG, count=count, **change)
        return render_all(config, songs, path, progress=False)

    @pytest.fixture
    def quick(self, monkeypatch):
        """Parts of two, and a renderer that counts instead of rendering."""
        calls = []

        def render(number, pool, frontend):
            calls.append(number)
            song = rendering.from_notes(pool.notes[0])
            return rendering.RenderedHum(np.full((3, 4), number), np.zeros((3, 2)), song, number)

        monkeypatch.setattr(rendering, "_PART_SIZE", 2)
        monkeypatch.setattr(rendering, "render_one", render)
        return calls

    @pytest.mark.parametrize(("seed", "due"), [(0, [2, 3, 4]), (1, [0, 1, 2, 3, 4])])
    def test_a_stopped_run_goes_on_and_another_begins_anew(
        self, songs, tmp_path, quick, monkeypatch, seed, due
    ):
        whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
        self.bank(whole, songs, seed=seed)
        render = rendering.render_one

        def stop(number, pool, frontend):
            if number == 3:
                raise KeyboardInterrupt
            return render(number, pool, frontend)

        monkeypatch.setattr(rendering, "render_one", stop)
        with pytest.raises(KeyboardInterrupt):
            self.bank(part, songs)
        monkeypatch.setattr(rendering, "render_one", render)
        assert not part.exists()
        quick.clear()
        stored = self.bank(part, songs, seed=seed)
        assert quick == due  # of the same run, the part that was whole is kept
        assert stored.arrays["tunes"].tolist() == [0, 1, 2, 3, 4]
        assert stored.arrays["states"][::3, 0].tolist() == [0, 1, 2, 3, 4]
        assert whole.read_bytes() == part.read_bytes()
        assert sorted(tmp_path.iterdir()) == [part, whole]

    def test_a_whole_bank_is_rendered_again_only_if_it_is_another(self, songs, tmp_path, quick):
        for seed, due in ((0, [0, 1, 2, 3, 4]), (0, []), (1, [0, 1, 2, 3, 4])):
            quick.clear()
            self.bank(tmp_path / "a.safetensors", songs, seed=seed)
            assert quick == due

    def test_the_command_makes_a_bank_in_two_processes(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(rendering, "_PART_SIZE", 1)
        config = tmp_path / "few.yaml"
        config.write_text("corpora: [airdsAirs]\nspeech: []\nlength_s: [6, 7]\n")
        command = ["data", "render", "--out", str(tmp_path / "bank.safetensors"), "--count", "2"]
        assert qbhkit([*command, "--config", str(config), "--workers", "2"]) == 0
        assert "2 rendered" in capsys.readouterr().out
        stored = read_rendered(tmp_path / "bank.safetensors")
        assert stored.arrays["states"].shape[1] == 256
        assert stored.recipe["states_of"].startswith("crnn-lite@")

    @pytest.mark.parametrize(
        "change",
        [
            {"count": 0}, {"kind": "other"}, {"seed": -1}, {"spoken": 1.5}, {"tempo_octaves": -1},
            {"utterances": -1}, {"length_s": (9.0, 8.0)}, {"length_s": (0.0, 8.0)},
            {"median_st": (45.0, 170.0)}, {"snr_db": (0.0, float("nan"))},
        ],
    )  # fmt: skip
    def test_a_wrong_configuration_is_refused(self, change):
        with pytest.raises(QbhError, match=f"{min(change)} must be"):
            RenderConfig(**change)


def test_a_pool_knows_the_tunes_of_its_songs(songs, pool):
    assert isinstance(pool, SynthesisPool)
    assert len(pool.notes) == len(pool.tunes) > 50
    for notes, tune in zip(pool.notes, pool.tunes, strict=True):
        assert len(notes) <= len(songs.songs[tune].notes)
        assert (np.diff(notes[:, 0]) > 0).all()


@pytest.mark.parametrize("chord", rendering._TRIADS)
def test_a_chord_is_major_or_minor_and_holds_the_note(chord):
    assert 0 in chord
    major, minor = {(4, 3), (3, 5), (5, 4)}, {(3, 4), (4, 5), (5, 3)}  # and their inversions
    assert tuple(np.diff(chord)) in major | minor


def test_no_chord_stands_there_twice():
    assert len(np.unique(rendering._TRIADS, axis=0)) == len(rendering._TRIADS)
