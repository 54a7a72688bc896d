"""YAML files to frozen dataclasses: an unknown key, a wrong type or a missing value is an error."""

from pathlib import Path
from typing import Any, TypeVar

import dacite
import yaml

from qbhkit.errors import QbhError

T = TypeVar("T")


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


def build(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Build a (nested) frozen dataclass from plain values.

    Args:
        kind: the dataclass.
        values: its fields; lists become tuples, and whole numbers pass for floats.
        where: named in errors, usually the file.

    Raises:
        QbhError: at an unknown key, a wrong type or a missing field.
    """
    try:
        return dacite.from_dict(
            kind, _tuples(values), dacite.Config(strict=True, type_hooks={float: _to_float})
        )
    except QbhError:
        raise
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise QbhError(f"{where}: {error}.") from None


def refuse_outside(config: Any, least: float, most: float, *names: str) -> None:
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
