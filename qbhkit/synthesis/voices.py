"""Voices to train on: recorded hums with labelled pitch, and speech for its consonants."""

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio, load
from qbhkit.contour import F0_HOP_S, F0Track, midi_to_hz
from qbhkit.corpora.folders import MIR_QBSH_LABEL_HOP_S, HumRecording
from qbhkit.errors import QbhError
from qbhkit.synthesis.mixing import MIX_RATE_HZ, Recorded
from qbhkit.synthesis.timbre import TIMBRE_RATE_HZ, Timbre, analyse
from qbhkit.training_loop import Stream, generator

Track = Callable[[Audio], F0Track]  # a tracker's method

_FEWEST_SYLLABLES = 3
_WORDS = 7  # an utterance


def labelled_f0(labelled_st: NDArray, frames: int) -> NDArray[np.float32]:
    """Return the pitch labels of a MIR-QBSH hum, semitones every 32 ms, as Hz every 10 ms.

    Between labels at most a semitone apart, pitch is interpolated; otherwise, and next to a rest,
    the nearest label counts. Unvoiced is 0 in both.
    """
    if not labelled_st.any():
        return np.zeros(frames, np.float32)
    at = (np.arange(frames) + 0.5) * F0_HOP_S / MIR_QBSH_LABEL_HOP_S - 0.5  # in labels
    last = len(labelled_st) - 1
    nearest = labelled_st[np.clip(np.round(at).astype(int), 0, last)]
    before = labelled_st[np.clip(np.floor(at).astype(int), 0, last)]
    after = labelled_st[np.clip(np.floor(at).astype(int) + 1, 0, last)]
    joined = (before > 0) & (after > 0) & (np.abs(after - before) <= 1)
    pitch = np.where(joined, before + (at - np.floor(at)) * (after - before), nearest)
    return np.where(nearest > 0, midi_to_hz(pitch), 0.0).astype(np.float32)


def recorded_voices(hums: Iterable[HumRecording], track: Track) -> list[Recorded]:
    """Load labelled hums, and analyse the timbre of those with enough syllables.

    ``track`` is for audio at 16 kHz: WORLD needs finer pitch than the labels.
    """
    voices = []
    for hum in hums:
        if hum.labelled_st is None:
            continue
        samples = load(hum.path, MIX_RATE_HZ).samples
        f0 = labelled_f0(hum.labelled_st, round(len(samples) / MIX_RATE_HZ / F0_HOP_S))
        timbre = _timbre(load(hum.path, TIMBRE_RATE_HZ), track)
        voices.append(Recorded(samples, f0, timbre))
    return voices


def spoken_timbres(
    speakers: Sequence[str], titles: Sequence[str], utterances: int, track: Track, seed: int
) -> list[Timbre]:
    """Let flite speak words of song titles, and analyse the timbre of its voices.

    Args:
        speakers: flite's voices, for example ``slt``.
        titles: source of the words.
        utterances: how many each voice speaks.
        track: a tracker's method for audio at 16 kHz.
        seed: of the words.

    Raises:
        QbhError: if flite is not installed, or has no such voice.

    Source: Black and Lenzo, "Flite: a small fast run-time synthesis engine", 2001.
    """
    words = sorted({word.lower() for title in titles for word in title.split() if word.isalpha()})
    timbres = []
    # flite would replace an unknown voice by its default one
    known = _flite("-lv").split() if speakers else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        for number, speaker in enumerate(speakers):
            if speaker not in known:
                raise QbhError(f"flite cannot speak with the voice {speaker}: see 'flite -lv'.")
            for item in range(utterances):
                spoken = generator(seed, Stream.SPEECH, number, item).choice(words, _WORDS)
                _flite("-voice", speaker, "-t", " ".join(spoken), "-o", str(path))
                timbre = _timbre(load(path, TIMBRE_RATE_HZ), track)
                timbres += [timbre] if timbre else []
    return timbres


def _timbre(audio: Audio, track: Track) -> Timbre | None:
    timbre = analyse(audio, track(audio))
    return timbre if len(timbre.syllables) >= _FEWEST_SYLLABLES else None


def _flite(*arguments: str) -> str:
    """Run flite and return what it prints."""
    try:
        done = subprocess.run(["flite", *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise QbhError(
            "The speech synthesiser flite is not installed: apt-get install flite, or write "
            "'speech: []' in the configuration."
        ) from None
    except subprocess.CalledProcessError as error:
        raise QbhError(f"flite failed ({error.stderr.strip()}): write 'speech: []'.") from None
    return done.stdout
