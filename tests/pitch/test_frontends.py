import numpy as np
import pytest

import qbhkit
from qbhkit.audio import Audio, load, write_wav
from qbhkit.contour import Contour, F0Track, from_f0, from_pitch
from qbhkit.embedding.distillation import StateEmbedder
from qbhkit.embedding.embedder import ContourEmbedder, open_embedder
from qbhkit.errors import QbhError
from qbhkit.f0_csv import write_f0_csv
from qbhkit.pitch import frontends
from qbhkit.pitch.crnn_lite import LiteExtractor
from qbhkit.pitch.frontends import (
    PitchFrontend,
    StateContour,
    StateFrontend,
    frontend_for,
    levelled,
    query_loader,
    to_contour,
    without_room,
)
from qbhkit.pitch.trackers import default_tracker, get_tracker, identity_of

TRACK = F0Track(np.full(300, 220.0), np.ones(300))


def tone(count, rate_hz, frequency_hz=220):
    rng = np.random.default_rng(0)
    samples = 0.3 * np.sin(2 * np.pi * frequency_hz * np.arange(count) / rate_hz)
    return Audio((samples + rng.normal(0, 0.01, count)).astype(np.float32), rate_hz)


@pytest.fixture
def recording(tmp_path):
    write_wav(tone(32000, 16000), tmp_path / "a.wav")
    return tmp_path / "a.wav"


class TestLevelAndRoom:
    def test_a_quiet_hum_is_tracked_as_a_loud_one(self):
        loud = tone(32000, 16000)
        faint = Audio(0.005 * loud.samples + np.float32(0.1), 16000)  # -54 dB beside an offset
        assert levelled(loud) is loud
        raised = levelled(faint).samples
        assert raised.max() == pytest.approx(0.25, rel=1e-3)
        assert raised.min() == pytest.approx(-0.25, rel=1e-3)
        found = PitchFrontend(get_tracker("praat")).contour_of(faint)
        np.testing.assert_allclose(found.pitch_st[2:-2], 57, atol=0.1)

    def test_mains_behind_a_hum_is_not_voiced(self):
        mains, voice = tone(32000, 16000, 100), tone(32000, 16000)
        samples = np.concatenate([voice.samples, 10 ** (-30 / 20) * mains.samples])
        track = F0Track(np.repeat([220.0, 100.0], 200), np.ones(400))
        voiced = without_room(track, Audio(samples, 16000)).voiced
        assert voiced[:200].all()
        assert not voiced[205:].any()
        alone = without_room(track, Audio(np.tile(mains.samples, 2), 16000))
        assert alone.voiced.all()


class TestToContour:
    def test_recordings_of_every_kind_are_tracked(self, recording):
        assert qbhkit.to_contour is to_contour
        tracker = get_tracker("praat")
        wanted = from_f0(tracker.track(load(recording, tracker.rate_hz)))
        audio = load(recording, 16000)
        for given in (str(recording), recording, (audio.samples, 16000), audio):
            found = to_contour(given, "praat")
            np.testing.assert_array_equal(found.frames, wanted.frames)
        assert found.hop_s == 0.1
        assert len(found) == 20

    def test_an_f0_track_its_file_and_a_contour_need_no_tracker(self, tmp_path):
        write_f0_csv(TRACK, tmp_path / "a.f0.csv")
        write_f0_csv(TRACK, tmp_path / "B.CSV")
        wanted = from_f0(TRACK).frames
        for given in (TRACK, tmp_path / "a.f0.csv", str(tmp_path / "a.f0.csv"), tmp_path / "B.CSV"):
            np.testing.assert_array_equal(to_contour(given, "no such tracker").frames, wanted)
        contour = from_pitch(np.array([60.0, 0.0, 62.0]))
        assert to_contour(contour, "no such tracker") is contour

    def test_what_is_no_recording_is_refused(self, tmp_path):
        (tmp_path / "a.csv").write_text("a,b\n1,2\n")
        for given, says in (
            ((np.zeros(16000), 16000), "The given sound is silent: check the microphone"),
            (np.zeros(16000), "Give a path, or samples and their rate"),
            ("none.wav", r"none\.wav does not exist"),
            ("none.csv", r"none\.csv does not exist"),
            (tmp_path / "a.csv", r"a\.csv must begin with the header"),
        ):
            with pytest.raises(QbhError, match=says):
                to_contour(given)


class TestFrontends:
    def test_states_lie_beside_the_contour_of_the_same_run(self):
        network, audio = LiteExtractor(), tone(12345, 8000)
        found = StateFrontend().contour_of(audio)
        wanted = network.track_with_states(audio)
        np.testing.assert_array_equal(found.frames[:, :2], from_f0(wanted.f0).frames)
        np.testing.assert_array_equal(found.states, wanted.states[: len(found)])
        assert len(found) == 16

    def test_a_state_contour_is_cut_as_a_contour(self):
        frames = np.zeros((6, 2 + 4), np.float32)
        frames[2:4, :2] = [[60, 1], [62, 1]]
        frames[:, 2:] = np.arange(6)[:, None]
        shorter, cut_s = StateContour(frames).trimmed()
        assert isinstance(shorter, StateContour)
        assert cut_s == pytest.approx(0.2)
        assert shorter.pitch_st.tolist() == [60, 62]
        assert shorter.states[:, 0].tolist() == [2, 3]

    def test_a_state_contour_without_states_or_with_a_wrong_pitch_is_refused(self):
        for shape in ((3, 2), (3,), (2, 3, 4)):
            with pytest.raises(QbhError, match=r"has shape \(N, 2 \+ C\), not"):
                StateContour(np.zeros(shape))
        with pytest.raises(QbhError, match="unvoiced frames must have pitch 0"):
            StateContour(np.full((3, 4), [60, 0, 1, 1]))

    def test_every_embedder_gets_the_frontend_that_it_reads(self):
        states_of = identity_of("crnn-lite")
        embedder, contours = open_embedder("end-to-end"), open_embedder("stage1")
        assert isinstance(embedder, StateEmbedder)
        assert embedder.states_of == states_of
        assert isinstance(contours, ContourEmbedder)
        assert frontend_for(contours.states_of).tracker.name == default_tracker()
        frontend = frontend_for(contours.states_of, "whistle")
        assert isinstance(frontend, PitchFrontend)
        assert (frontend.tracker.name, frontend.rate_hz) == ("whistle", 16000)
        for tracker in (None, "crnn-lite"):
            assert isinstance(frontend_for(states_of, tracker), StateFrontend)
        with pytest.raises(QbhError, match=r"the states of crnn-lite: leave --tracker pyin out"):
            frontend_for(states_of, "pyin")
        with pytest.raises(QbhError, match=r"states of crnn-lite@0{12}, not .* train it"):
            frontend_for("crnn-lite@000000000000")


class TestQueryLoader:
    def test_errors_of_a_frontend_name_the_recording(self, monkeypatch, recording):
        def refuse(self, audio):
            raise QbhError("No pitch was found: hum louder.")

        monkeypatch.setattr(PitchFrontend, "contour_of", refuse)
        load_query = query_loader()
        with pytest.raises(QbhError, match=r"a\.wav: No pitch was found: hum louder\."):
            load_query(recording)
        with pytest.raises(QbhError, match=r"^The given sound: No pitch was found"):
            load_query(tone(16000, 16000))

    def test_the_frontend_is_made_once_and_for_the_first_recording(self, monkeypatch, recording):
        made = []

        def counted(*arguments):
            made.append(arguments)
            return frontend_for(*arguments)

        monkeypatch.setattr(frontends, "frontend_for", counted)
        load_query = query_loader(tracker="whistle")
        load_query(TRACK)
        assert made == []
        load_query(recording)
        load_query(str(recording))
        assert made == [(None, "whistle")]

    def test_a_state_embedder_gets_states_and_refuses_what_holds_none(self, recording, tmp_path):
        load_query = query_loader(identity_of("crnn-lite"))
        found = load_query(recording)
        assert isinstance(found, StateContour)
        assert load_query(found) is found
        write_f0_csv(TRACK, tmp_path / "a.f0.csv")
        with pytest.raises(QbhError, match=r"a\.f0\.csv holds no sound, which this embedder needs"):
            load_query(tmp_path / "a.f0.csv")
        with pytest.raises(QbhError, match="An f0 track holds no sound, which this embedder needs"):
            load_query(TRACK)
        with pytest.raises(QbhError, match="needs recordings: a contour holds no states"):
            load_query(Contour(np.array([[60.0, 1.0]])))
