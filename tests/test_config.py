from dataclasses import dataclass, field

import pytest

from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.errors import QbhError


@dataclass(frozen=True)
class Encoder:
    widths: tuple[int, ...] = (8,)
    dropout: float = 0.0


@dataclass(frozen=True)
class Example:
    corpora: tuple[str, ...]
    rate: float = 1e-3
    seed: int = 0
    name: str | None = None
    encoder: Encoder = field(default_factory=Encoder)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise QbhError("The seed must not be negative.")


def test_build_nests_and_freezes():
    values = {"corpora": ["a", "b"], "encoder": {"widths": [16, 32], "dropout": 1}, "seed": 3}
    assert build_config(Example, values, "x.yaml") == Example(
        ("a", "b"), seed=3, encoder=Encoder((16, 32), 1.0)
    )
    built = build_config(Example, values, "x.yaml")
    assert isinstance(built.encoder.dropout, float)
    assert isinstance(built.encoder.widths, tuple)
    assert hash(built)


@pytest.mark.parametrize(("written", "number"), [("1e-4", 1e-4), ("2", 2.0), ("0.5", 0.5)])
def test_yaml_numbers_become_floats(tmp_path, written, number):
    (tmp_path / "a.yaml").write_text(f"corpora: [a]\nrate: {written}\n")
    rate = build_config(Example, read_yaml(tmp_path / "a.yaml"), "a.yaml").rate
    assert rate == number
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"corpora": ["a"], "speed": 1}, "speed"),
        ({"corpora": ["a"], "encoder": {"depth": 1}}, "depth"),
        ({}, "corpora"),
        ({"corpora": "oneills1850"}, "corpora"),
        ({"corpora": {"a": 1}}, "x.yaml"),
        ({"corpora": None}, "corpora"),
        ({"corpora": [1]}, "corpora"),
        ({"corpora": ["a"], "seed": 1.5}, "seed"),
        ({"corpora": ["a"], "seed": "one"}, "seed"),
        ({"corpora": ["a"], "rate": "fast"}, "rate"),
        ({"corpora": ["a"], "rate": [1.0]}, "rate"),
        ({"corpora": ["a"], "encoder": 3}, "encoder"),
        ({"corpora": ["a"], "encoder": {"widths": ["wide"]}}, "widths"),
    ],
)
def test_unknown_keys_wrong_types_and_missing_values_are_errors(values, says):
    with pytest.raises(QbhError, match=says) as caught:
        build_config(Example, values, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ")


def test_the_words_of_a_dataclass_reach_the_user():
    with pytest.raises(QbhError, match=r"^The seed must not be negative\.$"):
        build_config(Example, {"corpora": ["a"], "seed": -1}, "x.yaml")


@pytest.mark.parametrize("name", ["stage1", "best", "tiny"])
def test_shipped_configurations_are_found_by_name(name):
    assert config_path(name) == config_path(f"{name}.yaml")
    assert read_yaml(config_path(name))["kind"] == "embedding"


def test_the_shipped_kinds_of_runs_are_told_apart():
    kinds = {name: read_yaml(config_path(name))["kind"] for name in ("crnn-lite", "end-to-end")}
    assert kinds == {"crnn-lite": "melody", "end-to-end": "end-to-end"}


def test_a_file_wins_and_an_unknown_name_lists_the_shipped(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    monkeypatch.chdir(tmp_path)
    assert config_path("mine.yaml").resolve() == tmp_path / "mine.yaml"
    with pytest.raises(QbhError, match=r"mine is neither a file nor .*best.*stage1.*tiny"):
        config_path("mine")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1, 2", "is not YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "keys and values"),
        (b"- 1\n- 2\n", "keys and values"),
        (b"a: !!python/object/apply:os.system ['true']\n", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path, content, says):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(QbhError, match=rf"a\.yaml .*{says}"):
        read_yaml(tmp_path / "a.yaml")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(QbhError, match="cannot be read"):
        read_yaml(tmp_path / "absent.yaml")
