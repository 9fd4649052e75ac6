"""Sections from nested tables, and what is said of those that are wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from codesign.basics.errors import InputError
from codesign.config.base import Section
from codesign.config.network import LAYER_KINDS

AnySection = TypeVar("AnySection", bound=Section)

# How pydantic names a member of a union in the place of an error.
KIND_TAG = re.compile(r"^(bool|int|float|str|none|constrained-\w+|(literal|list|function-\w+)\[.*\])$")


def parse_section(section: type[AnySection], document: Mapping[str, Any], where: str) -> AnySection:
    """A single section, validated. Raises InputError with one line per problem."""
    if not isinstance(document, Mapping):
        raise InputError(f"{where}: is no table of keys and values but {type(document).__name__}")
    try:
        return section.model_validate(dict(document))
    except ValidationError as error:
        raise InputError("; ".join(_explain_all(where, error.errors(), section))) from None


def _explain_all(where: str, errors: list[Any], root: type[Section]) -> list[str]:
    """One line per key: what each of several kinds of value is refused for is one problem."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for item in errors:
        # Which kind it was not follows the key.
        place = tuple(part for part in item["loc"] if not (isinstance(part, str) and KIND_TAG.match(part)))
        found.setdefault(place, []).append({**item, "loc": place})
    lines = []
    for items in found.values():
        first, *others = dict.fromkeys(item["msg"] for item in items)
        message = "".join((first, *(f", or {other.removeprefix('Input should be ')}" for other in others)))
        lines.append(_explain(where, {**items[0], "msg": message}, root))
    return lines


def _section_of(section: Any, name: str) -> Any:
    """The section that a key of another one holds, if it need not hold one; else what the key takes."""
    annotation = section.model_fields[name].annotation
    return next((kind for kind in get_args(annotation) if hasattr(kind, "model_fields")), annotation)


def _explain(where: str, item: Any, root: type[Section]) -> str:
    # The tag of a layer's kind follows its number; it is no key.
    path = [part for at, part in enumerate(item["loc"]) if not (at and isinstance(item["loc"][at - 1], int))]
    tags = [part for at, part in enumerate(item["loc"]) if at and isinstance(item["loc"][at - 1], int)]
    location = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        section: Any = root
        for name in path[:-1]:
            section = LAYER_KINDS[str(tags[0])] if isinstance(name, int) else _section_of(section, name)
        near = difflib.get_close_matches(str(item["loc"][-1]), section.model_fields, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(section.model_fields)}"
        return f"{where}: unknown key {location!r}{hint}"
    message = item["msg"].removeprefix("Value error, ")
    given = f" (given {item['input']!r})" if not isinstance(item["input"], dict) else ""
    return f"{where}: {location or 'configuration'}: {message}{given}"
