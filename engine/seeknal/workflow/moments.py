"""Moments: which state of an environment ``prod@3``, ``prod@2026-02-09T10:00`` and ``prod@1f3a9c2d`` mean.

- ``NAME``: the state where the environment stands.
- ``NAME@N``, a number of up to six digits: the state N moves ago; ``@0`` is where it stands.
- ``NAME@TIME``, ISO 8601, in UTC where no offset is given: the state where it stood then, at
  the end of that second. A date means its midnight.
- ``NAME@DIGEST``, at least seven hexadecimal digits: the snapshot whose digest begins so, in the environment's history
  or pinned.

A number counts from now, so it means another state after the next move; a digest always means the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from seeknal.dag.names import PRODUCTION, did_you_mean, environment_name, shown
from seeknal.errors import CorruptObjectError, NotFoundError, SeeknalError, UsageError
from seeknal.late_pattern import late_pattern
from seeknal.store.history import Moment, read_history, read_pins
from seeknal.store.store import Store

_NUMBER = late_pattern(r"[0-9]{1,6}")
_DIGEST = late_pattern(r"[0-9a-f]{7,32}")


def split_moment(text: str) -> tuple[str, str]:
    """Cut ``NAME@MOMENT`` into the environment's canonical name and the moment, empty where there is none.

    Raises NameNotAllowedError, UsageError for a moment that is none.
    """
    name, at, moment = text.partition("@")
    if at:
        check_moment(moment)
    return environment_name(name), moment


def check_moment(moment: str) -> None:
    """Raise UsageError where a text is neither a number, nor a time, nor the beginning of a digest."""
    if not (_NUMBER.fullmatch(moment) or _DIGEST.fullmatch(moment.lower()) or parse_time(moment) is not None):
        raise UsageError(
            f"'{shown(moment)}' is no moment of an environment",
            hint="give a number of moves back, a time (2026-02-09T10:00, UTC), or 7 or more digits of a snapshot",
        )


def is_number(moment: str) -> bool:
    """Say whether a moment is counted from where an environment stands, so that it means another state later."""
    return bool(_NUMBER.fullmatch(moment or "0"))


def parse_time(text: str) -> float | None:
    """Seconds since 1970 for an ISO 8601 date or time, UTC where it has no offset; None where it is none."""
    if not re.match(r"\d{4}-\d", text):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def find_moment(store: Store, environment: str, moment: str) -> Moment:
    """Find a state of an environment. ``environment`` is canonical; an empty ``moment`` means where it stands.

    Raises NotFoundError where there is none of that kind, UsageError, StoreError.
    """
    check_moment(moment or "0")
    if is_number(moment):
        return _by_number(store, environment, int(moment or "0"))
    if _DIGEST.fullmatch(moment.lower()):
        return _by_digest(store, environment, moment.lower())
    time = parse_time(moment)
    assert time is not None
    return _by_time(store, environment, time, moment)


def all_moments(store: Store, environment: str) -> Iterator[Moment]:
    """An environment's history, newest first. Raises NotFoundError where there is no such environment, StoreError."""
    moments = read_history(store, environment)
    first = next(moments, None)
    if first is None:
        known = environment == PRODUCTION or store.read_environment(environment) is not None
        raise nothing_yet(environment) if known else unknown_environment(store, environment)
    yield first
    yield from moments


def _by_number(store: Store, environment: str, number: int) -> Moment:
    last: Moment | None = None
    for last in all_moments(store, environment):
        if last.number == number:
            return last
    assert last is not None
    kept = f"{last.number} moves back" if last.number else "no further than where it stands"
    raise NotFoundError(
        f"'{environment}@{number}' is not kept: the history of '{environment}' goes {kept}",
        hint=f"`seeknal env history {environment}` lists it",
    )


def _by_time(store: Store, environment: str, time: float, text: str) -> Moment:
    # Times are shown to the second; one that was copied from there shall mean the state that it stood beside.
    end = time + (1e-6 if "." in text else 1.0)
    last: Moment | None = None
    for last in all_moments(store, environment):
        if last.snapshot.created_at < end:
            return last
    assert last is not None
    begins = datetime.fromtimestamp(last.snapshot.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    raise NotFoundError(
        f"'{environment}' has no state of {text}: its history begins at {begins} UTC",
        hint=f"`seeknal env history {environment}` lists it",
    )


def _by_digest(store: Store, environment: str, prefix: str) -> Moment:
    found: dict[str, Moment] = {}
    broken: CorruptObjectError | None = None
    try:
        for moment in read_history(store, environment):
            if moment.digest.startswith(prefix):
                found[moment.digest] = moment
    except CorruptObjectError as error:
        # What is meant may stand before the break, or be pinned.
        broken = error
    for pin in read_pins(store, only_readable=True):
        if pin.environment == environment and pin.snapshot.startswith(prefix) and pin.snapshot not in found:
            found[pin.snapshot] = Moment(-1, pin.snapshot, store.read_snapshot(pin.snapshot))
    if len(found) > 1:
        raise SeeknalError(f"'{prefix}' may mean {' or '.join(found)}", hint="give more digits")
    if not found and broken is not None:
        raise broken
    if not found:
        raise NotFoundError(
            f"'{environment}' never stood at a snapshot '{prefix}', or it is not kept any more",
            hint=f"`seeknal env history {environment}` lists those there are",
        )
    return next(iter(found.values()))


def unknown_environment(store: Store, environment: str) -> NotFoundError:
    """The error for an environment that nobody planned."""
    hint = did_you_mean(environment, store.environment_names()) or f"make it with `seeknal plan {environment}`"
    return NotFoundError(f"Environment '{environment}' not found", hint=hint)


def nothing_yet(environment: str) -> NotFoundError:
    """The error for an environment in which nothing was run yet."""
    command = "seeknal run" if environment == PRODUCTION else f"seeknal run --env {environment}"
    return NotFoundError(f"environment '{environment}' has no outputs yet", hint=f"make them with `{command}`")
