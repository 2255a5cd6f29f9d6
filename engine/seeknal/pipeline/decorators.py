"""The decorators that make nodes of functions.

Each takes the fields that a YAML node of its kind has, as keywords; whatever is no field becomes one of the node's
``params``. A decorator that is written without parentheses names the node after the function. The function itself is
left as it is, and can be called and tested as before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar, overload

from seeknal.pipeline.registry import Registration, register, registrations

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

_TARGETS = "__seeknal_targets__"


@overload
def source(name: Function, /) -> Function: ...


@overload
def source(
    name: str | None = None,
    source: str | None = None,
    table: str | None = None,
    columns: dict[str, Any] | None = None,
    tags: list[str] | None = None,
    materialization: Any = None,
    query: str | None = None,
    connection: str | None = None,
    *,
    description: str | None = None,
    owner: str | None = None,
    schema: list[dict[str, Any]] | None = None,
    reads_outside: bool | None = None,
    **params: Any,
) -> Decorator[Any]: ...


def source(
    name: Any = None,
    source: str | None = None,
    table: str | None = None,
    columns: dict[str, Any] | None = None,
    tags: list[str] | None = None,
    materialization: Any = None,
    query: str | None = None,
    connection: str | None = None,
    **more: Any,
) -> Any:
    """Declare a source: the rows that the function gives, else those that ``source`` and ``table`` name.

    ``source`` is ``csv`` where nothing is said. A function that may read the world outside runs every time; with
    ``reads_outside=False`` it promises that it does not.
    """
    keywords = {
        "source": source,
        "table": table,
        "columns": columns,
        "tags": tags,
        "materialization": materialization,
        "query": query,
        "connection": connection,
    }
    return _decorator("source", name, keywords, more)


@overload
def transform(name: Function, /) -> Function: ...


@overload
def transform(
    name: str | None = None,
    sql: str | None = None,
    inputs: list[Any] | None = None,
    tags: list[str] | None = None,
    materialization: Any = None,
    *,
    description: str | None = None,
    owner: str | None = None,
    **params: Any,
) -> Decorator[Any]: ...


def transform(
    name: Any = None,
    sql: str | None = None,
    inputs: list[Any] | None = None,
    tags: list[str] | None = None,
    materialization: Any = None,
    **more: Any,
) -> Any:
    """Declare a transform: the rows that the function gives; of a function with nothing in it, those of ``sql``."""
    keywords = {"sql": sql, "inputs": inputs, "tags": tags, "materialization": materialization}
    return _decorator("transform", name, keywords, more)


@overload
def feature_group(name: Function, /) -> Function: ...


@overload
def feature_group(
    name: str | None = None,
    entity: Any = None,
    features: dict[str, Any] | None = None,
    inputs: list[Any] | None = None,
    materialization: Any = None,
    tags: list[str] | None = None,
    *,
    description: str | None = None,
    owner: str | None = None,
    **params: Any,
) -> Decorator[Any]: ...


def feature_group(
    name: Any = None,
    entity: Any = None,
    features: dict[str, Any] | None = None,
    inputs: list[Any] | None = None,
    materialization: Any = None,
    tags: list[str] | None = None,
    **more: Any,
) -> Any:
    """Declare a feature group over the rows that the function gives."""
    keywords = {
        "entity": entity,
        "features": features,
        "inputs": inputs,
        "materialization": materialization,
        "tags": tags,
    }
    return _decorator("feature_group", name, keywords, more)


def second_order_aggregation(
    name: Any = None,
    id_col: str | None = None,
    feature_date_col: str | None = None,
    features: dict[str, Any] | None = None,
    application_date_col: str | None = None,
    description: str | None = None,
    owner: str | None = None,
    tags: list[str] | None = None,
    materialization: Any = None,
    **more: Any,
) -> Any:
    """Declare a second-order aggregation of the rows that the function gives."""
    keywords = {
        "id_col": id_col,
        "feature_date_col": feature_date_col,
        "features": features,
        "application_date_col": application_date_col,
        "description": description,
        "owner": owner,
        "tags": tags,
        "materialization": materialization,
    }
    return _decorator("second_order_aggregation", name, keywords, more)


def aggregation(
    name: Any = None,
    id_col: str | None = None,
    feature_date_col: str | None = None,
    application_date_col: str | None = None,
    group_by: list[str] | None = None,
    features: list[dict[str, Any]] | None = None,
    inputs: list[Any] | None = None,
    tags: list[str] | None = None,
    **more: Any,
) -> Any:
    """Declare an aggregation of the rows that the function gives."""
    keywords = {
        "id_col": id_col,
        "feature_date_col": feature_date_col,
        "application_date_col": application_date_col,
        "group_by": group_by,
        "features": features,
        "inputs": inputs,
        "tags": tags,
    }
    return _decorator("aggregation", name, keywords, more)


def model(
    name: Any = None,
    training: dict[str, Any] | None = None,
    output_columns: list[str] | None = None,
    inputs: list[Any] | None = None,
    tags: list[str] | None = None,
    **more: Any,
) -> Any:
    """Declare a model that is trained on the rows that the function gives."""
    keywords = {"training": training, "output_columns": output_columns, "inputs": inputs, "tags": tags}
    return _decorator("model", name, keywords, more)


def rule(
    name: Any = None,
    rule: Any = None,
    inputs: list[Any] | None = None,
    tags: list[str] | None = None,
    **more: Any,
) -> Any:
    """Declare a rule that checks the rows that the function gives."""
    return _decorator("rule", name, {"rule": rule, "inputs": inputs, "tags": tags}, more)


def exposure(
    name: Any = None,
    type: str | None = None,
    path: str | None = None,
    format: str | None = None,
    inputs: list[Any] | None = None,
    tags: list[str] | None = None,
    **more: Any,
) -> Any:
    """Declare an exposure that delivers the rows that the function gives."""
    keywords = {"type": type, "path": path, "format": format, "inputs": inputs, "tags": tags}
    return _decorator("exposure", name, keywords, more)


def materialize(
    type: str = "iceberg",
    connection: str | None = None,
    table: str = "",
    mode: str | None = None,
    time_column: str | None = None,
    lookback: str | None = None,
    unique_keys: list[str] | None = None,
    partition_by: list[str] | None = None,
    create_table: bool | None = None,
    **more: Any,
) -> Decorator[Any]:
    """Add a table that the node's output is written to. It may be used several times, above or below the kind's."""
    said = {
        "type": type,
        "connection": connection,
        "table": table,
        "mode": mode,
        "time_column": time_column,
        "lookback": lookback,
        "unique_keys": unique_keys,
        "partition_by": partition_by,
        "create_table": create_table,
        **more,
    }
    target = {key: value for key, value in said.items() if value is not None}

    def decorate(function: Function) -> Function:
        # Decorators work from the function upwards; the list reads as the file does.
        targets = [target, *getattr(function, _TARGETS, ())]
        setattr(function, _TARGETS, targets)
        for registration in registrations():
            if registration.function is function:
                registration.targets = targets
        return function

    return decorate


def _decorator(kind: str, name: Any, keywords: dict[str, Any], more: dict[str, Any]) -> Any:
    """The decorator itself, or the decorated function where the decorator was written without parentheses."""
    # Two frames up stands who wrote the decorator.
    caller = sys._getframe(2)
    file, line = caller.f_code.co_filename, caller.f_lineno
    bare = callable(name)
    said = {key: value for key, value in {**keywords, **more}.items() if value is not None}

    def decorate(function: Function) -> Function:
        if not callable(function):
            raise TypeError(f"@{kind} stands over a function, not over {type(function).__name__}")
        own_name = getattr(function, "__name__", "") if bare or name is None else name
        targets = list(getattr(function, _TARGETS, ()))
        register(Registration(kind, own_name, said, function, file, line, targets))
        return function

    return decorate(name) if bare else decorate
