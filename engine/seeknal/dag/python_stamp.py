"""The stamp of this Python: what importing a project's files depends on beside the files themselves."""

from __future__ import annotations

import os
import sys

from seeknal.version import __version__


def python_stamp() -> str:
    """Name this Python, and its packages by the folders that installing or removing one changes."""
    folders = []
    for entry in sorted(set(sys.path)):
        # Others depend on how this process was started, and change with every file that is put into them.
        if os.path.basename(entry) in ("site-packages", "dist-packages") and os.path.isdir(entry):
            folders.append(f"{entry}={os.stat(entry).st_mtime_ns}")
    return f"{__version__}/{sys.version}/{sys.prefix}/{';'.join(folders)}"
