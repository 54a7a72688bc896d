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
# # 01 · From audio to melody: the voice inside a song
#
# What you will learn:
# 1. what a melody network hears in a full mix, what it answers every 10 ms, and how that is scored;
# 2. what the published network (Kum et al. 2020) looks like inside, and how to bring its weights;
# 3. how a recorded song gets into the catalogue, and whether hums of its melody find it there.

# %% tags=["parameters"]
profile = "tiny"  # full: with play buttons for the recorded song
seed = 0
data_dir = ""  # folder of the corpora; empty: $QBHKIT_DATA

# %%
import json
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Audio, Image, display
from mir_eval.sonify import pitch_contour

import qbhkit
from qbhkit.audio import Audio as Recording
from qbhkit.audio import load
from qbhkit.contour import from_f0
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.figures import contour_figure, melody_figure
from qbhkit.metrics import melody_score
from qbhkit.pitch import crnn
from qbhkit.pitch.trackers import default_song_tracker, get_tracker
from qbhkit.storage import data_dir as usual_data_dir
from qbhkit.synthesis.accompaniment import arrange_accompaniment, render_parts
from qbhkit.synthesis.mixing import MIX_HOP, MIX_RATE_HZ, mix
from qbhkit.synthesis.singer import Voice, render_hum

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())
print("torch", torch.__version__, "· numpy", np.__version__)

# %% [markdown]
# ## A song whose melody is known
#
# A tune of O'Neill's collection (1903), sung on vowels by the kit's synthetic singer over a band:
# thirds and fifths below the tune, a bass and drums from a General MIDI SoundFont. Nobody's recording
# is in it, and every frame of the voice is known exactly.

# %%
tune = next(
    song for song in songs_of(music21_collection("oneills1850")) if song.title == "KILLARNEY"
)
notes = tune.notes[tune.notes[:, 0] < 10] - [0, 0, 12]
singer = Voice(style="vowels", timing_error=0, vibrato_st=0.4, scoop_st=0.7, consonants=0.3)
sung = render_hum(notes, singer, np.random.default_rng(seed))
voice = sung.audio.samples[::2]  # 16 to 8 kHz: the synthetic voice has little over 4 kHz
chords = np.concatenate([notes[::3] - [0, 0, below] for below in (3, 7, 12)])
chords[:, 1] = 1.0

# %%
length_s = len(voice) / MIX_RATE_HZ
band = render_parts(
    arrange_accompaniment(chords, 0.5, length_s, np.random.default_rng(seed)), length_s, MIX_RATE_HZ
)
truth = np.where(sung.f0.voiced, sung.f0.frequency_hz, 0)
song = Recording(mix(voice, truth, band.samples, snr_db=3.0), MIX_RATE_HZ)
Audio(song.samples, rate=MIX_RATE_HZ)

# %% [markdown]
# ## What the network answers
#
# `crnn-lite` is the network that ships with the kit (where the published network's converted weights lie
# in the data folder, that one answers instead). For every 10 ms it gives 442 probabilities:
# class 0 says that nobody sings, the others are pitches from MIDI 40 to 95 in steps of an eighth of a
# semitone. Above: the spectrogram with what was sung and what was found. Middle: the probabilities of
# the pitches. Below: one minus the probability of class 0.

# %%
network = get_tracker(default_song_tracker())
melody = network.melody(song)
print(melody.posteriors.shape, "posteriors for", f"{song.duration_s:.1f} s")
melody_figure(song, melody.f0, melody.posteriors, "a rendered song", truth=sung.f0)

# %% [markdown]
# Raw pitch accuracy asks for the pitch of the truly voiced frames (within 50 cents), chroma forgives
# octaves, recall and false alarm judge the voicing decision, overall accuracy counts every frame.

# %%
count = min(len(truth), len(melody.f0.voicing))
score = melody_score(truth[:count], melody.f0.frequency_hz[:count], melody.f0.voicing[:count])
pd.Series(score._asdict()).round(3).to_frame(f"{network.name} at +3 dB")

# %%
# NBVAL_CHECK_OUTPUT
print("pitch of the voiced frames over 0.75:", score.raw_pitch_accuracy > 0.75)
print("frames right over all over 0.7:", score.overall_accuracy > 0.7)

# %% [markdown]
# Listen: the melody that was found, as a plain tone on top of the song.

# %%
times_s = (np.arange(count) + 0.5) * melody.f0.hop_s
tone_hz = np.where(melody.f0.voiced, melody.f0.frequency_hz, 0)[:count]
tone = pitch_contour(times_s, tone_hz, MIX_RATE_HZ, length=count * MIX_HOP)
Audio(song.samples[: len(tone)] + 0.2 * tone, rate=MIX_RATE_HZ)

# %% [markdown]
# ## The published network
#
# The kit holds the network of Kum et al. layer by layer: patches of 31 frames and 513 frequencies, four
# residual blocks that divide the frequencies by four each, a bidirectional LSTM, 442 classes. Here it
# runs with random weights, to show the shapes. Its authors' weights are theirs: fetch
# `ResNet_NS.hdf5` and the two normalisation files from their repository (keums/melodyExtraction_SSL), then
#
#     qbhkit weights convert ResNet_NS.hdf5 x_data_mean_total_31.npy x_data_std_total_31.npy
#
# after which `crnn` becomes the tracker for songs wherever the kit needs one.

# %%
# NBVAL_CHECK_OUTPUT
published = crnn.MelodyCrnn().eval()
level_db = crnn.decibels(crnn.magnitudes(song.samples, 0, 62), 1.0)
x = torch.from_numpy(crnn.patches_of(level_db))[:, None]
print("patches", tuple(x.shape))
for number, block in enumerate(published.blocks, 1):
    x = block(x)
    print("block", number, tuple(x.shape))

# %%
# NBVAL_CHECK_OUTPUT
with torch.inference_mode():
    patches = torch.from_numpy(crnn.patches_of(level_db))
    print("states", tuple(published.states(patches).shape))
    print("logits", tuple(published(patches).shape))
print("weights:", f"{sum(p.numel() for p in published.parameters()):,}")

# %% [markdown]
# ## A recorded song
#
# "Let's Go Fishin'" by Karissa Hobbs (CC BY 3.0), the example recording of librosa
# (`librosa.ex("fishin")` fetches it). The recording is not part of this repository; this picture of
# ten seconds of it was drawn by `qbhkit bench song`. There is no truth to compare with: look
# whether the line follows the harmonics of the voice.

# %%
Image("song_melody.png", width=900)

# %% [markdown]
# With the recording in the data folder, as `singing/songs/Karissa_Hobbs_-_Lets_Go_Fishin.hq.ogg`,
# the full profile draws it anew, and plays it without and with the melody on top.

# %%
folder = Path(data_dir) if data_dir else usual_data_dir()
path = folder / "singing" / "songs" / "Karissa_Hobbs_-_Lets_Go_Fishin.hq.ogg"
if path.is_file() and profile == "full":
    recording = Recording(load(path, MIX_RATE_HZ).samples[62 * MIX_RATE_HZ : 72 * MIX_RATE_HZ], MIX_RATE_HZ)
    real = network.melody(recording)
    display(melody_figure(recording, real.f0, real.posteriors, "Let's Go Fishin'", span_s=(0, 10)))
    times_s = (np.arange(len(real.f0.voicing)) + 0.5) * real.f0.hop_s
    tone_hz = np.where(real.f0.voiced, real.f0.frequency_hz, 0)
    tone = pitch_contour(times_s, tone_hz, MIX_RATE_HZ, length=len(recording.samples))
    display(Audio(recording.samples, rate=MIX_RATE_HZ))
    display(Audio(recording.samples + 0.1 * tone, rate=MIX_RATE_HZ))
else:
    print("No real recordings here (or the tiny profile): all sound above was rendered.")

# %% [markdown]
# ## Into the catalogue
#
# What the catalogue keeps of a song is its contour: every 100 ms, pauses kept as pauses
# (notebook 03). `qbhkit catalogue build my_songs/ --out catalogue/` does all of this for a folder.

# %%
contour_figure(from_f0(melody.f0), "the melody that was found, every 100 ms")

# %% [markdown]
# Does a recorded song survive the whole way? `qbhkit bench song` puts it among the 2,048 songs of the
# MIREX database, takes windows of its own extracted melody, distorts them as hummers do (key, tempo,
# wrong notes, gaps) and searches. What was measured:

# %%
# NBVAL_CHECK_OUTPUT
found = json.loads(Path("../data/results/song_end_to_end.json").read_text("utf-8"))
print(found["song"], "among", found["songs"], "songs,", len(found["ranks"]), "distorted hums")
print(f"top-1 {found['top1']:.2f}, top-10 {found['top10']:.2f}, MRR {found['mrr']:.2f}")

# %% [markdown]
# ## Exercises
#
# 1. Make the band louder (`snr_db=-5.0`) and softer (`10.0`): which measure suffers first?
# 2. Let an instrument double the voice: add a flute, `Part(73, notes, 100)`, to the band. Is the voice still found?
#
# <details><summary>Solutions</summary>
#
# 1. Under a loud band the network misses the voice (recall), before it takes other pitches for it.
#    ```python
#    levels = {}
#    for snr_db in (10.0, 3.0, -5.0):
#        f0 = network.melody(Recording(mix(voice, truth, band.samples, snr_db), MIX_RATE_HZ)).f0
#        heard = melody_score(truth[:count], f0.frequency_hz[:count], f0.voicing[:count])
#        levels[f"{snr_db:+.0f} dB"] = heard._asdict()
#    display(pd.DataFrame(levels).T.round(3))
#    ```
# 2. The pitch is right as often as before, for voice and flute play the same notes. But rests fill up: where the flute
#    goes on, the network is less sure that nobody sings.
#    ```python
#    from qbhkit.synthesis.accompaniment import Part
#
#    parts = [*arrange_accompaniment(chords, 0.5, length_s, np.random.default_rng(seed)), Part(73, notes, 100)]
#    fluted = mix(voice, truth, render_parts(parts, length_s, MIX_RATE_HZ).samples, 3.0)
#    f0 = network.melody(Recording(fluted, MIX_RATE_HZ)).f0
#    heard = melody_score(truth[:count], f0.frequency_hz[:count], f0.voicing[:count])
#    display(pd.DataFrame({"without": score, "with a flute": heard}, score._fields).T.round(3))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - A melody network answers two questions every 10 ms: does somebody sing, and how high?
# - It has learnt to follow a voice and to leave the band alone; a tracker for one voice follows whatever is loudest.
# - From here on a recorded song is a contour as any other: the catalogue does not know where it came from.
#
# Library functions used: [`qbhkit.synthesis.singer.render_hum`](../qbhkit/melody/synthesis.py),
# [`qbhkit.synthesis.accompaniment.arrange_accompaniment`](../qbhkit/melody/band.py),
# [`qbhkit.synthesis.accompaniment.render_parts`](../qbhkit/melody/band.py),
# [`qbhkit.synthesis.mixing.mix`](../qbhkit/melody/mixing.py),
# [`qbhkit.pitch.trackers.default_song_tracker`](../qbhkit/melody/trackers/__init__.py),
# [`qbhkit.metrics.melody_score`](../qbhkit/melody/metrics.py),
# [`qbhkit.pitch.crnn.MelodyCrnn`](../qbhkit/melody/crnn.py),
# [`qbhkit.figures.melody_figure`](../qbhkit/figures/melodies.py).
#
# Next: [02 · Trackers](02_trackers.ipynb).
