"""What all tests share: one hypothesis profile without deadlines, because a busy machine is no bug."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("seeknal", deadline=None)
settings.load_profile("seeknal")
