import json
from pathlib import Path

import numpy as np
import pytest
from conftest import pop_song

from qbhkit.contour import F0Track, from_f0
from qbhkit.corpora import open_corpus, songs_of
from qbhkit.corpora.training_songs import forbidden_ids, read_split, training_songs
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.f0_csv import read_f0_csv, write_f0_csv
from qbhkit.pitch import render_and_transcribe as module
from qbhkit.pitch.render_and_transcribe import (
    TranscribeConfig,
    song_mixture,
    transcribe_corpus,
    transcribe_song,
)
from qbhkit.pitch.trackers import get_tracker
from qbhkit.training_loop import generator

IDS = ("001", "002", "003")
HELD_OUT = "008"
SHORT = TranscribeConfig(length_s=4.0)
FIRST_S = 3.0  # onset of the first note: what comes before is the intro


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder whose POP909 has three songs to train on and one that is held out."""
    folder = tmp_path_factory.mktemp("data")
    for number, song_id in enumerate((*IDS, HELD_OUT)):
        pop_song(folder / "pop909" / song_id / f"{song_id}.mid", number)
    return folder


class Tracker:
    """A tracker that finds 220 Hz where it is loud; it counts, and may be made to do worse."""

    name, rate_hz = "crnn-lite", 8000

    def __init__(self):
        self.tracked = []
        self.before = lambda number: None
        self.silent = False

    def track(self, audio):
        self.before(len(self.tracked))
        self.tracked.append(audio.samples)
        frames = len(audio.samples) // 80
        loud = np.abs(audio.samples[: frames * 80].reshape(frames, 80)).mean(1)
        voiced = (loud > np.median(loud)) & (not self.silent)
        return F0Track(np.where(voiced, 220 + 100 * loud, 0), voiced * 1.0)


@pytest.fixture
def tracker(monkeypatch) -> Tracker:
    made = Tracker()
    monkeypatch.setattr(module, "get_tracker", lambda _name: made)
    return made


def transcribe(data, folder, config=SHORT, **others):
    return transcribe_corpus("pop909", data, folder, config, "crnn-lite", progress=False, **others)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestCorpus:
    def test_only_songs_that_may_be_trained_on_are_transcribed(self, data, tracker, tmp_path):
        assert HELD_OUT in forbidden_ids(read_split("pop909"))
        done = transcribe(data, tmp_path / "out")
        assert (done.written, done.reused, done.failures) == (3, 0, [])
        assert len(tracker.tracked) == 3
        names = {f"{song_id}.f0.csv" for song_id in IDS}
        assert set(files_of(tmp_path / "out")) == {*names, "transcribed.json"}

    def test_a_stopped_run_leaves_whole_files_and_goes_on(self, data, tracker, tmp_path):
        transcribe(data, tmp_path / "whole")
        tracker.tracked.clear()

        def stop(number):
            if number == 1:
                raise KeyboardInterrupt

        tracker.before = stop
        with pytest.raises(KeyboardInterrupt):
            transcribe(data, tmp_path / "out")
        assert set(files_of(tmp_path / "out")) == {"001.f0.csv", "transcribed.json"}
        tracker.before = lambda number: None
        (tmp_path / "out" / ".partial-x.csv").write_text("time_s,freq")  # what a killed run leaves
        done = transcribe(data, tmp_path / "out")
        assert (done.written, done.reused) == (2, 1)
        (tmp_path / "out" / ".partial-x.csv").unlink()
        assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")

    def test_a_song_sounds_the_same_whatever_else_is_transcribed(self, data, tracker, tmp_path):
        transcribe(data, tmp_path / "all")
        done = transcribe(data, tmp_path / "few", songs=1)
        assert (done.written, done.reused) == (1, 0)
        few, everything = files_of(tmp_path / "few"), files_of(tmp_path / "all")
        assert set(few) == {"001.f0.csv", "transcribed.json"}
        assert all(everything[name] == content for name, content in few.items())
        assert transcribe(data, tmp_path / "few", songs=2).reused == 1

    def test_melodies_made_otherwise_are_not_mixed(self, data, tracker, tmp_path):
        folder = tmp_path / "out"
        transcribe(data, folder, songs=1)
        before = files_of(folder)
        made = json.loads((folder / "transcribed.json").read_text())
        assert made.pop("tracker").startswith("crnn-lite@")
        assert made == {"corpus": "pop909", "seed": 0, "length_s": 4.0, "level_db": [-3.0, 6.0]}
        for other in (TranscribeConfig(1, 4.0), TranscribeConfig(0, 4.0, (-3.0, 5.0))):
            with pytest.raises(QbhError, match=r"out holds melodies made with other settings: "):
                transcribe(data, folder, other)
        with pytest.raises(QbhError, match="made with other settings"):
            transcribe_corpus("pop909", data, folder, SHORT, "swift-f0", progress=False)
        assert files_of(folder) == before
        (folder / "transcribed.json").write_text("[")
        with pytest.raises(QbhError, match=r"transcribed\.json is damaged .* delete"):
            transcribe(data, folder)
        (folder / "transcribed.json").unlink()
        with pytest.raises(QbhError, match="made with other settings"):
            transcribe(data, folder)
        assert len(tracker.tracked) == 1

    def test_silent_and_damaged_songs_are_named_and_tried_again(self, data, tracker, tmp_path):
        (tmp_path / "pop909" / "002").mkdir(parents=True)
        damaged = tmp_path / "pop909" / "002" / "002.mid"
        damaged.write_bytes(b"rubbish")
        silent = pop_song(tmp_path / "pop909" / "001" / "001.mid")
        tracker.silent = True
        done = transcribe(tmp_path, tmp_path / "out")
        assert (done.written, done.reused) == (0, 0)
        assert [failure.name for failure in done.failures] == [str(silent), str(damaged)]
        assert "001.mid was rendered, but no voice was found" in done.failures[0].reason
        assert "002.mid is not a readable MIDI file" in done.failures[1].reason
        assert set(files_of(tmp_path / "out")) == {"transcribed.json"}
        tracker.silent = False
        assert transcribe(tmp_path, tmp_path / "out").written == 1

    def test_a_missing_synthesiser_stops_at_once(self, data, tracker, tmp_path, monkeypatch):
        def missing(*_):
            raise MissingPackageError("The synthesiser is not installed.")

        monkeypatch.setattr(module, "render_accompaniment", missing)
        with pytest.raises(MissingPackageError, match="synthesiser"):
            transcribe(data, tmp_path / "out")
        assert tracker.tracked == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must be 0 or more"),
        ({"length_s": float("nan")}, "at least 1 s, not nan"),
        ({"level_db": (float("nan"), 0.0)}, "two numbers from -60 to 60 dB"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(QbhError, match=message):
        TranscribeConfig(**wrong)


class TestMixture:
    def test_it_begins_a_second_before_the_singing_and_has_its_length(self, data):
        path = data / "pop909" / "001" / "001.mid"
        mixture = song_mixture(path, SHORT, generator(0))
        assert len(mixture.samples) == 4 * 8000
        assert len(mixture.f0) == 400
        assert np.flatnonzero(mixture.f0)[0] == pytest.approx(100, abs=6)
        assert np.abs(mixture.samples[: round(0.8 * 8000)]).max() > 1e-4  # the accompaniment plays
        whole = song_mixture(path, TranscribeConfig(), generator(0))
        assert len(whole.f0) == pytest.approx(100 * (16 - FIRST_S + 1), abs=5)
        assert len(whole.samples) == 80 * len(whole.f0)

    def test_the_accompaniment_lies_under_the_voice_as_asked(self, data):
        path = data / "pop909" / "001" / "001.mid"
        loud, soft = (
            song_mixture(path, TranscribeConfig(length_s=4, level_db=(level, level)), generator(0))
            for level in (0.0, 20.0)
        )
        before = slice(0, round(0.8 * 8000))  # before the voice
        np.testing.assert_allclose(loud.samples[before], 10 * soft.samples[before], rtol=1e-4)
        voiced = np.repeat(soft.f0 > 0, 80)
        backing = (loud.samples - soft.samples) / 0.9
        voice = loud.samples - backing
        level_db = 20 * np.log10(np.std(voice[voiced]) / np.std(backing))
        assert level_db == pytest.approx(0, abs=0.1)


def test_crnn_lite_finds_the_tune_that_was_sung(data, tmp_path):
    path = data / "pop909" / "001" / "001.mid"
    config = TranscribeConfig(length_s=8.0, level_db=(6.0, 6.0))
    found = transcribe_song(path, config, get_tracker("crnn-lite"))
    write_f0_csv(found, tmp_path / "001.f0.csv")
    found = from_f0(read_f0_csv(tmp_path / "001.f0.csv"))
    (song,) = open_corpus("pop909", data).read(path)
    frames = song.contour().frames[round((FIRST_S - 1) * 10) :][: len(found)]
    both = found.voiced & (frames[:, 1] > 0)
    assert len(found) == 80
    assert both.sum() > 0.7 * (frames[:, 1] > 0).sum()
    apart = (found.pitch_st - frames[:, 0])[both]
    apart -= 12 * np.round(np.median(apart) / 12)  # may be sung an octave lower
    assert (np.abs(apart) < 1.5).mean() > 0.8  # singers miss notes by up to a semitone


class TestTraining:
    @pytest.fixture
    def transcribed_data(self, data, tmp_path, monkeypatch) -> Path:
        """POP909, and transcriptions of two of its songs and of the one that is held out."""
        monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path / "cache"))
        (tmp_path / "pop909").symlink_to(data / "pop909")
        for number, song_id in enumerate(("001", "003", HELD_OUT)):
            f0 = F0Track(np.full(20, 220.0 + number), np.ones(20), 0.1)
            write_f0_csv(f0, tmp_path / "pop909-transcribed" / f"{song_id}.f0.csv")
        return tmp_path

    def test_a_song_and_its_transcription_are_one_tune(self, transcribed_data):
        found = training_songs(("pop909", "pop909-transcribed"), transcribed_data)
        assert found.ids == ["001", "002", "003", "001", "003"]
        assert found.groups == [0, 1, 2, 0, 2]
        assert found.contours[3].pitch_st == pytest.approx([57.0] * 20, abs=1e-3)

    def test_a_held_out_song_counts_once_and_is_never_trained_on(self, transcribed_data):
        (by_notes,) = training_songs(("pop909", "pop909-transcribed"), transcribed_data).held_out
        assert len(by_notes) == 130  # without its introduction of 3 s
        (by_tracker,) = training_songs(("pop909-transcribed",), transcribed_data).held_out
        assert len(by_tracker) == 20

    def test_variants_stay_one_tune(self, tmp_path):
        split = read_split("pop909")
        forbidden = forbidden_ids(split)
        one, other = next(g for g in split["variants"] if not forbidden & set(g))[:2]
        for song_id in (one, other):
            f0 = F0Track(np.full(20, 220.0), np.ones(20), 0.1)
            write_f0_csv(f0, tmp_path / "pop909-transcribed" / f"{song_id}.f0.csv")
        assert training_songs(("pop909-transcribed",), tmp_path).groups == [0, 0]

    def test_what_the_command_wrote_is_read(self, data, tracker, tmp_path, monkeypatch):
        monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path / "cache"))
        transcribe(data, tmp_path / "cache" / "pop909-transcribed")
        corpus = open_corpus("pop909-transcribed", data)
        assert [song.id for song in songs_of(corpus)] == list(IDS)
        found = training_songs(("pop909-transcribed",), data)
        assert found.ids == list(IDS)
        assert all(contour.voiced.any() for contour in found.contours)
