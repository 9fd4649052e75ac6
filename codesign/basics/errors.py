"""Errors that a user is meant to read: one line that says what, where and what to do.

The command line prints the message without a traceback and exits with the class's ``exit_code``.
"""


class CodesignError(Exception):
    """Base of every error that codesign raises on purpose."""

    exit_code = 1


class InputError(CodesignError, ValueError):
    """A configuration, data file, frozen network or argument is wrong."""

    exit_code = 2


class AlteredError(InputError):
    """A file of a run directory is not the one that its manifest records."""


class UnsupportedError(CodesignError):
    """The request is understood, but this version does not build it."""

    exit_code = 3


class MismatchError(CodesignError):
    """Hardware and software disagree."""

    exit_code = 4


class ToolError(CodesignError):
    """An external tool is missing or failed."""

    exit_code = 5


class CapacityError(CodesignError):
    """The network does not fit the chosen device."""

    exit_code = 6


class OutputError(CodesignError):
    """A result cannot be written: the folder is unwritable, occupied or full."""

    exit_code = 7


class CodesignWarning(UserWarning):
    """Something was assumed, dropped or looks wrong, and the work goes on: one line that says what and what changes it.

    Issued with :func:`warnings.warn`. The command line shows it, and the record of the stage in which it came keeps it.
    """


# Said before a configuration is looked for, and by what reads it.
NO_CONFIGURATION = "no such configuration; `codesign init` writes one"


def entries_for(name: str, given: int, wanted: int, noun: str = "layer") -> str:
    """What is wrong with a list of ``given`` entries where there are ``wanted`` of ``noun``, in words.

    >>> entries_for("hardware.lanes", 1, 2)
    'hardware.lanes has 1 entry for 2 layers'
    """
    return f"{name} has {given} entr{'y' if given == 1 else 'ies'} for {wanted} {noun}{'s' * (wanted != 1)}"
