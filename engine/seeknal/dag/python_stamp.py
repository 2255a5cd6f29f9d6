"""The stamp of this Python: what importing a project's files depends on beside the files themselves."""

from __future__ import annotations

import os
import sys

from seeknal.version import __version__


def python_stamp() -> str:
    """Name this Python, and its packages by the folders that installing one changes."""
    folders = []
    for entry in sys.path:
        try:
            folders.append(f"{entry}={os.stat(entry or '.').st_mtime_ns}")
        except OSError:
            continue
    return f"{__version__}/{sys.version}/{';'.join(folders)}"
