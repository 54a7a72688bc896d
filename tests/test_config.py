from dataclasses import asdict, dataclass, field

import pytest
import yaml

from qbhkit.config import build_config, config_path, former_names, load_config, read_yaml
from qbhkit.embedding.distillation import DistillationConfig
from qbhkit.embedding.encoders import EncoderConfig
from qbhkit.embedding.hum_pairs import HumConfig
from qbhkit.embedding.render_hums import RenderConfig
from qbhkit.embedding.training import TrainConfig
from qbhkit.errors import QbhError
from qbhkit.pitch.training import MelodyTrainConfig


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
    built = build_config(Example, values, "x.yaml")
    assert built == Example(("a", "b"), seed=3, encoder=Encoder((16, 32), 1.0))
    assert isinstance(built.encoder.dropout, float)
    assert hash(built)
    with pytest.raises(QbhError, match=r"^The seed must not be negative\.$"):  # its own words
        build_config(Example, {"corpora": ["a"], "seed": -1}, "x.yaml")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"corpora": ["a"], "speed": 1}, "speed"),
        ({}, "corpora"),
        ({"corpora": "oneills1850"}, "corpora"),
        ({"corpora": {"a": 1}}, "corpora must be a list"),
        ({"corpora": [1]}, "corpora"),
        ({"corpora": ["a"], "seed": 1.5}, "seed"),
        ({"corpora": ["a"], "rate": "fast"}, "rate"),
        ({"corpora": ["a"], "encoder": 3}, "encoder"),
        ({"corpora": ["a"], "encoder": {"widths": ["wide"]}}, "widths"),
    ],
)
def test_unknown_keys_wrong_types_and_missing_values_are_errors(values, says):
    with pytest.raises(QbhError, match=says) as caught:
        build_config(Example, values, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ")


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
        (b"a: !!python/object/apply:os.system ['true']\n", "is not YAML"),
        (b"[" * 1000, "is not YAML"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path, content, says):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(QbhError, match=rf"a\.yaml .*{says}"):
        read_yaml(tmp_path / "a.yaml")


@pytest.fixture
def family(tmp_path):
    """Write configurations that extend one another; return the path of the youngest."""
    layers = {
        "old.yaml": "corpora: [a, b]\nrate: 0.5\nname: o\nencoder: {widths: [8, 8], dropout: 0.1}",
        "sub/mid.yaml": "extends: ../old.yaml\nname: null\nencoder: {widths: [4]}",
        "new.yaml": "extends: sub/mid.yaml\ncorpora: [c]\nseed: 7",
    }
    for name, text in layers.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "new.yaml"


def test_extended_mappings_merge_and_lists_and_scalars_replace(family):
    assert read_yaml(family) == {
        "corpora": ["c"], "rate": 0.5, "name": None, "seed": 7,
        "encoder": {"widths": [4], "dropout": 0.1},
    }  # fmt: skip
    assert load_config(Example, family) == Example(("c",), 0.5, 7, None, Encoder((4,), 0.1))


def test_shipped_configurations_are_extended_by_name_unless_a_file_lies_beside(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: tiny\nepochs: 9\n")
    assert read_yaml(tmp_path / "a.yaml") == read_yaml(config_path("tiny")) | {"epochs": 9}
    (tmp_path / "tiny").write_text("seed: 3\n")
    assert read_yaml(tmp_path / "a.yaml") == {"seed": 3, "epochs": 9}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"a": "extends: b.yaml", "b": "extends: ../b/a.yaml"}, r"a\.yaml extends itself"),
        ({"a": "extends: mine"}, r"a\.yaml: mine is neither a file nor .*stage1"),
        ({"a": "extends: [tiny]"}, r"a\.yaml: 'extends' must be"),
        ({"a": "extends: b.yaml", "b": "[1]"}, r"b\.yaml must hold keys and values"),
        ({"a": "extends: b.yaml", "b": "corpora: [a]\nspeed: 1"}, r"a\.yaml: .*speed"),
    ],
)
def test_wrong_parents_are_refused_in_one_sentence(tmp_path, texts, says):
    folder = tmp_path / "b"
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    with pytest.raises(QbhError, match=says):
        load_config(Example, folder / "a.yaml")


def test_overrides_change_values_as_yaml_would(family):
    changes = [
        "rate=1e-3", "encoder.dropout=0.2", "corpora=[x, y]", "name=b=c", "seed=1", "seed=2",
    ]  # fmt: skip
    wanted = Example(("x", "y"), 1e-3, 2, "b=c", Encoder((4,), 0.2))
    assert load_config(Example, family, changes) == wanted
    assert load_config(Example, family, ["encoder={dropout: 1}"]).encoder == Encoder((4,), 1.0)
    assert load_config(Example, family, ["name="]).name is None
    config = load_config(TrainConfig, "stage1", ["hums.share=0.5"])  # without hums of its own
    assert config.hums == HumConfig(share=0.5)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("speed=1", r"new\.yaml with speed=1: .*speed"),
        ("encoder.depth=1", r"new\.yaml with encoder.depth=1: .*depth"),
        ("seed=one", r"new\.yaml with seed=one: .*seed"),
        ("corpora.a=1", r"new\.yaml with corpora.a=1: corpora must be a list"),
        ("extends=tiny", "extends"),
        ("seed", "is no key=value"),
        ("encoder..depth=1", "is no key=value"),
        ("corpora=[a", "is not YAML"),
        ("name=!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_wrong_overrides_are_refused_in_one_sentence(family, override, says):
    with pytest.raises(QbhError, match=says) as caught:
        load_config(Example, family, [override])
    assert "\n" not in str(caught.value)


FORMER_1_0 = {
    "steps_per_epoch": "steps", "learning_rate": "rate", "max_grad_norm": "clip",
    "init_from": "start", "frames": "steps", "augmentation": "rules", "embedding_dim": "size",
    "pooling": "summary", "kind: state-distillation": "kind: end-to-end",
    "pop909-transcribed": "pop909-heard",
}  # fmt: skip
KINDS = {
    "published": TrainConfig, "best": TrainConfig, "crnn-lite": MelodyTrainConfig,
    "end-to-end": DistillationConfig,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_names_of_version_1_build_what_the_present_ones_build(name, tmp_path):
    text = yaml.safe_dump(read_yaml(config_path(name)))
    for present, former in FORMER_1_0.items():
        text = text.replace(present, former)
    (tmp_path / "old.yaml").write_text(text)
    present = load_config(KINDS[name], name)
    former = load_config(KINDS[name], tmp_path / "old.yaml")
    assert former == present


def test_other_keys_of_version_1_are_read_too():
    values = {
        "hums": {"rules": {"key_st": 1.0}}, "fine_tune": {"rate": 0.1}, "corpora": ["pop909-heard"],
    }  # fmt: skip
    built = build_config(TrainConfig, values, "x.yaml")
    assert built.hums.augmentation.key_st == 1.0
    assert built.fine_tune.learning_rate == 0.1
    assert built.corpora == ("pop909-transcribed",)
    assert build_config(MelodyTrainConfig, {"mix": {"spoilt": 0.1}}, "x.yaml").mix.degraded == 0.1
    render = build_config(RenderConfig, {"kind": "performances", "spoilt": 0.1}, "x.yaml")
    assert render == RenderConfig(degraded=0.1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 3, "steps_per_epoch": 3}, "steps is the former name of steps_per_epoch"),
        ({"window": {"steps": 80, "frames": 80}}, "steps is the former name of frames"),
    ],
)
def test_a_key_under_both_names_is_refused(values, says):
    with pytest.raises(QbhError, match=rf"^x\.yaml: {says}: give one of them\.$"):
        build_config(TrainConfig, values, "x.yaml")


def test_former_names_undo_present_names_and_change_nothing_else():
    config = asdict(EncoderConfig())
    former = former_names("EncoderConfig", config)
    assert {"size", "summary"} <= set(former)
    assert list(former.values()) == list(config.values())
    assert build_config(EncoderConfig, former, "x.yaml") == EncoderConfig()
    assert former_names("EncoderConfig", former) == former
    assert former_names("RenderConfig", {"kind": "rendered-hums"}) == {"kind": "performances"}
    assert former_names("Nothing", {"pooling": 3}) == {"pooling": 3}
