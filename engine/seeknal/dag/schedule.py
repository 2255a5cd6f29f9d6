"""Schedules: when a node's intervals begin, as cron says it. A node's ``schedule:`` is checked here; nothing is timed.

- *preset*: a name for a common cron expression, such as ``@daily``.
"""

from __future__ import annotations

from seeknal.dag.names import did_you_mean

PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


def check_schedule(schedule: str) -> str | None:
    """Say what to write where a schedule is no cron expression of five fields and no preset; None where it is one."""
    import croniter

    if schedule in PRESETS or (len(schedule.split()) == 5 and croniter.croniter.is_valid(schedule)):
        return None
    if schedule.startswith("@"):
        return did_you_mean(schedule, PRESETS)
    return "write five fields, minute hour day month weekday, such as '0 6 * * *', or a preset such as '@daily'"
