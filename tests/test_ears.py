import numpy as np
import pytest

from qbhkit.audio import Audio, write_wav
from qbhkit.contour import F0Track, from_f0
from qbhkit.embedding.encoders import ContourEmbedder
from qbhkit.embedding.end_to_end import AudioEmbedder, open_embedder
from qbhkit.errors import QbhError
from qbhkit.f0_csv import write_f0_csv
from qbhkit.melody.lite import LiteExtractor
from qbhkit.melody.trackers import get_tracker
from qbhkit.retrieval.ears import PitchEar, StateEar, ear_of, query_reader


@pytest.fixture(scope="module")
def end_to_end():
    return AudioEmbedder()


def tone(count, rate_hz):
    rng = np.random.default_rng(0)
    samples = 0.3 * np.sin(2 * np.pi * 220 * np.arange(count) / rate_hz)
    return Audio((samples + rng.normal(0, 0.01, count)).astype(np.float32), rate_hz)


def test_states_lie_beside_the_contour_of_the_same_run():
    listener, audio = LiteExtractor(), tone(12345, 8000)
    heard = StateEar(listener).hear(audio)
    np.testing.assert_array_equal(heard.frames[:, :2], from_f0(listener.track(audio)).frames)
    np.testing.assert_array_equal(heard.states, listener.states(audio)[: len(heard)])
    assert len(heard) == 16


def test_every_embedder_gets_the_ear_that_it_reads(end_to_end):
    ear = ear_of(ContourEmbedder(), "pyin")
    assert isinstance(ear, PitchEar)
    assert ear.tracker.name == "pyin"
    assert ear.rate_hz == get_tracker("pyin").rate_hz
    for tracker in (None, "crnn-lite"):
        assert isinstance(ear_of(end_to_end, tracker), StateEar)
    with pytest.raises(QbhError, match=r"heard by crnn-lite: leave --tracker pyin out"):
        ear_of(end_to_end, "pyin")


def test_states_of_another_network_are_refused(end_to_end, monkeypatch):
    monkeypatch.setattr(end_to_end, "heard_by", "crnn-lite@000000000000")
    with pytest.raises(QbhError, match=r"reads states of crnn-lite@0{12}, not .* train it"):
        ear_of(end_to_end)


def test_weights_say_themselves_what_they_embed():
    assert isinstance(open_embedder("end-to-end"), AudioEmbedder)
    assert isinstance(open_embedder("stage1"), ContourEmbedder)


def test_what_an_ear_says_names_the_recording(monkeypatch, tmp_path):
    def refuse(self, audio):
        raise QbhError("Nothing was heard: hum louder.")

    monkeypatch.setattr(PitchEar, "hear", refuse)
    write_wav(tone(16000, 16000), tmp_path / "a.wav")
    with pytest.raises(QbhError, match=r"a\.wav: Nothing was heard: hum louder\."):
        query_reader(ContourEmbedder())(tmp_path / "a.wav")


def test_an_f0_file_needs_no_ear_and_holds_no_states(end_to_end, tmp_path):
    track = F0Track(np.full(300, 220.0), np.ones(300))
    write_f0_csv(track, tmp_path / "a.f0.csv")
    read = query_reader(ContourEmbedder(), "no such tracker")
    np.testing.assert_array_equal(read(tmp_path / "a.f0.csv").frames, from_f0(track).frames)
    with pytest.raises(QbhError, match=r"a\.f0\.csv holds no sound"):
        query_reader(end_to_end)(tmp_path / "a.f0.csv")
