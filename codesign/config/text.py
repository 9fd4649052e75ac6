"""Configurations as TOML text: the resolved one of a run, and the commented one of `codesign init`."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args, get_origin

import tomlkit
from pydantic.fields import FieldInfo

from codesign.config import Config, Section

WIDTH = 100


def config_toml(config: Config, sections: Mapping[str, Collection[str]] | None = None) -> str:
    """TOML text of a configuration, or of some of its sections and keys, with every default spelled out.

    ``sections`` names the keys of each section, () for all of them. Keys without a value, and those that only go with
    another choice, are left out. What nobody gave and a goal or a budget may decide is a comment, so that one that is
    given later decides it; what one has decided is left out.
    """
    document = {name: plain(getattr(config, name)) for name in Config.model_fields if not sections or name in sections}
    for name, keys in (sections or {}).items():
        if keys:
            document[name] = {key: value for key, value in document[name].items() if key in keys}
    for section, key in config.implied:
        document.get(section, {}).pop(key, None)
    text = tomlkit.document()
    for section, values in document.items():
        table = tomlkit.table()
        for key, value in values.items():
            if config.is_open(section, key):
                table.add(tomlkit.comment(f"{key} = {_literal(value)}"))
            else:
                table.add(key, value)
        text.add(section, table)
    return tomlkit.dumps(text)


def config_template() -> str:
    """TOML text of every key with its meaning, choices, bounds and default; made from the models.

    Keys without a default value, keys that only go with another choice, and what a goal or a budget may decide, are
    commented out, so that the text is a valid configuration.
    """
    config = Config()
    lines = ["# Configuration of codesign: every key, at its default. Keys that are left out keep their default."]
    for name in Config.model_fields:
        _section_lines(name, getattr(config, name), lines, config)
    return "\n".join(lines) + "\n"


def _section_lines(path: str, section: Section, lines: list[str], config: Config) -> None:
    lines += ["", *_comment(type(section).__doc__ or ""), f"[{path}]"]
    nested: list[tuple[str, Section]] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            nested.append((f"{path}.{name}", value))
            continue
        lines += _comment(_describe(field))
        if value is None:
            lines.append(f"# {name} =")
        elif _is_conditional(section, name, value) or config.is_open(path, name):
            lines.append(f"# {name} = {_literal(value)}")
        else:
            lines.append(f"{name} = {_literal(value)}")
    for name, inner in nested:
        _section_lines(name, inner, lines, config)


def plain(section: Section) -> dict[str, Any]:
    """A section in JSON's and TOML's types, the same however its values were written (1 or 1.0, given or default)."""
    document: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            document[name] = plain(value)
        elif value is not None and not _is_conditional(section, name, value):
            document[name] = _plain_value(value)
    return document


def _plain_value(value: Any) -> Any:
    if isinstance(value, Section):
        return plain(value)
    if isinstance(value, dict):
        return {key: _plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_value(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_conditional(section: Section, name: str, value: Any) -> bool:
    """True if the key may not be spelled out next to the other values of its section."""
    if name in section.model_fields_set:
        return False
    try:
        type(section).model_validate({**section.model_dump(exclude_unset=True), name: value})
    except ValueError:
        return True
    return False


def _describe(field: FieldInfo) -> str:
    parts = [field.description] if field.description else []
    choices = _choices(field.annotation)
    if choices:
        parts.append(" | ".join(choices))
    bounds = _bounds(field)
    if bounds:
        parts.append(bounds)
    return "; ".join(parts)


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [choice for inner in get_args(annotation) if inner is not annotation for choice in _choices(inner)]


def _bounds(field: FieldInfo) -> str:
    limits = {}
    for item in field.metadata:
        limits.update({key: getattr(item, key) for key in ("ge", "gt", "le", "lt") if hasattr(item, key)})
    low = f"{limits['ge']} or more" if "ge" in limits else f"above {limits['gt']}" if "gt" in limits else ""
    high = f"at most {limits['le']}" if "le" in limits else f"below {limits['lt']}" if "lt" in limits else ""
    if "ge" in limits and "le" in limits:
        return f"{limits['ge']} to {limits['le']}"
    return ", ".join(part for part in (low, high) if part)


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return tomlkit.item(value).as_string() if not isinstance(value, dict) else _inline_table(value)


def _inline_table(value: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{tomlkit.item(key).as_string()} = {_literal(item)}" for key, item in value.items()) + "}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), WIDTH)]
