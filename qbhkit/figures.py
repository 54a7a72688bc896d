"""One function for each figure; all share one style that colour-blind readers can use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio
from qbhkit.contour import Contour, F0Track, Floats, hz_to_midi
from qbhkit.storage import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design", 2008.
HUM, SONG, THIRD, FOURTH = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
METHOD_COLOURS = {
    "full": HUM,
    "vote": FOURTH,
    "vector": "#56B4E9",
    "linear-scaling": SONG,
    "dtw": THIRD,
}
_STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "qbhkit",  # so that a rebuilt figure is the same file
}


# Where a label may stand beside its point, in typographic points, the best first.
_PLACES = tuple(
    (side * (6 + abs(rise) / 4), rise)
    for rise in (0, 12, -12, 24, -24, 36, -36, 48, -48)
    for side in (1, -1)
)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def save_figure(figure: "Figure", folder: Path, name: str) -> None:
    """Write a figure as ``NAME.svg`` and ``NAME.png`` (150 dpi), atomically."""
    for suffix in (".svg", ".png"):
        with atomic_path(folder / f"{name}{suffix}") as part:
            metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
            with _style():  # the salt of SVG names is read when the file is written
                figure.savefig(part, dpi=150, metadata=metadata)


def draw_contour(
    axes: "Axes", contour: Contour, label: str, colour: str, start_s: float = 0
) -> None:
    """Draw the voiced frames of a contour against time; pauses stay open."""
    pitch = np.where(contour.voiced, contour.pitch_st, np.nan)
    time_s = start_s + (np.arange(len(contour)) + 0.5) * contour.hop_s
    axes.plot(time_s, pitch, color=colour, label=label, lw=2, marker=".", ms=4)


def contour_figure(contour: Contour, title: str) -> "Figure":
    """Show one contour: time in seconds, pitch in MIDI semitones."""
    import matplotlib.pyplot as plt

    with _style():
        figure, axes = plt.subplots(figsize=(8, 2.8))
        draw_contour(axes, contour, "voiced frames, 100 ms", HUM)
        axes.set(title=title, xlabel="time (s)", ylabel="pitch (MIDI semitones)")
        axes.legend(loc="best")
    plt.close(figure)
    return figure


def normalised_figure(
    contours: Mapping[str, np.ndarray], title: str, ylabel: str, hop_s: float = 0.1
) -> "Figure":
    """Show normalised contours (N, 2) on one pair of axes, one colour each."""
    import matplotlib.pyplot as plt

    with _style():
        figure, axes = plt.subplots(figsize=(8, 2.8))
        for (label, frames), colour in zip(
            contours.items(), (HUM, SONG, THIRD, FOURTH), strict=False
        ):
            pitch = np.where(frames[:, 1] > 0, frames[:, 0], np.nan)
            time_s = (np.arange(len(frames)) + 0.5) * hop_s
            axes.plot(time_s, pitch, color=colour, label=label, lw=2)
        axes.set(title=title, xlabel="time (s)", ylabel=ylabel)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.close(figure)
    return figure


def match_figure(hum: Contour, song: Contour, start_s: float, end_s: float, title: str) -> "Figure":
    """Lay a hum over the matched seconds of a song, as the search saw them.

    The hum is stretched to the length of the match and moved to its key (by the medians).

    Args:
        hum: the query.
        song: the whole song.
        start_s: start of the match, seconds into the song.
        end_s: its end.
        title: of the figure.
    """
    import matplotlib.pyplot as plt

    sung, _ = hum.trimmed()
    first, last = round(start_s / song.hop_s), round(end_s / song.hop_s)
    matched = Contour(song.frames[first:last], song.hop_s)
    key_st = float(np.median(matched.pitch_st[matched.voiced]))
    key_st -= float(np.median(sung.pitch_st[sung.voiced]))
    stretched = Contour(sung.transposed(key_st).frames, hop_s=(end_s - start_s) / max(1, len(sung)))
    with _style():
        figure, axes = plt.subplots(figsize=(9, 3.2))
        draw_contour(axes, matched, "song", SONG, start_s)
        draw_contour(axes, stretched, f"hum, moved by {key_st:+.1f} semitones", HUM, start_s)
        axes.set(title=title, xlabel="time in the song (s)", ylabel="pitch (MIDI semitones)")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.close(figure)
    return figure


def path_figure(
    hum: Contour, song: Contour, path: NDArray[np.int64], transposition_st: float, title: str
) -> "Figure":
    """Draw a hum where it lies on its path through a song, in the song's key.

    Args:
        hum: the query.
        song: the whole song.
        path: (N,) frames of the song, one for each of the hum's from first to last voiced one.
        transposition_st: how much higher than the song the hum is.
        title: of the figure.
    """
    import matplotlib.pyplot as plt

    sung, _ = hum.trimmed()
    first, last = int(path[0]), int(path[-1]) + 1
    around = slice(max(0, first - 20), last + 20)
    voiced = sung.voiced
    with _style():
        figure, axes = plt.subplots(figsize=(9, 3.2))
        part = Contour(song.frames[around], song.hop_s)
        draw_contour(axes, part, "song", SONG, around.start * song.hop_s)
        axes.axvspan(first * song.hop_s, last * song.hop_s, color=SONG, alpha=0.08, lw=0)
        at_s = (path[voiced] + 0.5) * song.hop_s
        axes.plot(
            at_s, sung.pitch_st[voiced] - transposition_st, "o", color=HUM, ms=3.5,
            label=f"hum, moved by {-transposition_st:+.1f} semitones",
        )  # fmt: skip
        axes.set(title=title, xlabel="time in the song (s)", ylabel="pitch (MIDI semitones)")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.close(figure)
    return figure


def parts_figure(hum: Contour, parts: Sequence[tuple[float, float]], title: str) -> "Figure":
    """Draw a hum, and below it the parts of it that are searched.

    Args:
        hum: the query; silence around it is cut off.
        parts: (start, length) as shares of the hum.
        title: of the figure.
    """
    import matplotlib.pyplot as plt

    sung, _ = hum.trimmed()
    with _style():
        figure, (top, below) = plt.subplots(
            2, sharex=True, figsize=(9, 4), height_ratios=(3, 0.25 * len(parts) + 0.5)
        )
        draw_contour(top, sung, "hum", HUM)
        top.set(title=title, ylabel="pitch (MIDI semitones)")
        for row, (start, length) in enumerate(parts):
            below.barh(row, length * sung.duration_s, left=start * sung.duration_s, color=THIRD)
        below.set(xlabel="time since the first note (s)", ylabel="part", yticks=range(len(parts)))
        below.set_yticklabels([str(row + 1) for row in range(len(parts))])
        below.invert_yaxis()
        below.grid(visible=False, axis="y")
    plt.close(figure)
    return figure


def melody_figure(
    audio: Audio,
    track: F0Track,
    posteriors: Floats,
    title: str,
    truth: F0Track | None = None,
    span_s: tuple[float, float] = (0.0, 10.0),
) -> "Figure":
    """Show a recording as a melody network hears it: spectrogram, posteriors, decision.

    Args:
        audio: mono.
        track: what was found, N frames of 10 ms.
        posteriors: (N, 442) probabilities: no voice, then MIDI 40 to 95 by 1/8 semitone.
        title: of the figure.
        truth: what was sung, where that is known.
        span_s: the seconds to show.
    """
    import librosa
    import matplotlib.pyplot as plt
    from matplotlib.colors import PowerNorm

    first, end = (round(second / track.hop_s) for second in span_s)
    extent_s = (span_s[0], min(span_s[1], track.duration_s))
    samples = audio.samples[round(extent_s[0] * audio.rate_hz) : round(extent_s[1] * audio.rate_hz)]
    hop, window = round(0.03 * audio.rate_hz), round(0.064 * audio.rate_hz)
    spectrum = np.abs(librosa.stft(samples, n_fft=window, hop_length=hop))
    level_db = librosa.amplitude_to_db(spectrum, ref=np.max)
    with _style():
        figure, (above, middle, below) = plt.subplots(
            3, 1, figsize=(9, 5.5), sharex=True, height_ratios=(3, 3, 1)
        )
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
    plt.close(figure)
    return figure


def topk_figure(ranks: Mapping[str, list[int | None]], title: str, most: int = 30) -> "Figure":
    """Show the share of queries whose song is among the first k, for each method."""
    import matplotlib.pyplot as plt

    k = np.arange(1, most + 1)
    with _style():
        figure, axes = plt.subplots(figsize=(6.4, 3.8))
        others = cycle((HUM, SONG, THIRD, FOURTH))
        for method, found in ranks.items():
            place = np.array([rank or np.inf for rank in found])
            share = (place[:, None] <= k).mean(axis=0)
            colour = METHOD_COLOURS.get(method) or next(others)
            axes.plot(k, share, color=colour, label=method, lw=2)
        axes.set(
            title=title, xlabel="k", ylabel="queries with their song in the first k",
            ylim=(0, 1), xlim=(1, most),
        )  # fmt: skip
        axes.legend(loc="lower right")
    plt.close(figure)
    return figure


def ablation_figure(lines: Sequence[Mapping[str, Any]]) -> "Figure":
    """Show what every row of an ablation gains over the first: points of top-1 with 95% intervals.

    Args:
        lines: what :func:`qbhkit.retrieval.ablation.table` returns.

    Notebook: notebooks/07_train_supervised.py
    """
    import matplotlib.pyplot as plt

    names, place = [line["row"] for line in lines], -np.arange(len(lines))
    with _style():
        figure, pair = plt.subplots(
            1, 2, figsize=(8.6, 1.2 + 0.3 * len(lines)), sharey=True, sharex=True
        )
        for axes, anchor, colour in zip(pair, ("start", "anywhere"), (HUM, SONG), strict=True):
            gains = 100 * np.array([line[f"{anchor} top1 against first"] for line in lines])
            axes.axvline(0, color="0.6", lw=1)
            axes.hlines(place, gains[:, 1], gains[:, 2], color=colour, alpha=0.4, lw=3)
            axes.plot(gains[:, 0], place, "o", color=colour)
            first = 100 * lines[0][f"{anchor} top1"]
            axes.set(title=f"searched from the {anchor}" if anchor == "start" else "anywhere",
                     xlabel=f"points of top-1 over the first row ({first:.1f})")  # fmt: skip
        pair[0].set_yticks(place, names)
    plt.close(figure)
    return figure


def f0_figure(true: F0Track, found: Mapping[str, F0Track], title: str) -> "Figure":
    """Lay the pitch that trackers found over the pitch that was sung; pauses stay open.

    Args:
        true: what was sung.
        found: what trackers heard, at most three of them, by name.
        title: of the figure.
    """
    import matplotlib.pyplot as plt

    with _style():
        figure, axes = plt.subplots(figsize=(8, 2.8))
        colours = ("0.75", HUM, SONG, THIRD)
        widths = (6, 2, 1.5, 1)  # so that what lies below still shows
        rows = {"sung": true, **found}
        for (label, track), colour, width in zip(rows.items(), colours, widths, strict=False):
            hz = np.where(track.voiced, track.frequency_hz, np.nan)
            time_s = (np.arange(len(hz)) + 0.5) * track.hop_s
            axes.plot(time_s, hz_to_midi(hz), color=colour, label=label, lw=width)
        axes.set(title=title, xlabel="time (s)", ylabel="pitch (MIDI semitones)")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.close(figure)
    return figure


_NOT_DRAWN = ("epoch", "rate", "pairs_per_s", "audio_s_per_s")


def training_figure(curve: Sequence[Mapping[str, float]], title: str) -> "Figure":
    """Show a training run: the loss, and beside it every measure that lies between 0 and 1.

    Args:
        curve: a line for each epoch, as :func:`qbhkit.runs.fit` logs it.
        title: of the figure.
    """
    import matplotlib.pyplot as plt

    keys = list(dict.fromkeys(key for line in curve for key in line if key not in _NOT_DRAWN))
    sides: tuple[list[str], list[str]] = ([], [])
    for key in keys:
        sides["loss" not in key].append(key)
    with _style():
        figure, panels = plt.subplots(1, 2, figsize=(9, 2.8))
        for axes, names in zip(panels, sides, strict=True):
            for key, colour in zip(names, cycle((HUM, SONG, THIRD, FOURTH))):
                points = [(line["epoch"] + 1, line[key]) for line in curve if key in line]
                axes.plot(*zip(*points, strict=True), color=colour, marker=".", label=key)
            axes.set_xlabel("epoch")
            if names:
                axes.legend(loc="best")
        panels[0].set(title=title, ylabel="loss", ylim=(0, None))
        panels[1].set(ylabel="share", ylim=(0, 1.02))
    plt.close(figure)
    return figure


def encoder_figure(tensors: Mapping[str, Floats], title: str) -> "Figure":
    """Show what an encoder makes of one contour: a box for each tensor, its values in colour.

    Sides grow with the square roots of frames and channels; colours are relative to the largest
    value of each tensor.

    Args:
        tensors: by name, in order: (C, T) channels by frames, or (C,) where time is gone.
        title: of the figure.

    Notebook: notebooks/05_encoder_and_loss.py
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("signed", [HUM, "white", SONG])
    boxes = {name: values.reshape(len(values), -1) for name, values in tensors.items()}  # (C, T)
    high, wide = np.sqrt([box.shape for box in boxes.values()]).T
    room = np.maximum(wide, 5.5)  # for the words below
    middle = np.cumsum(room + 1.5) - room / 2
    floor = -high.max() / 2
    with _style():
        figure, axes = plt.subplots(figsize=(9, 3.4))
        for n, (name, box) in enumerate(boxes.items()):
            left, right = middle[n] - wide[n] / 2, middle[n] + wide[n] / 2
            axes.imshow(
                box / max(float(np.abs(box).max()), 1e-9), cmap=colours, vmin=-1, vmax=1,
                extent=(left, right, -high[n] / 2, high[n] / 2), interpolation="nearest",
            )  # fmt: skip
            axes.add_patch(
                plt.Rectangle((left, -high[n] / 2), wide[n], high[n], fill=False, lw=0.6)
            )
            if n:
                before = middle[n - 1] + wide[n - 1] / 2
                axes.annotate(
                    "", (left - 0.2, 0), (before + 0.2, 0), arrowprops={"arrowstyle": "->"}
                )
            shape = " × ".join(map(str, tensors[name].shape))
            axes.text(middle[n], floor - 1, f"{name}\n{shape}", ha="center", va="top")
        axes.set(title=title, aspect="auto", ylim=(floor - 6, 1 - floor))
        axes.set_xlim(0, middle[-1] + room[-1] / 2)
        axes.axis("off")
    plt.close(figure)
    return figure


def similarity_figure(
    near: NDArray, chosen: Mapping[str, tuple[Any, Any]], names: Sequence[str], title: str
) -> "Figure":
    """Show how near anchors lie to positives, and the negatives that each mining chooses.

    Args:
        near: (B, B) cosine, anchors in rows; a row's own positive on the diagonal.
        chosen: rows and columns of negatives, by the name of a panel.
        names: (B,) of the tunes.
        title: of the figure.

    Notebook: notebooks/05_encoder_and_loss.py
    """
    import matplotlib.pyplot as plt

    own = np.arange(len(near))
    with _style():
        figure, panels = plt.subplots(
            1, len(chosen), figsize=(1 + 1.9 * len(chosen), 2.9), sharey=True, squeeze=False
        )
        for axes, (name, (rows, columns)) in zip(panels[0], chosen.items(), strict=True):
            picture = axes.imshow(near, cmap="gray_r", vmin=min(0, near.min()), vmax=1)
            axes.scatter(own, own, marker="s", s=60, facecolor="none", edgecolor=HUM, lw=2)
            axes.scatter(columns, rows, s=28, color=SONG, edgecolor="white", lw=0.7)
            axes.set_title(name)
            axes.set_xticks(own, names)
            axes.set_yticks(own, names)
            axes.grid(False)
        panels[0, 0].set_ylabel("anchors")
        figure.supxlabel("positives (squares: a row's own; dots: its negatives)", fontsize=10)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.colorbar(picture, ax=panels, label="cosine", shrink=0.8)
    plt.close(figure)
    return figure


def tracker_accuracy(results: Mapping[str, Any]) -> "Figure":
    """Show accuracy under a band as loud as the voice against speed, a point for each tracker.

    Args:
        results: data/results/melody_bench.json. A tracker that heard fewer clips is an open point;
            bars are 95% intervals.

    Notebook: notebooks/02_trackers.py
    """
    import matplotlib.pyplot as plt

    blocks = results["trackers"]
    scores = {name: block["sets"]["songs 0 dB"] for name, block in blocks.items()}
    most = max(score["clips"] for score in scores.values())
    points: dict[str, tuple[float, float]] = {}
    with _style():
        figure, axes = plt.subplots(figsize=(7.2, 4.4))
        for name, score in scores.items():
            low, high = score["overall_accuracy_interval"]
            colour = SONG if name.startswith("crnn") else HUM
            x, y = blocks[name]["real_time_factor"], score["overall_accuracy"]
            axes.plot([x, x], [low, high], color=colour, alpha=0.35, lw=2)
            face = colour if score["clips"] == most else "white"
            axes.plot(x, y, "o", color=colour, markerfacecolor=face)
            points[name] = (x, y)
        axes.set(
            xscale="log", ylim=(0, 1), title="A sung melody under a band of the same level",
            xlabel="seconds of work for a second of sound, two cores",
            ylabel="overall accuracy",
        )  # fmt: skip
        axes.margins(x=0.18)
        _label_points(figure, axes, points)
    plt.close(figure)
    return figure


def _label_points(
    figure: "Figure", axes: "Axes", points: Mapping[str, tuple[float, float]]
) -> None:
    """Write each point's name beside it, where it covers no line and no other name."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # nothing moves from here on
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = [line.get_window_extent(renderer) for line in axes.get_lines()]
    for name, point in points.items():
        text = axes.annotate(
            name, point, (0, 0), textcoords="offset points", va="center", fontsize=9
        )
        for dx, dy in _PLACES:
            text.set_position((dx, dy))
            text.set_horizontalalignment("left" if dx > 0 else "right")
            box = text.get_window_extent(renderer)
            inside = axes.bbox.x0 < box.x0 and box.x1 < figure.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def distortions_figure(
    plain: Contour, versions: Mapping[str, Contour], title: str, columns: int = 3
) -> "Figure":
    """Draw versions of one melody, each on axes of its own, over the melody in grey.

    Args:
        plain: the melody.
        versions: what became of it, by name; a row of axes shares its range of pitch.
        title: of the figure.
        columns: axes in a row.

    Notebook: notebooks/04_augmentation.py
    """
    import matplotlib.pyplot as plt

    rows = -(-len(versions) // columns)
    with _style():
        figure, grid = plt.subplots(
            rows,
            columns,
            figsize=(9.6, 0.9 + 1.65 * rows),
            sharex=True,
            sharey="row",
            squeeze=False,
        )
        for axes, (name, version) in zip(grid.flat, versions.items(), strict=False):
            for contour, colour, width, label in (
                (plain, "0.75", 4, "melody"), (version, HUM, 1.4, "what became of it"),
            ):  # fmt: skip
                pitch = np.where(contour.voiced, contour.pitch_st, np.nan)
                edges_s = np.arange(len(contour) + 1) * contour.hop_s
                axes.stairs(pitch, edges_s, baseline=None, color=colour, lw=width, label=label)
            axes.set_title(name, fontsize=10)
        for axes in grid.flat[len(versions) :]:
            axes.set_axis_off()
        for column in range(columns):
            lowest = (len(versions) - 1 - column) // columns
            grid[max(0, lowest), column].tick_params(labelbottom=True)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="upper right", ncols=2)
        figure.supxlabel("time (s)", fontsize=10)
        figure.supylabel("pitch (MIDI semitones)", fontsize=10)
    plt.close(figure)
    return figure


def hum_statistics_figure(results: Mapping[str, Any]) -> "Figure":
    """Lay the distributions of distorted contours over those of real hums.

    Args:
        results: data/results/hum_statistics.json; the outermost bins hold all that lies beyond.

    Notebook: notebooks/04_augmentation.py
    """
    import matplotlib.pyplot as plt

    statistics = results["statistics"]
    rows = -(-len(statistics) // 4)
    with _style():
        figure, grid = plt.subplots(rows, 4, figsize=(9.6, 0.4 + 2.1 * rows), squeeze=False)
        for axes, (name, block) in zip(grid.flat, statistics.items(), strict=False):
            shown = block["histogram"]
            for side, colour in (("real", HUM), ("distorted", SONG)):
                axes.stairs(
                    shown[side], shown["edges"], color=colour, lw=1.5, label=f"{side} hums",
                    fill=side == "real", alpha=0.4 if side == "real" else 1,
                )  # fmt: skip
                axes.axvline(block[side]["quantiles"]["50"], color=colour, lw=1, ls=":")
            axes.set_title(f"{name.replace('_', ' ')} (KS {block['ks']:.2f})", fontsize=10)
            axes.set(xlabel=block["unit"], yticks=[])
        for axes in grid.flat[len(statistics) :]:
            axes.set_axis_off()
        named = grid[0, 0].get_legend_handles_labels()
        figure.legend(*named, loc="outside upper right", ncols=2)
        figure.supylabel("share", fontsize=10)
    plt.close(figure)
    return figure


def growth_figure(results: Mapping[str, Any]) -> "Figure":
    """Show what every index costs, and what it finds, against the size of the catalogue.

    Args:
        results: data/results/growth.json.

    Notebook: notebooks/08_catalogue_and_index.py
    """
    import matplotlib.pyplot as plt

    rows = list(results["sizes"].values())
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["indexes"]))
    colours = dict(zip(kinds, (HUM, THIRD, SONG, FOURTH), strict=False))
    panels: list[tuple[str, str, Callable[[Any], float], Callable[[Any], float] | None]] = [
        ("Building the index", "s", lambda part: part["build_s"], None),
        (
            "Look-ups of one hum", "ms (dotted: p95)",
            lambda part: part["lookups_ms"]["p50"], lambda part: part["lookups_ms"]["p95"],
        ),
        (
            "Query, from wav to answer", "ms (dotted: p95)",
            lambda part: part["query_ms"]["p50"], lambda part: part["query_ms"]["p95"],
        ),
        ("Most memory of the process", "MB", lambda part: part["memory_mb"]["peak"], None),
        ("Index on disk", "bytes a window", lambda part: part.get("disk_bytes_a_window", 0), None),
        ("Windows found (recall@10)", "share", lambda part: part["recall_at_10"], None),
    ]  # fmt: skip
    with _style():
        figure, grid = plt.subplots(2, 3, figsize=(9.6, 5.2))
        for axes, (title, unit, value, upper) in zip(grid.flat, panels, strict=True):
            for kind in kinds:
                known = [(row["windows"], row["indexes"].get(kind)) for row in rows]
                sizes = [size for size, part in known if part]
                parts = [part for _, part in known if part]
                style: Any = {"color": colours[kind], "marker": "o", "ms": 4}
                axes.plot(sizes, [value(part) for part in parts], label=kind, **style)
                if upper:
                    axes.plot(sizes, [upper(part) for part in parts], ls=":", **style)
            axes.set(title=title, ylabel=unit, xscale="log")
            if unit != "share":
                axes.set_yscale("symlog" if "bytes" in unit else "log")
        for axes in grid[1]:
            axes.set_xlabel("windows")
        named = grid[0, 0].get_legend_handles_labels()
        figure.legend(*named, loc="outside lower center", ncols=len(kinds))
    plt.close(figure)
    return figure
