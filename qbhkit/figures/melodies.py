"""Figures of contours, f0 tracks and posteriors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio
from qbhkit.contour import Contour, F0Track, Floats, hz_to_midi
from qbhkit.figures.style import FOURTH, HUM, SONG, THIRD, canvas, signed_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _draw_contour(
    axes: "Axes", contour: Contour, label: str, colour: str, start_s: float = 0
) -> None:
    """Draw the voiced frames of a contour against time; rests are gaps."""
    pitch = np.where(contour.voiced, contour.pitch_st, np.nan)
    time_s = start_s + (np.arange(len(contour)) + 0.5) * contour.hop_s
    axes.plot(time_s, pitch, color=colour, label=label, lw=2, marker=".", ms=4)


def contour_figure(contour: Contour, title: str) -> "Figure":
    """Show one contour: time in seconds, pitch in MIDI semitones.

    Notebook: notebooks/00_hum_to_song.py, notebooks/11_hum_it_yourself.py
    """
    with canvas(figsize=(8, 2.8)) as (figure, axes):
        _draw_contour(axes, contour, "voiced frames, 100 ms", HUM)
        axes.set(title=title, xlabel="time (s)", ylabel="pitch (MIDI semitones)")
        axes.locator_params(axis="y", integer=True)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    return figure


def normalised_figure(
    contours: Mapping[str, np.ndarray], title: str, ylabel: str, hop_s: float | None = 0.1
) -> "Figure":
    """Show normalised contours (N, 2) on one pair of axes, one colour each.

    Args:
        contours: by their names.
        title: of the figure.
        ylabel: unit of the pitch.
        hop_s: seconds between frames; None if frames are those of a window of any length.

    Notebook: notebooks/03_contours.py
    """
    with canvas(figsize=(8, 2.8)) as (figure, axes):
        for (label, frames), colour in zip(
            contours.items(), (HUM, SONG, THIRD, FOURTH), strict=False
        ):
            pitch = np.where(frames[:, 1] > 0, frames[:, 0], np.nan)
            at = (np.arange(len(frames)) + 0.5) * (hop_s or 1)
            axes.plot(at, pitch, color=colour, label=label, lw=2)
        axes.set(title=title, xlabel="time (s)" if hop_s else "frame", ylabel=ylabel)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def match_figure(hum: Contour, song: Contour, start_s: float, end_s: float, title: str) -> "Figure":
    """Draw a hum over the matched seconds of a song.

    The hum is stretched to the length of the match and transposed to its median pitch.

    Args:
        hum: the query.
        song: the whole song.
        start_s: start of the match, seconds into the song.
        end_s: its end.
        title: of the figure.

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
        _in_song(axes, title)
    return figure


def path_figure(
    hum: Contour, song: Contour, path: NDArray[np.int64], transposition_st: float, title: str
) -> "Figure":
    """Draw a hum along its alignment path through a song, in the song's key.

    Args:
        hum: the query.
        song: the whole song.
        path: (N,) frames of the song, one for each frame of the hum from its first to its last
            voiced one.
        transposition_st: how much higher than the song the hum is.
        title: of the figure.

    Notebook: notebooks/09_search_and_align.py, notebooks/12_paper_figures.py
    """
    sung, _ = hum.trimmed()
    first, last = int(path[0]), int(path[-1]) + 1
    around = slice(max(0, first - 20), last + 20)
    voiced = sung.voiced
    with canvas(figsize=(9, 3.2)) as (figure, axes):
        part = Contour(song.frames[around], song.hop_s)
        _draw_contour(axes, part, "song", SONG, around.start * song.hop_s)
        axes.axvspan(first * song.hop_s, last * song.hop_s, color=SONG, alpha=0.08, lw=0)
        at_s = (path[voiced] + 0.5) * song.hop_s
        axes.plot(
            at_s, sung.pitch_st[voiced] - transposition_st, "o", color=HUM, ms=3.5,
            label=f"hum, moved by {-transposition_st:+.1f} semitones",
        )  # fmt: skip
        _in_song(axes, title)
    return figure


def _in_song(axes: "Axes", title: str) -> None:
    """Label the axes of a song's melody; ticks at whole semitones, the legend above."""
    axes.set(title=title, xlabel="time in the song (s)", ylabel="pitch (MIDI semitones)")
    axes.locator_params(axis="y", integer=True)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)


def windows_figure(hum: Contour, windows: Sequence[tuple[float, float]], title: str) -> "Figure":
    """Draw a hum, and below it its query windows.

    Args:
        hum: the query; unvoiced frames at its ends are cut off.
        windows: (start, length) as shares of the hum.
        title: of the figure.

    Notebook: notebooks/09_search_and_align.py
    """
    sung, _ = hum.trimmed()
    with canvas(2, sharex=True, figsize=(9, 4), height_ratios=(3, 0.25 * len(windows) + 0.5)) as (
        figure,
        (top, below),
    ):
        _draw_contour(top, sung, "hum", HUM)
        top.set(title=title, ylabel="pitch (MIDI semitones)")
        for row, (start, length) in enumerate(windows):
            below.barh(row, length * sung.duration_s, left=start * sung.duration_s, color=THIRD)
        below.set(xlabel="time since the first note (s)", ylabel="query window")
        below.set_yticks(range(len(windows)), [str(row + 1) for row in range(len(windows))])
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
    with canvas(3, 1, figsize=(9, 5.5), sharex=True, height_ratios=(3, 3, 1)) as (
        figure,
        (above, middle, below),
    ):
        above.imshow(
            level_db, origin="lower", aspect="auto", cmap="gray_r", vmin=-36,
            interpolation="bilinear", extent=(*extent_s, 0, audio.rate_hz / 2),
        )  # fmt: skip
        above.set(title=title, ylabel="frequency (Hz)", ylim=(0, 2000))
        middle.imshow(
            posteriors[first:end, 1:].T, origin="lower", aspect="auto", cmap="gray_r",
            norm=PowerNorm(0.5, 0.01, 1), extent=(*extent_s, 40, 95),
        )  # fmt: skip
        middle.set(ylabel="P(pitch)\nMIDI semitones", ylim=(40, 84))
        for found, colour, label in ((truth, SONG, "sung"), (track, HUM, "found")):
            if found is not None:
                hz = np.where(found.voiced, found.frequency_hz, np.nan)[first:end]
                time_s = extent_s[0] + (np.arange(len(hz)) + 0.5) * found.hop_s
                above.plot(time_s, hz, color=colour, lw=3 if found is truth else 1.5, label=label)
        above.legend(loc="upper right", frameon=True)
        time_s = extent_s[0] + (np.arange(len(posteriors[first:end])) + 0.5) * track.hop_s
        below.plot(time_s, 1 - posteriors[first:end, 0], color=HUM)
        below.set(xlabel="time (s)", ylabel="P(voice)", ylim=(-0.05, 1.05), xlim=extent_s)
        for axes in (above, middle):
            axes.grid(False)
    return figure


def f0_figure(true: F0Track, found: Mapping[str, F0Track], title: str) -> "Figure":
    """Draw the pitch that trackers found over the pitch that was sung; rests are gaps.

    Args:
        true: the f0 that was sung.
        found: the f0 of at most three trackers, by name.
        title: of the figure.

    Notebook: notebooks/02_trackers.py
    """
    with canvas(figsize=(8, 2.8)) as (figure, axes):
        colours = ("0.75", HUM, SONG, THIRD)
        widths = (6, 2, 1.5, 1)  # so that the lines below still show
        rows = {"sung": true, **found}
        for (label, track), colour, width in zip(rows.items(), colours, widths, strict=False):
            hz = np.where(track.voiced, track.frequency_hz, np.nan)
            time_s = (np.arange(len(hz)) + 0.5) * track.hop_s
            axes.plot(time_s, hz_to_midi(hz), color=colour, label=label, lw=width)
        axes.set(title=title, xlabel="time (s)", ylabel="pitch (MIDI semitones)")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def distortions_figure(
    plain: Contour, versions: Mapping[str, Contour], title: str, columns: int = 3
) -> "Figure":
    """Draw distorted versions of one melody, each on its own axes over the melody in grey.

    Args:
        plain: the melody.
        versions: of the melody, by name; the axes of a row share their range of pitch.
        title: of the figure.
        columns: axes in a row.

    Notebook: notebooks/04_augmentation.py, notebooks/12_paper_figures.py
    """
    rows = -(-len(versions) // columns)
    with canvas(
        rows,
        columns,
        figsize=(9.6, 0.9 + 1.65 * rows),
        sharex=True,
        sharey="row",
        squeeze=False,
    ) as (figure, grid):
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
        figure.supylabel("pitch (MIDI semitones)", fontsize=10)
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
        hz = np.where(f0.voiced, f0.frequency_hz, np.nan)
        pitch.plot(at_s, hz_to_midi(hz), color=HUM, lw=1.2)
        pitch.set(title=f"f0\nevery {1000 * f0.hop_s:.0f} ms", ylabel="MIDI semitones")
        _draw_contour(kept, contour, "", HUM)
        kept.set(title=f"contour: {len(contour)} × 2\nevery {1000 * contour.hop_s:.0f} ms")
        for axes in (pitch, kept):
            axes.set_xlabel("time (s)")
            axes.locator_params(axis="y", integer=True)
        side = int(np.ceil(np.sqrt(len(vector))))
        square = np.full(side * side, np.nan)
        square[: len(vector)] = vector
        most = float(np.abs(vector).max())
        embedded.imshow(
            square.reshape(side, side), cmap=signed_colours(), vmin=-most, vmax=most, aspect="auto"
        )
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
