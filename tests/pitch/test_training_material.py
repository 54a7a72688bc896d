from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import pop_song

from qbhkit.corpora.folders import EVALUATION_YEAR
from qbhkit.corpora.training_songs import forbidden_ids, read_split
from qbhkit.errors import QbhError
from qbhkit.pitch import training_material as module
from qbhkit.pitch.training import MelodyTrainConfig
from qbhkit.pitch.training_material import training_material
from qbhkit.synthesis.mixing import MIX_RATE_HZ, MixConfig, Recorded
from qbhkit.synthesis.singer import Voice, render_hum

CONFIG = MelodyTrainConfig(speech=(), watched=1, watched_singers=2, mix=MixConfig(excerpts=1))
NOTES = np.array([[0.5 * k, 0.5, 57 + 2 * k] for k in range(4)])
OTHER_YEAR = "year2003"


def write_hum(path, tempo):
    """Write an 8-bit recording of that tempo with a label; return its length in samples."""
    voice = Voice("vowels", tempo=tempo, timing_error=0, gap=0.3)
    samples = render_hum(NOTES, voice, np.random.default_rng(0)).audio.samples[::2]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, MIX_RATE_HZ, subtype="PCM_U8")
    path.with_suffix(".pv").write_text("60\n" * round(len(samples) / 256))
    return len(samples)


def test_material_is_split_by_singer_and_by_song(tmp_path, monkeypatch):
    """Two small corpora: four training singers and two strangers, eleven songs and one held out."""
    split, songs = read_split("mir_qbsh"), read_split("pop909")
    trained_on, watched = split["training_singers"][:2], split["training_singers"][-2:]
    known = {singer for fold in split["singer_folds"] for singer in fold}
    numbers = (f"{EVALUATION_YEAR}/person{k:05}" for k in range(1, 10**5))
    stranger = next(singer for singer in numbers if singer not in known)
    namesake = trained_on[0].replace(EVALUATION_YEAR, OTHER_YEAR)  # somebody else of another year
    lengths = {}
    for number, singer in enumerate((*trained_on, *watched, stranger, namesake)):
        path = tmp_path / "data" / "mir-qbsh" / "waveFile" / singer / "00001.wav"
        lengths[singer] = write_hum(path, 1 + 0.1 * number)
    assert len(set(lengths.values())) == 6
    (tmp_path / "data" / "mir-qbsh" / "midiFile").mkdir()
    (tmp_path / "data" / "mir-qbsh" / "midiFile" / "00001.mid").write_bytes(b"MThd")
    allowed = [f"{k:03}" for k in range(1, 910) if f"{k:03}" not in forbidden_ids(songs)][:11]
    for song in (*allowed, songs["held_out"][0]):
        pop_song(tmp_path / "data" / "pop909" / song / f"{song}.mid")
    found = training_material(CONFIG, tmp_path / "data", tmp_path / "stems", progress=False)
    for voices, singers in ((found.voices, trained_on), (found.watched_voices, watched)):
        assert sorted(len(v.samples) for v in voices) == sorted(lengths[one] for one in singers)
    played = set(found.bank.info["songs"]), set(found.watched_bank.info["songs"])
    assert not played[0] & played[1]
    assert played[0] | played[1] == {f"{song}.mid" for song in allowed}
    assert len(found.bank) == len(found.watched_bank) == 1
    voice = Recorded(*np.zeros((2, 1)), None)
    monkeypatch.setattr(module, "build_bank", lambda *_, **__: None)
    monkeypatch.setattr(module, "recorded_voices", lambda hums, _: [voice for _ in hums])
    config = replace(CONFIG, watched_singers=0)
    everybody = training_material(config, tmp_path / "data", tmp_path, progress=False)
    assert (len(everybody.voices), len(everybody.watched_voices)) == (4, 0)


def test_missing_corpora_say_how_to_get_them(tmp_path):
    with pytest.raises(QbhError, match="qbhkit data fetch mir-qbsh"):
        training_material(CONFIG, tmp_path, tmp_path / "stems", progress=False)
