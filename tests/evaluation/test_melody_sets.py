"""The bench of trackers: its recordings say what they hold, and its numbers follow from them."""

import numpy as np
import pytest
from conftest import pop_song

from qbhkit.audio import Audio, load, write_wav
from qbhkit.contour import hz_to_midi, midi_to_hz
from qbhkit.evaluation.benchmarks import bench_melody, melody_sets
from qbhkit.evaluation.benchmarks.melody_sets import fingerprint
from qbhkit.metrics import melody_score
from qbhkit.pitch.trackers import get_tracker
from qbhkit.synthesis import degrade
from qbhkit.synthesis.singer import Voice, render_hum

HELD_OUT, TRAINING = ("person00003", "person00007"), "person00001"
TUNE = np.array([[0.5 * n, 0.45, pitch] for n, pitch in enumerate((57, 60, 62, 64, 60, 57))])


def hum_of(seed):
    """A hum of three seconds at 8 kHz, its level that of a recording, and its f0."""
    hum = render_hum(TUNE, Voice("vowels"), np.random.default_rng(seed))
    count = len(hum.f0.frequency_hz) - len(hum.f0.frequency_hz) % 16  # 32 ms is 3.2 frames
    f0 = np.where(hum.f0.voiced, hum.f0.frequency_hz, 0)[:count]
    return hum.audio.samples[: 160 * count : 2] / 4, f0


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """MIR-QBSH, POP909 and singing, each as small as can be."""
    root = tmp_path_factory.mktemp("data")
    (root / "mir-qbsh" / "midiFile").mkdir(parents=True)
    (root / "mir-qbsh" / "midiFile" / "00001.mid").touch()
    for singer in (*HELD_OUT, TRAINING):
        for song in range(3):
            samples, f0 = hum_of(song)
            path = root / "mir-qbsh" / "waveFile" / "year2009" / singer / f"{song:05}.wav"
            write_wav(Audio(samples, 8000), path)
            middle = ((np.arange(int(len(f0) / 3.2)) + 0.5) * 3.2).astype(int)
            label = np.where(f0[middle] > 0, hz_to_midi(np.maximum(f0[middle], 1)), 0)
            np.savetxt(path.with_suffix(".pv"), label, fmt="%.6f")
    pop_song(root / "pop909" / "008" / "008.mid")
    samples, f0 = hum_of(7)
    write_wav(Audio(samples, 8000), root / "singing" / "vocadito" / "vocadito_1.wav")
    at_s = np.arange(int(len(f0) / 100 / 0.0058)) * 0.0058
    rows = np.stack([at_s, f0[np.minimum((at_s * 100).astype(int), len(f0) - 1)]], axis=1)
    np.savetxt(root / "singing" / "vocadito" / "vocadito_1_f0.csv", rows, delimiter=",")
    return root


@pytest.fixture(scope="module")
def songs(data):
    return [data / "pop909" / "008" / "008.mid"]


@pytest.fixture(scope="module")
def hums(data):
    return melody_sets.held_out_hums(data, 2)


@pytest.fixture(scope="module")
def mixed(hums, songs, tmp_path_factory):
    return melody_sets.under_bands(hums[:2], songs, tmp_path_factory.mktemp("mixed"))


def score_of(clips, tracker="swift-f0"):
    """Score a tracker on the labelled frames of clips, pooled."""
    found, columns = get_tracker(tracker), []
    for clip in clips:
        track = found.track(load(clip.path, found.rate_hz))
        assert len(clip.f0_hz) == len(track.voicing)
        rows = np.stack([clip.f0_hz, track.frequency_hz, track.voicing])
        columns.append(rows[:, clip.scored])
    return melody_score(*np.concatenate(columns, axis=1))


def test_hums_are_those_of_singers_nothing_was_trained_on(data, hums):
    assert [clip.singer for clip in hums] == [HELD_OUT[0]] * 2 + [HELD_OUT[1]] * 2
    fewer, everything = (melody_sets.held_out_hums(data, count) for count in (1, 0))
    names = [clip.name for clip in hums]
    assert [clip.name for clip in fewer] == names[::2]  # a smaller choice is part of a larger one
    assert len(everything) == 6


def test_labels_line_up_with_what_is_sung(data, hums):
    for clip in hums:
        label_s = (np.arange(len(clip.scored)) + 0.5) * 0.032
        assert np.abs((clip.scored + 0.5) * 0.01 - label_s).max() < 0.0051
    assert score_of(hums).raw_pitch_accuracy > 0.95
    assert score_of(hums).overall_accuracy > 0.9
    assert score_of(melody_sets.vocadito(data)).raw_pitch_accuracy > 0.95


def test_a_mixture_has_the_level_it_says(hums, mixed):
    assert list(mixed) == ["songs +10 dB", "songs +5 dB", "songs 0 dB", "songs -5 dB"]
    voice = load(hums[0].path, 8000).samples
    voiced = np.repeat(hums[0].f0_hz > 0, 80)
    bands = [load(clips[0].path, 8000).samples - voice for clips in mixed.values()]
    for band, snr_db in zip(bands, melody_sets.SNRS_DB, strict=True):
        found_db = 20 * np.log10(degrade.rms(voice[voiced]) / degrade.rms(band))
        assert found_db == pytest.approx(snr_db, abs=0.1)
        assert np.corrcoef(band, bands[-1])[0, 1] > 0.99  # one band, at four levels


def test_an_unheard_instrument_plays_the_tune_over_a_band(songs, tmp_path, monkeypatch):
    bare, real = tmp_path / "bare", melody_sets.instrumental(songs, tmp_path)
    assert len(real) == len({clip.path for clip in real}) == 4 * melody_sets.SOLOS
    monkeypatch.setattr(melody_sets, "SOLO_DB", 60.0)
    monkeypatch.setattr(melody_sets, "UNHEARD", (58, 109))
    clips = melody_sets.instrumental(songs, bare)
    for clip in clips:
        assert len(clip.f0_hz) == 1000
        assert (clip.f0_hz > 0).mean() > 0.3
    assert score_of(clips).raw_chroma_accuracy > 0.9  # bagpipes: the drone


def test_the_same_seed_gives_the_same_files(hums, songs, mixed, tmp_path):
    again = melody_sets.under_bands(hums[:1], songs, tmp_path)
    for name, clips in mixed.items():
        assert fingerprint(again[name]) == fingerprint(clips[:1])
    assert len({fingerprint(clips) for clips in mixed.values()}) == 4


def test_degraded_hums_keep_their_labels(hums, tmp_path):
    sets = melody_sets.degraded(hums[:2], tmp_path)
    assert list(sets) == [
        "noise 10 dB", "noise 0 dB", "half level", "clipped", "8 bit", "reverberation",
        "transposed",
    ]  # fmt: skip
    for kind, clips in sets.items():
        assert score_of(clips).raw_pitch_accuracy > 0.9, kind
    before, after = (clips[0].f0_hz for clips in (hums, sets["transposed"]))
    assert len(after) == pytest.approx(len(before) * 2 ** (-3 / 12), abs=1)
    raised = np.median(hz_to_midi(after[after > 0])) - np.median(hz_to_midi(before[before > 0]))
    assert raised == pytest.approx(3, abs=0.1)
    half = load(sets["half level"][0].path, 8000).samples
    np.testing.assert_allclose(half, load(hums[0].path, 8000).samples / 2, atol=1e-4)


def test_the_published_pitch_is_put_where_it_sounds(monkeypatch, tmp_path):
    at = np.arange(2 * 44100) / 44100
    step = np.where(at < 1, 220.0, 330.0)
    samples = 0.3 * np.sin(2 * np.pi * np.cumsum(step) / 44100)
    write_wav(Audio(samples.astype(np.float32), 44100), tmp_path / "singing" / "kum2020" / "a.wav")
    frames = np.arange(217)  # 7 patches of 31
    written = midi_to_hz(hz_to_midi(np.where(frames < 100, 220.0, 330.0)) + 5)
    rows = np.stack([frames / 100, written], axis=1)
    np.savetxt(tmp_path / "singing" / "kum2020" / "a.txt", rows, fmt="%.4f")
    monkeypatch.setattr(melody_sets, "_PUBLISHED", {"a.wav": "a.txt"})
    (clip,) = melody_sets.published(tmp_path, tmp_path / "made")
    assert len(clip.f0_hz) == 200
    np.testing.assert_allclose(clip.f0_hz[[0, 99, 100]], [220, 220, 330], rtol=1e-4)
    assert score_of([clip]).raw_pitch_accuracy > 0.97


@pytest.fixture
def tiny(hums, mixed, tmp_path):
    return {"hums": hums[:2], "songs 0 dB": mixed["songs 0 dB"], **melody_sets.noises(tmp_path)}


def test_the_bench_measures_and_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("QBHKIT_DATA", str(tmp_path))
    result = bench_melody.measure(tiny, ["whistle", "crnn"], tmp_path)
    assert list(result["missing"]) == ["crnn"]
    assert str(tmp_path) not in result["missing"]["crnn"]
    block = result["trackers"]["whistle"]
    assert block["real_time_factor"] > 0
    assert block["memory_mb"] >= 0
    wanted = score_of(tiny["songs 0 dB"], "whistle")
    assert {k: block["sets"]["songs 0 dB"][k] for k in wanted._fields} == wanted._asdict()
    assert block["sets"]["white noise"] == {
        "voicing_false_alarm": pytest.approx(0, abs=0.05), "clips": 1,
    }  # fmt: skip
    low, high = block["sets"]["songs 0 dB"]["overall_accuracy_interval"]
    assert low <= wanted.overall_accuracy <= high
    monkeypatch.setattr(bench_melody, "parallel_map", None)  # nothing is tracked again
    monkeypatch.setattr(bench_melody.common, "in_a_process", None)
    assert bench_melody.measure(tiny, ["whistle", "crnn"], tmp_path) == result
