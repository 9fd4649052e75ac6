"""What every section of a configuration is made of: checked tables, and types of values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from codesign.contract.network import MAX_WIDTH
from codesign.machine.choices import MAX_LANES

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Lanes = Annotated[int, Field(ge=1, le=MAX_LANES)]
AUTO: Literal["auto"] = "auto"
Auto = Literal["auto"]
"""Left to the data: :mod:`codesign.data.automatic` chooses, and the run's configuration states what."""
Family = Literal["ice40", "ecp5", "xilinx", "gowin"]
Target = Literal["ecp5-25f", "ecp5-85f", "ice40-hx8k", "ice40-up5k"]


class Section(BaseModel):
    """Base of every section: unknown keys, numbers that are not finite, and true or false for a number are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, document: Any) -> Any:
        """What Python takes for 1 and 0 is no number of a configuration."""
        for name, field in cls.model_fields.items():
            value = document.get(name) if isinstance(document, dict) else None
            parts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
            # A table of a section has keys of its own, which are checked there.
            if any(isinstance(part, bool) for part in parts) and not _takes(field.annotation, (bool, Section)):
                raise ValueError(f"{name} should not be true or false")
        return document


def _takes(annotation: Any, kinds: tuple[type, ...]) -> bool:
    """True if one of ``kinds`` is among an annotation's types."""
    if isinstance(annotation, type) and issubclass(annotation, kinds):
        return True
    return any(_takes(inner, kinds) for inner in get_args(annotation))


def _whole_path(text: str) -> str:
    """The path from the root on, so that it means the same wherever the configuration is written."""
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:
        raise ValueError(f"{text!r} is of a user whose home is not known") from None


FilePath = Annotated[str, AfterValidator(_whole_path)]
