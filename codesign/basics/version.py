"""The version, for those below the namespace that states it as ``codesign.__version__``."""

VERSION = "0.2.0"
