"""How a configuration is put together.

Later layers win: defaults, the preset, what the job itself knows (how a finished model was made, say), a YAML
file (`--config`), the environment (`FINESCALE_TRAINING__BATCH=16`), the command line (`--set
training.batch=16`, or a flag of its own where the job has one).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.settings.presets import PRESETS

ENVIRONMENT_PREFIX = "FINESCALE_"


def load_config(
    overrides: Iterable[tuple[str, Any]] = (),
    *,
    defaults: Mapping[str, Any] | None = None,
    file: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Put the layers together and validate the result.

    Parameters
    ----------
    overrides : iterable of (str, Any)
        Dotted key and value from the command line, as in `("training.batch", "16")`.
    defaults : mapping, optional
        Tree of settings that the job puts above the preset and below all that the user says.
    file : str, optional
        YAML file.
    environment : mapping, optional
        `os.environ` unless given.

    Raises
    ------
    UserError
        With one line, for an unreadable file, an unknown key or an impossible value.
    """
    environment = os.environ if environment is None else environment
    layers: dict[str, Mapping[str, Any]] = {
        "job's defaults": defaults or {},
        f"file {file}": _read_yaml(file) if file else {},
        "environment": _from_environment(environment),
        "command line": _nest(overrides),
    }
    preset: object = "small"
    for layer in layers.values():
        preset = layer.get("preset", preset)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UserError(f"preset {preset!r}: there is no such preset; choose one of {', '.join(PRESETS)}")
    merged: dict[str, Any] = {}
    for layer in ({"preset": preset}, PRESETS[preset], *layers.values()):
        merged = _merge(merged, layer)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise UserError(_one_line(error, layers)) from error


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split `key=value` of `--set`; the value is read as YAML, so that lists and booleans can be given.

    Raises
    ------
    UserError
        If there is no `=`, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r}: write KEY=VALUE, as in --set training.batch=16")
    return key.strip(), _value(key, value)


def _value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: cannot read the value {text!r}") from error


def _read_yaml(file: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(file).read_text())
    except OSError as error:
        raise UserError(f"--config {file}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {file}: not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"--config {file}: expected settings such as 'training: {{batch: 16}}'")
    return content


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Read `FINESCALE_A__B=value` as `a.b`."""
    return _nest(
        (name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), _value(name, value))
        for name, value in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX)
    )


def _nest(assignments: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Turn dotted keys into a tree; a later assignment wins."""
    tree: dict[str, Any] = {}
    for key, value in assignments:
        branch: dict[str, Any] = {}
        leaf = branch
        *parents, last = key.split(".")
        for parent in parents:
            leaf = leaf.setdefault(parent, {})
        leaf[last] = value
        tree = _merge(tree, branch)
    return tree


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _one_line(error: ValidationError, layers: Mapping[str, Mapping[str, Any]]) -> str:
    """Say the first thing that is wrong: its key, its value, what would be right and which layer holds it."""
    first, *others = error.errors()
    key = ".".join(str(part) for part in first["loc"])
    # A model-level check has the whole part as its input: too long to print, and its message names the value.
    value = "" if isinstance(first["input"], dict | BaseModel) else f" = {first['input']!r}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown key; known here: {', '.join(_known_keys(first['loc'][:-1]))}"
    more = f" (and {len(others)} more)" if others else ""
    if not key:  # a check of the whole tree: its message names the settings, which may be of several layers
        return f"{message}{more}"
    holder = [name for name, layer in layers.items() if _holds(layer, first["loc"])]
    origin = f" (from the {holder[-1]})" if holder else ""
    return f"{key}{value}: {message}{origin}{more}"


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        model = model.model_fields[str(part)].annotation  # type: ignore[assignment]
    return list(model.model_fields)


def _holds(layer: Mapping[str, Any], location: tuple[str | int, ...]) -> bool:
    branch: Any = layer
    for part in location:
        if not isinstance(branch, Mapping) or part not in branch:
            return isinstance(branch, list | tuple | str) and isinstance(part, int)
        branch = branch[part]
    return True
