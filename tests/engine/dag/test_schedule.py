from __future__ import annotations

import pytest

from seeknal.dag.schedule import PRESETS, check_schedule


@pytest.mark.parametrize("schedule", [*PRESETS, *PRESETS.values(), "*/15 8-18 * * mon-fri", "0 0 l * *"])
def test_cron_expressions_and_presets_are_schedules(schedule: str) -> None:
    assert check_schedule(schedule) is None


@pytest.mark.parametrize("schedule", ["", "daily", "0 0 * *", "61 * * * *", "0 0 * * * *", "every day", "0 0 32 * *"])
def test_anything_else_is_told_the_form(schedule: str) -> None:
    assert "five fields" in str(check_schedule(schedule))


def test_a_misspelled_preset_is_told_the_nearest() -> None:
    assert "'@daily'" in str(check_schedule("@dayly"))
