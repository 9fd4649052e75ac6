"""Data sets: raw samples in three disjoint parts. Encoding them is :mod:`codesign.data.encoders`' work.

Files are looked for at the configured path, in ``$CODESIGN_DATA/<set>`` and in the per-user cache. Nothing here
unpickles, and sizes are checked before anything is allocated.
"""

from codesign.data.catalogue import describe, download, locate
from codesign.data.loading import load_dataset
from codesign.data.samples import Dataset, DataWarning, Events, Split

__all__ = ["DataWarning", "Dataset", "Events", "Split", "describe", "download", "load_dataset", "locate"]
