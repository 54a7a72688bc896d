import importlib
import importlib.util
import platform
import sys
from functools import cache
from types import ModuleType

import mir_eval
import numpy as np
import pytest
import soxr

import qbhkit
from qbhkit.audio import Audio, load, write_wav
from qbhkit.contour import F0Track
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.pitch import trackers
from qbhkit.pitch.trackers import (
    TRACKERS,
    FrameTracker,
    default_song_tracker,
    default_tracker,
    get_tracker,
    identity_of,
    in_chunks,
    on_f0_grid,
    track,
    tracker_for,
)
from qbhkit.pitch.trackers._torchaudio import import_beside
from qbhkit.synthesis.singer import Voice, render_hum

PACKAGES = {
    "swift-f0": "swift_f0",
    "praat": "parselmouth",
    "torchcrepe-tiny": "torchcrepe",
    "torchcrepe-full": "torchcrepe",
    "fcpe": "torchfcpe",
    "pesto": "pesto",
    "melodia": "essentia",
}
NEEDS_NONE = ["pyin", "whistle"]
# Noise of each slope is for three trackers; pYIN's own voicing is fooled by brown noise, MELODIA's
# by white. DC is for those that subtract the mean, softness for those that scale.
NOISE_SLOPE = {"pyin": 2, "praat": 2, "fcpe": 2, "swift-f0": 1, "pesto": 1, "whistle": 1}
DISTORTED = {  # amplitude and offset of a sine
    **dict.fromkeys(["fcpe", "whistle", "swift-f0", "praat"], (0.3, 0.4)),
    **dict.fromkeys(["pesto", "torchcrepe-tiny", "melodia"], (0.01, 0.0)),
    "pyin": (0.999, 0.0),
}
# onset s, duration s, MIDI pitch: a man's and a woman's register, a leap, a long note
NOTES = np.array([[0, 0.4, 50], [0.4, 0.4, 55], [0.8, 0.8, 62], [1.6, 0.4, 67], [2.0, 0.6, 57.0]])
WHISTLED = NOTES + np.array([0, 0, 24])


@cache
def made(name):
    try:
        return get_tracker(name)
    except MissingPackageError as error:  # MELODIA has wheels for Linux on x86_64 only
        if name != "melodia" or (platform.system(), platform.machine()) == ("Linux", "x86_64"):
            raise
        pytest.skip(str(error))


@pytest.fixture(params=sorted({*PACKAGES, *NEEDS_NONE} - {"torchcrepe-full"}))
def tracker(request):
    """All but the slowest one, whose code is that of the tiny one."""
    return made(request.param)


def hum_for(tracker):
    """Render a hum, or a whistle without overtones, at the tracker's rate."""
    whistles = tracker.name == "whistle"
    notes = WHISTLED if whistles else NOTES
    hum = render_hum(notes, Voice(breath=0.02), np.random.default_rng(11))
    count = 50 if tracker.name == "torchcrepe-full" else len(hum.f0.voicing)
    f0 = F0Track(hum.f0.frequency_hz[:count], hum.f0.voicing[:count])
    samples = hum.audio.samples[: 160 * count]
    if whistles:
        phase = np.cumsum(np.repeat(f0.frequency_hz, 160)) / 16000
        samples = 0.3 * np.repeat(f0.voicing, 160) * np.sin(2 * np.pi * phase)
        samples += np.random.default_rng(3).normal(0, 0.005, len(samples))
    return at_rate(samples, tracker.rate_hz), f0


def at_rate(samples, rate_hz):
    return Audio(soxr.resample(samples.astype(np.float32), 16000, rate_hz), rate_hz)


def sine(rate_hz, duration_s, amplitude=0.3, offset=0.0):
    at = np.arange(round(duration_s * rate_hz)) / rate_hz
    samples = offset + amplitude * np.sin(2 * np.pi * 440 * at)
    return Audio(samples.astype(np.float32), rate_hz)


def noise(slope, rate_hz, duration_s):
    """Noise whose power falls with frequency to the slope: 0 white, 1 pink, 2 brown."""
    count = round(duration_s * rate_hz)
    spectrum = np.fft.rfft(np.random.default_rng(2).normal(size=count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / rate_hz), 20.0)
    samples = np.fft.irfft(spectrum * frequency ** (-slope / 2), count)
    return Audio((0.1 * samples / samples.std()).astype(np.float32), rate_hz)


def raw_pitch_accuracy(truth: F0Track, found: F0Track) -> float:
    times = np.arange(len(truth.frequency_hz)) * 0.01
    voicing, cents, found_voicing, found_cents = mir_eval.melody.to_cent_voicing(
        times, np.where(truth.voiced, truth.frequency_hz, 0), times, found.frequency_hz
    )
    return mir_eval.melody.raw_pitch_accuracy(
        voicing, cents, found_voicing, found_cents, cent_tolerance=50
    )


class TestEveryTracker:
    @pytest.mark.parametrize("name", [*PACKAGES, *NEEDS_NONE])
    def test_a_hum_is_tracked_as_it_was_sung(self, name):
        tracker = made(name)
        audio, f0 = hum_for(tracker)
        found = tracker.track(audio)
        assert len(found.frequency_hz) == len(f0.frequency_hz)
        # the faded edges of notes are left out: there the truth is a matter of taste
        sung = f0.voiced
        core = sung & np.roll(sung, 4) & np.roll(sung, -4)
        truth = F0Track(np.where(core, f0.frequency_hz, 0), core.astype(float))
        assert core.sum() > 15
        assert raw_pitch_accuracy(truth, found) > 0.95
        assert found.voiced[core].mean() > 0.85
        if tracker.name not in ("pyin", "melodia"):  # which hold a pitch through short gaps
            assert found.voiced[~sung].mean() < 0.4

    def test_silence_and_noise_are_unvoiced(self, tracker):
        count = round(0.3 * tracker.rate_hz)
        found = tracker.track(Audio(np.zeros(count, np.float32), tracker.rate_hz))
        assert len(found.frequency_hz) == 30
        assert not found.voiced.any()
        slope = NOISE_SLOPE.get(tracker.name, 0)
        found = tracker.track(noise(slope, tracker.rate_hz, 2.0))
        assert found.voiced.mean() < 0.05

    def test_level_and_offset_do_not_matter(self, tracker):
        found = tracker.track(sine(tracker.rate_hz, 0.4, *DISTORTED[tracker.name]))
        middle = slice(12, 28)
        assert found.voiced[middle].mean() > 0.9
        np.testing.assert_allclose(found.frequency_hz[middle][found.voiced[middle]], 440, rtol=0.02)

    def test_the_shortest_recording_is_tracked_twice_alike(self, tracker):
        first, second = (tracker.track(sine(tracker.rate_hz, 0.1)) for _ in range(2))
        assert len(first.frequency_hz) == 10
        np.testing.assert_array_equal(first.frequency_hz, second.frequency_hz)
        np.testing.assert_array_equal(first.voicing, second.voicing)


@pytest.mark.parametrize("name", ["fcpe", "melodia"])
def test_a_seam_between_chunks_does_not_show(name, monkeypatch):
    tracker = made(name)
    audio, f0 = hum_for(tracker)
    whole = tracker.track(audio)
    monkeypatch.setattr(
        trackers, "in_chunks", lambda track, audio, chunk_s: in_chunks(track, audio, 1.0, 0.5)
    )
    cut = tracker.track(audio)
    assert len(cut.frequency_hz) == len(f0.frequency_hz)
    both = cut.voiced & whole.voiced
    assert both.sum() > 0.95 * max(whole.voiced.sum(), cut.voiced.sum())
    cents = 1200 * np.log2(cut.frequency_hz[both] / whole.frequency_hz[both])
    assert np.mean(np.abs(cents) < 50) > 0.97


@pytest.mark.parametrize("length", [100, 100_080, 163_999])
def test_chunks_put_every_frame_in_its_place(length):
    """A tracker that gives the mean of each frame, so that a frame out of place is seen."""
    longest = []

    def mean(audio):
        longest.append(audio.duration_s)
        count = max(1, round(audio.duration_s / 0.01))
        frames = np.pad(audio.samples, (0, 160))[: count * 160].reshape(count, 160)
        return F0Track(frames.mean(axis=1) + 100, np.ones(count))

    samples = np.linspace(0, 1000, length, dtype=np.float32)
    whole = mean(Audio(samples, 16000))
    longest.clear()
    found = in_chunks(mean, Audio(samples, 16000), 1.0, 0.2)
    np.testing.assert_allclose(found.frequency_hz[:-1], whole.frequency_hz[:-1], rtol=1e-6)
    assert len(found.frequency_hz) == len(whole.frequency_hz)
    assert max(longest) <= 1.4 + 1e-9


class Stepwise(FrameTracker):
    """A tracker whose samples are confidences, every 20 ms."""

    name, threshold, chunk_s = "stepwise", 0.8, 1.0

    def frames(self, samples):
        confidence = samples[160::320]
        return (np.arange(len(confidence)) + 0.5) * 0.02, np.full(len(confidence), 220), confidence


def test_a_tracker_s_own_threshold_becomes_one_half_in_every_chunk():
    confidence = np.random.default_rng(0).random(75).astype(np.float32)
    confidence[:5] = [0, 0.4, 0.8, 0.9, 1]
    found = Stepwise().track(Audio(np.repeat(confidence, 320), 16000))  # 1.5 s
    np.testing.assert_allclose(found.voicing[:10:2], [0, 0.25, 0.5, 0.75, 1], atol=1e-6)
    np.testing.assert_array_equal(found.voiced, np.repeat(confidence >= np.float32(0.8), 2))


class TestRegistry:
    def test_every_name_has_its_page(self):
        for name in [*PACKAGES, *NEEDS_NONE]:
            module, made_by = TRACKERS[name].split(":")
            page = importlib.import_module(module)
            assert getattr(page, made_by).name == name
            assert "Licence: " in page.__doc__
            assert "Range" in page.__doc__
        assert get_tracker().name == default_tracker() == "swift-f0"

    def test_an_unknown_name_lists_the_known_ones(self):
        for refusing in (get_tracker, identity_of):
            with pytest.raises(QbhError, match=r"'crepe'.*swift-f0, pyin, praat"):
                refusing("crepe")

    @pytest.mark.parametrize("name", PACKAGES)
    def test_a_missing_package_says_what_to_install(self, name, monkeypatch):
        monkeypatch.setitem(sys.modules, PACKAGES[name], None)
        install = {"swift-f0": "swift-f0", "melodia": r"'qbhkit\[melodia\]' \(AGPL-3\)"}
        wanted = f"{name} is not installed: pip install " + install.get(
            name, r"'qbhkit\[trackers\]'"
        )
        with pytest.raises(MissingPackageError, match=wanted) as error:
            get_tracker(name)
        assert isinstance(error.value, QbhError)

    def test_pyin_is_the_default_where_swift_f0_is_missing(self, monkeypatch):
        monkeypatch.setattr(trackers, "find_spec", lambda name: None)
        assert get_tracker().name == default_tracker() == "pyin"

    def test_songs_are_tracked_by_the_published_network_once_its_weights_are_there(
        self, tmp_path, monkeypatch
    ):
        from qbhkit.pitch.crnn import PATCH, MelodyCrnn, export_crnn

        monkeypatch.setenv("QBHKIT_DATA", str(tmp_path))
        assert default_song_tracker() == "crnn-lite"
        for refusing in (get_tracker, identity_of):
            with pytest.raises(QbhError, match="convert the published weights with 'qbhkit weig"):
                refusing("crnn")
        mean, std = np.full(PATCH, -30.0), np.full(PATCH, 15.0)
        export_crnn(MelodyCrnn(), mean, std, tmp_path / "weights" / "crnn.safetensors")
        assert default_song_tracker() == get_tracker("crnn").name == "crnn"
        assert identity_of("crnn").startswith("crnn@")

    def test_the_lead_melody_has_its_own_tracker(self):
        assert default_song_tracker("lead") == tracker_for("lead") == "crnn-lite-lead"
        assert tracker_for("lead", "crnn-lite-lead") == "crnn-lite-lead"
        assert tracker_for("voice", "pyin") == "pyin"
        with pytest.raises(QbhError, match="pyin tracks voices only: use crnn-lite-lead for the l"):
            track((np.ones(800), 8000), "pyin", target="lead")


def torchaudio_modules():
    return {name for name in sys.modules if name.split(".")[0] == "torchaudio"}


@pytest.fixture
def user_of_torchaudio(tmp_path, monkeypatch):
    """A package that imports torchaudio, which is not yet imported."""
    for name in torchaudio_modules():
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "user_of_torchaudio.py").write_text(
        "import importlib.util, torchaudio\nfrom torchaudio.transforms import Resample\n"
        "assert importlib.util.find_spec('torchaudio') is not None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("user_of_torchaudio", None)


class TestTorchaudio:
    def test_a_stand_in_takes_the_place_of_a_broken_one_during_an_import(self, user_of_torchaudio):
        """As the CUDA one beside a CPU torch, which fails half-way through its import."""
        folder = user_of_torchaudio / "torchaudio"
        folder.mkdir()
        (folder / "__init__.py").write_text("from torchaudio import half\nraise OSError('CUDA')\n")
        (folder / "half.py").write_text("")
        import_beside("user_of_torchaudio")
        with pytest.raises(ImportError, match="no_such_package"):
            import_beside("no_such_package")
        assert not torchaudio_modules()
        with pytest.raises(OSError, match="CUDA"):
            importlib.import_module("torchaudio")

    def test_one_that_works_is_used(self, user_of_torchaudio, monkeypatch):
        real, transforms = ModuleType("torchaudio"), ModuleType("torchaudio.transforms")
        real.__spec__ = importlib.util.spec_from_loader("torchaudio", None)
        transforms.Resample = "real"
        monkeypatch.setitem(sys.modules, "torchaudio", real)
        monkeypatch.setitem(sys.modules, "torchaudio.transforms", transforms)
        assert import_beside("user_of_torchaudio").Resample == "real"
        assert sys.modules["torchaudio"] is real


class TestGrid:
    @pytest.mark.parametrize(("hop_s", "count"), [(0.004, 57), (0.01, 2), (0.016, 57), (0.032, 1)])
    def test_it_takes_the_nearest_frame(self, hop_s, count):
        rng = np.random.default_rng(count)
        centres_s = np.arange(count) * hop_s + rng.uniform(0, hop_s / 2, count) * 0.9
        frequency, voicing = rng.uniform(100, 400, count), rng.random(count)
        duration_s = count * hop_s + 0.123
        found = on_f0_grid(centres_s, frequency, voicing, duration_s)
        assert len(found.frequency_hz) == round(duration_s / 0.01)
        for k in range(len(found.frequency_hz)):
            nearest = min(range(count), key=lambda n: abs(centres_s[n] - (k + 0.5) * 0.01))
            assert found.frequency_hz[k] == np.float32(frequency[nearest])
            assert found.voicing[k] == np.float32(voicing[nearest])

    def test_nan_zero_and_no_frames_are_unvoiced(self):
        frequency = np.array([200.0, np.nan, 0.0, 210.0])
        found = on_f0_grid((np.arange(4) + 0.5) * 0.01, frequency, np.ones(4), 0.04)
        assert found.frequency_hz.tolist() == [200, 0, 0, 210]
        assert found.voicing.tolist() == [1, 0, 0, 1]
        found = on_f0_grid(np.zeros(0), np.zeros(0), np.zeros(0), 0.5)
        assert len(found.frequency_hz) == 50
        assert not found.voiced.any()


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A vowel that glides, at a rate that is no tracker's."""
    path = tmp_path_factory.mktemp("song") / "song.wav"
    hum = render_hum(NOTES, Voice("vowels"), np.random.default_rng(4))
    write_wav(at_rate(hum.audio.samples, 22050), path)
    return path


class TestTrack:
    def test_a_recording_is_tracked_at_the_rate_of_the_tracker(self, song):
        assert qbhkit.track is track
        wanted = get_tracker("praat").track(load(song, 16000))
        assert wanted.voiced.mean() > 0.5
        audio = load(song, 22050)
        for given in (str(song), song, (audio.samples, audio.rate_hz), audio):
            found = track(given, "praat")
            assert found.hop_s == 0.01
            assert len(found.frequency_hz) == len(wanted.frequency_hz)
            assert np.mean(found.voiced == wanted.voiced) > 0.98
            both = found.voiced & wanted.voiced
            np.testing.assert_allclose(
                found.frequency_hz[both], wanted.frequency_hz[both], rtol=0.02
            )

    def test_an_f0_track_is_returned_as_it_is(self):
        given = F0Track(np.full(3, 220.0), np.ones(3))
        assert track(given, "no such tracker") is given

    def test_the_default_is_that_of_songs_not_that_of_hums(self, song, monkeypatch, tmp_path):
        monkeypatch.setenv("QBHKIT_DATA", str(tmp_path))  # without weights of the published network
        monkeypatch.setattr(trackers, "default_tracker", lambda: "no such tracker")
        wanted = get_tracker("crnn-lite").track(load(song, 8000))
        found = track(song)
        np.testing.assert_array_equal(found.frequency_hz, wanted.frequency_hz)
        np.testing.assert_array_equal(found.voicing, wanted.voicing)

    def test_errors_name_the_recording(self, song, monkeypatch):
        class Refusing:
            rate_hz = 16000

            def track(self, audio):
                raise QbhError("No pitch was found: sing louder.")

        monkeypatch.setattr(trackers, "get_tracker", lambda name: Refusing())
        with pytest.raises(QbhError, match=r"song\.wav: No pitch was found: sing louder\."):
            track(song)
        with pytest.raises(QbhError, match=r"^The given sound: No pitch was found"):
            track(sine(16000, 1.0))
