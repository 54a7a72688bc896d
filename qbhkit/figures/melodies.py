"""Figures of contours, f0 tracks and posteriors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio
from qbhkit.contour import CONTOUR_HOP_S, Contour, F0Track, Floats, hz_to_midi
from qbhkit.figures.style import HUM, PALETTE, PITCH, SONG, THIRD, canvas, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _draw(
    axes: "Axes", pitch: NDArray, voiced: NDArray, hop_s: float, start_s: float = 0, **style: Any
) -> None:
    """Draw voiced frames against time; rests are gaps."""
    time_s = start_s + (np.arange(len(pitch)) + 0.5) * hop_s
    axes.plot(time_s, np.where(voiced, pitch, np.nan), **style)


def _draw_contour(axes: "Axes", contour: Contour, label: str, colour: str, at_s: float = 0) -> None:
    style = {"color": colour, "label": label, "lw": 2, "marker": ".", "ms": 4}
    _draw(axes, contour.pitch_st, contour.voiced, contour.hop_s, at_s, **style)


def _draw_f0(axes: "Axes", f0: F0Track, **style: Any) -> None:
    midi_st = hz_to_midi(np.where(f0.voiced, f0.frequency_hz, np.nan))
    _draw(axes, midi_st, f0.voiced, f0.hop_s, **style)


def _label(axes: "Axes", title: str, xlabel: str, columns: int = 1) -> None:
    """Label the axes of a melody; ticks at whole semitones, the legend above."""
    axes.set(title=title, xlabel=xlabel, ylabel=PITCH)
    axes.locator_params(axis="y", integer=True)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, borderaxespad=0.2)


def contour_figure(contour: Contour, title: str) -> "Figure":
    """Show one contour: time in seconds, pitch in MIDI semitones.

    Notebook: notebooks/00_hum_to_song.py, notebooks/11_hum_it_yourself.py
    """
    with canvas(figsize=(8, 2.8)) as (figure, axes):
        _draw_contour(axes, contour, "voiced frames, 100 ms", HUM)
        _label(axes, title, "time (s)")
    return figure


def normalised_figure(
    contours: Mapping[str, np.ndarray], title: str, ylabel: str, hop_s: float | None = 0.1
) -> "Figure":
    """Show normalised contours on one pair of axes, one colour each.

    A contour is (N, 2). Frames are ``hop_s`` seconds apart; None if a window has any length.

    Notebook: notebooks/03_contours.py
    """
    with canvas(figsize=(8, 2.8)) as (figure, axes):
        for (label, frames), colour in zip(contours.items(), PALETTE, strict=False):
            voiced = frames[:, 1] > 0
            _draw(axes, frames[:, 0], voiced, hop_s or 1, color=colour, label=label, lw=2)
        axes.set(title=title, xlabel="time (s)" if hop_s else "frame", ylabel=ylabel)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def match_figure(hum: Contour, song: Contour, start_s: float, end_s: float, title: str) -> "Figure":
    """Draw a hum over the matched seconds of a whole song, stretched and transposed to fit them.

    Notebook: notebooks/00_hum_to_song.py, notebooks/11_hum_it_yourself.py
    """
    sung, _ = hum.trimmed()
    first, last = round(start_s / song.hop_s), round(end_s / song.hop_s)
    matched = Contour(song.frames[first:last], song.hop_s)
    key_st = float(np.median(matched.pitch_st[matched.voiced]))
    key_st -= float(np.median(sung.pitch_st[sung.voiced]))
    stretched = Contour(sung.transposed(key_st).frames, hop_s=(end_s - start_s) / max(1, len(sung)))
    with canvas(figsize=(9, 3.2)) as (figure, axes):
        _draw_contour(axes, matched, "song", SONG, start_s)
        _draw_contour(axes, stretched, f"hum, moved by {key_st:+.1f} semitones", HUM, start_s)
        _label(axes, title, "time in the song (s)", columns=2)
    return figure


def path_figure(
    hum: Contour, song: Contour, path: NDArray[np.int64], transposition_st: float, title: str
) -> "Figure":
    """Draw a hum along its alignment path through a whole song, in the song's key.

    The path is (N,) frames of the song, one for each frame of the trimmed hum, which is
    ``transposition_st`` higher than the song.

    Notebook: notebooks/09_search_and_align.py, notebooks/12_paper_figures.py
    """
    sung, _ = hum.trimmed()
    first, last = int(path[0]), int(path[-1]) + 1
    around = slice(max(0, first - 20), last + 20)
    with canvas(figsize=(9, 3.2)) as (figure, axes):
        part = Contour(song.frames[around], song.hop_s)
        _draw_contour(axes, part, "song", SONG, around.start * song.hop_s)
        axes.axvspan(first * song.hop_s, last * song.hop_s, color=SONG, alpha=0.08, lw=0)
        at_s = (path[sung.voiced] + 0.5) * song.hop_s
        pitch = sung.pitch_st[sung.voiced] - transposition_st
        moved = f"hum, moved by {-transposition_st:+.1f} semitones"
        axes.plot(at_s, pitch, "o", color=HUM, ms=3.5, label=moved)
        _label(axes, title, "time in the song (s)", columns=2)
    return figure


class Followed(NamedTuple):
    """A hum along the path of its alignment with a song, in the song's key; NaN where unvoiced."""

    title: str
    hum_st: NDArray[np.floating]  # (N,)
    song_st: NDArray[np.floating]  # (N,)
    distance_st: float


def followed_figure(pairs: Sequence[tuple[Followed, Followed]]) -> "Figure":
    """Draw hums, two to a row, each over two songs that it might follow."""
    rows = -(-len(pairs) // 2)
    with canvas(rows, 4, figsize=(12, 1.25 * rows + 0.6), squeeze=False) as (figure, grid):
        for axes in grid.flat[2 * len(pairs) :]:
            axes.set_axis_off()
        for axes, case in zip(grid.flat, (case for pair in pairs for case in pair), strict=False):
            time_s = (np.arange(len(case.hum_st)) + 0.5) * CONTOUR_HOP_S
            axes.plot(time_s, case.song_st, color=SONG, lw=2, alpha=0.8, label="song")
            axes.plot(time_s, case.hum_st, color=HUM, lw=1, label="hum, in the song's key")
            axes.set_title(f"{case.title}, {case.distance_st:.2f} st", fontsize=8, pad=2)
            axes.tick_params(labelsize=7)
        figure.supxlabel("time (s)", fontsize=9)
        figure.supylabel(PITCH, fontsize=9)
        lines = grid.flat[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside upper right", ncols=2, fontsize=8)
    return figure


def windows_figure(hum: Contour, windows: Sequence[tuple[float, float]], title: str) -> "Figure":
    """Draw a trimmed hum, and below it its query windows, (start, length) as shares of it.

    Notebook: notebooks/09_search_and_align.py
    """
    sung, _ = hum.trimmed()
    heights = (3, 0.25 * len(windows) + 0.5)
    with canvas(2, sharex=True, figsize=(9, 4), height_ratios=heights) as (figure, (top, below)):
        _draw_contour(top, sung, "hum", HUM)
        top.set(title=title, ylabel=PITCH)
        for row, (start, length) in enumerate(windows, 1):
            below.barh(row, length * sung.duration_s, left=start * sung.duration_s, color=THIRD)
        below.set(xlabel="time since the first note (s)", ylabel="query window")
        below.set_yticks(range(1, len(windows) + 1))
        below.invert_yaxis()
        below.grid(visible=False, axis="y")
    return figure


def melody_figure(
    audio: Audio,
    track: F0Track,
    posteriors: Floats,
    title: str,
    truth: F0Track | None = None,
    span_s: tuple[float, float] = (0.0, 10.0),
) -> "Figure":
    """Show what a melody network makes of a recording: spectrogram, posteriors, f0, voicing.

    Args:
        audio: mono.
        track: the f0 that was found, N frames of 10 ms.
        posteriors: (N, 442) probabilities: no voice, then MIDI 40 to 95 by 1/8 semitone.
        title: of the figure.
        truth: the f0 that was sung, if known.
        span_s: the seconds to show.

    Notebook: notebooks/01_audio_to_melody.py
    """
    import librosa
    from matplotlib.colors import PowerNorm

    first, end = (round(second / track.hop_s) for second in span_s)
    extent_s = (span_s[0], min(span_s[1], track.duration_s))
    samples = audio.samples[round(extent_s[0] * audio.rate_hz) : round(extent_s[1] * audio.rate_hz)]
    hop, window = round(0.03 * audio.rate_hz), round(0.064 * audio.rate_hz)
    spectrum = np.abs(librosa.stft(samples, n_fft=window, hop_length=hop))
    level_db = librosa.amplitude_to_db(spectrum, ref=np.max)
    image: dict[str, Any] = {"origin": "lower", "aspect": "auto", "cmap": "gray_r"}
    heights = (3, 3, 1)
    with canvas(3, 1, figsize=(9, 5.5), sharex=True, height_ratios=heights) as (figure, panels):
        above, middle, below = panels
        above.imshow(
            level_db, vmin=-36, interpolation="bilinear",
            extent=(*extent_s, 0, audio.rate_hz / 2), **image,
        )  # fmt: skip
        above.set(title=title, ylabel="frequency (Hz)", ylim=(0, 2000))
        shown = posteriors[first:end]
        brightness = PowerNorm(0.5, 0.01, 1)
        middle.imshow(shown[:, 1:].T, norm=brightness, extent=(*extent_s, 40, 95), **image)
        middle.set(ylabel="P(pitch)\nMIDI semitones", ylim=(40, 84))
        for found, colour, width, label in ((truth, SONG, 3, "sung"), (track, HUM, 1.5, "found")):
            if found is not None:
                hz, voiced = found.frequency_hz[first:end], found.voiced[first:end]
                style = {"color": colour, "lw": width, "label": label}
                _draw(above, hz, voiced, found.hop_s, extent_s[0], **style)
        above.legend(loc="upper right", frameon=True)
        _draw(below, 1 - shown[:, 0], np.array(True), track.hop_s, extent_s[0], color=HUM)
        below.set(xlabel="time (s)", ylabel="P(voice)", ylim=(-0.05, 1.05), xlim=extent_s)
        for axes in (above, middle):
            axes.grid(False)
    return figure


def f0_figure(true: F0Track, found: Mapping[str, F0Track], title: str) -> "Figure":
    """Draw the f0 of at most three trackers, by name, over the f0 that was sung.

    Notebook: notebooks/02_trackers.py
    """
    styles = (("0.75", 6), (HUM, 2), (SONG, 1.5), (THIRD, 1))  # thinner ones lie above
    with canvas(figsize=(8, 2.8)) as (figure, axes):
        tracks = {"sung": true, **found}
        for (label, track), (colour, width) in zip(tracks.items(), styles, strict=False):
            _draw_f0(axes, track, color=colour, label=label, lw=width)
        axes.set(title=title, xlabel="time (s)", ylabel=PITCH)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def distortions_figure(
    plain: Contour, versions: Mapping[str, Contour], title: str, columns: int = 3
) -> "Figure":
    """Draw distorted versions of a melody, by name, each on its own axes over the plain one.

    Notebook: notebooks/04_augmentation.py, notebooks/12_paper_figures.py
    """
    rows = -(-len(versions) // columns)
    sharing: Any = {"sharex": True, "sharey": "row", "squeeze": False}
    with canvas(rows, columns, figsize=(9.6, 0.9 + 1.65 * rows), **sharing) as (figure, grid):
        for axes, (name, version) in zip(grid.flat, versions.items(), strict=False):
            for contour, colour, width, label in (
                (plain, "0.75", 4, "melody"), (version, HUM, 1.4, "distorted"),
            ):  # fmt: skip
                pitch = np.where(contour.voiced, contour.pitch_st, np.nan)
                edges_s = np.arange(len(contour) + 1) * contour.hop_s
                axes.stairs(pitch, edges_s, baseline=None, color=colour, lw=width, label=label)
            axes.set_title(name, fontsize=10)
            axes.locator_params(axis="y", integer=True)
        for axes in grid.flat[len(versions) :]:
            axes.set_axis_off()
        for column in range(columns):
            lowest = (len(versions) - 1 - column) // columns
            grid[max(0, lowest), column].tick_params(labelbottom=True)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        named = grid[0, 0].get_legend_handles_labels()
        figure.legend(*named, loc="outside lower right", ncols=2)
        figure.supxlabel("time (s)", fontsize=10)
        figure.supylabel(PITCH, fontsize=10)
    return figure


def pipeline_figure(
    envelope: Floats,
    f0: F0Track,
    contour: Contour,
    vector: NDArray,
    answers: Sequence[tuple[str, float]],
) -> "Figure":
    """Show each step of one search: sound, f0, contour, vector, ranked songs.

    Args:
        envelope: (N, 2) lowest and highest sample of each frame of f0.
        f0: N frames of the hum.
        contour: of the f0.
        vector: (D,) embedding of the contour.
        answers: title and score of the best songs, best first.

    Notebook: notebooks/12_paper_figures.py
    """
    with canvas(1, 5, figsize=(12, 2.8), width_ratios=(3, 3, 3, 2.2, 2.4)) as (figure, panels):
        sound, pitch, kept, embedded, ranked = panels
        at_s = (np.arange(len(f0.voicing)) + 0.5) * f0.hop_s
        sound.fill_between(at_s, *envelope.T, color="0.45", lw=0)
        sound.set(title="sound\nof a hum", xlabel="time (s)", ylabel="pressure", yticks=[])
        _draw_f0(pitch, f0, color=HUM, lw=1.2)
        pitch.set(title=f"f0\nevery {1000 * f0.hop_s:.0f} ms", ylabel="MIDI semitones")
        _draw_contour(kept, contour, "", HUM)
        kept.set(title=f"contour: {len(contour)} × 2\nevery {1000 * contour.hop_s:.0f} ms")
        for axes in (pitch, kept):
            axes.set_xlabel("time (s)")
            axes.locator_params(axis="y", integer=True)
        side = int(np.ceil(np.sqrt(len(vector))))
        square = np.full((side, side), np.nan)
        square.flat[: len(vector)] = vector
        most = float(np.abs(vector).max())
        embedded.imshow(square, cmap=signed(), vmin=-most, vmax=most, aspect="auto")
        embedded.set(title=f"embedding\n{len(vector)} numbers", xticks=[], yticks=[])
        place = -np.arange(len(answers))
        colours = [SONG, *["0.75"] * (len(answers) - 1)]
        ranked.barh(place, [score for _, score in answers], color=colours)
        for y, (title, _) in zip(place, answers, strict=True):
            shown = title if len(title) < 22 else title[:20] + "..."
            ranked.text(0.02, y, shown, va="center", fontsize=8)
        ranked.set(title="songs\nranked by score", xlabel="score", yticks=[], xlim=(0, 1))
        for axes in (embedded, ranked):
            axes.grid(False)
    return figure
