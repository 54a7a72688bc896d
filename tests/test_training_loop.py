from itertools import product

import pytest
import torch

from qbhkit.errors import QbhError
from qbhkit.training_loop import (
    RunConfig,
    generator,
    load_checkpoint,
    precision,
    save_checkpoint,
)

CONFIG = {"seed": 0, "widths": (8, 16)}
CURVE = [{"epoch": 0, "loss": 1.5}]


def make(seed):
    torch.manual_seed(seed)
    network = torch.nn.Linear(3, 2)
    return network, torch.optim.Adam(network.parameters(), lr=0.1)


def step(network, optimiser):
    optimiser.zero_grad()
    network(torch.ones(1, 3)).square().sum().backward()
    optimiser.step()


@pytest.fixture
def checkpoint(tmp_path):
    network, optimiser = make(0)
    step(network, optimiser)
    save_checkpoint(tmp_path / "run" / "checkpoint.pt", CONFIG, network, optimiser, CURVE)
    return tmp_path / "run" / "checkpoint.pt"


def test_every_number_of_a_generator_and_its_place_count():
    keys = list(product(range(3), repeat=4))
    drawn = [generator(*key).random() for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [generator(*key).random() for key in keys]


def test_a_run_goes_on_from_its_checkpoint(checkpoint):
    network, optimiser = make(0)
    for _ in range(2):
        step(network, optimiser)
    resumed, its_optimiser = make(1)
    assert load_checkpoint(checkpoint, CONFIG, resumed, its_optimiser) == CURVE
    step(resumed, its_optimiser)
    assert torch.equal(resumed.weight, network.weight)


def test_what_cannot_be_resumed_says_so(checkpoint, tmp_path):
    with pytest.raises(QbhError, match=r"none\.pt does not exist: start without --resume\."):
        load_checkpoint(tmp_path / "none.pt", CONFIG, *make(0))
    with pytest.raises(QbhError, match="belongs to another configuration"):
        load_checkpoint(checkpoint, {**CONFIG, "seed": 1}, *make(0))
    state = torch.load(checkpoint, weights_only=True)
    assert set(state) == {"config", "network", "optimiser", "curve"}
    state["encoder"] = state.pop("network")  # as older versions called it
    for damage in (
        lambda: torch.save(state, checkpoint),
        lambda: checkpoint.write_bytes(checkpoint.read_bytes()[:200]),
    ):
        damage()
        with pytest.raises(QbhError, match=r"is damaged \(.*\): start without --resume\."):
            load_checkpoint(checkpoint, CONFIG, *make(0))


@pytest.mark.parametrize("supported", [True, False])
def test_half_precision_is_used_where_the_processor_supports_it(monkeypatch, supported):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": supported}
    )
    for device in ("auto", "cpu"):
        assert precision(RunConfig(bfloat16=False), device) == "32-true"
        found = precision(RunConfig(bfloat16=True), device)
        assert found == ("bf16-mixed" if supported else "32-true")
