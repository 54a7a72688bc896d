"""YAML files to frozen dataclasses: an unknown key, a wrong type or a missing value is an error."""

from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import dacite
import yaml

from qbhkit.errors import QbhError

T = TypeVar("T")

# What version 1.0 called the keys of YAML files and of weights, by dataclass; ``Weights`` stands
# for the metadata of a weights file, ``RenderedBank`` for that of a bank of rendered hums.
RENAMED_KEYS: dict[str, dict[str, str]] = {
    "RunConfig": {"steps": "steps_per_epoch", "rate": "learning_rate", "clip": "max_grad_norm"},
    "TrainConfig": {"start": "init_from", "rules": "augmentation", "events": "note_pairs"},
    "FineTune": {"rate": "learning_rate"},
    "HumConfig": {"rules": "augmentation"},
    "WindowRange": {"steps": "frames"},
    "EncoderConfig": {"size": "embedding_dim", "summary": "pooling"},
    "MixConfig": {"spoilt": "degraded"},
    "RenderConfig": {"spoilt": "degraded"},
    "Weights": {"steps": "frames", "heard_by": "states_of"},
    "RenderedBank": {"heard_by": "states_of"},
}
# The same for values of the key ``kind``, and for names of corpora.
RENAMED_VALUES = {
    "end-to-end": "state-distillation",
    "performances": "rendered-hums",
    "pop909-heard": "pop909-transcribed",
}


def config_path(name: str) -> Path:
    """Return the file of a configuration: a path, or the name of one shipped in the package.

    Raises:
        QbhError: if there is no such file; names the shipped ones.
    """
    shipped = Path(__file__).parent / "configs"
    for path in (Path(name), shipped / f"{name}.yaml", shipped / name):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
    raise QbhError(f"{name} is neither a file nor a shipped configuration ({names}).")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises:
        QbhError: if the file is missing, is not YAML, or is not a mapping.
    """
    try:
        value = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise QbhError(f"{path} cannot be read ({error}).") from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QbhError(f"{path} is not YAML ({problem}).") from None
    if not isinstance(value, dict):
        raise QbhError(f"{path} must hold keys and values, for example 'seed: 0'.")
    return value


def build_config(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Build a (nested) frozen dataclass from plain values.

    Args:
        kind: the dataclass.
        values: its fields, by their present or their former names; lists become tuples, and whole
            numbers pass for floats.
        where: named in errors, usually the file.

    Raises:
        QbhError: at an unknown key, a wrong type or a missing field.
    """
    try:
        return dacite.from_dict(
            kind,
            _tuples(_renamed(kind, values)),
            dacite.Config(strict=True, type_hooks={float: _to_float}),
        )
    except QbhError:
        raise
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise QbhError(f"{where}: {error}.") from None


def renamed_keys(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return values under the present names of their keys.

    Args:
        name: a key of ``RENAMED_KEYS``; other names have had no other keys.
        values: by their present or their former names.

    Raises:
        QbhError: if a value is given under both names.
    """
    names = RENAMED_KEYS.get(name, {})
    for old, new in names.items():
        if old in values and new in values:
            raise QbhError(f"{old} is the former name of {new}: give one of them.")
    return {names.get(key, key): value for key, value in values.items()}


def _renamed(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Rename the former keys and values of a dataclass and of those inside it."""
    if not isinstance(values, dict):
        return values
    for cls in kind.__mro__:
        values = renamed_keys(cls.__name__, values)
    hints, found = get_type_hints(kind), {}
    for key, value in values.items():
        hint = hints.get(key)
        inner = next((t for t in (hint, *get_args(hint)) if is_dataclass(t)), None)
        if key == "kind" and isinstance(value, str):
            value = RENAMED_VALUES.get(value, value)
        found[key] = _renamed(inner, value) if inner is not None else value  # type: ignore[arg-type]
    return found


def check_range(config: Any, least: float, most: float, *names: str) -> None:
    """Raise QbhError for a number of a configuration that is NaN, or less or more than it may be.

    Args:
        config: the dataclass.
        least: what the numbers may be.
        most: the same; infinite for no limit.
        names: of the fields.
    """
    for name in names:
        value = getattr(config, name)
        if not least <= value <= most:
            wanted = f"at least {least}" if most == float("inf") else f"from {least} to {most}"
            raise QbhError(f"{name} must be {wanted}, not {value}.")


def _tuples(value: Any) -> Any:
    """Turn lists into tuples at any depth."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _to_float(value: Any) -> Any:
    is_number = isinstance(value, (int, str)) and not isinstance(value, bool)
    try:
        return float(value) if is_number else value  # YAML reads 1e-4 as text
    except ValueError:
        return value
