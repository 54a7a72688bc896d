import importlib
import importlib.util
import sys
from types import ModuleType

import mir_eval
import numpy as np
import pytest

import qbhkit
from qbhkit.audio import Audio, load, write_wav
from qbhkit.contour import F0Track, rescale_confidence
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.pitch import trackers
from qbhkit.pitch.trackers import (
    TRACKERS,
    default_song_tracker,
    default_tracker,
    get_tracker,
    identity_of,
    in_chunks,
    keep_range,
    on_f0_grid,
    track,
)
from qbhkit.pitch.trackers._torchaudio import import_beside, torchaudio_or_stand_in
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
# onset s, duration s, MIDI pitch: a man's and a woman's register, a leap, a long note
NOTES = np.array([[0, 0.4, 50], [0.4, 0.4, 55], [0.8, 0.8, 62], [1.6, 0.4, 67], [2.0, 0.6, 57.0]])
WHISTLED = NOTES + np.array([0, 0, 24])


def seconds(tracker, most):
    """How much the slowest tracker is given: it takes several times as long as it lasts."""
    return min(0.5, most) if tracker.name == "torchcrepe-full" else most


@pytest.fixture(scope="module", params=[*PACKAGES, *NEEDS_NONE])
def tracker(request):
    try:
        return get_tracker(request.param)
    except MissingPackageError as error:
        pytest.skip(str(error))


def hum_for(tracker):
    """Render a hum, or a whistle without overtones, at the tracker's rate."""
    whistles = tracker.name == "whistle"
    notes = WHISTLED if whistles else NOTES
    hum = render_hum(notes, Voice(breath=0.02), np.random.default_rng(11))
    count = round(100 * seconds(tracker, hum.audio.duration_s))
    f0 = F0Track(hum.f0.frequency_hz[:count], hum.f0.voicing[:count])
    samples = hum.audio.samples[: 160 * count]
    if whistles:
        phase = np.cumsum(np.repeat(f0.frequency_hz, 160)) / 16000
        samples = 0.3 * np.repeat(f0.voicing, 160) * np.sin(2 * np.pi * phase)
        samples += np.random.default_rng(3).normal(0, 0.005, len(samples))
    return at_rate(samples, tracker.rate_hz), f0


def at_rate(samples, rate_hz):
    import soxr

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


def test_a_hum_is_tracked_as_it_was_sung(tracker):
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


def test_silence_is_unvoiced(tracker):
    count = round(seconds(tracker, 1.0) * tracker.rate_hz)
    found = tracker.track(Audio(np.zeros(count, np.float32), tracker.rate_hz))
    assert len(found.frequency_hz) == round(100 * seconds(tracker, 1.0))
    assert not found.voiced.any()


@pytest.mark.parametrize("slope", [0, 1, 2], ids=["white", "pink", "brown"])
def test_noise_is_almost_unvoiced(tracker, slope):
    found = tracker.track(noise(slope, tracker.rate_hz, seconds(tracker, 3.0)))
    assert found.voiced.mean() < 0.05


def test_the_shortest_recording_is_tracked(tracker):
    found = tracker.track(sine(tracker.rate_hz, 0.1))
    assert len(found.frequency_hz) == 10


@pytest.mark.parametrize(
    ("amplitude", "offset"), [(0.3, 0.4), (0.999, 0.0), (0.01, 0.0)], ids=["DC", "loud", "soft"]
)
def test_level_and_offset_do_not_matter(tracker, amplitude, offset):
    if amplitude < 0.1 and tracker.name in ("swift-f0", "fcpe"):
        pytest.skip("the network goes by the level: a soft sine is not a voice")
    found = tracker.track(sine(tracker.rate_hz, 0.4, amplitude, offset))
    middle = slice(12, 28)
    assert found.voiced[middle].mean() > 0.9
    np.testing.assert_allclose(found.frequency_hz[middle][found.voiced[middle]], 440, rtol=0.02)


def test_the_same_recording_gives_the_same_track(tracker):
    audio = sine(tracker.rate_hz, 0.2)
    first, second = tracker.track(audio), tracker.track(audio)
    np.testing.assert_array_equal(first.frequency_hz, second.frequency_hz)
    np.testing.assert_array_equal(first.voicing, second.voicing)


def test_a_seam_between_chunks_does_not_show(tracker, monkeypatch):
    if tracker.name == "swift-f0":
        pytest.skip("swift-f0 cuts by itself")
    if tracker.name.startswith("torchcrepe"):
        pytest.skip("slow, and CREPE looks at one frame at a time")
    audio, f0 = hum_for(tracker)
    whole = tracker.track(audio)
    module = sys.modules[type(tracker).__module__]
    monkeypatch.setattr(
        module, "in_chunks", lambda track, audio, chunk_s=0: in_chunks(track, audio, 1.0, 0.5)
    )
    cut = tracker.track(audio)
    assert len(cut.frequency_hz) == len(f0.frequency_hz)
    both = cut.voiced & whole.voiced
    assert both.sum() > 0.95 * max(whole.voiced.sum(), cut.voiced.sum())
    cents = 1200 * np.log2(cut.frequency_hz[both] / whole.frequency_hz[both])
    assert np.mean(np.abs(cents) < 50) > 0.97


@pytest.mark.parametrize("length", [100, 100_000, 100_080, 100_081, 163_999])
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


def test_every_name_has_its_page():
    assert set(TRACKERS) >= {*PACKAGES, *NEEDS_NONE}
    for name, entry in TRACKERS.items():
        module, made_by = entry.split(":")
        page = importlib.import_module(module)
        made = {"load_crnn": "CrnnExtractor"}.get(made_by, made_by)
        assert getattr(page, made).name == name
        if name in [*PACKAGES, *NEEDS_NONE]:
            assert "Licence: " in page.__doc__
            assert "Range" in page.__doc__
    assert default_tracker() == "swift-f0"
    assert get_tracker().name == "swift-f0"


def test_the_command_line_offers_every_tracker(capsys):
    from qbhkit.cli import main

    with pytest.raises(SystemExit):
        main(["melody", "--help"])
    words = capsys.readouterr().out
    assert all(name in words for name in TRACKERS)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(QbhError, match=r"'crepe'.*swift-f0, pyin, praat"):
        get_tracker("crepe")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_says_what_to_install(name, monkeypatch):
    package = PACKAGES[name]
    monkeypatch.setitem(sys.modules, package, None)
    find_spec = importlib.util.find_spec
    page = importlib.import_module(TRACKERS[name].split(":")[0])
    if hasattr(page, "find_spec"):
        monkeypatch.setattr(
            page, "find_spec", lambda wanted: None if wanted == package else find_spec(wanted)
        )
    install = {"swift-f0": "swift-f0", "melodia": r"'qbhkit\[melodia\]' \(AGPL-3\)"}
    wanted = install.get(name, r"'qbhkit\[trackers\]'")
    with pytest.raises(MissingPackageError, match=f"{name} is not installed: pip install {wanted}"):
        get_tracker(name)


def test_pyin_is_the_default_where_swift_f0_is_missing(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert default_tracker() == "pyin"
    assert get_tracker().name == "pyin"


def test_a_missing_package_is_bad_input_and_an_import_error():
    assert issubclass(MissingPackageError, QbhError)
    assert issubclass(MissingPackageError, ImportError)


def torchaudio_modules():
    return {name for name in sys.modules if name.split(".")[0] == "torchaudio"}


@pytest.fixture
def broken_torchaudio(tmp_path, monkeypatch):
    """A torchaudio that fails half-way through its import, as the CUDA one beside a CPU torch."""
    for name in torchaudio_modules():
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "torchaudio"
    folder.mkdir()
    (folder / "__init__.py").write_text("from torchaudio import half\nraise OSError('no CUDA')\n")
    (folder / "half.py").write_text("")
    (tmp_path / "user_of_torchaudio.py").write_text(
        "import torchaudio\nfrom torchaudio.transforms import Resample\nload = torchaudio.load\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("user_of_torchaudio", None)


@pytest.mark.usefixtures("broken_torchaudio")
def test_the_stand_in_reads_and_resamples_and_goes_away(tmp_path):
    import soundfile
    import torch

    with torchaudio_or_stand_in():
        assert importlib.util.find_spec("torchaudio") is not None  # others may ask
    user = import_beside("user_of_torchaudio")
    assert not torchaudio_modules()
    with pytest.raises(OSError, match="no CUDA"):
        importlib.import_module("torchaudio")
    stereo = np.stack([sine(16000, 0.5).samples, np.zeros(8000, np.float32)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    samples, rate_hz = user.load(str(tmp_path / "a.wav"))
    assert rate_hz == 16000
    np.testing.assert_array_equal(samples.numpy(), stereo.T)
    resample = user.Resample(16000, 8000, lowpass_filter_width=128)
    assert isinstance(resample, torch.nn.Module)
    half = resample(samples[None])
    assert half.shape == (1, 2, 4000)
    middle = slice(1000, 3000)
    np.testing.assert_allclose(half[0, 0, middle], sine(8000, 0.5).samples[middle], atol=1e-3)


@pytest.mark.usefixtures("broken_torchaudio")
def test_the_stand_in_goes_away_after_an_error():
    with pytest.raises(ImportError, match="no_such_package"):
        import_beside("no_such_package")
    assert not torchaudio_modules()


def test_a_torchaudio_that_works_is_used(monkeypatch):
    for name in torchaudio_modules():
        monkeypatch.delitem(sys.modules, name)
    real, transforms = ModuleType("torchaudio"), ModuleType("torchaudio.transforms")
    monkeypatch.setitem(sys.modules, "torchaudio", real)
    monkeypatch.setitem(sys.modules, "torchaudio.transforms", transforms)
    with torchaudio_or_stand_in():
        assert sys.modules["torchaudio"] is real
    assert sys.modules["torchaudio"] is real
    assert sys.modules["torchaudio.transforms"] is transforms


@pytest.mark.parametrize("hop_s", [0.004, 0.01, 0.016, 0.032])
@pytest.mark.parametrize("count", [1, 2, 57])
def test_the_grid_takes_the_nearest_frame(hop_s, count):
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


def test_the_grid_calls_nan_and_zero_unvoiced():
    centres_s = (np.arange(4) + 0.5) * 0.01
    frequency = np.array([200.0, np.nan, 0.0, 210.0])
    found = on_f0_grid(centres_s, frequency, np.ones(4), 0.04)
    assert found.frequency_hz.tolist() == [200, 0, 0, 210]
    assert found.voicing.tolist() == [1, 0, 0, 1]


def test_the_grid_of_no_frames_is_unvoiced():
    found = on_f0_grid(np.zeros(0), np.zeros(0), np.zeros(0), 0.5)
    assert len(found.frequency_hz) == 50
    assert not found.voiced.any()


def test_the_threshold_becomes_one_half():
    found = rescale_confidence(np.array([0.0, 0.4, 0.8, 0.9, 1.0]), 0.8)
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 1.0])
    dense = rescale_confidence(np.linspace(0, 1, 101), 0.65)
    assert (np.diff(dense) > 0).all()
    assert ((dense >= 0.5) == (np.linspace(0, 1, 101) >= 0.65)).all()


def test_a_tracker_s_own_threshold_becomes_one_half(tracker):
    threshold = getattr(tracker, "threshold", None)
    if threshold is None:
        assert tracker.name == "praat"  # which decides by itself
        return
    found = rescale_confidence(np.array([threshold - 1e-6, threshold]), threshold)
    assert found[0] < 0.5 <= found[1]
    audio = noise(0, tracker.rate_hz, 0.2)
    audio = Audio(audio.samples + sine(tracker.rate_hz, 0.2).samples, tracker.rate_hz)
    found = tracker.track(audio)
    confidence = np.interp(found.voicing, [0, 0.5, 1], [0, threshold, 1])
    has_pitch = found.frequency_hz > 0
    np.testing.assert_array_equal(
        found.voiced[has_pitch], confidence[has_pitch] >= threshold - 1e-7
    )


def test_frequencies_out_of_range_are_none():
    found = keep_range(np.array([10.0, 50.0, 200.0, 2000.0, 2000.1]), 50.0, 2000.0)
    assert found.tolist() == [0, 50, 200, 2000, 0]


def test_songs_are_tracked_by_the_published_network_once_its_weights_are_there(
    tmp_path, monkeypatch
):
    from qbhkit.pitch.crnn import PATCH, MelodyCrnn, export_crnn

    monkeypatch.setenv("QBHKIT_DATA", str(tmp_path))
    assert default_song_tracker() == "crnn-lite"
    with pytest.raises(QbhError, match="convert the published weights with 'qbhkit weights conv"):
        get_tracker("crnn")
    mean, std = np.full(PATCH, -30.0), np.full(PATCH, 15.0)
    export_crnn(MelodyCrnn(), mean, std, tmp_path / "weights" / "crnn.safetensors")
    assert default_song_tracker() == "crnn"
    assert identity_of("crnn").startswith("crnn@")
    tracker = get_tracker("crnn")
    assert tracker.name == "crnn"
    audio = Audio(np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32), 8000)
    assert len(tracker.track(audio).voicing) == 100
    assert tracker.melody(audio).posteriors.shape == (100, 442)


def test_what_no_tracker_is_called_has_no_identity():
    assert identity_of("swift-f0") == "swift-f0"
    with pytest.raises(QbhError, match="There is no tracker 'ear'"):
        identity_of("ear")


class TestTrack:
    @pytest.fixture
    def song(self, tmp_path):
        """A vowel that glides, at a rate that is no tracker's."""
        hum = render_hum(NOTES, Voice("vowels"), np.random.default_rng(4))
        audio = at_rate(hum.audio.samples, 22050)
        write_wav(audio, tmp_path / "song.wav")
        return tmp_path / "song.wav"

    def test_it_is_at_the_front_door(self):
        assert qbhkit.track is track

    @pytest.mark.parametrize("kind", ["str", "Path", "samples", "Audio"])
    def test_a_recording_is_tracked_at_the_rate_of_the_tracker(self, song, kind):
        tracker = get_tracker("pyin")
        wanted = tracker.track(load(song, tracker.rate_hz))
        audio = load(song, 22050)
        given = {
            "str": str(song),
            "Path": song,
            "samples": (audio.samples, audio.rate_hz),
            "Audio": audio,
        }[kind]
        found = track(given, "pyin")
        assert found.hop_s == 0.01
        assert len(found.frequency_hz) == len(wanted.frequency_hz)
        assert wanted.voiced.mean() > 0.5
        assert np.mean(found.voiced == wanted.voiced) > 0.98
        both = found.voiced & wanted.voiced
        np.testing.assert_allclose(found.frequency_hz[both], wanted.frequency_hz[both], rtol=0.02)

    def test_an_f0_track_is_returned_as_it_is(self):
        given = F0Track(np.full(3, 220.0), np.ones(3))
        assert track(given) is given
        assert track(given, "no such tracker") is given

    def test_by_default_it_finds_the_voice_in_a_song(self, song, monkeypatch, tmp_path):
        monkeypatch.setenv("QBHKIT_DATA", str(tmp_path))  # without weights of the published network
        wanted = get_tracker("crnn-lite").track(load(song, 8000))
        found = track(song)
        np.testing.assert_array_equal(found.frequency_hz, wanted.frequency_hz)
        np.testing.assert_array_equal(found.voicing, wanted.voicing)

    def test_the_default_is_that_of_songs_not_that_of_hums(self, song, monkeypatch):
        monkeypatch.setattr(trackers, "default_song_tracker", lambda: "whistle")
        monkeypatch.setattr(trackers, "default_tracker", lambda: "no such tracker")
        wanted = get_tracker("whistle").track(load(song, 16000))
        np.testing.assert_array_equal(track(song).frequency_hz, wanted.frequency_hz)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ((np.zeros(16000), 16000), "The given sound is silent: check the microphone"),
            ((np.full(16000, np.nan), 16000), "The given sound holds NaN"),
            ((np.ones(800), 16000), r"The given sound holds only 0\.05 s"),
            (np.zeros(16000), "Give a path, or samples and their rate"),
            (None, "Give a path, or samples and their rate"),
            ("none.wav", r"none\.wav does not exist"),
        ],
        ids=["silent", "NaN", "short", "array", "None", "no file"],
    )
    def test_what_is_no_recording_is_refused(self, given, says):
        with pytest.raises(QbhError, match=says):
            track(given, "whistle")

    def test_a_silent_file_is_refused_by_its_name(self, tmp_path):
        write_wav(Audio(np.zeros(16000, np.float32), 16000), tmp_path / "a.wav")
        with pytest.raises(QbhError, match=r"a\.wav is silent"):
            track(tmp_path / "a.wav", "whistle")

    def test_an_unknown_tracker_is_refused(self, song):
        with pytest.raises(QbhError, match="There is no tracker 'ear': use one of swift-f0"):
            track(song, "ear")

    def test_errors_of_a_tracker_name_the_recording(self, song, monkeypatch):
        class Refusing:
            rate_hz = 16000

            def track(self, audio):
                raise QbhError("No pitch was found: sing louder.")

        monkeypatch.setattr(trackers, "get_tracker", lambda name: Refusing())
        with pytest.raises(QbhError, match=r"song\.wav: No pitch was found: sing louder\."):
            track(song)
        with pytest.raises(QbhError, match=r"^The given sound: No pitch was found"):
            track(sine(16000, 1.0))


def test_the_registry_names_the_network_itself():
    from qbhkit.pitch.crnn_lite import LiteExtractor

    assert isinstance(get_tracker("crnn-lite"), LiteExtractor)
    assert get_tracker("crnn-lite").name == "crnn-lite"
    assert get_tracker("crnn-lite").rate_hz == 8000
    assert identity_of("crnn-lite").startswith("crnn-lite@")
