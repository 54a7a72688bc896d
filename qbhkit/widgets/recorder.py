"""A recorder for notebooks: hum into the browser, see and play the songs that match.

The view (``recorder.js``) records and draws. Sound travels in messages and not in the widget's
state, because the state may be saved with a notebook and a voice must not.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import AUDIO_SUFFIXES, Audio, load, resample, write_wav
from qbhkit.contour import CONTOUR_HOP_S, Contour, Floats
from qbhkit.errors import MissingPackageError, QbhError, missing_package

if TYPE_CHECKING:
    from qbhkit.embedding.windows import MatchFrom
    from qbhkit.pitch.frontends import Frontend
    from qbhkit.pitch.trackers import Tracker
    from qbhkit.retrieval.searcher import Answer, Searcher

try:
    import anywidget
    import traitlets
    from ipywidgets import CallbackDispatcher
except ImportError:
    raise missing_package("The recorder widget", "'qbhkit[notebooks]'") from None

_ONE_SEARCH = Lock()  # each widget may have a thread; not all of numba's layers allow two
MOST_BYTES = 20_000_000  # of a file
SHORTEST_S = 2.0
LONGEST_FILE_S = 60.0  # two minutes of sound would pass a notebook server's limit in one message
TOO_QUIET = 0.01  # peak, of 1
PLAYED_HZ = 16000
_HERE_S = 10.0  # length of a recording on the kernel's machine
FULL_SCALE, CLIPPED = 0.999, 0.002  # clipped: more than this share of the samples is that high
_BEFORE_FRAMES = 3  # context that the tracker gets before the frames that are drawn live
_MOST_FRAMES = 13  # the most that it gets at once, however slow it is
_AROUND_FRAMES = 20  # of a song, drawn before and after the match


@dataclass
class _Incoming:
    """What the view has sent so far: the bytes of a file, or samples of a recording (no name)."""

    name: str | None = None
    rate_hz: int = 0
    body: bytearray = field(default_factory=bytearray)
    drawn: int = 0  # frames of the live line
    pause: int = 1  # frames to wait before drawing again

    def samples(self, first: int = 0, end: int | None = None) -> Floats:
        return np.frombuffer(self.body[4 * first : end and 4 * end], "<f4")

    def decoded(self, count: int) -> Audio:
        """Return the sound if ``count`` bytes have come; errors name the file as the user does."""
        if len(self.body) != count:
            raise QbhError("A part of the recording was lost on its way: record it again.")
        if self.name is None:
            return Audio(self.samples(), self.rate_hz)
        with TemporaryDirectory(prefix="qbhkit-") as folder:
            suffix = Path(self.name).suffix.lower()
            path = Path(folder) / f"hum{suffix if suffix in AUDIO_SUFFIXES else ''}"
            path.write_bytes(self.body)
            try:
                return load(path, PLAYED_HZ, LONGEST_FILE_S)
            except QbhError as error:
                raise QbhError(str(error).replace(str(path), self.name)) from None


class HumRecorder(anywidget.AnyWidget):
    """Record a hum in a notebook, and show the songs that match it.

    Without a browser: :meth:`hear`, :meth:`hear_file` or :meth:`record_here`, then ``results``.

    Args:
        searcher: a searcher or the folder of a catalogue; None tracks the pitch and finds no songs.
        tracker: pitch tracker; if None, the one that the searcher's weights need, or the default.
        k: songs in the list, at least 1.
        match_from: as :meth:`qbhkit.retrieval.searcher.Searcher.scores`.
        longest_s: when a recording ends by itself, seconds, 2 to 60.

    Attributes:
        audio: the hum after trimming, mono at 16 kHz; None before the first hum.
        contour: of ``audio``: MIDI semitones every 100 ms; None before the first hum.
        results: the songs, best first; empty if none was found or there is no searcher.
        status: what to do, what was found or what is wrong, as a sentence.
        problem: whether ``status`` reports a problem.

    Raises:
        QbhError: if ``k`` or ``longest_s`` is out of range, or the catalogue cannot be opened.

    Notebook: notebooks/11_hum_it_yourself.py
    """

    _esm = Path(__file__).with_name("recorder.js")
    _css = Path(__file__).with_name("recorder.css")
    _core = traitlets.Unicode().tag(sync=True)  # source of the recorder of the service's page
    _most_bytes = traitlets.Int(MOST_BYTES).tag(sync=True)
    _line: Any = traitlets.List().tag(sync=True)  # (N,) semitones of the whole recording, or None
    _kept_s = traitlets.List([0.0, 0.0]).tag(sync=True)  # begin and end of the trimmed hum
    _songs: Any = traitlets.List().tag(sync=True)
    longest_s = traitlets.Float(30.0).tag(sync=True)
    status = traitlets.Unicode("Press the button and hum.").tag(sync=True)
    problem = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        searcher: "Searcher | str | Path | None" = None,
        tracker: "Tracker | None" = None,
        k: int = 5,
        match_from: "MatchFrom" = "anywhere",
        longest_s: float = 30.0,
    ) -> None:
        if k < 1:
            raise QbhError(f"k must be 1 or more, not {k}.")
        if not SHORTEST_S <= longest_s <= LONGEST_FILE_S:
            limits = f"{SHORTEST_S:g} and {LONGEST_FILE_S:g}"
            raise QbhError(f"longest_s must lie between {limits}, not {longest_s:g}.")
        if isinstance(searcher, str | Path):
            from qbhkit.retrieval.searcher import open_searcher

            searcher = open_searcher(searcher)
        core = files("qbhkit.service").joinpath("page", "recorder.js").read_text("utf-8")
        super().__init__(_core=core, longest_s=longest_s)
        self._searcher, self._tracker = searcher, tracker
        self._k, self._match_from = k, match_from
        self._callbacks = CallbackDispatcher()
        self._incoming, self._clipped = _Incoming(), False
        self._forget()
        self.on_msg(self._receive)

    def _forget(self) -> None:
        self._recording: Audio | None = None  # untrimmed
        self._whole: Contour | None = None  # its contour
        self.audio: Audio | None = None
        self.contour: Contour | None = None
        self.results: Sequence[Answer] = ()
        self._songs, self._line, self._kept_s, self.problem = [], [], [0.0, 0.0], False

    def on_heard(self, callback: Callable[["HumRecorder"], Any], remove: bool = False) -> None:
        """Call a function with this widget after each hum and each trim; ``remove`` stops it."""
        self._callbacks.register_callback(callback, remove=remove)

    def hear(self, audio: Audio) -> None:
        """Track the pitch of a hum, and search for it.

        Args:
            audio: 2 s or more at any rate.

        Raises:
            QbhError: if it is too short, too quiet or not finite, or too little is voiced;
                ``status`` then holds the same words.
        """
        with self._telling():
            self._forget()
            if not np.isfinite(audio.samples).all():
                raise QbhError("The recording holds NaN or infinite samples: record it again.")
            at_stop = int(np.count_nonzero(np.abs(audio.samples) >= FULL_SCALE))
            self._clipped = at_stop > CLIPPED * len(audio.samples)
            self._recording = self.audio = resample(audio, PLAYED_HZ)
            self._kept_s = [0.0, audio.duration_s]
            _refuse_unusable(audio)
            self.status = "Tracking the pitch …"
            self._whole = self._contour_of(self._recording)
            self._line = _drawable(self._whole.pitch_st)
            self._search(0.0, audio.duration_s)

    def hear_file(self, path: Path) -> None:
        """Search for a hum of 2 to 60 s, in any format of :func:`qbhkit.audio.load`."""
        with self._telling():
            self._forget()
            audio = load(Path(path), PLAYED_HZ, LONGEST_FILE_S)
        self.hear(audio)

    def record_here(self, seconds_s: float = _HERE_S) -> None:
        """Record with the microphone of the kernel's machine; return after the search.

        Args:
            seconds_s: length of the recording, seconds, 2 to ``longest_s``.

        Raises:
            MissingPackageError: if sounddevice or the library that it needs is not installed.
            QbhError: if ``seconds_s`` is out of range, there is no microphone, or as :meth:`hear`.
        """
        with self._telling():
            if not SHORTEST_S <= seconds_s <= self.longest_s:
                raise QbhError(f"Record {SHORTEST_S:g} to {self.longest_s:g} s, not {seconds_s:g}.")
            try:
                import sounddevice
            except ImportError:
                raise missing_package("Recording on the kernel's machine", "sounddevice") from None
            except OSError:
                raise MissingPackageError(
                    "sounddevice needs the PortAudio library: apt-get install libportaudio2."
                ) from None
            self.status = f"The kernel's machine records for {seconds_s:g} s: hum now."
            try:
                count = round(seconds_s * PLAYED_HZ)
                samples = sounddevice.rec(count, PLAYED_HZ, channels=1, dtype="float32")
                sounddevice.wait()
            except sounddevice.PortAudioError as error:
                why = f"The kernel's machine cannot record ({error}): choose a file instead."
                raise QbhError(why) from None
            self.hear(Audio(samples[:, 0], PLAYED_HZ))

    def trim(self, start_s: float = 0.0, end_s: float | None = None) -> None:
        """Keep a part of the recording, and search for it; ``trim()`` restores the whole.

        Args:
            start_s: where the part begins, seconds, rounded to 0.1 s.
            end_s: where it ends, rounded up; at the end of the recording if None.

        Raises:
            QbhError: if there is no hum yet, or as :meth:`hear`.
        """
        with self._telling():
            if self._whole is None or self._recording is None:
                raise QbhError("There is nothing to trim yet: record a hum first.")
            whole_s = self._recording.duration_s
            end_s = whole_s if end_s is None else min(max(0.0, end_s), whole_s)
            self._search(max(0.0, start_s), end_s)

    def save(self, path: Path) -> None:
        """Write the trimmed hum as 16-bit audio to a ``.wav`` or ``.flac`` file."""
        with self._telling():
            path = Path(path)
            if self.audio is None:
                raise QbhError("There is nothing to save yet: record a hum first.")
            if path.suffix.lower() not in (".wav", ".flac"):
                raise QbhError(f"{path} must end in .wav or .flac.")
            write_wav(self.audio, path)

    def matched(self, rank: int = 0) -> Audio:
        """Return the matched seconds of a song in the list (rank 0 is the best), mono at 16 kHz.

        They come from the song's recording; without one, its melody is rendered as a hum.
        """
        from qbhkit.retrieval.matches import matched_audio

        with self._telling():
            if self._searcher is None or not 0 <= rank < len(self.results):
                count = len(self.results)
                raise QbhError(f"There is no song number {rank} in the list of {count}.")
            return matched_audio(self._searcher.catalogue, self.results[rank], PLAYED_HZ)

    @cached_property
    def _frontend(self) -> "Frontend":
        from qbhkit.pitch.frontends import PitchFrontend, frontend_for

        states_of = self._searcher.embedder.states_of if self._searcher else None
        if self._tracker and states_of is None:
            return PitchFrontend(self._tracker)
        return frontend_for(states_of, self._tracker.name if self._tracker else None)

    def _contour_of(self, audio: Audio) -> Contour:
        return self._frontend.contour_of(resample(audio, self._frontend.rate_hz))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Show errors in the view too."""
        try:
            yield
        except QbhError as error:
            self._tell(str(error), problem=True)
            raise

    def _tell(self, words: str, problem: bool = False) -> None:
        self.status, self.problem = words, problem

    def _search(self, start_s: float, end_s: float) -> None:
        """Search for a part of the recording."""
        assert self._recording is not None
        assert self._whole is not None
        first = round(start_s / CONTOUR_HOP_S)
        last = min(math.ceil(end_s / CONTOUR_HOP_S - 1e-6), len(self._whole))
        begin, end = (round(frame * CONTOUR_HOP_S * PLAYED_HZ) for frame in (first, last))
        kept = Audio(self._recording.samples[begin:end], PLAYED_HZ)
        _refuse_unusable(kept)
        self.audio, self._kept_s = kept, [first * CONTOUR_HOP_S, last * CONTOUR_HOP_S]
        self.contour = replace(self._whole, frames=self._whole.frames[first:last])
        self.results, self._songs = (), []
        if not self.contour.voiced.any():
            raise QbhError(
                "No voice was found: hum a tune on 'da' or 'la', close to the microphone."
            )
        words = "Pitch tracked."
        if self._searcher is not None:
            self.status = "Searching …"
            words = self._list_songs(self._searcher, self.contour)
        if self._clipped:
            words = f"The recording is clipped: turn the microphone down or move away. {words}"
        self._tell(words, problem=self._clipped)
        self._callbacks(self)

    def _list_songs(self, searcher: "Searcher", hum: Contour) -> str:
        """List the songs that match a hum, and return a sentence about them."""
        try:
            with _ONE_SEARCH:
                self.results = searcher.search(hum, self._k, self._match_from)
                self._songs = [self._row(searcher, hum, answer) for answer in self.results]
        except QbhError as error:  # lower case, because it usually follows a file's name
            raise QbhError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
        words = f"It fits {self._songs[0]['title']} best."
        if not searcher.confident(self.results):
            words += " No song fits well, though: hum it once more, longer or clearer."
        return words

    def _row(self, searcher: "Searcher", hum: Contour, answer: "Answer") -> dict[str, Any]:
        """Return what the view draws of a song: the melody around the match, the aligned hum."""
        catalogue = searcher.catalogue
        number = catalogue.number[answer.song_id]
        song = catalogue.contours[number]
        path: NDArray = np.array([answer.start_s, answer.end_s]) / song.hop_s
        aligned: list[list[float | None]] = []
        if answer.transposition_st is not None:  # else the song is far shorter than the hum
            key_st, from_start = answer.transposition_st, self._match_from == "start"
            path = searcher.aligner.path(hum, number, key_st, from_start)
            sung = hum.trimmed()[0].transposed(-key_st)
            where_s = np.round(path * song.hop_s, 2).tolist()
            aligned = [list(pair) for pair in zip(where_s, _drawable(sung.pitch_st), strict=True)]
        first = max(0, int(path.min()) - _AROUND_FRAMES)
        last = int(path.max()) + _AROUND_FRAMES
        played = " (instrumental)" if answer.instrumental else ""
        return {
            "title": (answer.title or answer.song_id) + played,
            "confidence": answer.confidence,
            "start_s": answer.start_s,
            "end_s": answer.end_s,
            "first_s": first * song.hop_s,
            "song": _drawable(song.pitch_st[first:last]),
            "hum": aligned,
        }

    def _receive(self, _widget: Any, content: dict[str, Any], buffers: list[memoryview]) -> None:
        """Do what the view asks; ``status`` reports errors."""
        with suppress(QbhError):
            match content["type"]:
                case "begin":
                    self._forget()
                    self._incoming = _Incoming(content["name"], content["rate_hz"])
                case "piece":
                    self._incoming.body += buffers[0]
                    if self._incoming.name is None:
                        self._draw_live(self._incoming)
                case "end":
                    incoming, self._incoming = self._incoming, _Incoming()
                    with self._telling():
                        audio = incoming.decoded(content["bytes"])
                    self.hear(audio)
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
                        self.send({"type": "sound", "ticket": content["ticket"]}, [_wav_of(sound)])

    def _draw_live(self, incoming: _Incoming) -> None:
        """Send the pitch of the newest whole frames, as often as the tracker's speed allows."""
        step = round(CONTOUR_HOP_S * incoming.rate_hz)
        whole = len(incoming.body) // (4 * step)  # bytes of a float32
        if whole - incoming.drawn < incoming.pause:
            return
        first = max(0, incoming.drawn - _BEFORE_FRAMES, whole - _MOST_FRAMES)
        fresh = max(incoming.drawn, first)
        began_s = perf_counter()
        tail = Audio(incoming.samples(step * first, step * whole), incoming.rate_hz)
        pitch = self._contour_of(tail).pitch_st[fresh - first :]
        self.send({"type": "pitch", "first": fresh, "pitch": _drawable(pitch)})
        incoming.drawn = whole
        incoming.pause = max(1, math.ceil((perf_counter() - began_s) / CONTOUR_HOP_S))


def _refuse_unusable(audio: Audio) -> None:
    """Raise QbhError if a hum is too short or too quiet."""
    if audio.duration_s < SHORTEST_S:
        raise QbhError(f"That was too short: hum for at least {SHORTEST_S:g} seconds.")
    if np.abs(audio.samples).max() < TOO_QUIET:
        raise QbhError("That was too quiet: come closer to the microphone, or hum louder.")


def _wav_of(audio: Audio) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio.samples.clip(-1, 1), audio.rate_hz, "PCM_16", format="WAV")
    return buffer.getvalue()


def _drawable(pitch_st: Floats) -> list[float | None]:
    """Return semitones for the view; None, drawn as a gap, where nothing is voiced."""
    return [round(float(st), 2) if st > 0 else None for st in pitch_st]
