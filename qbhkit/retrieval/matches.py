"""The sound of an answer: the matched seconds of the song."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import AUDIO_SUFFIXES, Audio, load
from qbhkit.catalogue.read import Catalogue
from qbhkit.contour import Contour
from qbhkit.errors import QbhError
from qbhkit.retrieval.searcher import Answer
from qbhkit.synthesis.singer import Voice, render_hum

# As written: no wrong notes; an octave lower, where a man would sing it.
_AS_WRITTEN = Voice(note_error_st=0, timing_error=0, vibrato_st=0, key_st=-12)


def matched_audio(catalogue: Catalogue, answer: Answer, rate_hz: int = 16000) -> Audio:
    """Return the seconds of a song that match a hum.

    Args:
        catalogue: the one that was searched.
        answer: of the search.
        rate_hz: of a recording; a melody is rendered at 16 kHz.

    Returns:
        The part of the recording, if there is one; otherwise the melody, hummed an octave lower.

    Raises:
        QbhError: if the catalogue lacks the song, the recording is damaged, or nothing is voiced.

    Notebook: notebooks/00_hum_to_song.py, notebooks/09_search_and_align.py
    """
    if answer.song_id not in catalogue.number:
        raise QbhError(f"The song {answer.song_id} is not in {catalogue.path}.")
    number = catalogue.number[answer.song_id]
    source = Path(catalogue.songs[number]["source"])
    if source.name.lower().endswith(AUDIO_SUFFIXES) and source.is_file():
        whole = load(source, rate_hz)
        first, last = round(answer.start_s * rate_hz), round(answer.end_s * rate_hz)
        if first < len(whole.samples):  # otherwise the file has been replaced
            return Audio(whole.samples[first:last], rate_hz)
    contour = catalogue.contours[number]
    first, last = (round(at_s / contour.hop_s) for at_s in (answer.start_s, answer.end_s))
    notes = _notes_of(Contour(contour.frames[first:last], contour.hop_s))
    if not len(notes):
        raise QbhError(f"Nothing from {answer.start_s} to {answer.end_s} s is voiced.")
    return render_hum(notes, _AS_WRITTEN, np.random.default_rng(0)).audio


def _notes_of(contour: Contour) -> NDArray[np.float64]:
    """Return (M, 3) notes: a new one wherever the pitch, rounded to semitones, changes."""
    pitch = np.round(contour.pitch_st)
    change = np.flatnonzero(np.diff(pitch, prepend=-1))
    length = np.diff(change, append=len(pitch))
    notes = np.stack([change * contour.hop_s, length * contour.hop_s, pitch[change]], axis=1)
    return notes[notes[:, 2] > 0]
