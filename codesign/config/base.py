"""What every section of a configuration is made of: checked tables, and types of values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from codesign.contract.network import MAX_WIDTH
from codesign.machine.choices import MAX_LANES

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Level = Annotated[float, Field(gt=0, le=1)]
Lanes = Annotated[int, Field(ge=1, le=MAX_LANES)]
AUTO: Literal["auto"] = "auto"
Auto = Literal["auto"]
"""Left to the data: :mod:`codesign.data.automatic` chooses, and the run's configuration states what."""
Family = Literal["ice40", "ecp5", "xilinx", "gowin"]
Target = Literal["ecp5-25f", "ecp5-85f", "ice40-hx8k", "ice40-up5k"]


class Section(BaseModel):
    """Base of every section: unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def _whole_path(text: str) -> str:
    """The path from the root on, so that it means the same wherever the configuration is written."""
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:
        raise ValueError(f"{text!r} is of a user whose home is not known") from None


FilePath = Annotated[str, AfterValidator(_whole_path)]
