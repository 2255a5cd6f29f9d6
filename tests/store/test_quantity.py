from __future__ import annotations

import pytest

from seeknal.quantity import duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (999_999, "1.0 MB"), (5 * 10**12, "5.0 TB")]
)
def test_sizes_are_told_in_powers_of_a_thousand(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("4GB", 4 * 10**9), ("4g", 4 * 10**9), ("512MiB", 512 * 2**20), ("1.5 kb", 1500), (4096, 4096), ("7", 7)],
)
def test_sizes_are_read_as_duckdb_reads_them(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-4GB", "4 X", "4 GB of it", "1e9"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), (90, 90), (0.5, 0.5), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h 30m 5s", 5405), ("1.5H", 5400)],
)
def test_durations_are_read(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-3", "5 minutes", "1m1h", "soon", True, "nan", "inf"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (30, "30 s"), (90, "1 min 30 s"), (7500, "2 h 5 min"), (3600, "1 h")]
)
def test_durations_are_told(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
