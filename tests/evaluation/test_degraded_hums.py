"""The bench of degraded hums: its versions are as bad as they say, and its counts are right."""

import numpy as np
import pytest

from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks import bench_degraded_hums
from qbhkit.evaluation.benchmarks.bench_degraded_hums import degraded, versions, without_a_tune
from qbhkit.retrieval.searcher import Answer
from qbhkit.synthesis import degrade
from qbhkit.training_loop import generator


@pytest.fixture
def hum():
    """Two seconds of a tone of half level, one of it a hundred times softer."""
    at = np.arange(32000) / 16000
    return 0.5 * np.sin(2 * np.pi * 220 * at) * np.where(at < 1, 1, 0.01)


def decibels(ratio):
    return 20 * np.log10(ratio)


def test_versions_have_the_levels_that_they_name(hum):
    other = 0.1 * np.sin(2 * np.pi * 300 * np.arange(20000) / 16000)
    found = versions(hum, other, generator(0, 0))
    for level_dbfs in (-45, -50):
        peak = np.abs(found[f"peak {level_dbfs} dBFS"]).max()
        assert decibels(peak) == pytest.approx(level_dbfs, abs=0.1)
    for kind in ("rumble", "fan", "tap", "car", "second voice"):
        ratio = degrade.rms(hum) / degrade.rms(found[kind] - hum)
        assert decibels(ratio) == pytest.approx(10, abs=0.1), kind
    room, after = found["20 s of room after it"], slice(len(hum), None)
    assert len(room) == len(hum) + 20 * 16000
    assert decibels(degrade.rms(room[: len(hum)])) == pytest.approx(-16, abs=0.1)
    for level_dbfs in (-60, -50):
        mains = found[f"the same, mains {level_dbfs} dBFS"][after] - room[after]
        assert decibels(degrade.rms(mains)) == pytest.approx(level_dbfs, abs=0.1)
    assert found["DC offset 0.1"].mean() == pytest.approx(0.1, abs=1e-3)


def test_the_gate_mutes_what_is_soft_and_gain_control_raises_it(hum):
    found = versions(hum, hum, generator(0, 0))
    soft = slice(24000, 31000)
    assert degrade.rms(found["noise gate"][soft]) < 1e-6
    assert degrade.rms(found["AGC"][soft]) == pytest.approx(0.1, rel=0.05)
    np.testing.assert_allclose(found["noise gate"][1000:15000], hum[1000:15000])


class FakeSearcher:
    """Answer clean hums rightly, offset ones wrongly, refuse soft ones; always be sure."""

    def __init__(self):
        self.catalogue = type("Catalogue", (), {"songs": [{"title": "A"}, {"title": "B"}]})

    def search(self, query, k):
        samples, _ = query
        if np.abs(samples).max() < 0.004:
            raise QbhError("too soft")
        wrong = samples.mean() > 0.05
        names = ("b", "a") if wrong else ("a", "b")
        return [Answer(name, name, -rank, 0, 1) for rank, name in enumerate(names)]

    def confident(self, answers):
        return bool(answers)


def test_losses_refusals_and_wrong_confidence_are_counted(hum):
    found = degraded(FakeSearcher(), [hum, hum], ["a", "a"], [hum, hum])
    clean, wrong, refused = (found[kind] for kind in ("clean", "DC offset 0.1", "peak -50 dBFS"))
    assert (clean["top1"], clean["confident"], clean["wrong_confident"]) == (1, 2, 0)
    assert (wrong["top1_loss"], wrong["top10_loss"], wrong["wrong_confident"]) == (100, 0, 2)
    assert (refused["refused"], refused["top10_loss"], refused["confident"]) == (2, 100, 0)


def test_sounds_without_a_tune_are_counted_by_kind(monkeypatch):
    monkeypatch.setattr(bench_degraded_hums.shutil, "which", lambda _name: None)
    found = without_a_tune(FakeSearcher())
    assert found["silence with hiss"] == {"n": 8, "answered": 0, "confident": 0}
    for kind in ("one note", "two notes in turn", "white noise"):
        assert found[kind] == {"n": 8, "answered": 8, "confident": 8}
