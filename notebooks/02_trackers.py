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
# # 02 · Trackers: which one finds the tune, and how fast
#
# What you will learn:
# 1. what a pitch tracker has to decide every 10 ms, and the five measures of its quality;
# 2. how to swap one tracker for another, and what each of them is good at;
# 3. how to choose one, and how to add your own.

# %% tags=["parameters"]
profile = "tiny"  # "full" also runs the slow trackers, on longer hums
seed = 0
data_dir = ""  # not needed here: hums are rendered, and real results are read from data/results

# %%
import inspect
import json
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Audio, display

import qbhkit

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())
print("No real recordings here: every sound below is rendered by the kit.")

# %% [markdown]
# ## Two questions every 10 ms
#
# Is there a voice, and what is its pitch? The standard measures (`mir_eval`) evaluate the two separately:
#
# - *raw pitch accuracy*: of the voiced frames, how many have a pitch within 50 cents (half a semitone) of the
#   truth?
# - *raw chroma accuracy*: the same, but octave errors are ignored;
# - *voicing recall*: of the voiced frames, how many are called voiced?
# - *voicing false alarm*: of the unvoiced frames, how many are called voiced?
# - *overall accuracy*: of all frames, how many are right in both voicing and pitch?
#
# Here is an example with six frames. Four frames are sung. One of these is estimated an octave too high, and
# one is called unvoiced. Two frames are silent. One of these is called voiced.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
from qbhkit.metrics import melody_score

sung_hz = np.array([220, 220, 220, 220, 0, 0.0])
found_hz = np.array([220, 221, 440, 220, 300, 0.0])
voicing = np.array([0.9, 0.9, 0.9, 0.2, 0.9, 0.0])
for measure, share in melody_score(sung_hz, found_hz, voicing)._asdict().items():
    print(f"{measure:20} {share:.2f}")

# %% [markdown]
# ## Hums with a known pitch
#
# The synthesiser records the pitch it sings, so nothing has to be labelled by hand. One tune is hummed, sung
# on vowels, and whistled. Each version is used clean, and with noise at the same level as the voice.

# %%
from qbhkit.synthesis.degrade import add_noise
from qbhkit.synthesis.singer import Voice, render_hum

pitches = (57, 59, 60, 64, 62, 60, 59, 57, 62, 65, 64, 60)[: 12 if profile == "full" else 8]
notes = np.array([[0.4 * n, 0.38, pitch] for n, pitch in enumerate(pitches)])
hums = {
    style: render_hum(notes, Voice(style=style), np.random.default_rng(seed))
    for style in ("mm", "vowels", "whistle")
}
rng = np.random.default_rng(seed)
rate_hz = hums["mm"].audio.rate_hz
sounds = {}
for style, hum in hums.items():
    sounds[style, "clean"] = hum.audio.samples
    noisy = 0.5 * add_noise(hum.audio.samples, 0, 0, rng)
    sounds[style, "noise 0 dB"] = noisy.astype(np.float32)
for (style, condition), samples in sounds.items():
    print(style, condition)
    display(Audio(samples[: 3 * rate_hz], rate=rate_hz))

# %% [markdown]
# ## Swap the tracker
#
# Every function that tracks pitch takes the name of a tracker:

# %%
clean = sounds["mm", "clean"]
for name in ("swift-f0", "whistle"):
    f0 = qbhkit.track((clean, rate_hz), tracker=name)
    print(f"{name:10} calls {f0.voiced.mean():.0%} of the hum voiced")

# %% [markdown]
# `get_tracker(name)` returns an object with three attributes: its `name`, the sample rate `rate_hz` that it
# expects, and `track(audio)`, which returns pitch and voicing every 10 ms. The tracker's package is imported
# on demand. If it is missing, the error message says what to install.

# %%
from qbhkit.pitch.trackers import TRACKERS, get_tracker

slow = {"torchcrepe-full", "torchcrepe-tiny", "pyin"} if profile == "tiny" else set()
trackers = {}
for name in TRACKERS:
    try:
        if name not in slow:
            trackers[name] = get_tracker(name)
    except qbhkit.QbhError as error:
        print(f"{name} is left out:", str(error).split(":")[0].split("/")[-1])
print("slow, left to the full profile:", ", ".join(sorted(slow)) or "none")

# %%
from qbhkit.audio import resample

tracks, rows = {}, {}
for name, tracker in trackers.items():
    silence = np.zeros(tracker.rate_hz, np.float32)
    tracker.track(qbhkit.Audio(silence, tracker.rate_hz))  # the first call is always slow
    for (style, condition), samples in sounds.items():
        recording = resample(qbhkit.Audio(samples, rate_hz), tracker.rate_hz)
        began = time.perf_counter()
        track = tracker.track(recording)
        factor = (time.perf_counter() - began) / track.duration_s
        truth = np.where(hums[style].f0.voiced, hums[style].f0.frequency_hz, 0)
        score = melody_score(truth, track.frequency_hz, track.voicing)
        tracks[name, style, condition] = track
        rows[name, style, condition] = {**score._asdict(), "real_time_factor": factor}
scores = pd.DataFrame(rows).T
scores.index.names = ["tracker", "style", "condition"]
scores["overall_accuracy"].unstack(["style", "condition"]).round(2)

# %% [markdown]
# All trackers work well on clean hums. They differ in noise. A whistle is a special case, because it has no
# upper partials: a tracker that looks for partials may not detect it at all.

# %%
assert scores.loc["swift-f0", "mm", "clean"].raw_pitch_accuracy > 0.95
assert scores.loc["whistle", "whistle", "clean"].raw_pitch_accuracy > 0.9
np.testing.assert_array_less(scores["voicing_recall"], 1 + 1e-9)

# %% [markdown]
# The real-time factor is the computing time for one second of audio, in seconds. The table shows its median
# over these short hums. It varies from run to run. In the recorded results below it was measured on longer
# audio, with nothing else running.

# %%
scores["real_time_factor"].groupby("tracker").median().sort_values().round(3).to_frame()

# %% [markdown]
# ## See and hear the difference
#
# The grey band is the true pitch. Each line is the pitch that one tracker estimated, in the frames that it
# called voiced.

# %%
from qbhkit.figures import f0_figure

shown = {
    name: tracks[name, "vowels", "noise 0 dB"]
    for name in ("swift-f0", "praat", "fcpe")
    if name in trackers
}
f0_figure(hums["vowels"].f0, shown, "Vowels in noise of the same level")

# %%
whistled = {
    name: tracks[name, "whistle", "clean"]
    for name in ("whistle", "swift-f0", "fcpe")
    if name in trackers
}
f0_figure(hums["whistle"].f0, whistled, "A whistle, clean")

# %% [markdown]
# Listen to the pitch that `swift-f0` estimated in noise, as a tone:

# %%
found = tracks["swift-f0", "vowels", "noise 0 dB"]
frequency = np.repeat(np.where(found.voiced, found.frequency_hz, 0), rate_hz // 100)
tone = 0.3 * np.sin(2 * np.pi * np.cumsum(frequency) / rate_hz) * (frequency > 0)
display(Audio(tone[: 3 * rate_hz].astype(np.float32), rate=rate_hz))

# %% [markdown]
# ## Real voices, recorded results
#
# `qbhkit bench melody` runs every tracker on material that no tracker was trained on. There are five kinds:
# real recordings of singers (MIR-QBSH, vocadito); the same voices over unseen accompaniments at four levels;
# tunes that an unseen instrument plays over an accompaniment; two songs, for which the pitch estimated by the
# published model is the reference; and degraded recordings.
# The results are in `data/results`; the recordings are not part of this repository.

# %%
results = json.loads(Path("../data/results/melody_bench.json").read_text("utf-8"))
table = {}
for name, block in results["trackers"].items():
    sets = block["sets"]
    table[name] = {
        "hums, raw pitch": sets["hums"]["raw_pitch_accuracy"],
        **{
            kind: sets.get(kind, {}).get("overall_accuracy", np.nan)
            for kind in ("hums", "songs +5 dB", "songs 0 dB", "songs -5 dB", "instrumental")
        },
        "white noise, voiced": sets.get("white noise", {}).get("voicing_false_alarm", np.nan),
        "times real time": 1 / block["real_time_factor"],
        "MB": block["memory_mb"],
        "clips": sets["songs 0 dB"]["clips"],
    }
table = pd.DataFrame(table).T.sort_values("songs 0 dB", ascending=False)
table.round({"times real time": 1, "MB": 0, "clips": 0}).round(3)

# %% [markdown]
# Columns that do not name a measure show overall accuracy. Trackers with fewer clips are too slow for all
# clips, and were run on one clip of each singer. They are drawn as open points below.

# %%
from qbhkit.figures import tracker_accuracy

tracker_accuracy(results)

# %% [markdown]
# Overall accuracy on hums that were degraded in different ways:

# %%
kinds = ["as recorded", "half level", "8 bit", "clipped", "transposed", "reverberation"]
kinds += ["noise 10 dB", "noise 0 dB"]
degraded = {
    name: {kind: block["sets"][kind]["overall_accuracy"] for kind in kinds}
    for name, block in results["trackers"].items()
    if set(kinds) <= set(block["sets"])
}
pd.DataFrame(degraded).T.sort_values("noise 0 dB", ascending=False).round(3)

# %% [markdown]
# ## How to choose
#
# - **A hum, one voice, any microphone:** the default, `swift-f0`. It is fast, small and robust to noise.
# - **A whole song:** `crnn-lite`, which was trained to follow the voice and to ignore the accompaniment. A
#   tracker for a single voice follows the loudest source.
# - **A song whose riffs people hum:** `crnn-lite-lead`, which also follows the lead instrument where nobody
#   sings. It is the default for catalogues of recordings.
# - **A whistle:** `whistle` tracks up to 6,000 Hz and needs no extra package.
# - **Licence:** Praat is GPL-3, PESTO LGPL-3, Melodia AGPL-3 (a separate extra); the others are MIT or ISC.
# - **Memory or speed:** see the table above, and measure on your own machine: `qbhkit bench melody --quick`.
#
# On the command line: `qbhkit melody hum.wav --tracker pyin --out f0/`.

# %% [markdown]
# ## Write your own
#
# An adapter is a class of about one page, with a name, a sample rate and the method `track`. It rescales the
# tracker's confidence so that 0.5 is the threshold, and puts the frames on the 10 ms grid. This is the
# complete adapter of the default tracker:

# %%
from qbhkit.pitch.trackers import swift_f0

print(inspect.getsource(swift_f0))

# %% [markdown]
# Put your adapter into the same folder, `qbhkit/pitch/trackers`, and add it to `TRACKERS`. Every command,
# notebook and benchmark of the kit can then use it.

# %% [markdown]
# ## Exercises
#
# 1. Make the noise pink (`add_noise(samples, 0, 1, rng)`). Which tracker loses most, and why?
# 2. Which tracker has the best raw pitch accuracy on the noisy vowels if its voicing is ignored?
#
# <details><summary>Solutions</summary>
#
# 1. Pink noise is strongest where voices have their fundamental. Trackers that need clean low partials lose most.
#    ```python
#    pink = 0.5 * add_noise(hums["vowels"].audio.samples, 0, 1, np.random.default_rng(seed))
#    pink = qbhkit.Audio(pink.astype(np.float32), rate_hz)
#    truth = np.where(hums["vowels"].f0.voiced, hums["vowels"].f0.frequency_hz, 0)
#    rows = {}
#    for name, tracker in trackers.items():
#        track = tracker.track(resample(pink, tracker.rate_hz))
#        rows[name] = melody_score(truth, track.frequency_hz, track.voicing).overall_accuracy
#    white = scores.xs(("vowels", "noise 0 dB"), level=("style", "condition"))["overall_accuracy"]
#    print(pd.DataFrame({"white": white, "pink": rows}).sort_values("pink").round(2))
#    ```
# 2. Raw pitch accuracy ignores voicing. This prints the best tracker by each measure:
#    ```python
#    vowels = scores.xs(("vowels", "noise 0 dB"), level=("style", "condition"))
#    print(vowels[["raw_pitch_accuracy", "overall_accuracy"]].idxmax())
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Pitch and voicing are two separate tasks. One number cannot describe both.
# - All trackers have the same interface. So you can compare them fairly, and swap them by changing one name.
# - Compare on the same recordings, in the same run, and on voices that no tracker was trained on.
#
# Library functions used: [`qbhkit.track`](../qbhkit/pitch/trackers/__init__.py),
# [`qbhkit.pitch.trackers.get_tracker`](../qbhkit/pitch/trackers/__init__.py),
# [`qbhkit.metrics.melody_score`](../qbhkit/metrics.py),
# [`qbhkit.synthesis.singer.render_hum`](../qbhkit/synthesis/singer.py),
# [`qbhkit.synthesis.degrade.add_noise`](../qbhkit/synthesis/degrade.py),
# [`qbhkit.figures.f0_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.tracker_accuracy`](../qbhkit/figures/results.py).
#
# Next: [03 · Contours](03_contours.ipynb).
