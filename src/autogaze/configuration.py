"""What every configuration of a network is: a frozen dataclass that checks what a JSON file says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from autogaze.errors import CheckpointError


class Configuration:
    """Reading a configuration that may have more keys than we know, nested ones included.

    A subclass is a frozen dataclass with a mapping ``extra``.
    """

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The configuration in a mapping; keys this class does not know are kept in ``extra``.

        Raises:
            CheckpointError: a value is missing or of the wrong kind.
        """
        names = {item.name for item in fields(cls) if item.name != "extra"}  # type: ignore[arg-type]
        values: dict[str, Any] = {name: value for name, value in data.items() if name in names}
        values["extra"] = {name: value for name, value in data.items() if name not in names}
        try:
            kinds = get_type_hints(cls)
            for name in names & values.keys():
                _check(name, values[name], kinds[name])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"this is not a {cls.__name__}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """A plain mapping that :meth:`from_dict` reads back, unknown keys included."""
        return _flat(asdict(self))  # type: ignore[call-overload]

    def _nested(self, name: str, kind: type[Configuration]) -> None:
        value = getattr(self, name)
        if isinstance(value, Mapping):
            object.__setattr__(self, name, kind.from_dict(value))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a checkpoint's configuration file.

    Raises:
        CheckpointError: the file is missing, or holds no JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        below = path.parent / "checkpoint"  # where a training run puts its own
        advice = f"; did you mean {below}?" if (below / path.name).is_file() else ""
        raise CheckpointError(
            f"{path} is missing; a checkpoint is config.json and model.safetensors{advice}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def write_json_object(path: Path, data: Mapping[str, Any]) -> None:
    """Write a configuration file that :func:`read_json_object` reads.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _check(name: str, value: object, kind: Any) -> None:
    """Refuse a value of a file that is of another kind than its field; every number must be above 0."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and NoneType in kinds:
        return
    wanted = next(one for one in kinds if one is not NoneType)
    if wanted in (int, float):
        numbers = int if wanted is int else (int, float)
        legal = isinstance(value, numbers) and not isinstance(value, bool) and 0 < value < 2**53
        what = f"{'a whole number' if wanted is int else 'a number'} above 0"
    elif wanted in (str, bool):
        legal, what = isinstance(value, wanted), "text" if wanted is str else "true or false"
    elif get_origin(wanted) is Literal:
        legal, what = value in get_args(wanted), f"one of {', '.join(get_args(wanted))}"
    else:
        legal, what = isinstance(value, Mapping), "an object"
    if not legal:
        raise ValueError(f"{name} must be {what}, got {value!r}")


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    extra = data.pop("extra", {})
    return {**extra, **{name: _flat(value) if isinstance(value, dict) else value for name, value in data.items()}}
