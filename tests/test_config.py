from dataclasses import asdict, dataclass, field, fields, replace

import pytest
import yaml

from qbhkit.config import RENAMED_KEYS, build_config, config_path, former_names, read_yaml
from qbhkit.embedding.distillation import DistillationConfig
from qbhkit.embedding.encoders import EncoderConfig
from qbhkit.embedding.hum_pairs import HumConfig
from qbhkit.embedding.note_pairs import NotePairConfig
from qbhkit.embedding.render_hums import RenderConfig
from qbhkit.embedding.training import FineTune, TrainConfig
from qbhkit.embedding.windows import WindowRange
from qbhkit.errors import QbhError
from qbhkit.evaluation.ablation import Grid, recipe
from qbhkit.pitch.training import MelodyTrainConfig
from qbhkit.synthesis.mixing import MixConfig
from qbhkit.training_loop import RunConfig


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
    assert kinds == {"crnn-lite": "melody", "end-to-end": "state-distillation"}


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


# The configurations that version 1.0.0 shipped, in flow style.
PUBLISHED_1_0 = """
  batch: 24, rate: 0.0001, weight_decay: 0.000001, clip: 1.0, bfloat16: true, loss: hinge,
  mining: random, negatives: 4, margin: 0.5, warm_epochs: 0, normalisation: published,
  window: {shortest_s: 10, longest_s: 10, steps: 200, stretched: false, step_s: 2.5, at_start: 0,
    min_voiced: 0.5},
  rules: {key_st: 18, tempo_octaves: 0.5, slice_tempo: 0.3, start_shift: 0, crop_chance: 0.8,
    drift_chance: 0, octave_chance: 0, note_chance: 0, wrong_note: 0, staccato_chance: 0,
    modulation_chance: 0, left_out_chance: 0, added_chance: 0, glide_chance: 0, legato_chance: 0,
    octave_note_chance: 0, lost_frame_chance: 0},
  encoder: {widths: [128, 128, 128, 128], convolutions: 1, kernel: 3, compression: [6, 5, 5, 1],
    summary: context}"""
CORPORA_1_0 = "corpora: [essenFolksong, oneills1850, airdsAirs, ryansMammoth, miscFolk, pop909]"
SHIPPED_1_0 = {
    "stage1": f"""{{kind: embedding, seed: 0, {CORPORA_1_0}, epochs: 50, steps: 100, batch: 384,
  rate: 0.0015, weight_decay: 0.0001, bfloat16: true, loss: infonce, mining: all,
  temperature: 0.05, encoder: {{widths: [96, 192, 384, 512], convolutions: 1, kernel: 5}}}}""",
    "best": f"""{{kind: embedding, seed: 0, {CORPORA_1_0}, start: stage1, pairs: pairs.csv,
  songs: [mir-qbsh], epochs: 5, steps: 50, batch: 256, rate: 0.0006, weight_decay: 0.0001,
  bfloat16: true, loss: infonce, mining: all, temperature: 0.04, warm_epochs: 0,
  encoder: {{widths: [96, 192, 384, 512], convolutions: 1, kernel: 5}}, hums: {{share: 0.4}}}}""",
    "published-stage1": f"""{{kind: embedding, seed: 0, {CORPORA_1_0}, epochs: 20, steps: 1000,
  {PUBLISHED_1_0}}}""",
    "published": f"""{{kind: embedding, seed: 0, {CORPORA_1_0}, start: published-stage1,
  pairs: pairs.csv, songs: [mir-qbsh], epochs: 5, steps: 200,
  hums: {{share: 1.0, shortest_s: 5, plain: 0.2}}, {PUBLISHED_1_0}}}""",
    "tiny": """{kind: embedding, seed: 0, corpora: [airdsAirs], epochs: 3, steps: 8, batch: 64,
  negatives: 8, encoder: {widths: [16, 32], convolutions: 1}}""",
    "crnn-lite": "{kind: melody, seed: 0, epochs: 15, steps: 100, batch: 12}",
    "end-to-end": """{kind: end-to-end, seed: 0, teacher: stage1, bank: performances.safetensors,
  epochs: 25, steps: 100, batch: 256, rate: 0.0015, weight_decay: 0.0001, bfloat16: true,
  encoder: {inputs: 256, linear: 96, widths: [96, 192, 384, 512], convolutions: 1, kernel: 5}}""",
}
ABLATION_1_0 = f"""
base: {{{CORPORA_1_0}, batch: 256, rate: 0.0015, weight_decay: 0.0001, bfloat16: true,
  loss: infonce, mining: all, temperature: 0.05,
  encoder: {{widths: [64, 128, 256, 256], convolutions: 1, kernel: 5}}}}
tune: {{epochs: 3, rate: 0.0006, temperature: 0.04, warm_epochs: 0, hums: {{share: 0.4}}}}
budgets:
  tiny: {{songs: {{epochs: 1, steps: 2, batch: 16}}, tune: {{epochs: 1, steps: 2, batch: 16}}}}
  full: {{songs: {{epochs: 8, steps: 100}}, tune: {{steps: 50}}}}
rows:
  - name: published encoder, loss, windows, distortions
    change:
      loss: hinge
      mining: random
      negatives: 4
      window:
        {{shortest_s: 10, longest_s: 10, steps: 200, stretched: false, step_s: 2.5, at_start: 0}}
      rules:
        {{tempo_octaves: 0.5, slice_tempo: 0.3, start_shift: 0, crop_chance: 0.8, drift_chance: 0,
        octave_chance: 0, note_chance: 0, wrong_note: 0, staccato_chance: 0, modulation_chance: 0,
        left_out_chance: 0, added_chance: 0, glide_chance: 0, legato_chance: 0,
        octave_note_chance: 0, lost_frame_chance: 0}}
      encoder: {{widths: [128, 128, 128, 128], kernel: 3, compression: [6, 5, 5, 1]}}
  - {{name: 128 numbers a vector, change: {{encoder: {{size: 128}}}}}}
  - name: bidirectional LSTM, then GRU
    change: {{encoder: {{kind: lstm, widths: [256], summary: gru}}}}
  - {{name: a frame every 50 ms, change: {{hop_s: 0.05, window: {{steps: 160}}}}}}
  - name: combined
    stages: combined
    change: {{fine_tune: {{every: 4, steps: 150, rate: 0.0006}}}}
  - name: POP909 as heard in audio
    change:
      corpora: [essenFolksong, oneills1850, airdsAirs, ryansMammoth, miscFolk, pop909-heard]
"""
KINDS = {"crnn-lite": MelodyTrainConfig, "end-to-end": DistillationConfig}


@pytest.mark.parametrize("name", SHIPPED_1_0)
def test_the_configurations_of_version_1_build_what_the_present_ones_build(name):
    kind = KINDS.get(name, TrainConfig)
    present = build_config(kind, read_yaml(config_path(name)), name)
    former = build_config(kind, yaml.safe_load(SHIPPED_1_0[name]), name)
    if name == "end-to-end":  # it names a file, which keeps its name
        assert former.bank == "performances.safetensors"
        former = replace(former, bank=present.bank)
    assert former == present


def test_the_ablation_of_version_1_has_the_recipes_of_the_present_one():
    present = build_config(Grid, read_yaml(config_path("ablation")), "ablation.yaml")
    former = build_config(Grid, yaml.safe_load(ABLATION_1_0), "ablation.yaml")
    rows = {row.name: row for row in present.rows}
    for row in former.rows:
        for budget in ("tiny", "full"):
            wanted = recipe(present, rows[row.name], budget, 0)
            assert recipe(former, row, budget, 0) == wanted, row.name


def test_other_keys_of_version_1_are_read_too():
    values = {
        "events": {"share": 0.5}, "hums": {"rules": {"key_st": 1.0}}, "fine_tune": {"rate": 0.1},
        "corpora": ["pop909-heard"],
    }  # fmt: skip
    built = build_config(TrainConfig, values, "x.yaml")
    assert built.note_pairs == NotePairConfig(share=0.5)
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
        ({"start": "", "init_from": "best"}, "start is the former name of init_from"),
        ({"window": {"steps": 80, "frames": 80}}, "steps is the former name of frames"),
        (
            {"encoder": {"summary": "gru", "pooling": "gru"}},
            "summary is the former name of pooling",
        ),
    ],
)
def test_a_key_under_both_names_is_refused(values, says):
    with pytest.raises(QbhError, match=rf"^x\.yaml: {says}: give one of them\.$"):
        build_config(TrainConfig, values, "x.yaml")


@pytest.mark.parametrize(
    "kind",
    [
        RunConfig, TrainConfig, FineTune, HumConfig, WindowRange, EncoderConfig, MixConfig,
        RenderConfig,
    ],
)  # fmt: skip
def test_the_table_of_former_names_is_that_of_the_fields(kind):
    names = {field.name for field in fields(kind)}
    for old, new in RENAMED_KEYS[kind.__name__].items():
        assert new in names
        assert old not in names


def test_former_names_undo_present_names_and_change_nothing_else():
    config = asdict(EncoderConfig())
    former = former_names("EncoderConfig", config)
    assert {"size", "summary"} <= set(former)
    assert list(former.values()) == list(config.values())
    assert build_config(EncoderConfig, former, "x.yaml") == EncoderConfig()
    assert former_names("EncoderConfig", former) == former
    assert former_names("RenderConfig", {"kind": "rendered-hums"}) == {"kind": "performances"}
    assert former_names("Nothing", {"pooling": 3}) == {"pooling": 3}
