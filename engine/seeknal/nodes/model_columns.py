"""The columns of a model: what a training table's columns are to the model that is trained on it.

- *key*: tells rows apart; no feature, and part of the model's output.
- *feature*: a number that the model learns from.
- *label*: what it learns to predict, in the training table or in another node's, joined on *label keys*.
- *dropped*: neither, because it is no number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from seeknal.dag.names import did_you_mean, find_name, fold
from seeknal.nodes.kind import FieldProblem

_NUMBERS = frozenset(
    """
    BOOLEAN TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT FLOAT DOUBLE DECIMAL
    """.split()
)
_TEXTS = frozenset({"VARCHAR", "ENUM"})

Schema = Mapping[str, str]


class ColumnChoice(msgspec.Struct, frozen=True):
    """What a model declares about columns: names as the user wrote them, None where left to be found."""

    label: str
    keys: Sequence[str] | None
    features: Sequence[str] | None
    label_keys: Sequence[str] | None
    classifies: bool
    outputs: Sequence[str]


class ModelColumns(msgspec.Struct, frozen=True):
    """The columns by what they are, named as the tables have them. ``label_keys`` is empty where nothing is joined.

    ``label_keys`` are pairs: the name in the training table, the name in the label's table.
    """

    keys: tuple[str, ...]
    features: tuple[str, ...]
    label: str
    label_type: str
    dropped: tuple[str, ...] = ()
    label_keys: tuple[tuple[str, str], ...] = ()


class _Chooser(msgspec.Struct):
    choice: ColumnChoice
    table: Schema
    labels: Schema | None
    problems: list[FieldProblem] = []

    def column(self, name: str, schema: Schema, *path: str | int, of: str = "the first input") -> str | None:
        found = find_name(name, schema)
        if found is None:
            hint = did_you_mean(name, schema)
            self.problems.append(FieldProblem(f"{of} has no column '{name}'", ("training", *path), hint))
        return found

    def columns(self, names: Sequence[str], *path: str | int) -> tuple[str, ...]:
        found = [self.column(name, self.table, *path, index) for index, name in enumerate(names)]
        return tuple(dict.fromkeys(name for name in found if name is not None))


def choose_columns(
    choice: ColumnChoice, table: Schema, labels: Schema | None
) -> tuple[ModelColumns | None, list[FieldProblem]]:
    """Decide what each column is; ``labels`` is the schema of the label's own table, None where that is no other.

    Gives the columns, or None and everything that is wrong.
    """
    chooser = _Chooser(choice, table, labels)
    of = "the first input" if labels is None else "label_source"
    label = chooser.column(choice.label, table if labels is None else labels, "label_column", of=of)
    keys = _keys(chooser)
    features, dropped = _features(chooser, keys)
    label_keys = _label_keys(chooser, keys) if labels is not None else ()
    label_type = (table if labels is None else labels)[label] if label is not None else ""
    if label is not None:
        chooser.problems += _label_problems(choice, label, label_type)
    for index, name in enumerate(choice.outputs):
        if find_name(name, keys) is not None:
            message = f"the output has a column '{name}' already, which is a key"
            chooser.problems.append(FieldProblem(message, ("output_columns", index), "choose another name"))
    if chooser.problems or label is None:
        return None, chooser.problems
    return ModelColumns(keys, features, label, label_type, dropped, label_keys), []


def _keys(chooser: _Chooser) -> tuple[str, ...]:
    choice, table = chooser.choice, chooser.table
    if choice.keys is not None:
        return chooser.columns(choice.keys, "keys")
    taken = {fold(name) for name in (*(choice.features or ()), choice.label)}
    found = tuple(name for name in table if fold(name) not in taken and (_is_id(name) or _is_moment(table[name])))
    if not found:
        hint = f"name them: `keys: [{next(iter(table), 'id')}]`, or `keys: []` for none"
        message = "no column tells rows apart: none is called 'id' or '…_id', and none is a date"
        chooser.problems.append(FieldProblem(message, ("training",), hint))
    return found


def _features(chooser: _Chooser, keys: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    choice, table = chooser.choice, chooser.table
    if choice.features is not None:
        found = chooser.columns(choice.features, "features")
        for index, name in enumerate(choice.features):
            own = find_name(name, table)
            at = ("training", "features", index)
            if fold(name) == fold(choice.label):
                message = f"'{name}' is the label, so it can be no feature"
                chooser.problems.append(FieldProblem(message, at, "leave it out"))
            elif own is not None and not is_number(table[own]):
                message = f"feature '{own}' is {table[own]}, no number"
                chooser.problems.append(FieldProblem(message, at, "make a number of it in a transform"))
        return found, ()
    rest = [name for name in table if name not in keys and fold(name) != fold(choice.label)]
    features = tuple(name for name in rest if is_number(table[name]))
    if not features and not chooser.problems:
        said = ", ".join(f"{name} {type_}" for name, type_ in list(table.items())[:12])
        message = f"the first input has no column of numbers to learn from, beside keys and label; it has: {said}"
        chooser.problems.append(FieldProblem(message, ("inputs",), "make numbers in a transform"))
    return features, tuple(name for name in rest if name not in features)


def _label_keys(chooser: _Chooser, keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The columns on which the label's table is joined: what is named, else the keys that both tables have."""
    choice, table, labels = chooser.choice, chooser.table, chooser.labels
    assert labels is not None
    if choice.label_keys is not None:
        own = [chooser.column(name, table, "label_keys", i) for i, name in enumerate(choice.label_keys)]
        other = [
            chooser.column(name, labels, "label_keys", i, of="label_source") for i, name in enumerate(choice.label_keys)
        ]
        pairs = tuple((one, two) for one, two in zip(own, other, strict=True) if one is not None and two is not None)
    else:
        shared = [(name, find_name(name, labels)) for name in keys if fold(name) != fold(choice.label)]
        pairs = tuple((one, two) for one, two in shared if two is not None)
        if not pairs and keys:
            known = ", ".join(list(labels)[:12])
            message = f"label_source has no key in common with the first input ({', '.join(keys)}); it has: {known}"
            hint = "name the columns to join on: `label_keys: [customer_id]`"
            chooser.problems.append(FieldProblem(message, ("training", "label_source"), hint))
        elif len(pairs) > 1 and choice.keys is None:
            names = [one for one, _ in pairs]
            message = f"label_source and the first input share {' and '.join(names)}; which of them join is not clear"
            hint = f"say `label_keys: [{names[0]}]`, or name all of them"
            chooser.problems.append(FieldProblem(message, ("training", "label_source"), hint))
    for one, two in pairs:
        if not _comparable(table[one], labels[two]):
            message = f"key '{one}' is {table[one]} in the first input and {labels[two]} in label_source"
            chooser.problems.append(
                FieldProblem(message, ("training", "label_source"), "give both one type in a transform")
            )
    return pairs


def _label_problems(choice: ColumnChoice, label: str, label_type: str) -> Iterable[FieldProblem]:
    path = ("training", "label_column")
    if not choice.classifies and not is_number(label_type):
        message = f"the label '{label}' is {label_type}, and a regression predicts numbers"
        yield FieldProblem(message, path, "take a classification, such as random_forest")
    elif choice.classifies and not is_number(label_type) and family(label_type) != "VARCHAR":
        message = f"the label '{label}' is {label_type}; classes are texts, whole numbers, or true and false"
        yield FieldProblem(message, path, "make a text of it in a transform")


def family(type_: str) -> str:
    """A type's name without its parameters; one name for all texts."""
    plain = type_.partition("(")[0] if not type_.endswith("]") else type_
    return "VARCHAR" if plain in _TEXTS else plain


def is_number(type_: str) -> bool:
    """Say whether values of a DuckDB type can be features: numbers, and true and false, which are 1 and 0."""
    return family(type_) in _NUMBERS


def _is_moment(type_: str) -> bool:
    return family(type_) == "DATE" or family(type_).startswith("TIMESTAMP")


def _is_id(name: str) -> bool:
    return fold(name) == "id" or fold(name).endswith("_id")


def _comparable(one: str, other: str) -> bool:
    return family(one) == family(other) or (is_number(one) and is_number(other))
