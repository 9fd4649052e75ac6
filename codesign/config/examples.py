"""The configurations that come with codesign."""

from __future__ import annotations

from pathlib import Path

from codesign.basics.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]
# In an installed package, and in a clone of the repository.
FOLDERS = (PACKAGE / "examples", PACKAGE.parent / "examples")
# What `codesign demo` runs: its data come with scikit-learn.
DEMO = "digits"


def example_names() -> list[str]:
    """Names of the examples, in alphabetical order."""
    return sorted(path.stem for folder in FOLDERS for path in folder.glob("*.toml"))


def example(name: str) -> Path:
    """The file of an example.

    Raises InputError if there is none of that name.
    """
    if name not in example_names():
        raise InputError(f"--example {name}: there is none; known are {', '.join(example_names())}")
    return next(path for folder in FOLDERS if (path := folder / f"{name}.toml").is_file())
