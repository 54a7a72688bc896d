"""The bench of real recordings: its numbers on known tracks, and hums that find their songs."""

import numpy as np
import pytest
from conftest import pop_song

from qbhkit.audio import Audio, write_wav
from qbhkit.contour import F0Track, from_notes, midi_to_hz
from qbhkit.corpora import Song
from qbhkit.evaluation.benchmarks import bench_real_songs
from qbhkit.evaluation.benchmarks.bench_real_songs import (
    all_faults,
    at_best_delay,
    faults,
    hums_of,
    melodies,
    read_songs,
    rendered,
    retrieval,
    score,
    shape,
    tracked,
    typed_and_heard,
)
from qbhkit.synthesis.singer import LEAD_IN_S, SINGER_RATE_HZ, Voice, render_hum

LICENCE = "License: http://creativecommons.org/licenses/by-nc-nd/2.5/"


def track_of(notes, delay_s=0.0, tail_s=2.0):
    """What a perfect tracker finds, if the singer is late by so much; then silence."""
    pitch = from_notes(notes + np.array([delay_s, 0, 0]), 0.01).pitch_st
    pitch = np.pad(pitch, (0, round(tail_s * 100)))
    return F0Track(np.where(pitch > 0, midi_to_hz(pitch), 0), (pitch > 0).astype(float))


@pytest.fixture(scope="module")
def songs(tmp_path_factory, tunes):
    """Two tunes of half a minute as the corpus stores them, hummed as they are typed."""
    root = tmp_path_factory.mktemp("ultrastar")
    long = [tune.notes for tune in tunes if tune.notes[-1, 0] > 30]
    for name, notes in zip(("one", "two"), long, strict=False):
        hum = render_hum(notes, Voice(note_error_st=0, timing_error=0), np.random.default_rng(0))
        samples = hum.audio.samples[round(LEAD_IN_S * SINGER_RATE_HZ) :]
        write_wav(Audio(samples, SINGER_RATE_HZ), root / name / "audio.wav")
        lines = ["onset_s,duration_s,midi,phrase"]
        for number, (onset_s, duration_s, midi) in enumerate(notes):
            lines.append(f"{onset_s:.3f},{duration_s:.3f},{midi - 12:.0f},{number // 8}")
        (root / name / "notes.csv").write_text("\n".join(lines))
        (root / name / "license.txt").write_text(LICENCE)
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    write_wav(Audio(noise.astype(np.float32), 16000), root / "one" / "instrumental.wav")
    return read_songs(root)


def test_songs_say_their_terms_phrases_and_files(songs):
    assert [song.id for song in songs] == ["one", "two"]
    assert [song.terms for song in songs] == ["CC BY-NC-ND 2.5"] * 2
    np.testing.assert_array_equal(songs[0].phrase_s, songs[0].notes[::8, 0])
    assert [song.instrumental is None for song in songs] == [False, True]


def test_pitch_classes_are_compared_whatever_the_octave():
    notes = np.array([[1.0, 1.0, 60], [2.0, 1.0, 64]])
    found = track_of(notes + np.array([0, 0, 12.5]))
    assert score(found, notes) == {
        "pitch_class_accuracy": 1, "voiced_pitch_class_accuracy": 1, "voicing_recall": 1,
        "false_alarm": 0,
    }  # fmt: skip
    assert score(track_of(notes + np.array([0, 0, 0.7])), notes)["pitch_class_accuracy"] == 0


def test_voice_counts_as_false_alarm_only_far_from_notes():
    notes = np.array([[1.0, 1.0, 60]])
    near = track_of(np.array([[0.7, 1.6, 60]]))
    assert score(near, notes)["false_alarm"] == 0
    far = track_of(np.array([[0.0, 4.0, 60]]), tail_s=0)  # 0.7 and 1.7 s are far from the note
    assert score(far, notes)["false_alarm"] == 1


def test_a_pitch_that_is_called_unvoiced_counts_in_one_of_the_accuracies():
    notes = np.array([[0.0, 1.0, 60]])
    found = F0Track(track_of(notes).frequency_hz, np.zeros(300))
    measured = score(found, notes)
    assert measured["pitch_class_accuracy"] == 1
    assert measured["voiced_pitch_class_accuracy"] == measured["voicing_recall"] == 0


def test_the_best_delay_is_that_of_the_singer():
    notes = np.array([[0.5 * k, 0.5, 60 + 5 * (k % 2)] for k in range(8)])
    found = at_best_delay(track_of(notes, 0.12), notes)
    assert found["delay_ms"] == pytest.approx(120)
    assert found["pitch_class_accuracy"] == 1


def test_tracks_are_kept(songs, tmp_path, monkeypatch):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path))
    found = melodies(songs, "swift-f0")
    assert found["mean"]["pitch_class_accuracy"] > 0.8
    assert list(found["instrumental_false_alarm"]) == ["one"]
    monkeypatch.setattr(bench_real_songs, "track", None)  # nothing is tracked again
    assert melodies(songs, "swift-f0") == found


def test_faults_are_counted_by_kind_and_length():
    typed = np.tile([60.0] * 10 + [0.0] * 10, (2, 1))
    heard = typed.copy()
    heard[0, 2] = 0  # a lost frame
    heard[0, 5:8] = 72.3  # an octave, for three frames
    heard[1, 3:5] = 65  # neither
    heard[1, 12:20] = 48  # where nobody sings
    found = faults(heard, typed)
    assert found["lost"] == pytest.approx(1 / 20)
    assert found["octave"] == pytest.approx(3 / 19)
    assert found["otherwise"] == pytest.approx(2 / 19)
    assert found["filled"] == pytest.approx(8 / 20)
    short = [found[f"{name}_short"] for name in ("lost", "octave", "otherwise", "filled")]
    assert short == [1, 0, 1, 0]


def test_melodies_are_described_by_runs_and_steps():
    pitch = np.array([0, 60, 60, 60.5, 0, 0, 62, 70, 70.1, 0, 60])
    found = shape([pitch, pitch])
    assert found["voiced"] == pytest.approx(7 / 11)
    assert (found["run_s"], found["rest_s"]) == pytest.approx((0.3, 0.15))
    assert [found[name] for name in ("held", "slid", "leapt")] == pytest.approx([0.5, 0.25, 0.25])


def test_the_rules_for_songs_have_the_faults_of_trackers(songs, tmp_path, monkeypatch):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path))
    typed, heard = typed_and_heard(songs[0], "swift-f0")
    assert typed.shape == heard.shape
    assert typed[0, 0] > 0
    found = all_faults(songs, ["swift-f0"])  # a good one, on a clean voice
    assert found["swift-f0"]["octave"] < 0.02 < found["song_faults"]["octave"]
    assert found["swift-f0"]["otherwise"] < 0.1 < found["song_faults"]["otherwise"]


def test_a_rendered_song_sounds_as_its_notes_say(tmp_path, monkeypatch):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path))
    song = rendered(pop_song(tmp_path / "007.mid"))
    assert (song.id, song.terms) == ("pop909/007", "rendered")
    assert song.notes[0, 0] == song.phrase_s[0] == 1
    assert set(song.phrase_s) <= set(song.notes[:, 0])
    assert score(tracked(song.audio, "crnn-lite"), song.notes)["pitch_class_accuracy"] > 0.6


def test_hums_of_typed_notes_find_their_song(songs, tunes, embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path))
    hums = [(song.id, hum) for song in songs for hum in hums_of(song, 4, np.random.default_rng(0))]
    assert len(hums) == 8
    assert all(8 <= hum.duration_s <= 12 for _, hum in hums)
    typed = [Song(song.id, song.id, "typed", notes=song.notes) for song in songs]
    others = [tune for tune in tunes if tune.notes[-1, 0] <= 30]
    block = retrieval({"typed notes": typed}, others, hums, embedder)["typed notes"]["full"]
    assert block["n"] == 8
    assert block["top1"] >= 0.75
    assert set(block["per_song"]) == {"one", "two"}
