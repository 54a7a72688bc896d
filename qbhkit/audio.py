"""Read recordings of any common format, rate and channel count as mono float32."""

import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qbhkit.errors import QbhError

SOUNDFILE_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
PHONE_SUFFIXES = (".m4a", ".mp4", ".webm", ".aac")  # need PyAV or ffmpeg
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES + PHONE_SUFFIXES

_BLOCK_FRAMES = 1 << 18
_SHORTEST_S = 0.1
_LOUDEST = 1e6  # of full scale 1; 16-bit integers mistaken for floats reach 32,768
_WHOLE = 0.95  # share of the claimed length that must be there: encoders add padding
_SILENCE_PEAK = 1e-4  # -80 dB: below the noise of an 8-bit recording's converter
_CANCELLED = 0.02  # share of the power; a voice in one of two channels alone leaves 0.25
_EBML = b"\x1aE\xdf\xa3"
# No playlists, which would make the decoder open other files.
_PHONE_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ogg,mp3,flac,wav"


@dataclass(frozen=True, eq=False)
class Audio:
    """Hold a recording."""

    samples: NDArray[np.float32]  # (N,) mono, nominally -1 to 1
    rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate_hz

    @property
    def silent(self) -> bool:
        """True when peaks stay below -80 dB of full scale, apart from a constant offset."""
        return not len(self.samples) or float(np.ptp(self.samples)) < 2 * _SILENCE_PEAK


Samples = tuple[ArrayLike, int]  # (N,) or (N, channels) samples, and their rate in Hz
Recording = str | PathLike[str] | Samples | Audio


class Tags(NamedTuple):
    """Title and artist as written in a file, empty where it has none."""

    title: str
    artist: str


def load(path: Path, rate_hz: int = 16000, longest_s: float = math.inf) -> Audio:
    """Read a recording as mono float32 at the rate asked for.

    Args:
        path: wav, flac, ogg, mp3 or aiff; or m4a, mp4, webm or aac, which need PyAV or ffmpeg.
        rate_hz: sampling rate of the result.
        longest_s: a longer recording is refused before all of it is decoded.

    Returns:
        Audio of at least 0.1 s.

    Raises:
        QbhError: if the file is missing, empty, truncated, not audio, holds NaN or values far
            beyond full scale, is shorter than 0.1 s or longer than ``longest_s``, or needs a
            decoder that is not installed.

    Notebook: notebooks/00_hum_to_song.py, notebooks/11_hum_it_yourself.py
    """
    path = Path(path)
    if path.is_dir():
        raise QbhError(f"{path} is a folder: name the recordings in it.")
    if not path.is_file():
        raise QbhError(f"{path} does not exist: check the path.")
    if path.stat().st_size == 0:
        raise QbhError(f"{path} is empty: record it again.")
    blocks, length = [], 0
    try:
        for block in _blocks(path, rate_hz, longest_s):
            blocks.append(block)
            length += len(block)
            if length > longest_s * rate_hz:
                raise _too_long(path, longest_s)
    except OSError as error:
        raise QbhError(f"{path} cannot be read ({error.strerror or error}).") from None
    except UnicodeEncodeError:
        raise QbhError(f"{path} has a name that is not UTF-8: rename it.") from None
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return _checked(samples, rate_hz, path)


def _checked(samples: NDArray[np.float32], rate_hz: int, name: object) -> Audio:
    if len(samples) < _SHORTEST_S * rate_hz:
        raise QbhError(
            f"{name} holds only {len(samples) / rate_hz:.2f} s of sound: record at least 2 s."
        )
    if not np.isfinite(samples).all():
        raise QbhError(f"{name} holds NaN or infinite samples: export it again.")
    if np.abs(samples).max() > _LOUDEST:
        raise QbhError(f"{name} holds samples far beyond full scale: export it again.")
    return Audio(samples, rate_hz)


def as_audio(given: Samples | Audio) -> Audio:
    """Return samples in memory as audio of at least 0.1 s, channels averaged.

    Args:
        given: audio; or (samples, rate_hz) with samples (N,) or (N, channels): floats with full
            scale 1, or integers with the full scale of their type.

    Raises:
        QbhError: if it is neither, too short, not finite or far beyond full scale.
    """
    try:
        values, rate = (given.samples, given.rate_hz) if isinstance(given, Audio) else given
        samples, rate_hz = np.asarray(values), int(rate)
    except (TypeError, ValueError, OverflowError):
        raise QbhError("Give a path, or samples and their rate: (samples, rate_hz).") from None
    if samples.dtype.kind not in "fiu" or samples.ndim not in (1, 2) or rate_hz < 1:
        raise QbhError("Samples must be numbers, (N,) or (N, channels), at a rate in Hz.")
    if samples.dtype.kind in "iu":
        scale = np.iinfo(samples.dtype)
        middle = (scale.max + 1) / 2 if samples.dtype.kind == "u" else 0
        samples = (samples - middle) / (scale.max + 1 - middle)
    mono = samples if samples.ndim == 1 else to_mono(samples)
    return _checked(np.asarray(mono, np.float32), rate_hz, name_of(given))


def to_mono(samples: NDArray) -> NDArray:
    """Average (N, channels); where channels cancel each other, return the loudest instead."""
    mean = samples.mean(axis=1)
    power = np.square(samples, dtype=np.float64).mean(axis=0)
    if np.square(mean, dtype=np.float64).mean() < _CANCELLED * power.max():
        return samples[:, power.argmax()]
    return mean


def name_of(recording: Recording) -> str:
    """Return what errors call a recording: its path, or "The given sound"."""
    return str(recording) if isinstance(recording, str | PathLike) else "The given sound"


def open_audio(recording: Recording, rate_hz: int) -> Audio:
    """Return a recording, from a file or from memory, as audio at the rate asked for.

    Args:
        recording: as :func:`load` or :func:`as_audio` takes it.
        rate_hz: sampling rate of the result.

    Raises:
        QbhError: as these two; and if the recording is silent.
    """
    if isinstance(recording, str | PathLike):
        audio = load(Path(recording), rate_hz)
    else:
        audio = resample(as_audio(recording), rate_hz)
    refuse_silence(audio, name_of(recording))
    return audio


def resample(audio: Audio, rate_hz: int) -> Audio:
    """Return audio at another rate (soxr, HQ); the same audio if it has that rate."""
    import soxr

    if audio.rate_hz == rate_hz:
        return audio
    return Audio(soxr.resample(audio.samples, audio.rate_hz, rate_hz), rate_hz)


def refuse_silence(audio: Audio, name: object) -> None:
    """Raise QbhError if a recording holds only silence."""
    if audio.silent:
        raise QbhError(f"{name} is silent: check the microphone and record it again.")


def _too_long(path: Path, longest_s: float) -> QbhError:
    return QbhError(f"{path} is longer than {longest_s:g} s: cut out the part that matters.")


def _blocks(path: Path, rate_hz: int, longest_s: float) -> Iterator[NDArray[np.float32]]:
    """Choose the decoder by suffix or first bytes: uploads may have any name."""
    with open(path, "rb") as stream:
        head = stream.read(8)
    if path.suffix.lower() not in PHONE_SUFFIXES and head[4:] != b"ftyp" and head[:4] != _EBML:
        return _soundfile_blocks(path, rate_hz, longest_s)
    if find_spec("av") is not None:
        return _pyav_blocks(path, rate_hz)
    if shutil.which("ffmpeg"):
        return _ffmpeg_blocks(path, rate_hz, longest_s)
    raise QbhError(f"{path} needs a decoder: pip install av, or install ffmpeg.")


def _soundfile_blocks(path: Path, rate_hz: int, longest_s: float) -> Iterator[NDArray[np.float32]]:
    import soundfile
    import soxr

    _refuse_truncated(path)
    try:
        with soundfile.SoundFile(path) as stream:
            if stream.frames > longest_s * stream.samplerate:
                raise _too_long(path, longest_s)
            resampler = soxr.ResampleStream(stream.samplerate, rate_hz, 1, dtype="float32")
            read = 0
            while len(block := stream.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                read += len(block)
                yield resampler.resample_chunk(to_mono(block))
            guessed = stream.format == "MP3" and not _tells_length(path)
            if read < _WHOLE * stream.frames and not guessed:
                raise QbhError(
                    f"{path} is truncated: {read} of {stream.frames} frames are there; copy or "
                    "record it again."
                )
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    except TypeError:  # a .raw file, which has no header
        raise QbhError(f"{path} has samples without a header: export it as wav.") from None
    except soundfile.LibsndfileError as error:
        reason = str(error).split(": ")[-1].rstrip(".")
        raise QbhError(f"{path} is damaged or is not audio ({reason}): export it again.") from None


def _tells_length(path: Path) -> bool:
    """Tell if an MP3 says how long it is; libsndfile guesses by the file's size, cover included."""
    with open(path, "rb") as stream:
        head = stream.read(10)
        size = sum(
            (byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
        stream.seek(10 + size if head[:3] == b"ID3" else 0)
        first_frame = stream.read(512)
    return b"Xing" in first_frame or b"Info" in first_frame


def _refuse_truncated(path: Path) -> None:
    """Refuse a wav or aiff file shorter than its header says; libsndfile would read it."""
    with open(path, "rb") as stream:
        header = stream.read(28)
    kind = (header[:4], header[8:12])
    if kind == (b"RF64", b"WAVE"):  # above 4 GB: the length is in a chunk of its own
        length = header[20:28] if header[12:16] == b"ds64" else b""
    elif kind in ((b"RIFF", b"WAVE"), (b"FORM", b"AIFF"), (b"FORM", b"AIFC")):
        length = header[4:8]
    else:
        return
    claimed = int.from_bytes(length, "big" if kind[0] == b"FORM" else "little") + 8
    # Files written to a pipe claim a length of 0, the largest number, or 2 GB (sox, arecord).
    unknown = claimed == 8 or claimed >= (256**8 - 1 if kind[0] == b"RF64" else 0x7FFFF000)
    if not unknown and claimed > path.stat().st_size + 1:  # the padding byte may be missing
        raise QbhError(
            f"{path} is truncated: its header claims {claimed} bytes, {path.stat().st_size} are "
            "there; copy or record it again."
        )


def _pyav_blocks(path: Path, rate_hz: int) -> Iterator[NDArray[np.float32]]:
    import av

    # Tags may hold any bytes. PyAV 19, for Python 3.12 and later, needs no such option.
    old = int(av.__version__.split(".")[0]) < 19
    tags: dict[str, Any] = {"metadata_errors": "replace"} if old else {}
    try:
        allowed = {"format_whitelist": _PHONE_FORMATS}
        with av.open(str(path), container_options=allowed, **tags) as container:
            if not container.streams.audio:
                raise QbhError(f"{path} has no audio track.")
            track = container.streams.audio[0]
            known = path.suffix.lower() != ".aac" and len(container.streams) == 1  # .aac: a guess
            claimed_s = (container.duration or 0) / 1e6 if known else 0.0
            decoded_s = 0.0
            channels = min(2, track.codec_context.channels)
            layout = "mono" if channels == 1 else "stereo"
            resampler: Any = av.AudioResampler(format="flt", layout=layout, rate=rate_hz)
            for frame in container.decode(track):
                decoded_s += frame.samples / frame.sample_rate
                for part in resampler.resample(frame):
                    yield to_mono(part.to_ndarray().reshape(-1, channels))
            if decoded_s < _WHOLE * claimed_s:
                raise QbhError(
                    f"{path} is truncated: {decoded_s:.1f} of {claimed_s:.1f} s are left; copy or "
                    "record it again."
                )
            for part in resampler.resample(None):
                yield to_mono(part.to_ndarray().reshape(-1, channels))
    except QbhError:
        raise
    except (av.FFmpegError, EOFError, ValueError) as error:  # ValueError: its format changes midway
        raise QbhError(f"{path} is damaged or is not audio ({error}): export it again.") from None


def _ffmpeg_blocks(path: Path, rate_hz: int, longest_s: float) -> Iterator[NDArray[np.float32]]:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-format_whitelist", _PHONE_FORMATS]
    command += ["-i", f"file:{path.resolve()}", "-f", "f32le", "-ac", "1", "-ar", str(rate_hz)]
    if math.isfinite(longest_s):
        command += ["-t", str(longest_s + 1)]  # a second more, to see that it is too long
    command += ["-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise QbhError(f"{path} is damaged or is not audio ({words[-1]}): export it again.")
    yield np.frombuffer(done.stdout, "<f4")


def write_wav(audio: Audio, path: Path) -> None:
    """Write a recording as 16-bit wav or flac (by suffix), atomically; clipped to -1 to 1."""
    import soundfile

    from qbhkit.storage import atomic_path, unwritten

    with atomic_path(Path(path)) as part:
        try:
            soundfile.write(part, np.clip(audio.samples, -1, 1), audio.rate_hz, subtype="PCM_16")
        except soundfile.LibsndfileError as error:
            raise unwritten(Path(path), error) from None


def read_tags(path: Path) -> Tags:
    """Read title and artist from a file's tags, empty where they cannot be read."""
    import mutagen

    try:
        tags = mutagen.File(path, easy=True) or {}
    except (mutagen.MutagenError, ValueError, IndexError, KeyError):
        tags = {}
    names = (("title", "TIT2"), ("artist", "TPE1"))  # wav and aiff keep the raw ID3 names
    return Tags(*(str(next((tags[k][0] for k in keys if tags.get(k)), "")) for keys in names))
