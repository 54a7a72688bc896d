import errno
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import av
import mutagen
import mutagen.id3
import mutagen.wave
import numpy as np
import pytest
import soundfile

import qbhkit.audio
from qbhkit.audio import Audio, as_audio, load, open_audio, read_tags, write_wav
from qbhkit.errors import QbhError


def sine(rate_hz: int, tone_hz: float = 440.0, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(round(rate_hz * seconds)) / rate_hz)


def loudest_hz(audio: Audio) -> float:
    spectrum = np.abs(np.fft.rfft(audio.samples * np.hanning(len(audio.samples))))
    return float(np.argmax(spectrum)) * audio.rate_hz / len(audio.samples)


def rms(audio: Audio) -> float:
    return float(np.sqrt(np.mean(audio.samples**2)))


def encode(path: Path, samples: np.ndarray, rate_hz: int, codec="aac", layout="mono") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        twice = layout == "stereo" and samples.ndim == 1
        channels = np.tile(samples.astype(np.float32), (2 if twice else 1, 1))
        frame = av.AudioFrame.from_ndarray(channels, "fltp", layout)
        frame.sample_rate = rate_hz
        split = av.AudioResampler(stream.format, layout, rate_hz, frame_size=960)
        for part in [*split.resample(frame), *split.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
def test_each_format_gives_the_same_mono_sound(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, sine(44100), 44100)
    audio = load(path)
    assert audio.samples.dtype == np.float32
    assert audio.samples.ndim == 1
    assert audio.rate_hz == 16000
    assert audio.duration_s == pytest.approx(1.0, abs=0.05)
    assert loudest_hz(audio) == pytest.approx(440, abs=1.5)
    assert rms(audio) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize(
    ("rate_hz", "wanted_hz"), [(8000, 44100), (22050, 16000), (44100, 8000), (192000, 16000)]
)
def test_resampling_keeps_pitch_and_length(tmp_path, rate_hz, wanted_hz):
    path = tmp_path / "tone.wav"
    soundfile.write(path, sine(rate_hz, 1234.0, 0.5), rate_hz)
    audio = load(path, wanted_hz)
    assert audio.rate_hz == wanted_hz
    assert abs(len(audio.samples) - wanted_hz // 2) <= 1
    assert loudest_hz(audio) == pytest.approx(1234, abs=2)
    middle = audio.samples[wanted_hz // 10 : -wanted_hz // 10]
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.01)


def test_what_lies_above_the_new_nyquist_is_filtered_out(tmp_path):
    soundfile.write(tmp_path / "high.wav", sine(44100, 15000.0), 44100)
    assert rms(load(tmp_path / "high.wav", 16000)) < 0.01


def test_resampling_in_blocks_leaves_no_seam(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "tone.wav", sine(44100), 44100, subtype="FLOAT")
    whole = load(tmp_path / "tone.wav").samples
    monkeypatch.setattr(qbhkit.audio, "_BLOCK_FRAMES", 1000)
    np.testing.assert_allclose(load(tmp_path / "tone.wav").samples, whole, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(tmp_path, channels):
    levels = 0.1 * np.arange(1, channels + 1)
    samples = np.tile(levels, (16000, 1))
    soundfile.write(tmp_path / "levels.wav", samples, 16000, subtype="FLOAT")
    np.testing.assert_allclose(load(tmp_path / "levels.wav").samples, levels.mean(), atol=1e-6)
    np.testing.assert_allclose(as_audio((samples, 16000)).samples, levels.mean(), atol=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "ULAW"])
def test_sample_formats_have_one_scale(tmp_path, subtype):
    soundfile.write(tmp_path / "tone.wav", sine(16000), 16000, subtype=subtype)
    samples = load(tmp_path / "tone.wav").samples
    np.testing.assert_allclose(samples, sine(16000), atol=0.02)


@pytest.mark.parametrize(("name", "codec"), [("memo.m4a", "aac"), ("memo.webm", "libopus")])
def test_recordings_of_phones_are_read_to_their_end_whatever_their_name(tmp_path, name, codec):
    audio = load(encode(tmp_path / name, sine(48000), 48000, codec).rename(tmp_path / "upload"))
    assert (audio.rate_hz, audio.samples.dtype) == (16000, np.float32)
    assert loudest_hz(audio) == pytest.approx(440, abs=1.5)
    assert audio.duration_s == pytest.approx(1.0, abs=0.1)
    whole = av_samples(tmp_path / "upload")
    assert len(audio.samples) == pytest.approx(len(whole) / 3, abs=1)  # 48 to 16 kHz, to the last


def av_samples(path: Path) -> np.ndarray:
    """All that the decoder gives, at its own rate."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.mark.parametrize(
    ("name", "codec", "says"),
    [("a.webm", "libopus", "is truncated: "), ("a.m4a", "aac", "is damaged or is not audio")],
)
def test_a_cut_recording_of_a_phone_is_refused(tmp_path, name, codec, says):
    path = encode(tmp_path / name, sine(48000, seconds=2.0), 48000, codec)
    path.write_bytes(path.read_bytes()[: round(0.8 * path.stat().st_size)])
    with pytest.raises(QbhError, match=rf"{name} {says}"):
        load(path)


def test_more_than_the_longest_is_refused(tmp_path):
    soundfile.write(tmp_path / "memo.flac", sine(48000, seconds=3), 48000)
    for path in (tmp_path / "memo.flac", encode(tmp_path / "a.m4a", sine(48000, seconds=3), 48000)):
        assert load(path, longest_s=3.1).duration_s == pytest.approx(3, abs=0.05)
        with pytest.raises(QbhError, match=r"is longer than 2\.5 s"):
            load(path, longest_s=2.5)


def test_a_playlist_is_not_followed(tmp_path):
    encode(tmp_path / "memo.aac", sine(48000), 48000)
    (tmp_path / "list.m4a").write_text("ffconcat version 1.0\nfile memo.aac\n")
    with pytest.raises(QbhError, match="is damaged or is not audio"):
        load(tmp_path / "list.m4a")


def test_m4a_with_bytes_that_are_no_utf8_in_its_title_is_read(tmp_path):
    path = encode(tmp_path / "memo.m4a", sine(16000), 16000)
    tags = mutagen.File(path, easy=True)
    tags["title"] = "QQQQQQQQ"
    tags.save()
    path.write_bytes(path.read_bytes().replace(b"QQQQQQQQ", b"QQ\xe9QQQQ\xff"))
    assert loudest_hz(load(path)) == pytest.approx(440, abs=1.5)


def test_without_pyav_ffmpeg_is_called(tmp_path, monkeypatch):
    (tmp_path / "memo.m4a").write_bytes(b"anything")
    commands = []

    def run(command, **_options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, sine(8000).astype("<f4").tobytes(), b"")

    monkeypatch.setattr(qbhkit.audio, "find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: "ffmpeg")
    monkeypatch.setattr(subprocess, "run", run)
    np.testing.assert_allclose(load(tmp_path / "memo.m4a", 8000).samples, sine(8000), atol=1e-6)
    assert commands[0][commands[0].index("-ar") + 1] == "8000"
    assert commands[0][commands[0].index("-ac") + 1] == "1"

    refused = subprocess.CompletedProcess([], 1, b"", b"first line\nmoov atom not found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: refused)
    with pytest.raises(QbhError, match="moov atom not found"):
        load(tmp_path / "memo.m4a")
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(QbhError, match=r"pip install av, or install ffmpeg"):
        load(tmp_path / "memo.m4a")


@pytest.mark.parametrize(
    ("suffix", "kept"),
    [(".wav", 0.9), (".flac", 0.8), (".mp3", 0.8), (".aiff", 0.5), (".ogg", 0.5)],
)
def test_truncated_files_are_refused(tmp_path, suffix, kept):
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, sine(16000, seconds=3.0), 16000)
    path.write_bytes(path.read_bytes()[: round(kept * path.stat().st_size)])
    with pytest.raises(QbhError, match=rf"tone\{suffix} is (truncated|damaged)"):
        load(path)


def test_an_mp3_with_a_large_cover_and_no_header_of_its_length_is_read(tmp_path):
    path = tmp_path / "song.mp3"
    soundfile.write(path, sine(16000, seconds=3.0), 16000)
    raw = path.read_bytes().replace(b"Xing", b"\0\0\0\0").replace(b"Info", b"\0\0\0\0")
    cover = bytes(1 << 16)
    path.write_bytes(b"ID3\3\0\0" + bytes([0, 4, 0, 0]) + cover + raw)
    assert soundfile.info(path).duration > 4  # what libsndfile guesses
    assert load(path).duration_s == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("tag", [b"", b"ID3\3\0\0" + bytes([0, 0, 8, 0]) + bytes(1024)])
def test_a_cut_mp3_that_tells_its_length_is_refused(tmp_path, tag):
    path = tmp_path / "song.mp3"
    soundfile.write(path, sine(16000, seconds=3.0), 16000)
    raw = path.read_bytes()
    path.write_bytes(tag + raw)
    assert load(path).duration_s == pytest.approx(3.0, abs=0.2)
    path.write_bytes(tag + raw[: len(raw) // 2])
    with pytest.raises(QbhError, match=r"song\.mp3 is truncated"):
        load(path)


@pytest.mark.parametrize("suffix", [".wav", ".m4a"])
def test_channels_that_cancel_each_other_are_not_silence(tmp_path, suffix):
    left = sine(16000)
    stereo = np.stack([left, -0.97 * left])
    path = tmp_path / f"inverted{suffix}"
    if suffix == ".wav":
        soundfile.write(path, stereo.T, 16000)
    else:
        encode(path, stereo, 16000, layout="stereo")
    assert rms(load(path)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert rms(as_audio((stereo.T, 16000))) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_a_wav_for_more_than_4_gb_is_read_and_a_cut_one_refused(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, sine(16000), 16000, format="RF64")
    raw = path.read_bytes()
    assert raw[:4] == b"RF64"
    assert load(path).duration_s == pytest.approx(1.0)
    path.write_bytes(raw[:-8000])
    with pytest.raises(QbhError, match=r"long\.wav is truncated"):
        load(path)


def test_wav_of_unknown_length_is_read(tmp_path):
    path = tmp_path / "piped.wav"
    soundfile.write(path, sine(16000), 16000)
    raw = bytearray(path.read_bytes())
    for size in (0xFFFFFFFF, 0x7FFFEFF8, 0x7FFFF024, 0x80000024):  # of sox, of arecord
        raw[4:8] = size.to_bytes(4, "little")
        path.write_bytes(raw)
        assert load(path).duration_s == pytest.approx(1.0)


def test_a_recording_that_changes_its_format_midway_is_refused(tmp_path):
    one = encode(tmp_path / "one.aac", sine(44100), 44100, layout="stereo")
    other = encode(tmp_path / "other.aac", sine(22050), 22050)
    (tmp_path / "radio.aac").write_bytes(one.read_bytes() + other.read_bytes())
    with pytest.raises(QbhError, match=r"radio\.aac is damaged or is not audio \(Frame"):
        load(tmp_path / "radio.aac")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.wav", b"", "is empty"),
        ("empty.m4a", b"", "is empty"),
        ("text.mp3", b"This is a letter, not a sound. " * 20, "is damaged or is not audio"),
        ("hum.raw", bytes(40_000), "has samples without a header: export it as wav"),
    ],
)
def test_files_that_are_no_audio_are_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(QbhError, match=f"{name} {says}"):
        load(tmp_path / name)


def test_missing_file_and_folder_are_refused(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    for name in ("absent.wav", "absent.m4a"):
        with pytest.raises(QbhError, match=f"{name} does not exist"):
            load(tmp_path / name)
    with pytest.raises(QbhError, match=r"folder\.wav is a folder: name the recordings in it"):
        load(tmp_path / "folder.wav")


@pytest.mark.parametrize(
    ("bad", "says"), [(np.nan, "NaN or infinite samples"), (1e38, "samples far beyond full scale")]
)
def test_samples_that_are_no_sound_are_refused(tmp_path, bad, says):
    samples = sine(44100)
    samples[22050] = bad
    soundfile.write(tmp_path / "bad.wav", samples, 44100, subtype="FLOAT")
    with pytest.raises(QbhError, match=rf"bad\.wav holds {says}"):
        load(tmp_path / "bad.wav")


@pytest.mark.parametrize(("seconds", "said"), [(0.05, "0.05"), (0, "0.00")])
def test_very_short_files_are_refused(tmp_path, seconds, said):
    soundfile.write(tmp_path / "click.wav", sine(16000, seconds=seconds), 16000)
    with pytest.raises(QbhError, match=rf"holds only {said} s"):
        load(tmp_path / "click.wav")
    soundfile.write(tmp_path / "short.wav", sine(16000, seconds=0.11), 16000)
    assert load(tmp_path / "short.wav").duration_s == pytest.approx(0.11)


def test_title_and_artist_come_from_tags(tmp_path):
    path = tmp_path / "song.mp3"
    soundfile.write(path, sine(16000), 16000)
    assert read_tags(path) == ("", "")
    tags = mutagen.File(path, easy=True)
    tags["title"], tags["artist"] = "小毛驢", "Ärzte"
    tags.save()
    assert read_tags(path) == ("小毛驢", "Ärzte")
    (tmp_path / "text.flac").write_text("no tags here")
    for name in ("text.flac", "absent.ogg"):
        assert read_tags(tmp_path / name) == ("", "")


def test_tags_of_wav_and_m4a(tmp_path):
    soundfile.write(tmp_path / "song.wav", sine(16000), 16000)
    wav = mutagen.wave.WAVE(tmp_path / "song.wav")
    wav.add_tags()
    wav.tags.add(mutagen.id3.TIT2(text=["Air"]))
    wav.save()
    assert read_tags(tmp_path / "song.wav") == ("Air", "")
    assert load(tmp_path / "song.wav").duration_s == pytest.approx(1.0)
    memo = mutagen.File(encode(tmp_path / "memo.m4a", sine(16000), 16000), easy=True)
    memo["artist"] = "me"
    memo.save()
    assert read_tags(tmp_path / "memo.m4a") == ("", "me")


def test_silence_is_told_from_a_quiet_voice():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(16000).astype(np.float32)
    assert Audio(np.zeros(16000, np.float32), 16000).silent
    assert Audio(np.zeros(0, np.float32), 16000).silent
    assert Audio(np.full(16000, 0.3, np.float32), 16000).silent  # a constant offset is no sound
    assert Audio(1e-6 * noise, 16000).silent
    assert not Audio(0.3 + 1e-3 * noise, 16000).silent


def test_write_wav_round_trip_and_clipping(tmp_path):
    path = tmp_path / "new" / "out.flac"
    write_wav(Audio((4 * sine(16000)).astype(np.float32), 16000), path)
    assert soundfile.info(path).subtype == "PCM_16"
    np.testing.assert_allclose(load(path).samples, np.clip(4 * sine(16000), -1, 1), atol=1e-4)


@pytest.mark.parametrize(("room", "code"), [(0, errno.ENOSPC), (1 << 40, errno.EIO)])
def test_a_full_disk_is_told_from_other_trouble(tmp_path, monkeypatch, room, code):
    def refuse(*_args, **_kwargs):
        raise soundfile.LibsndfileError(2)  # "System error."

    monkeypatch.setattr(soundfile, "write", refuse)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=room))
    with pytest.raises(OSError, match=r"hum\.wav") as caught:
        write_wav(Audio(np.zeros(100, np.float32), 16000), tmp_path / "hum.wav")
    assert caught.value.errno == code
    assert list(tmp_path.iterdir()) == []


class TestMemory:
    def test_floats_are_taken_as_they_are(self):
        for given in (sine(16000), sine(16000).astype(np.float16)):
            audio = as_audio((given, 16000.0))
            assert (audio.samples.dtype, audio.rate_hz) == (np.float32, 16000)
            np.testing.assert_array_equal(audio.samples, given.astype(np.float32))
        np.testing.assert_array_equal(as_audio(audio).samples, audio.samples)

    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32])
    def test_whole_numbers_have_the_full_scale_of_their_type(self, kind):
        scale = np.iinfo(kind)
        full = (int(scale.max) - int(scale.min) + 1) / 2
        middle = full + int(scale.min)
        samples = np.round(middle + sine(16000) * (full - 1)).astype(kind)
        audio = as_audio((samples, 16000))
        np.testing.assert_allclose(audio.samples, sine(16000), atol=1.01 / full)
        extremes = np.array([scale.min, scale.max] * 800, kind)
        assert as_audio((extremes, 16000)).samples.min() == -1
        assert as_audio((extremes, 16000)).samples.max() == pytest.approx(1, abs=1.01 / full)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (None, r"Give a path, or samples and their rate: \(samples, r"),
            (([0.0] * 16000,), "Give a path"),
            ((sine(16000), "fast"), "Give a path"),
            ((sine(16000), float("inf")), "Give a path"),
            ((sine(16000), 0), r"Samples must be numbers, \(N,\) or \(N, channels\)"),
            ((sine(16000) * 1j, 16000), "Samples must"),
            (([None] * 16000, 16000), "Samples must"),
            ((np.ones(16000, bool), 16000), "Samples must"),
            ((np.zeros((10, 10, 10)), 16000), "Samples must"),
            ((sine(16000).reshape(2, -1), 16000), "The given sound holds only 0.00 s"),
            (Audio(np.full(16000, np.nan), 16000), "The given sound holds NaN or infinite"),
        ],
    )
    def test_what_is_no_sound_is_refused(self, given, says):
        with pytest.raises(QbhError, match=f"^{says}"):
            as_audio(given)

    def test_a_recording_comes_from_a_file_or_from_memory(self, tmp_path):
        path = tmp_path / "a.wav"
        soundfile.write(path, sine(44100), 44100, subtype="FLOAT")
        audio = Audio(sine(44100).astype(np.float32), 44100)
        for given in (path, str(path), (sine(44100), 44100), audio):
            found = open_audio(given, 16000)
            assert found.rate_hz == 16000
            assert loudest_hz(found) == pytest.approx(440, abs=1.5)

    def test_a_silent_one_is_refused_by_its_name(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
        with pytest.raises(QbhError, match=r"a\.wav is silent"):
            open_audio(tmp_path / "a.wav", 16000)
        with pytest.raises(QbhError, match=r"^The given sound is silent"):
            open_audio((np.zeros(16000), 16000), 8000)
