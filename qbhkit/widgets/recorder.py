"""A recorder for notebooks: hum into the browser, and see, hear and rank the songs that it fits.

The view (``recorder.js``) records and draws; the sound goes to the kernel in pieces of PCM, and all
that is found lies here, so that everything works without a browser too. Sound travels in messages,
never in the widget's state: that may be saved in a notebook, and a voice has no place there.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio, load, resample, write_wav
from qbhkit.contour import CONTOUR_HOP_S, Contour, Floats, from_f0
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.widgets.sound import (
    LONGEST_FILE_S,
    PLAYED_HZ,
    SAMPLE_BYTES,
    SHORTEST_S,
    Incoming,
    microphone_package,
    refuse_unusable,
    wav_of,
)

if TYPE_CHECKING:
    from qbhkit.pitch.trackers import Tracker
    from qbhkit.retrieval.searcher import Answer, MatchFrom, Searcher

try:
    import anywidget
    import traitlets
    from ipywidgets import CallbackDispatcher
except ImportError:
    raise MissingPackageError(
        "The recorder widget is not installed: pip install 'qbhkit[notebooks]'."
    ) from None

_ONE_SEARCH = Lock()  # each widget may have a thread, and numba's own may not be entered twice
MOST_BYTES = 20_000_000  # of a file
_HERE_S = 10.0  # a recording on the kernel's machine
FULL_SCALE, CLIPPED = 0.999, 0.002  # a recording is clipped when this share of it is at the stop
_BEFORE_FRAMES = 3  # what a tracker hears before the frames that are drawn live
_MOST_FRAMES = 13  # what it hears at most for them, however slow it is
_AROUND_FRAMES = 20  # of a song before and after the match


class HumRecorder(anywidget.AnyWidget):
    """Record a hum in a notebook, and show the songs that it fits.

    In the browser: one button records and stops; a file may be dropped or chosen instead; the hum
    can be played, trimmed and saved; each song of the list plays its matched seconds, and the hum
    beside them. Without a browser: :meth:`hear`, :meth:`hear_file` or :meth:`record_here`, then
    ``results``. It goes into ipywidgets layouts as any other widget does.

    Args:
        searcher: of a catalogue; without one there is a contour, but no songs.
        tracker: of pitch; the default one for hums if None.
        k: songs in the list, at least 1.
        match_from: as :meth:`qbhkit.retrieval.searcher.Searcher.scores`.
        longest_s: when a recording ends by itself, seconds, 2 to 60.

    Attributes:
        audio: the hum after trimming, mono at 16 kHz; None before the first.
        contour: of ``audio``, None before the first hum; pitch in semitones every 100 ms.
        results: the songs, best first; empty where none was found or asked for.
        status: what to do, what was found or what is wrong, in words.
        problem: whether ``status`` says what is wrong.

    Raises:
        QbhError: if ``k`` or ``longest_s`` is out of range.

    Notebook: notebooks/11_hum_it_yourself.py
    """

    _esm = Path(__file__).with_name("recorder.js")
    _css = Path(__file__).with_name("recorder.css")
    _core = traitlets.Unicode().tag(sync=True)  # the recorder that the page of the service uses
    _most_bytes = traitlets.Int(MOST_BYTES).tag(sync=True)
    _line: Any = traitlets.List().tag(sync=True)  # (N,) semitones of the whole recording, or None
    _kept_s = traitlets.List([0.0, 0.0]).tag(sync=True)  # where the trimmed hum begins and ends
    _songs: Any = traitlets.List().tag(sync=True)
    longest_s = traitlets.Float(30.0).tag(sync=True)
    status = traitlets.Unicode("Press the button and hum.").tag(sync=True)
    problem = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        searcher: "Searcher | None" = None,
        tracker: "Tracker | None" = None,
        k: int = 5,
        match_from: "MatchFrom" = "anywhere",
        longest_s: float = 30.0,
    ) -> None:
        if k < 1:
            raise QbhError(f"k must be 1 or more, not {k}.")
        if not SHORTEST_S <= longest_s <= LONGEST_FILE_S:
            raise QbhError(
                f"longest_s must lie between {SHORTEST_S:g} and {LONGEST_FILE_S:g}, "
                f"not {longest_s:g}."
            )
        core = files("qbhkit.service").joinpath("page", "recorder.js").read_text("utf-8")
        super().__init__(_core=core, longest_s=longest_s)
        self._searcher, self._given_tracker = searcher, tracker
        self._k, self._anchor = k, match_from
        self._heard_by = CallbackDispatcher()
        self._recording: Audio | None = None  # all of it, whatever is trimmed
        self._whole: Contour | None = None  # its contour
        self.audio: Audio | None = None
        self.contour: Contour | None = None
        self.results: Sequence[Answer] = ()
        self._clipped = False
        self._incoming = Incoming()
        self.on_msg(self._receive)

    def on_heard(self, callback: Callable[["HumRecorder"], Any], remove: bool = False) -> None:
        """Call a function with this widget whenever a hum was heard, trimmed ones included.

        Args:
            callback: takes the widget, whose ``audio``, ``contour`` and ``results`` are new.
            remove: take the function off the list again.

        Notebook: notebooks/11_hum_it_yourself.py
        """
        self._heard_by.register_callback(callback, remove=remove)

    def hear(self, audio: Audio) -> None:
        """Take a hum: find its contour, and search for it.

        Args:
            audio: 2 s or more at any rate.

        Raises:
            QbhError: if it is too short, too quiet, holds no voice, or too little to search for;
                ``status`` then holds the same words. What can be played of it can be played.

        Notebook: notebooks/11_hum_it_yourself.py
        """
        with self._telling():
            self._forget()
            if not np.isfinite(audio.samples).all():
                raise QbhError("The recording holds NaN or infinite samples: record it again.")
            at_stop = int(np.count_nonzero(np.abs(audio.samples) >= FULL_SCALE))
            self._clipped = at_stop > CLIPPED * len(audio.samples)
            self._recording = self.audio = resample(audio, PLAYED_HZ)
            self._kept_s = [0.0, audio.duration_s]
            refuse_unusable(audio)
            self.status = "Listening to the pitch …"
            self._whole = self._contour_of(self._recording)
            self._line = _drawable(self._whole.pitch_st)
            self._search(0.0, audio.duration_s)

    def hear_file(self, path: Path) -> None:
        """Take a recorded hum in any format that :func:`qbhkit.audio.load` reads.

        Args:
            path: the file, 2 to 60 s.

        Raises:
            QbhError: if the file cannot be used, or as :meth:`hear`.

        Notebook: notebooks/11_hum_it_yourself.py
        """
        with self._telling():
            self._forget()
            audio = load(Path(path), PLAYED_HZ, LONGEST_FILE_S)
        self.hear(audio)

    def record_here(self, seconds_s: float = _HERE_S) -> None:
        """Record with the microphone of the machine that runs the kernel; wait until it is done.

        Args:
            seconds_s: how long, 2 to ``longest_s``.

        Raises:
            MissingPackageError: if sounddevice or the library that it needs is not installed.
            QbhError: if that machine has no microphone, or as :meth:`hear`.
        """
        with self._telling():
            if not SHORTEST_S <= seconds_s <= self.longest_s:
                raise QbhError(f"Record {SHORTEST_S:g} to {self.longest_s:g} s, not {seconds_s:g}.")
            sounddevice = microphone_package()
            self.status = f"The kernel's machine listens for {seconds_s:g} s: hum now."
            try:
                count = round(seconds_s * PLAYED_HZ)
                samples = sounddevice.rec(count, PLAYED_HZ, channels=1, dtype="float32")
                sounddevice.wait()
            except sounddevice.PortAudioError as error:
                raise QbhError(
                    f"The kernel's machine cannot record ({error}): choose a file instead."
                ) from None
            self.hear(Audio(samples[:, 0], PLAYED_HZ))

    def trim(self, start_s: float = 0.0, end_s: float | None = None) -> None:
        """Keep a part of the recording, and search for that; the rest can be had back.

        Args:
            start_s: seconds into the recording, rounded to 0.1 s.
            end_s: where the part ends; at the recording's end if None.

        Raises:
            QbhError: if there is no hum yet, if less than 2 s would be left, or as :meth:`hear`.

        Notebook: notebooks/11_hum_it_yourself.py
        """
        with self._telling():
            if self._whole is None or self._recording is None:
                raise QbhError("There is nothing to trim yet: record a hum first.")
            whole_s = self._recording.duration_s
            end_s = whole_s if end_s is None else min(max(0.0, end_s), whole_s)
            self._search(max(0.0, start_s), end_s)

    def save(self, path: Path) -> None:
        """Write the trimmed hum as 16-bit wav or flac, by suffix.

        Args:
            path: the file.

        Raises:
            QbhError: if there is no hum yet, or the suffix is another one.

        Notebook: notebooks/11_hum_it_yourself.py
        """
        with self._telling():
            path = Path(path)
            if self.audio is None:
                raise QbhError("There is nothing to save yet: record a hum first.")
            if path.suffix.lower() not in (".wav", ".flac"):
                raise QbhError(f"{path} must end in .wav or .flac.")
            write_wav(self.audio, path)

    def matched(self, rank: int = 0) -> Audio:
        """Return the matched seconds of a song in the list.

        Args:
            rank: 0 is the best song.

        Returns:
            The song's own recording, or its melody hummed as it is written; mono, 16 kHz.

        Raises:
            QbhError: if there is no such song, or as
                :func:`qbhkit.retrieval.matches.matched_audio`.

        Notebook: notebooks/11_hum_it_yourself.py
        """
        from qbhkit.retrieval.matches import matched_audio

        with self._telling():
            if self._searcher is None or not 0 <= rank < len(self.results):
                raise QbhError(
                    f"There is no song number {rank} in the list of {len(self.results)}."
                )
            return matched_audio(self._searcher.catalogue, self.results[rank], PLAYED_HZ)

    @property
    def _tracker(self) -> "Tracker":
        if self._given_tracker is None:
            from qbhkit.pitch.trackers import get_tracker

            self._given_tracker = get_tracker()
        return self._given_tracker

    def _contour_of(self, audio: Audio) -> Contour:
        return from_f0(self._tracker.track(resample(audio, self._tracker.rate_hz)))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Put an error into words that the view shows, too."""
        try:
            yield
        except QbhError as error:
            self._tell(str(error), problem=True)
            raise

    def _tell(self, words: str, problem: bool = False) -> None:
        self.status, self.problem = words, problem

    def _forget(self) -> None:
        self._recording = self._whole = self.audio = self.contour = None
        self.results, self._songs, self._line, self._kept_s = (), [], [], [0.0, 0.0]
        self.problem = False

    def _search(self, start_s: float, end_s: float) -> None:
        """Search for a part of the recording."""
        assert self._recording is not None
        assert self._whole is not None
        first = round(start_s / CONTOUR_HOP_S)
        last = min(math.ceil(end_s / CONTOUR_HOP_S - 1e-6), len(self._whole))
        begin, end = (round(frame * CONTOUR_HOP_S * PLAYED_HZ) for frame in (first, last))
        kept = Audio(self._recording.samples[begin:end], PLAYED_HZ)
        refuse_unusable(kept)
        self.audio, self._kept_s = kept, [first * CONTOUR_HOP_S, last * CONTOUR_HOP_S]
        self.contour = Contour(self._whole.frames[first:last])
        self.results, self._songs = (), []
        if not self.contour.voiced.any():
            raise QbhError(
                "No voice was heard: hum a tune on 'da' or 'la', close to the microphone."
            )
        if self._searcher is not None:
            self.status = "Searching …"
            self._list_songs(self._searcher, self.contour)
        self._tell(*self._verdict())
        self._heard_by(self)

    def _list_songs(self, searcher: "Searcher", hum: Contour) -> None:
        try:
            with _ONE_SEARCH:
                self.results = searcher.search(hum, self._k, self._anchor)
                self._songs = [self._row(searcher, hum, answer) for answer in self.results]
        except QbhError as error:  # begins in lower case, for it follows a file's name elsewhere
            raise QbhError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None

    def _verdict(self) -> tuple[str, bool]:
        """Return what a hum that was heard is told, and whether something is wrong with it."""
        words = "StateContour."
        if self._searcher is not None:
            best = self.results[0].title or self.results[0].song_id
            sure = self._searcher.confident(self.results)
            words = f"It fits {best} best."
            if not sure:
                words += " No song fits well, though: hum it once more, longer or clearer."
        if self._clipped:
            return f"The recording is clipped: turn the microphone down or move away. {words}", True
        return words, False

    def _row(self, searcher: "Searcher", hum: Contour, answer: "Answer") -> dict[str, Any]:
        """Return what the view shows of a song: its melody around the match, the hum laid on it."""
        catalogue = searcher.catalogue
        number = catalogue.number[answer.song_id]
        song = catalogue.contours[number]
        path: NDArray = np.array([answer.start_s, answer.end_s]) / song.hop_s
        laid: list[list[float | None]] = []
        if answer.transposition_st is not None:  # else the song is far shorter than the hum
            from_start = self._anchor == "start"
            path = searcher.aligner.path(hum, number, answer.transposition_st, from_start)
            sung = hum.trimmed()[0].transposed(-answer.transposition_st)
            where_s = np.round(path * song.hop_s, 2).tolist()
            laid = [list(pair) for pair in zip(where_s, _drawable(sung.pitch_st), strict=True)]
        first = max(0, int(path.min()) - _AROUND_FRAMES)
        last = int(path.max()) + _AROUND_FRAMES
        return {
            "title": answer.title or answer.song_id,
            "confidence": answer.confidence,
            "start_s": answer.start_s,
            "end_s": answer.end_s,
            "first_s": first * song.hop_s,
            "song": _drawable(song.pitch_st[first:last]),
            "hum": laid,
        }

    def _receive(self, _widget: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        """Do what the view asks; what goes wrong stands in ``status`` by then."""
        with suppress(QbhError):
            match content["type"]:
                case "begin":
                    self._forget()
                    self._incoming = Incoming(content["name"], content["rate_hz"])
                case "piece":
                    self._incoming.body += buffers[0]
                    if self._incoming.name is None:
                        self._draw_live(self._incoming)
                case "end":
                    self._take(content["bytes"])
                case "say":
                    self._tell(content["words"], content["problem"])
                case "trim":
                    self.trim(content["start_s"], content["end_s"])
                case "record_here":
                    self.record_here(min(_HERE_S, self.longest_s))
                case "sound":
                    rank = content["rank"]
                    sound = self.audio if rank is None else self.matched(rank)
                    if sound is not None:
                        self.send({"type": "sound", "ticket": content["ticket"]}, [wav_of(sound)])

    def _take(self, count: int) -> None:
        """Hear what has come in; the view says how many bytes it has sent."""
        incoming, self._incoming = self._incoming, Incoming()
        with self._telling():
            if len(incoming.body) != count:
                raise QbhError("A part of the recording was lost on its way: record it again.")
            audio = incoming.decoded()
        self.hear(audio)

    def _draw_live(self, incoming: Incoming) -> None:
        """Send the pitch of the newest whole frames, no more often than the tracker can follow."""
        step = round(CONTOUR_HOP_S * incoming.rate_hz)
        whole = len(incoming.body) // (SAMPLE_BYTES * step)
        if whole - incoming.drawn < incoming.pause:
            return
        first = max(0, incoming.drawn - _BEFORE_FRAMES, whole - _MOST_FRAMES)
        fresh = max(incoming.drawn, first)
        tail = incoming.body[SAMPLE_BYTES * step * first : SAMPLE_BYTES * step * whole]
        began_s = perf_counter()
        heard = self._contour_of(Audio(np.frombuffer(tail, "<f4"), incoming.rate_hz))
        pitch = heard.pitch_st[fresh - first :]
        self.send({"type": "pitch", "first": fresh, "pitch": _drawable(pitch)})
        incoming.drawn = whole
        incoming.pause = max(1, math.ceil((perf_counter() - began_s) / CONTOUR_HOP_S))


def _drawable(pitch_st: Floats) -> list[float | None]:
    """Return semitones as the view draws them: None, a gap, where nothing is voiced."""
    return [round(float(st), 2) if st > 0 else None for st in pitch_st]
