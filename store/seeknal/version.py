"""The one place that says which version this is; the build backend and the CLI read it."""

from __future__ import annotations

__version__ = "0.1.0"
