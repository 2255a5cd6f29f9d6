"""What was delivered: which part of an exposure's output that is, and whether it stands as it was left.

It imports next to nothing, because a run with nothing to do asks both.
"""

from __future__ import annotations

import os

from seeknal.store.objects import Artifact, Blob, Delivery

#: The name of what stands beside a notification's body and says what it is about; that is not delivered.
ABOUT = ".about"


def delivered_blobs(artifact: Artifact) -> list[tuple[str, Blob]]:
    """What of an exposure's output is delivered, by name; the only one has the empty name."""
    return [(name, blob) for name, blob in artifact.side_blobs if name != ABOUT]


def is_as_left(known: Delivery) -> bool:
    """Say whether a delivered file looks as it did right after its delivery; what was sent, was sent."""
    if known.sent_at:
        return True
    try:
        stat = os.stat(known.path)
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (known.size_bytes, known.mtime_ns)
