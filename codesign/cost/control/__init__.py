"""The control of a machine, without its arithmetic; see :mod:`codesign.cost.clocks`."""
