"""Build frozen dataclasses from YAML files and overrides; any wrong key or value is an error."""

from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import dacite
import yaml

from qbhkit.errors import QbhError, naming

T = TypeVar("T")

# Names of version 1.0 and their present names, by dataclass. ``Weights`` stands for the metadata of
# a weights file and ``RenderedBank`` for those of a bank of rendered hums.
RENAMED_KEYS: dict[str, dict[str, str]] = {
    "RunConfig": {"steps": "steps_per_epoch", "rate": "learning_rate", "clip": "max_grad_norm"},
    "TrainConfig": {"start": "init_from", "rules": "augmentation"},
    "FineTune": {"rate": "learning_rate"},
    "HumConfig": {"rules": "augmentation"},
    "WindowRange": {"steps": "frames"},
    "EncoderConfig": {"size": "embedding_dim", "summary": "pooling"},  # layers have these names too
    "MixConfig": {"spoilt": "degraded"},
    "RenderConfig": {"spoilt": "degraded"},
    "Weights": {"steps": "frames", "heard_by": "states_of"},
    "RenderedBank": {"heard_by": "states_of"},
}
# The same for values: kinds of runs, weights and banks, and names of corpora.
RENAMED_VALUES = {
    "end-to-end": "state-distillation",
    "performances": "rendered-hums",
    "pop909-heard": "pop909-transcribed",
}
_NAMES_IN = ("kind", "corpora")  # keys whose values RENAMED_VALUES translates


def config_path(name: str | Path, beside: Path = Path()) -> Path:
    """Return the file of a configuration: a path relative to ``beside``, or a shipped name.

    Raises:
        QbhError: if there is no such file; names the shipped ones.
    """
    shipped = Path(__file__).parent / "configs"
    for path in (beside / name, shipped / f"{name}.yaml", shipped / name):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
    raise QbhError(f"{name} is neither a file nor a shipped configuration ({names}).")


def load_config(kind: type[T], name: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a configuration and build its dataclass.

    Raises:
        QbhError: as :func:`config_path`, :func:`read_yaml` and :func:`build_config`.
    """
    path = config_path(name)
    where = f"{path} with {', '.join(overrides)}" if overrides else str(path)
    return build_config(kind, read_yaml(path, overrides), where)


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader, merged over the configuration that it extends.

    Args:
        path: the file. Its key ``extends`` is the name of a shipped configuration, or a path
            relative to the file's folder; it is not in the result.
        overrides: changes to the result, ``key=value`` or ``section.key=value``, values in YAML.

    Raises:
        QbhError: if a file is missing, is not YAML, is not a mapping or extends itself; if an
            override is malformed.
    """
    values = _resolved(Path(path), ())
    for override in overrides:
        key, equals, text = override.partition("=")
        names = key.strip().split(".")
        if not (equals and all(names)):
            raise QbhError(f"{override!r} is no key=value, such as learning_rate=1e-3.")
        change = _parsed(text, override)
        for name in reversed(names):
            change = {name: change}
        values = merged(values, change)
    return values


def _resolved(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in children:
        raise QbhError(f"{path} extends itself: remove one of the 'extends'.")
    try:
        values = _parsed(path.read_text("utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise QbhError(f"{path} cannot be read ({error}).") from None
    if not isinstance(values, dict):
        raise QbhError(f"{path} must hold keys and values, for example 'seed: 0'.")
    if "extends" not in values:
        return values
    parent = values.pop("extends")
    if not isinstance(parent, str):
        raise QbhError(f"{path}: 'extends' must be the name or the path of one configuration.")
    with naming(path):
        found = config_path(parent, path.parent)
    return merged(_resolved(found, (*children, path.resolve())), values)


def _parsed(text: str, where: object) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QbhError(f"{where} is not YAML ({problem}).") from None


def merged(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return values updated by a change: mappings key by key, lists and scalars as a whole."""
    result = dict(values)
    for key, value in change.items():
        old = result.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        result[key] = merged(old or {}, value) if both else value
    return result


def build_config(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Build a (nested) frozen dataclass from plain values.

    Args:
        kind: the dataclass.
        values: its fields, by their present or their former names; lists become tuples.
        where: named in errors, usually the file.

    Raises:
        QbhError: at an unknown key, a wrong type, a missing field, or a key under both its names.
    """
    with naming(where):
        values = _present(kind, values)
    try:
        return dacite.from_dict(
            kind, _tuples(values), dacite.Config(strict=True, type_hooks={float: _to_float})
        )
    except QbhError:
        raise
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise QbhError(f"{where}: {error}.") from None


def _present(kind: type, values: Any) -> Any:
    """Rename the fields of a dataclass, and of nested ones, to their present names."""
    if not isinstance(values, dict):
        return values
    for cls in kind.__mro__:
        values = present_names(cls.__name__, values)
    hints = get_type_hints(kind)
    for key, value in values.items():
        hint = hints.get(key)
        if isinstance(value, dict) and get_origin(hint) is tuple:
            raise QbhError(f"{key} must be a list.")
        inner = next((t for t in (hint, *get_args(hint)) if is_dataclass(t)), None)
        if isinstance(inner, type):
            values[key] = _present(inner, value)
    return values


def present_names(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of values with the present names of version 1.0's keys, kinds and corpora.

    Args:
        name: what the values describe: a key of ``RENAMED_KEYS``; others keep their keys.
        values: by their present or their former names.

    Raises:
        QbhError: if a value is given under both names.
    """
    names = RENAMED_KEYS.get(name, {})
    for old, new in names.items():
        if old in values and new in values:
            raise QbhError(f"{old} is the former name of {new}: give one of them.")
    return _translated(values, names, RENAMED_VALUES)


def former_names(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of values with the names of version 1.0: undo :func:`present_names`."""
    keys, kinds = (
        {new: old for old, new in names.items()}
        for names in (RENAMED_KEYS.get(name, {}), RENAMED_VALUES)
    )
    return _translated(values, keys, kinds)


def _translated(
    values: dict[str, Any], keys: dict[str, str], kinds: dict[str, str]
) -> dict[str, Any]:
    def other(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [other(one) for one in value]
        return kinds.get(value, value) if isinstance(value, str) else value

    return {
        keys.get(key, key): other(value) if key in _NAMES_IN else value
        for key, value in values.items()
    }


def check_range(config: Any, least: float, most: float, *names: str) -> None:
    """Raise QbhError if a field, a number or a pair of them, is not in ``least`` to ``most``."""
    for name in names:
        value = getattr(config, name)
        low, high = value if isinstance(value, tuple) else (value, value)
        if not least <= low <= high <= most:
            wanted = f"at least {least}" if most == float("inf") else f"from {least} to {most}"
            order = ", the lower one first" if isinstance(value, tuple) else ""
            raise QbhError(f"{name} must be {wanted}{order}, not {value}.")


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _to_float(value: Any) -> Any:
    is_number = isinstance(value, (int, str)) and not isinstance(value, bool)
    try:
        return float(value) if is_number else value  # YAML reads 1e-4 as text
    except ValueError:
        return value
