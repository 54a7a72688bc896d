import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import score_of

from qbhkit.contour import hz_to_midi
from qbhkit.corpora.abc import music21_collection
from qbhkit.errors import QbhError
from qbhkit.storage import asset
from qbhkit.synthesis.singer import (
    LEAD_IN_S,
    SINGER_RATE_HZ,
    Voice,
    add_breaths,
    harmony,
    render_hum,
    render_line,
    sung_line,
    with_melismas,
)

# onset s, duration s, MIDI pitch
NOTES = np.array([[0.0, 0.5, 60], [0.5, 0.5, 64], [1.0, 1.0, 67], [2.0, 0.5, 62], [2.5, 1.0, 59]])
EXACT = Voice(
    note_error_st=0, timing_error=0, vibrato_st=0, jitter_st=0, glide_s=0.01, breath=0.01, gap=0.1
)


def hum(voice=EXACT, seed=0, notes=NOTES):
    return render_hum(notes, voice, np.random.default_rng(seed))


def voiced_span_s(track):
    frames = np.flatnonzero(track.voiced)
    return float((frames[-1] + 1 - frames[0]) * track.hop_s)


def test_the_same_seed_gives_the_same_samples_which_peak_at_one_half():
    first, again, other = hum(Voice(), 3), hum(Voice(), 3), hum(Voice(), 4)
    np.testing.assert_array_equal(first.audio.samples, again.audio.samples)
    np.testing.assert_array_equal(first.f0.frequency_hz, again.f0.frequency_hz)
    assert not np.array_equal(first.audio.samples, other.audio.samples)
    for audio, f0 in (first, hum(Voice(breath=0.3))):
        assert audio.rate_hz == SINGER_RATE_HZ == 16000
        assert audio.samples.dtype == np.float32
        assert np.abs(audio.samples).max() == pytest.approx(0.5, abs=1e-6)
        assert abs(audio.samples.mean()) < 0.01
        assert len(audio.samples) == len(f0.frequency_hz) * 160
        assert not f0.frequency_hz[~f0.voiced].any()


def test_an_exact_voice_sings_what_is_written():
    for voice in (replace(EXACT, gap=0.3), replace(EXACT, gap=0.3, glide_s=0.0)):
        track = hum(voice).f0
        midi = hz_to_midi(np.where(track.voiced, track.frequency_hz, 440.0))
        for onset, duration, pitch in NOTES:
            middle = round((0.2 + onset + 0.3 * duration) / 0.01)
            assert track.voiced[middle]
            assert midi[middle] == pytest.approx(pitch, abs=0.01)
        ends = np.round((0.2 + NOTES[:, 0] + 0.85 * NOTES[:, 1]) / 0.01).astype(int)
        assert not track.voiced[ends[:-1]].any()  # in the middle of the gap at each note's end
        assert not track.voiced[:15].any()


def test_the_key_moves_every_frame_and_the_tempo_divides_the_length():
    plain, moved = hum().f0, hum(replace(EXACT, key_st=7.0)).f0
    np.testing.assert_array_equal(plain.voiced, moved.voiced)
    at = plain.voiced
    steps = hz_to_midi(moved.frequency_hz[at]) - hz_to_midi(plain.frequency_hz[at])
    np.testing.assert_allclose(steps, 7.0, atol=1e-3)
    for tempo in (0.8, 1.0, 2.0):
        # from the first onset to the end of the last note, and 30 ms of fading at both ends
        span_s = voiced_span_s(hum(replace(EXACT, tempo=tempo)).f0)
        assert span_s == pytest.approx(3.4 / tempo + 0.06, abs=0.02)


def test_errors_are_as_large_as_said():
    notes = np.array([[0.4 * k, 0.4, 60] for k in range(120)])
    track = hum(replace(EXACT, note_error_st=0.5), 1, notes).f0
    middles = np.round((0.2 + notes[:, 0] + 0.2) / 0.01).astype(int)
    errors = hz_to_midi(track.frequency_hz[middles]) - 60
    assert errors.std() == pytest.approx(0.5, abs=0.1)
    assert abs(errors.mean()) < 0.15


@pytest.mark.parametrize("style", ["mm", "vowels"])
def test_a_note_too_high_for_the_rate_is_no_sound_but_no_nan_either(style):
    voice = Voice(style=style, breath=0, jitter_st=0, vibrato_st=0)
    notes = np.array([[0.0, 1.0, 127]])
    assert np.isfinite(render_hum(notes, voice, np.random.default_rng(0)).audio.samples).all()


def test_a_rest_between_notes_is_silent():
    notes = np.array([[0.0, 0.5, 60], [1.5, 0.5, 62]])
    sung = hum(notes=notes)
    assert not sung.f0.voiced[75:165].any()
    pause = sung.audio.samples[16000 * 8 // 10 : 16000 * 16 // 10]
    assert np.abs(pause).max() < 0.02


def test_every_style_is_tracked_at_its_true_pitch():
    for voice in (
        Voice("vowels", consonants=1.0, breath=0.1, scoop_st=1.0),
        Voice("mm", key_st=-14, tract=1.15),  # a bass
        Voice("vowels", key_st=9, tract=0.8),  # a child
    ):
        score = score_of(hum(voice, 2))
        assert score.raw_pitch_accuracy >= 0.9
        assert score.voicing_recall >= 0.9


def test_a_whistle_lies_two_octaves_up():
    plain, whistled = hum(EXACT), hum(replace(EXACT, style="whistle"))
    np.testing.assert_array_equal(plain.f0.voiced, whistled.f0.voiced)
    at = plain.f0.voiced
    steps = hz_to_midi(whistled.f0.frequency_hz[at]) - hz_to_midi(plain.f0.frequency_hz[at])
    np.testing.assert_allclose(steps, 24, atol=1e-3)
    assert score_of(whistled, "whistle").raw_pitch_accuracy >= 0.9


def high_level(samples, begin_s, end_s):
    """RMS of what changes from sample to sample: of high frequencies."""
    part = np.diff(samples[round(begin_s * SINGER_RATE_HZ) : round(end_s * SINGER_RATE_HZ)])
    return float(np.sqrt(np.mean(part**2)))


def test_consonants_sound_before_notes_and_are_never_voiced():
    voice = replace(EXACT, style="vowels", gap=0.3)
    plain, spoken = hum(voice), hum(replace(voice, consonants=1.0))
    np.testing.assert_array_equal(plain.f0.frequency_hz, spoken.f0.frequency_hz)
    for onset_s in LEAD_IN_S + NOTES[:, 0]:
        span = (onset_s - 0.05, onset_s - 0.03)
        assert not spoken.f0.voiced[round(span[0] / 0.01) : round(span[1] / 0.01)].any()
        assert high_level(spoken.audio.samples, *span) > 10 * high_level(plain.audio.samples, *span)


@pytest.mark.parametrize("style", ["mm", "vowels"])
def test_a_longer_tract_sounds_darker_at_the_same_pitch(style):
    voices = (replace(EXACT, style=style, tract=tract) for tract in (0.8, 1.0, 1.2))
    sung = [hum(voice, 1, np.array([[0.0, 2.0, 40]])) for voice in voices]
    np.testing.assert_array_equal(sung[0].f0.frequency_hz, sung[2].f0.frequency_hz)
    short, usual, long = (high_level(s.audio.samples, 0.5, 2) / s.audio.samples.std() for s in sung)
    assert short > 1.05 * usual
    assert usual > 1.05 * long


def test_an_impossible_voice_is_refused():
    for wrong, said in (
        ({"style": "yodel"}, "'yodel'"),
        ({"tempo": 0}, "tempo > 0"),
        ({"tract": 0}, "tract > 0"),
        ({"gap": 1.0}, "gap"),
    ):
        with pytest.raises(QbhError, match=said):
            Voice(**wrong)


def test_the_first_demo_hum_is_rendered_as_it_ships():
    script = Path(__file__).parents[2] / "data" / "make_demo_hums.py"
    demo = runpy.run_path(str(script))["DEMOS"][0]
    corpus = music21_collection(demo.collection)
    book = next(path for path in corpus.files if demo.song_id.split("-", 1)[1][:9] in path.name)
    song = next(song for song in corpus.read(book) if song.id == demo.song_id)
    onset_s = song.notes[:, 0]
    notes = song.notes[(onset_s >= demo.start_s) & (onset_s < demo.start_s + demo.length_s)]
    made = render_hum(notes, demo.voice, np.random.default_rng(0)).audio.samples
    shipped, rate_hz = soundfile.read(asset("hums/demo_1.flac"), dtype="float32")
    assert rate_hz == SINGER_RATE_HZ
    np.testing.assert_allclose(made, shipped, atol=1.01 / 32768)


class TestMelismas:
    LINE = sung_line(
        NOTES, Voice(jitter_st=0, vibrato_st=0, note_error_st=0), np.random.default_rng(0)
    )

    def test_long_notes_get_two_or_three_pitches_and_keep_their_syllable(self):
        found = with_melismas(self.LINE, 1.0, np.random.default_rng(1))
        assert (found.onsets_s == self.LINE.onsets_s).all()
        assert (found.level == self.LINE.level).all()
        moved = found.pitch_st - self.LINE.pitch_st
        held = np.unique(np.round(moved, 2))
        assert np.isin(held, [-4, -3, -2, -1, 1, 2, 3, 4]).sum() >= 2
        assert np.abs(np.diff(moved)).max() < 2  # it glides
        begins = np.round(self.LINE.onsets_s * 100).astype(int) + 8
        np.testing.assert_allclose(
            moved[begins], 0, atol=0.05
        )  # its first pitch is the written one

    def test_short_notes_stay(self):
        short = sung_line(NOTES * [0.15, 0.15, 1], Voice(gap=0), np.random.default_rng(0))
        np.testing.assert_array_equal(
            with_melismas(short, 1.0, np.random.default_rng(1)).pitch_st, short.pitch_st
        )

    def test_the_pitch_is_that_of_the_label(self):
        line = with_melismas(self.LINE, 1.0, np.random.default_rng(1))
        assert (
            score_of(
                render_line(line, Voice("vowels"), np.random.default_rng(2))
            ).raw_pitch_accuracy
            > 0.9
        )


def test_harmonies_are_thirds_and_fifths_within_the_scale():
    scale = np.array([[k, 1.0, 60 + p] for k, p in enumerate((0, 2, 4, 5, 7, 9, 11))])  # C major
    sizes = set()
    for seed in range(20):
        found = harmony(scale, scale, np.random.default_rng(seed))
        np.testing.assert_array_equal(found[:, :2], scale[:, :2])
        assert set(found[:, 2] % 12) <= set(scale[:, 2] % 12)
        sizes |= set(np.abs(found[:, 2] - scale[:, 2]))
    assert sizes == {3, 4, 6, 7}


def test_breaths_are_soft_noise_before_phrases_only():
    f0 = np.zeros(400)
    f0[100:200] = f0[220:300] = f0[350:] = 200  # rests of 1, 0.2 and 0.5 s
    voice = np.sin(2 * np.pi * 200 * np.arange(32000) / 8000) * np.repeat(f0 > 0, 80)
    added = add_breaths(voice, f0, 8000, np.random.default_rng(0)) - voice
    level = np.sqrt((added.reshape(400, 80) ** 2).mean(1))
    heard = np.flatnonzero(level > 1e-5)
    assert set(heard) <= {*range(70, 100), *range(320, 350)}
    assert {97, 347} <= set(heard)
    assert level.max() < 0.5 * voice.std()
