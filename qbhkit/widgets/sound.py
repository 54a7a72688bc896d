"""The sound that a recorder receives: assembled, checked, and encoded for playing."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from qbhkit.audio import AUDIO_SUFFIXES, Audio, load
from qbhkit.errors import MissingPackageError, QbhError

SHORTEST_S = 2.0
LONGEST_FILE_S = 60.0  # two minutes of sound would pass a notebook server's limit in one message
TOO_QUIET = 0.01  # peak, of 1
PLAYED_HZ = 16000
SAMPLE_BYTES = 4  # of a float32


@dataclass
class Incoming:
    """What the view has sent so far: the bytes of a file, or samples of a recording (no name)."""

    name: str | None = None
    rate_hz: int = 0
    body: bytearray = field(default_factory=bytearray)
    drawn: int = 0  # frames of the live line
    pause: int = 1  # frames to wait before drawing again

    def decoded(self) -> Audio:
        """Return the sound, or raise QbhError with the name that the user knows."""
        if self.name is None:
            return Audio(np.frombuffer(bytes(self.body), "<f4"), self.rate_hz)
        with TemporaryDirectory(prefix="qbhkit-") as folder:
            suffix = Path(self.name).suffix.lower()
            path = Path(folder) / f"hum{suffix if suffix in AUDIO_SUFFIXES else ''}"
            path.write_bytes(self.body)
            try:
                return load(path, PLAYED_HZ, LONGEST_FILE_S)
            except QbhError as error:
                raise QbhError(str(error).replace(str(path), self.name)) from None


def refuse_unusable(audio: Audio) -> None:
    """Raise QbhError if a hum is too short or too quiet."""
    if audio.duration_s < SHORTEST_S:
        raise QbhError(f"That was too short: hum for at least {SHORTEST_S:g} seconds.")
    if np.abs(audio.samples).max() < TOO_QUIET:
        raise QbhError("That was too quiet: come closer to the microphone, or hum louder.")


def wav_of(audio: Audio) -> bytes:
    """Return the sound as a 16-bit wav file."""
    import soundfile

    buffer = io.BytesIO()
    samples = np.clip(audio.samples, -1, 1)
    soundfile.write(buffer, samples, audio.rate_hz, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def microphone_package() -> Any:
    """Return what records on the kernel's machine, or raise MissingPackageError."""
    try:
        import sounddevice
    except ImportError:
        raise MissingPackageError(
            "Recording on the kernel's machine is not installed: pip install sounddevice."
        ) from None
    except OSError:
        raise MissingPackageError(
            "sounddevice needs the PortAudio library: apt-get install libportaudio2."
        ) from None
    return sounddevice
