import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qbhkit.cli import main as qbhkit
from qbhkit.config import build_config
from qbhkit.contour import Contour, from_notes, from_pitch
from qbhkit.corpora.training_songs import TrainingSongs, training_songs
from qbhkit.embedding.contour_shards import open_shards
from qbhkit.embedding.embedder import export_encoder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.hum_pairs import AlignedHum, HumConfig, HumPairs, align_contours
from qbhkit.embedding.sampling import ContourBank, SongPairs
from qbhkit.embedding.training import (
    FineTune,
    TrainConfig,
    hum_evaluator,
    pair_evaluator,
    song_source,
    spread_of,
    train_encoder,
)
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.training_loop import generator, make_fabric, scheduled_rate

CONFIG = TrainConfig(
    epochs=4, steps_per_epoch=6, batch=32, negatives=4, threads=1,
    encoder=EncoderConfig((8, 16), 1, heads=2, embedding_dim=32, dropout=0.1),
)  # fmt: skip


def tunes(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return [from_pitch(np.repeat(rng.integers(55, 75, 40), 3)) for _ in range(count)]


def curve(path):
    return [
        {key: value for key, value in line.items() if key != "pairs_per_s"}
        for line in json.loads(path.read_text())["curve"]
    ]


def song_pairs(contours, config=CONFIG):
    return SongPairs(
        ContourBank(contours), config.window, config.augmentation, config.normalisation
    )


def hum_pairs(contours, config, seed=1):
    """Return hums of these songs, from their beginning, in other keys."""
    rng = np.random.default_rng(seed)
    hums = []
    for number, song in enumerate(contours):
        sung = Contour(song.frames[:70]).transposed(float(rng.integers(-6, 7)))
        hums.append(AlignedHum(sung, number, align_contours(sung, song)))
    return HumPairs(hums, contours, config.hums, config.window.reading, config.normalisation)


def run(folder, config=CONFIG, **kwargs):
    pairs = song_pairs(tunes(), config)
    train_encoder(config, pairs, folder, folder / "log.json", progress=False, **kwargs)
    return curve(folder / "log.json")


def test_training_learns_to_find_hummed_tunes_and_both_evaluators_see_it(tmp_path):
    config = replace(
        CONFIG, epochs=4, steps_per_epoch=25, batch=48, learning_rate=4e-3, loss="infonce",
        negatives=None, encoder=EncoderConfig((16, 32), 1, heads=2, embedding_dim=32),
    )  # fmt: skip
    others = tunes(40, seed=9)
    validate, log = pair_evaluator(config, others), tmp_path / "log.json"
    held_out = hum_pairs(others[:6], replace(config, hums=HumConfig()))
    find_hums = hum_evaluator(config, held_out, song_pairs(others[6:], config))
    random = find_hums(ContourEncoder(config.encoder).eval())["validation_mrr"]
    source = song_pairs(tunes(200), config)
    trained = train_encoder(config, source, tmp_path, log, evaluate=validate, progress=False)
    lines = curve(log)
    assert lines[-1]["validation_mrr"] > 0.3  # by chance: 0.11
    assert lines[-1]["validation_mrr"] > lines[0]["validation_mrr"]
    assert lines[-1]["spread"] > 0.2
    assert random + 0.1 < find_hums(trained)["validation_mrr"] <= 1


def test_other_hums_of_the_same_song_do_not_count_as_wrong():
    """An encoder that gives every song one vector ranks the right one first."""
    config = replace(CONFIG, hums=HumConfig())
    contours = tunes()
    held_out = hum_pairs(contours[:6], config)
    evaluate = hum_evaluator(config, held_out, song_pairs(contours[6:], config))
    drawn = held_out.draw(256, generator(config.seed, 0, 1, 0))

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            known = torch.zeros(len(x), 7)
            known[:, 6] = 1
            known[: len(drawn.groups)] = torch.eye(7)[drawn.groups]
            return known

    assert evaluate(Oracle())["validation_mrr"] == 1


@pytest.mark.parametrize(("copies", "evaluated"), [(0, 2), (4, 7)])  # in two epochs and a bit
def test_same_seed_same_curve_also_after_a_stop_and_another_not(tmp_path, copies, evaluated):
    config, hums = CONFIG, None
    if copies:
        config = replace(CONFIG, hums=HumConfig(), fine_tune=FineTune(every=1, steps=2))
        hums = hum_pairs(tunes(8, seed=2), config)
    whole, part, other = (tmp_path / name for name in ("whole", "part", "other"))
    lines = run(whole, config, hums=hums)
    assert len(lines) == config.epochs
    assert run(other, replace(config, seed=1), hums=hums) != lines
    scores = [{}] * evaluated

    def stop(encoder):
        if not scores:
            raise KeyboardInterrupt
        return scores.pop()

    with pytest.raises(KeyboardInterrupt):
        run(part, config, hums=hums, evaluate=stop)
    assert len(curve(part / "log.json")) == 2
    assert run(part, config, hums=hums, resume=True) == lines
    logs = [sorted(folder.glob("copy-*/log.json")) for folder in (whole, part)]
    assert len(logs[0]) == copies
    assert [curve(log) for log in logs[0]] == [curve(log) for log in logs[1]]


def test_stage_two_starts_from_weights_and_mixes_hums_in(tmp_path):
    torch.manual_seed(3)
    first = ContourEncoder(CONFIG.encoder)
    export_encoder(first, tmp_path / "first.safetensors", Reading(80), "key")
    config = replace(
        CONFIG, epochs=1, steps_per_epoch=1, learning_rate=1e-9, hums=HumConfig(),
        init_from=str(tmp_path / "first.safetensors"),
    )  # fmt: skip
    hums, log = hum_pairs(tunes(8, seed=2), config), tmp_path / "two.json"
    drawn, draw = [], hums.draw
    hums.draw = lambda count, rng: drawn.append(count) or draw(count, rng)
    second = train_encoder(config, song_pairs(tunes()), tmp_path / "two", log, hums, progress=False)
    assert drawn == [round(config.hums.share * config.batch)]
    for name, value in first.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(second.state_dict()[name], value, atol=1e-6, rtol=0)


def test_songs_borrow_the_errors_of_the_hums(tmp_path):
    def trained(borrowed, songs):
        config = replace(CONFIG, epochs=1, steps_per_epoch=2, hums=HumConfig(borrowed=borrowed))
        hums, log = hum_pairs(tunes(8, seed=2), config), tmp_path / "log.json"
        train_encoder(config, songs, tmp_path, log, hums, progress=False)
        return curve(log)

    songs = song_pairs(tunes())
    assert trained(0.0, songs) != trained(1.0, songs)
    with pytest.raises(QbhError, match=r"hums\.borrowed needs pairs of songs"):
        trained(0.5, hum_pairs(tunes(), replace(CONFIG, hums=HumConfig())))


def test_combined_training_fine_tunes_copies_and_goes_on_undisturbed(tmp_path):
    config = replace(CONFIG, hums=HumConfig(), fine_tune=FineTune(every=2, steps=3))
    hums = hum_pairs(tunes(8, seed=2), config)
    scores = iter([0.1, 0.2, 0.9, 0.9, 0.3, 0.4, 0.5, 0.5])  # two copies are evaluated too

    def evaluate(encoder):
        return {"validation_mrr": next(scores)}

    pairs, log = song_pairs(tunes()), tmp_path / "log.json"
    best = train_encoder(config, pairs, tmp_path, log, hums, evaluate, progress=False)
    lines = curve(log)
    assert [line.get("fine_tuned_validation_mrr") for line in lines] == [None, 0.9, None, 0.5]
    alone = run(tmp_path / "alone")
    assert [line["loss"] for line in lines] == [line["loss"] for line in alone]
    copy = torch.load(tmp_path / "copy-0002" / "checkpoint.pt", weights_only=True)
    for name, value in best.state_dict().items():
        torch.testing.assert_close(copy["network"][f"encoder.{name}"], value)
    shorter = replace(config, epochs=2)  # in the same folder, where a copy of four epochs lies
    best = train_encoder(shorter, pairs, tmp_path, log, hums, lambda _: {}, progress=False)
    copy = torch.load(tmp_path / "copy-0002" / "checkpoint.pt", weights_only=True)
    torch.testing.assert_close(best.output.bias, copy["network"]["encoder.output.bias"])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "harmony"}, "kind must be 'embedding'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be more than 0"),
        ({"fine_tune": {}}, "needs hums"),
        ({"hums": {}, "fine_tune": {"every": 0}}, "every must be at least 1"),
        ({"hums": {"share": 1.5}}, "share must be from 0 to 1"),
        ({"hums": {"shortest_s": 0}}, "shortest_s must be at least 0.1"),
        ({"window": {"shortest_s": 5, "longest_s": 4}}, "shortest_s over 0, up to longest_s"),
        ({"window": {"at_start": float("nan")}}, "at_start must be from 0 to 1"),
        ({"augmentation": {"most_slices": 0}}, "most_slices must be at least 1"),
        ({"augmentation": {"fill_chance": 1.1}}, "fill_chance must be from 0 to 1"),
    ],
)
def test_numbers_that_no_run_can_have_are_refused(values, says):
    with pytest.raises(QbhError, match=says):
        build_config(TrainConfig, {"corpora": ["a"], **values}, "x.yaml")


def test_a_stage_without_what_it_needs_is_refused(tmp_path):
    with pytest.raises(QbhError, match="another encoder"):
        run(tmp_path, replace(CONFIG, init_from="best"))
    with pytest.raises(QbhError, match="3 devices cannot share a batch of 32"):
        run(tmp_path, fabric=SimpleNamespace(world_size=3))
    config = replace(CONFIG, hums=HumConfig(), fine_tune=FineTune(every=5))
    with pytest.raises(QbhError, match="there are none to learn from"):
        run(tmp_path, config)
    with pytest.raises(QbhError, match=r"fine_tune\.every is more than epochs"):
        run(tmp_path, config, hums=hum_pairs(tunes(8, seed=2), config))
    assert not list(tmp_path.iterdir())


def test_the_learnt_temperature_is_kept(tmp_path):
    config = replace(CONFIG, loss="infonce", epochs=1, learning_rate=0.05)
    run(tmp_path, config)
    network = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    moved = [value for name, value in network.items() if not name.startswith("encoder.")]
    assert len(moved) == 1
    assert float(moved[0]) != pytest.approx(float(np.log(config.temperature)), abs=1e-4)


def test_two_processes_share_each_batch_and_learn_alike(tmp_path):
    """Only the batch norms differ: each process sees the statistics of its own rows."""
    config = tmp_path / "mini.yaml"
    config.write_text(
        "corpora: [miscFolk]\nepochs: 2\nsteps_per_epoch: 4\nbatch: 128\nloss: infonce\n"
        "threads: 1\nencoder: {widths: [8, 16], convolutions: 1}\n"
    )
    command = ["train", str(config), "--out", str(tmp_path), "--device", "cpu"]
    assert qbhkit([*command, "--log", str(tmp_path / "1.json")]) == 0
    command += ["--devices", "2", "--log", str(tmp_path / "2.json")]
    subprocess.run([sys.executable, "-m", "qbhkit.cli", *command], check=True, capture_output=True)
    one, two = ([line["loss"] for line in curve(tmp_path / f"{k}.json")] for k in (1, 2))
    assert one != two
    np.testing.assert_allclose(two, one, rtol=0.05)


def test_a_device_that_is_not_there_is_named(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(QbhError, match="cannot train on 1 x cuda"):
        make_fabric(CONFIG, "cuda")


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = [scheduled_rate(CONFIG, step) for step in range(24)]
    assert rates[0] == pytest.approx(CONFIG.learning_rate / 6, rel=0.01)
    assert max(rates) == rates[5]
    assert rates[-1] < 0.01 * CONFIG.learning_rate


def test_spread_tells_collapse():
    assert spread_of(torch.ones(10, 4) / 2) == pytest.approx(0, abs=1e-6)
    assert spread_of(torch.eye(100)) == pytest.approx(0.9, abs=0.01)


def test_an_infinite_loss_is_said_in_a_sentence(tmp_path):
    with pytest.raises(QbhError, match="no longer finite"):
        run(tmp_path, replace(CONFIG, learning_rate=1e12, max_grad_norm=1e30, steps_per_epoch=20))


def test_a_run_reads_shards_and_says_when_their_hop_is_another(tmp_path, song_notes, write_midi):
    for key, notes in list(song_notes.items())[:6]:
        write_midi(tmp_path / "mine" / f"{key}.mid", notes)
    shards = tmp_path / "shards"
    command = ["data", "shards", str(tmp_path / "mine"), "miscFolk", "--out", str(shards)]
    assert qbhkit(command) == 0
    bank = open_shards(shards)
    known = training_songs(("miscFolk",), tmp_path)
    assert len(bank.lengths) == len(known.ids) + 6
    assert bank.tunes == len(set(known.groups)) + 6
    np.testing.assert_array_equal(bank.groups[:-6], known.groups)
    first = bank.pitch[bank.offsets[-6] : bank.offsets[-6] + bank.lengths[-6]]
    np.testing.assert_array_equal(
        first, from_notes(song_notes["00001"]).trimmed()[0].pitch_st.astype(np.float32)
    )
    config = replace(CONFIG, shards=str(shards), corpora=())
    assert song_source(config, training_songs((), tmp_path)).tunes == bank.tunes
    with pytest.raises(QbhError, match=r"shards has a frame every 0\.1 s"):
        song_source(replace(config, hop_s=0.05), training_songs((), tmp_path))


def test_songs_of_another_hop_are_refused_without_shards_too():
    songs = TrainingSongs(["a"], [from_pitch(np.full(300, 60))], [0], [], [])
    with pytest.raises(QbhError, match=r"^The bank of songs has a frame every 0\.1 s: set hop_s"):
        song_source(replace(CONFIG, hop_s=0.05), songs)
