# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Contours: what a hum keeps of a tune
#
# What you will learn:
# 1. how a pitch track of 10 ms frames becomes a contour of 100 ms frames, and why pauses must stay pauses;
# 2. two ways to normalise it, and which one does not depend on the key;
# 3. how a song is cut into windows with exact start and end times, and what happens when the tempo changes.

# %% tags=["parameters"]
profile = "tiny"  # not needed here: this notebook is small
seed = 0
data_dir = ""  # not needed here: everything is made from notes

# %%
import platform

import numpy as np
import pandas as pd
from IPython.display import Audio

import qbhkit

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## A tune, and a hum of it
#
# The kit's synthetic singer hums a tune of O'Neill's collection (1903): an octave and a half lower, a little
# faster, with the pitch errors of an untrained singer.

# %%
from qbhkit.contour import from_notes
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.figures import contour_figure
from qbhkit.synthesis.singer import Voice, render_hum

tune = next(
    song for song in songs_of(music21_collection("oneills1850")) if song.title == "KILLARNEY"
)
written = from_notes(tune.notes)
notes = tune.notes[tune.notes[:, 0] < 11]
hum = render_hum(notes, Voice(key_st=-19, tempo=1.1, gap=0.2), np.random.default_rng(seed))
contour_figure(written, f"{tune.title}, as written: {written.duration_s:.0f} s")

# %%
sound = hum.audio.samples[: 7 * hum.audio.rate_hz]
Audio(sound, rate=hum.audio.rate_hz)

# %% [markdown]
# ## From 10 ms to 100 ms
#
# The f0 track has a value every 10 ms, except in pauses. The published system takes every tenth value
# (`pick`). We take the median of ten values (`median`), and call the 100 ms frame voiced if at least half of
# them are voiced. So a single tracker error has no effect. `qbhkit.to_contour` does this. The function that
# it calls, `from_f0`, offers both methods.

# %%
from qbhkit.contour import from_f0

f0 = hum.f0
slipped = f0.frequency_hz.copy()
slipped[::10] *= 2  # every tenth frame an octave too high, a common error of trackers
noisy = qbhkit.F0Track(slipped, f0.voicing)
clean = qbhkit.to_contour(f0)
table = pd.DataFrame()
for method in ("median", "pick"):
    slips = from_f0(noisy, method=method)
    both = clean.voiced & slips.voiced
    table[method] = np.abs(slips.pitch_st - clean.pitch_st)[both][:80]
table.describe().loc[["mean", "max"]].round(2)

# %% [markdown]
# The table shows the difference in semitones between the contour with octave errors and the one without. With
# `median` there is almost no difference. `pick` takes exactly the wrong frames, so it is 12 semitones off.

# %%
assert table["median"].mean() < 0.1
assert table["pick"].mean() > 11

# %% [markdown]
# Pauses are never interpolated. A line through a pause would be a glide that nobody sang, and it would look
# like notes:

# %%
from qbhkit.contour import midi_to_hz

two_notes = np.concatenate([np.full(50, 57.0), np.zeros(50), np.full(50, 69.0)])
frequency_hz = np.where(two_notes > 0, midi_to_hz(two_notes), 0)
with_pause = qbhkit.to_contour(qbhkit.F0Track(frequency_hz, (two_notes > 0).astype(float)))
np.testing.assert_allclose(with_pause.pitch_st[with_pause.voiced], [57] * 5 + [69] * 5, atol=1e-3)
contour_figure(with_pause, "Two notes and a pause of half a second")

# %% [markdown]
# ## Two normalisations
#
# The published system subtracts a constant, the mean pitch of its training songs. So its values depend on the
# key. Our kit subtracts the median of the window's own voiced frames. Then a hum in a higher key gives the
# same values: the two lines at the top of the figure coincide.

# %%
from qbhkit.contour import normalise
from qbhkit.figures import normalised_figure

sung = qbhkit.to_contour(hum.f0)
moved = sung.transposed(7)
shown = {
    f"{how}, {name}": normalise(contour.frames, how)
    for how in ("published", "key")
    for name, contour in (("as hummed", sung), ("7 semitones up", moved))
}
normalised_figure(shown, "One hum in two keys, normalised in two ways", "normalised pitch")

# %%
np.testing.assert_allclose(shown["key, as hummed"], shown["key, 7 semitones up"], atol=1e-5)
gap = shown["published, 7 semitones up"] - shown["published, as hummed"]
np.testing.assert_allclose(gap[sung.voiced, 0], 7 / 5.5201786930065415, rtol=1e-5)

# %% [markdown]
# ## Windows with exact times
#
# Songs are cut into overlapping windows. Times are stored in whole frames, so rounding errors do not
# accumulate. The last window ends where the song ends. The published system uses windows of 20 s every 5 s:

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
from qbhkit.embedding.windows import sliding_windows

for window in sliding_windows(written, length_s=20, step_s=5):
    print(f"{window.start_s:5.1f} s to {window.end_s:5.1f} s")

# %% [markdown]
# The kit uses windows of several shorter lengths:

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
from qbhkit.embedding.windows import Reading, WindowGrid, cut_song

cut = cut_song(written, WindowGrid(), Reading(frames=80))
print(len(cut.frames), "windows,", int(cut.at_start.sum()), "of them begin at the first note")
print("lengths:", sorted({float(round(n / 10, 1)) for n in cut.end - cut.start}), "s")

# %% [markdown]
# ## What a change of tempo does
#
# Every window is resampled to 80 frames, whatever its length. Six seconds of a hum at twice the tempo cover
# twelve seconds of the song. After resampling, they look like a twelve-second window of the song. This is why
# the catalogue has windows of many lengths. Here the trained network compares six seconds of the hum, at four
# tempos, with all windows of the tune:

# %%
from qbhkit.embedding.embedder import open_embedder

embedder, hum_s = open_embedder(), 6
song_vectors = embedder.embed(cut.frames)


def most_similar(tempo):
    whole, _ = from_notes(notes / [tempo, tempo, 1]).trimmed()
    cosine = song_vectors @ qbhkit.embed(qbhkit.Contour(whole.frames[: 10 * hum_s]))
    return cosine.max(), (cut.end - cut.start)[cosine.argmax()] / 10


speeds = pd.DataFrame(
    [(tempo, hum_s * tempo, *most_similar(tempo)) for tempo in (0.7, 1.0, 1.4, 2.0)],
    columns=["tempo", "of the song (s)", "best cosine", "best window (s)"],
)
speeds.round(2)

# %%
assert speeds["best cosine"].min() > 0.8

# %% [markdown]
# ## What hummers do to a contour
#
# Training needs many hummed versions of every tune. Rules generate them: notes off pitch, drift, pauses for
# breath, glides, octave errors. Each line below is the same window with a new random draw of distortions.

# %%
from qbhkit.embedding.augment import Distortions, distort

number = int(np.flatnonzero(cut.at_start & (cut.end == 113))[0])  # 11.3 s from the first note
window = cut.frames[number : number + 1]
hummed = distort(np.repeat(window, 3, axis=0), Distortions(), np.random.default_rng(seed))
versions = {"as written": normalise(window[0], "key")}
versions |= {f"hummed {k + 1}": normalise(hummed[k], "key") for k in range(3)}
length_s = (cut.end - cut.start)[number] / 10
normalised_figure(
    versions, "One window, distorted by the rules", "normalised pitch", hop_s=length_s / 80
)

# %% [markdown]
# ## Exercises
#
# 1. Replace `median` by `pick` in the contour of the clean hum. By how many semitones does the worst frame move?
# 2. Subtract the mean instead of the median. Which of the two changes more after one octave error?
#
# <details><summary>Solutions</summary>
#
# 1. By most of the interval between two notes. `pick` takes the pitch of a single moment, which may be in the
#    middle of a glide.
#    ```python
#    picked = from_f0(f0, method="pick")
#    both = picked.voiced & clean.voiced
#    print(np.abs(picked.pitch_st - clean.pitch_st)[both].max().round(2))
#    ```
# 2. The mean. With n voiced frames, one octave error changes the mean by 12 / n semitones. The median hardly
#    changes.
#    ```python
#    pitch_st = sung.pitch_st[sung.voiced].astype(float)
#    slip = pitch_st.copy()
#    slip[0] += 12
#    print("mean:", slip.mean() - pitch_st.mean(), "median:", np.median(slip) - np.median(pitch_st))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - A contour is an array of shape (N, 2): the pitch in semitones, and whether the frame is voiced. Pauses
#   stay pauses.
# - Subtracting the window's own median removes the key; subtracting a fixed mean does not.
# - Resampling windows of several lengths to the same number of frames removes the tempo.
#
# Library functions used: [`qbhkit.F0Track`](../qbhkit/contour.py),
# [`qbhkit.Contour`](../qbhkit/contour.py),
# [`qbhkit.to_contour`](../qbhkit/pitch/frontends.py),
# [`qbhkit.contour.from_f0`](../qbhkit/contour.py),
# [`qbhkit.contour.from_notes`](../qbhkit/contour.py),
# [`qbhkit.contour.normalise`](../qbhkit/contour.py),
# [`qbhkit.embedding.windows.sliding_windows`](../qbhkit/embedding/windows.py),
# [`qbhkit.embedding.windows.Reading`](../qbhkit/embedding/windows.py),
# [`qbhkit.embedding.windows.cut_song`](../qbhkit/embedding/windows.py),
# [`qbhkit.embedding.augment.distort`](../qbhkit/embedding/augment.py),
# [`qbhkit.figures.normalised_figure`](../qbhkit/figures/melodies.py).
#
# Next: [04 · Augmentation](04_augmentation.ipynb).
