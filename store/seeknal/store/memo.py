"""A memo: what was worked out before, by keys that stand for everything that it depends on.

It is one file below the store's ``memo``. Losing it costs time and nothing else: a file that is missing, damaged, of a
newer version or of another *stamp* (which names the code that worked the answers out) is as good as none.

It is bounded: whoever saves it keeps what was asked for since it was read, and of the rest, latest first, no more than
that takes again (and at least :data:`SPARE_BYTES`). So answers of another state of the project outlive a look at this
one, and those that nobody asks for any more go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import msgspec
import xxhash

from seeknal.errors import StoreError
from seeknal.store.filesystem import write_atomically
from seeknal.store.objects import FORMAT_VERSIONS, decode, encode_pieces

SPARE_BYTES = 4 * 1024 * 1024


class MemoContent(msgspec.Struct, frozen=True):
    """The file: answers by key, those asked for last first."""

    stamp: str
    answers: dict[bytes, bytes]


FORMAT_VERSIONS[MemoContent] = ("memo", 1)

_encoder = msgspec.msgpack.Encoder()


def key_of(*parts: object) -> bytes:
    """The key of plain values: equal ones have one key, and different ones different keys."""
    return xxhash.xxh3_128_digest(_encoder.encode(parts))


class Memo:
    """Answers by key. Without a ``path`` nothing is remembered."""

    def __init__(self, path: Path | None, temporary_folder: Path | None = None, stamp: str = "") -> None:
        self._path = path
        self._temporary_folder = temporary_folder
        self._stamp = stamp
        # Those that were not asked for; None: not read yet.
        self._answers: dict[bytes, bytes] | None = None
        self._asked: dict[bytes, bytes] = {}
        self._is_new = False
        # The size of the answers that were asked for before it rested.
        self._rested_bytes = 0

    def find(self, key: bytes) -> bytes | None:
        """The answer under a key, None where there is none."""
        if self._path is None:
            return None
        answer = self._asked.get(key)
        if answer is None:
            answer = self._known().pop(key, None)
            if answer is not None:
                self._asked[key] = answer
        return answer

    def keep(self, key: bytes, answer: bytes) -> None:
        """Remember an answer, for this process and after :meth:`save` for others."""
        if self._path is not None:
            self._known().pop(key, None)
            self._asked[key] = answer
            self._is_new = True

    def save(self) -> None:
        """Write the answers down, where there are new ones. A disk that does not take them costs time only."""
        if not self._is_new or self._path is None or self._temporary_folder is None:
            return
        asked_bytes = sum(map(len, self._asked.values()))
        left = self._rested_bytes + max(SPARE_BYTES, self._rested_bytes + asked_bytes)
        spare: list[bytes] = []
        known = self._known()
        for key, answer in known.items():
            left -= len(key) + len(answer)
            if left < 0:
                break
            spare.append(key)

        def kept() -> Iterator[tuple[bytes, bytes]]:
            return chain(self._asked.items(), ((key, known[key]) for key in spare))

        with contextlib.suppress(OSError):
            content = encode_pieces(MemoContent, kept, len(self._asked) + len(spare), stamp=self._stamp)
            write_atomically(self._path, content, self._temporary_folder)
            self._is_new = False

    def rest(self) -> None:
        """Write the answers down, and give back the memory that they take until one is asked for again."""
        self.save()
        if not self._is_new:
            self._rested_bytes += sum(map(len, self._asked.values()))
            self._answers, self._asked = None, {}

    def _known(self) -> dict[bytes, bytes]:
        if self._answers is None:
            self._answers = {}
            with contextlib.suppress(OSError, StoreError):
                assert self._path is not None
                content = decode(self._path.read_bytes(), MemoContent, "the memo")
                if content.stamp == self._stamp:
                    self._answers = content.answers
        return self._answers
