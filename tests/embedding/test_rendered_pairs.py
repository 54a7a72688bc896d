import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from qbhkit.contour import from_pitch
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.render_hums import RenderConfig
from qbhkit.embedding.rendered_pairs import (
    PartConfig,
    RenderedBank,
    RenderedHum,
    read_rendered,
    write_rendered,
)
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.weights import weights_path

EXACT = PartConfig(timing=Distortions(start_shift=0, tempo_octaves=0, slice_tempo=0))
CHANNELS = 3


def rendered_hum(number, begin=7, count=60):
    """States whose first channel is the pitch of the frame of the song that they sing."""
    song = from_pitch(50 + number + np.arange(110 + number) % 11)
    frames = begin + np.arange(count)
    states = np.stack([song.pitch_st[frames], *np.zeros((CHANNELS - 1, count))], axis=1)
    spans = np.stack([frames, frames + 1], axis=1)
    return RenderedHum(states, spans, song, number // 2)


def bank_of(hums, path):
    write_rendered(path, hums, {"states_of": "nobody"})
    return RenderedBank(read_rendered(path))


@pytest.fixture
def bank(tmp_path):
    return bank_of([rendered_hum(k, begin=k) for k in range(20)], tmp_path / "bank.safetensors")


def wrong_share(bank, config=EXACT, frames=80):
    parts = bank.draw(300, Reading(frames), config, np.random.default_rng(0))
    assert parts.states.shape == (300, frames, CHANNELS)
    assert parts.windows.shape == (300, frames, 2)
    assert parts.windows[..., 1].all()
    return np.mean(parts.states[..., 0] != parts.windows[..., 0])


class TestDraw:
    def test_a_part_sings_its_window_frame_by_frame(self, bank):
        assert wrong_share(bank) < 1e-3  # a frame may lie just on the border of two

    def test_a_faster_hum_has_a_longer_window(self, tmp_path):
        song = from_pitch(40 + np.arange(80.0))
        frames = 2.0 * np.arange(30)  # twice as fast as the song
        states = np.repeat(song.pitch_st[frames.astype(int)][:, None], CHANNELS, axis=1)
        one = RenderedHum(states, np.stack([frames, frames + 2], axis=1), song, 0)
        drawn = bank_of([one], tmp_path / "a.safetensors").draw(
            50, Reading(40), EXACT, np.random.default_rng(0)
        )
        apart = drawn.windows[..., 0] - drawn.states[..., 0]
        assert set(np.unique(apart)) == {0, 1}  # a frame of states spans two of the song
        np.testing.assert_allclose(
            np.ptp(drawn.windows[..., 0], axis=1), np.ptp(drawn.states[..., 0], axis=1), atol=1
        )

    def test_parts_are_from_the_shortest_to_the_whole_and_some_begin_with_it(self, tmp_path):
        ramp = np.repeat(np.arange(100)[:, None], CHANNELS, axis=1)
        hum = rendered_hum(0, count=100)._replace(states=ramp)
        config = replace(EXACT, shortest_s=3.0, at_start=0.5)
        whole = bank_of([hum], tmp_path / "a.safetensors")
        read = whole.draw(500, Reading(400), config, np.random.default_rng(0)).states[..., 0]
        length = read[:, -1] - read[:, 0] + 1
        assert 30 <= length.min() < 35
        assert 95 < length.max() <= 100
        assert 0.4 < np.mean(read[:, 0] == 0) < 0.65

    @pytest.mark.parametrize("change", [{"shortest_s": 0}, {"at_start": 1.5}])
    def test_impossible_parts_are_refused(self, change):
        with pytest.raises(QbhError, match=f"{min(change)} must be"):
            PartConfig(**change)

    def test_uneven_timing_moves_the_states_and_not_the_window(self, bank):
        drawn = [
            bank.draw(40, Reading(80), config, np.random.default_rng(3))
            for config in (EXACT, PartConfig(), EXACT)
        ]
        np.testing.assert_array_equal(drawn[0].states, drawn[2].states)
        np.testing.assert_array_equal(drawn[0].windows, drawn[1].windows)
        assert 0.1 < np.mean(drawn[0].states[..., 0] != drawn[1].states[..., 0]) < 0.95

    def test_held_back_tunes_are_in_one_bank_only(self, bank):
        learnt, held = bank.split(5)  # ten tunes of two hums each
        assert (len(learnt), len(held)) == (16, 4)
        tunes = [
            set(part.draw(200, Reading(8), EXACT, np.random.default_rng(0)).tunes)
            for part in (learnt, held)
        ]
        assert [len(side) for side in tunes] == [8, 2]
        assert not tunes[0] & tunes[1]


class TestFile:
    def test_what_was_made_comes_back(self, tmp_path):
        path = tmp_path / "a.safetensors"
        made = {"states_of": "somebody", "drawn": {"seed": 3}}
        write_rendered(path, [rendered_hum(0), rendered_hum(1, count=31)], made)
        stored = read_rendered(path)
        assert stored.recipe == made
        assert stored.arrays["frames"].tolist() == [60, 31]
        assert stored.arrays["states"].dtype == np.float16
        np.testing.assert_array_equal(stored.arrays["spans"][60:], rendered_hum(1, count=31).spans)
        bank = RenderedBank(stored)
        assert (len(bank), bank.channels, bank.states_of) == (2, CHANNELS, "somebody")

    def test_a_bank_of_version_1_is_read_and_present_names_are_written(self, tmp_path):
        path = tmp_path / "a.safetensors"
        recipe = {"states_of": "somebody", "songs": "x", "drawn": asdict(RenderConfig(count=1))}
        write_rendered(path, [rendered_hum(0)], recipe)
        with safe_open(path, framework="numpy") as stored:
            written = json.loads(stored.metadata()["qbhkit"])
        assert (written["kind"], written["states_of"]) == ("rendered-hums", "somebody")
        assert "degraded" in written["drawn"]
        new = read_rendered(path)
        former = {"kind": "performances", "heard_by": "somebody", "songs": "x"}
        drawn = written["drawn"] | {"kind": "performances"}
        drawn["spoilt"] = drawn.pop("degraded")
        metadata = {"qbhkit": json.dumps(former | {"drawn": drawn})}
        save_file(load_file(path), path, metadata=metadata)
        old = read_rendered(path)
        assert old.recipe == new.recipe == json.loads(json.dumps(recipe))
        assert RenderedBank(old).states_of == "somebody"

    def test_a_missing_and_a_damaged_one_say_how_to_make_it(self, tmp_path):
        path = tmp_path / "half.safetensors"
        with pytest.raises(QbhError, match="does not exist: make it with 'qbhkit data render'"):
            read_rendered(path)
        write_rendered(path, [rendered_hum(0)], {})
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(QbhError, match=r"half.safetensors is damaged .*render' again"):
            read_rendered(path)

    def test_weights_and_arrays_that_do_not_fit_together_are_refused(self, tmp_path):
        with pytest.raises(QbhError, match=r"stage1.safetensors holds no rendered hums"):
            read_rendered(weights_path("stage1"))
        path = tmp_path / "a.safetensors"
        write_rendered(path, [rendered_hum(0)], {})
        arrays = load_file(path)
        for name in ("spans", "pitch", "tunes"):
            changed = arrays | {name: arrays[name][:-1]}
            save_file(changed, path, metadata={"qbhkit": '{"kind": "rendered-hums"}'})
            with pytest.raises(QbhError, match="holds no rendered hums"):
                read_rendered(path)
