"""Data sets: raw samples in three disjoint parts. Encoding them is :mod:`codesign.data.encoders`' work.

Files are looked for at the configured path, in ``$CODESIGN_DATA/<set>`` and in the per-user cache. Nothing here
unpickles, and sizes are checked before anything is allocated.
"""

from typing import TYPE_CHECKING

from codesign.basics.lazy import lazy

if TYPE_CHECKING:
    from codesign.data.catalogue import describe, download, locate
    from codesign.data.loading import load_dataset
    from codesign.data.samples import Dataset, DataWarning, Events, Split
else:
    # To list the sets needs none of what reads them.
    _PLACES = {
        "DataWarning": "codesign.data.samples",
        "Dataset": "codesign.data.samples",
        "Events": "codesign.data.samples",
        "Split": "codesign.data.samples",
        "describe": "codesign.data.catalogue",
        "download": "codesign.data.catalogue",
        "load_dataset": "codesign.data.loading",
        "locate": "codesign.data.catalogue",
    }
    __getattr__, __dir__ = lazy(__name__, _PLACES)

__all__ = ["DataWarning", "Dataset", "Events", "Split", "describe", "download", "load_dataset", "locate"]
