import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from qbhkit.cli import main as qbhkit
from qbhkit.contour import from_pitch
from qbhkit.embedding.encoders import EncoderConfig
from qbhkit.embedding.sampling import ContourBank
from qbhkit.embedding.training import (
    TrainConfig,
    pair_evaluator,
    spread_of,
    train,
)
from qbhkit.errors import QbhError
from qbhkit.retrieval.evaluate import pair_mrr
from qbhkit.runs import learning_rate

CONFIG = TrainConfig(
    epochs=4, steps=6, batch=32, negatives=4, threads=1,
    encoder=EncoderConfig((8, 16), 1, heads=2, size=32, dropout=0.1),
)  # fmt: skip


def tunes(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return [from_pitch(np.repeat(rng.integers(55, 75, 40), 3)) for _ in range(count)]


def curve(path):
    return [
        {key: value for key, value in line.items() if key != "pairs_per_s"}
        for line in json.loads(path.read_text())["curve"]
    ]


def run(folder, config=CONFIG, **kwargs):
    train(config, ContourBank(tunes()), folder, folder / "log.json", progress=False, **kwargs)
    return curve(folder / "log.json")


def test_same_seed_same_curve_and_another_seed_another(tmp_path):
    one, two = run(tmp_path / "a"), run(tmp_path / "b")
    other = run(tmp_path / "c", replace(CONFIG, seed=1))
    assert one == two
    assert one != other
    assert len(one) == CONFIG.epochs


def test_a_stopped_run_resumes_with_the_same_curve(tmp_path):
    whole = run(tmp_path / "whole")

    def stop_after_two(encoder):
        stop_after_two.calls += 1
        if stop_after_two.calls == 3:
            raise KeyboardInterrupt
        return {}

    stop_after_two.calls = 0
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", evaluate=stop_after_two)
    assert len(curve(tmp_path / "part" / "log.json")) == 2
    assert run(tmp_path / "part", resume=True) == whole


def test_training_learns_to_find_hummed_tunes(tmp_path):
    config = replace(
        CONFIG,
        epochs=6,
        steps=25,
        batch=48,
        negatives=None,
        encoder=EncoderConfig((16, 32), 1, heads=2),
    )
    validate = pair_evaluator(config, tunes(40, seed=9), pair_mrr)
    train(
        config, ContourBank(tunes(200)), tmp_path, tmp_path / "log.json", validate, progress=False
    )
    lines = curve(tmp_path / "log.json")
    assert lines[-1]["validation_mrr"] > 0.3  # by chance: 0.11
    assert lines[-1]["validation_mrr"] > lines[0]["validation_mrr"]
    assert lines[-1]["spread"] > 0.3


def test_resuming_needs_a_whole_checkpoint_of_this_configuration(tmp_path):
    with pytest.raises(QbhError, match="does not exist"):
        run(tmp_path, resume=True)
    run(tmp_path, replace(CONFIG, epochs=1))
    with pytest.raises(QbhError, match="another configuration"):
        run(tmp_path, resume=True)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(QbhError, match="damaged"):
        run(tmp_path, replace(CONFIG, epochs=1), resume=True)


def test_the_checkpoint_holds_nothing_that_could_run(tmp_path):
    run(tmp_path, replace(CONFIG, epochs=1))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(state) == {"config", "network", "optimiser", "curve"}


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = [learning_rate(CONFIG, step) for step in range(24)]
    assert rates[0] == pytest.approx(CONFIG.rate / 6, rel=0.01)
    assert max(rates) == rates[5]
    assert rates[-1] < 0.01 * CONFIG.rate


def test_spread_tells_collapse():
    assert spread_of(torch.ones(10, 4) / 2) == pytest.approx(0, abs=1e-6)
    assert spread_of(torch.eye(100)) == pytest.approx(0.9, abs=0.01)


def test_an_infinite_loss_is_said_in_a_sentence(tmp_path):
    with pytest.raises(QbhError, match="no longer finite"):
        run(tmp_path, replace(CONFIG, rate=1e12, clip=1e30, epochs=3, steps=20))


def test_the_command_is_killed_and_goes_on(tmp_path):
    """Kill -9 the real command after its first checkpoint; the curve ends up unbroken."""
    config = tmp_path / "mini.yaml"
    config.write_text(
        "corpora: [airdsAirs]\nepochs: 4\nsteps: 10\nbatch: 64\nnegatives: 4\nthreads: 1\n"
        "encoder: {widths: [16, 32], convolutions: 1}\n"
    )
    whole = ["--out", str(tmp_path / "whole"), "--log", str(tmp_path / "w.json")]
    assert qbhkit(["train", str(config), *whole]) == 0
    command = [sys.executable, "-m", "qbhkit.cli", "train", str(config)]
    command += ["--out", str(tmp_path / "part"), "--log", str(tmp_path / "p.json")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (tmp_path / "p.json").is_file() and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 1 <= len(curve(tmp_path / "p.json")) < 4
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert curve(tmp_path / "p.json") == curve(tmp_path / "w.json")
    assert (tmp_path / "part" / "mini.safetensors").is_file()


def test_an_unknown_key_is_refused(tmp_path, capsys):
    config = tmp_path / "bad.yaml"
    config.write_text("epochs: 1\nspeed: 3\n")
    assert qbhkit(["train", str(config), "--out", str(tmp_path)]) == 2
    assert "speed" in capsys.readouterr().err


def test_a_corpus_without_a_split_is_refused(tmp_path, capsys):
    config = tmp_path / "mir.yaml"
    config.write_text("corpora: [mir-qbsh]\n")
    assert qbhkit(["train", str(config), "--out", str(tmp_path)]) == 2
    assert "no split" in capsys.readouterr().err


def test_another_kind_of_run_is_refused(tmp_path, capsys):
    config = tmp_path / "other.yaml"
    config.write_text("kind: harmony\n")
    assert qbhkit(["train", str(config), "--out", str(tmp_path)]) == 2
    assert "kind must be 'embedding'" in capsys.readouterr().err
