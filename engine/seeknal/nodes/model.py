"""The kind ``model``: an estimator trained on the first input's rows, its metrics, and its predictions as a table.

The predictions, a row for each row of the first input, are the node's table. The estimator's file and its metrics are
kept beside it in the same artifact, so caching, environments and promotion hold for all three as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from seeknal.dag.names import did_you_mean, fold
from seeknal.dag.project import Project
from seeknal.nodes.algorithms import ALGORITHMS, Algorithm
from seeknal.nodes.kind import FieldProblem, Kind, Surroundings, Task
from seeknal.nodes.model_columns import ColumnChoice, ModelColumns, choose_columns, family
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact


class TrainingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is trained.

    - ``algorithm``: ``linear_regression``, ``logistic_regression``, ``random_forest``, ``random_forest_regressor``,
      ``xgboost``, ``xgboost_regressor``, ``svm`` or ``svm_regressor``
    - ``label_column``: the column to predict
    - ``label_source``: the node that has the label, as ``kind.name``; without it the first input has
    - ``label_keys``: the columns on which ``label_source`` is joined; without them the keys that it has too
    - ``keys``: the columns that tell rows apart: no features, and part of the output; without them the columns
      called ``id`` or ``…_id``, and dates and timestamps
    - ``features``: the columns to learn from; without them all numbers that are neither key nor label
    - ``params``: parameters of the estimator, by scikit-learn's or xgboost's names; ``random_state`` is 42 unless set
    - ``test_size``: the share of rows (below 1), or how many (from 1), that are kept from training and give the
      metrics; 0 for none
    """

    algorithm: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(ALGORITHMS)})]
    label_column: str
    label_source: str | None = None
    label_keys: list[str] | None = None
    keys: list[str] | None = None
    features: list[str] | None = None
    params: dict[str, Any] = {}
    test_size: float | int = 0.2


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a model.

    - ``inputs``: the training data is the first; beside it only ``label_source`` may stand here
    - ``training``: how the model is trained
    - ``output_columns``: the names of the prediction and, of an algorithm that gives one, of its probability
    """

    inputs: list[Any]
    training: TrainingSpec
    output_columns: list[str] = msgspec.field(default_factory=lambda: ["prediction"])


class ModelKind(Kind):
    """Predictions by an estimator that learned from the first input."""

    name = "model"
    spec = ModelSpec
    needs_process = True

    def check(self, spec: ModelSpec, project: Project) -> Iterable[FieldProblem]:
        if not spec.inputs:
            yield FieldProblem("a model needs an input to learn from", ("inputs",), "add `inputs: [{ref: kind.name}]`")
        for index, name in enumerate(_declared(spec)):
            if index and name != _label_source(spec):
                yield FieldProblem(
                    "a model learns from its first input only", ("inputs", index), "join the inputs in a transform"
                )
        training = spec.training
        algorithm = ALGORITHMS.get(training.algorithm)
        at = ("training", "algorithm")
        if algorithm is None:
            hint = did_you_mean(training.algorithm, ALGORITHMS)
            yield FieldProblem(f"unknown algorithm '{training.algorithm}'", at, hint)
            return
        missing = algorithm.missing()
        if missing is not None:
            package, command = missing
            yield FieldProblem(f"{algorithm.name} needs {package}, which is not installed", at, f"run: {command}")
        yield from _check_outputs(spec, algorithm)
        if training.test_size < 0 or (training.test_size > 1 and training.test_size != int(training.test_size)):
            yield FieldProblem(
                f"test_size {training.test_size} is neither a share nor a number of rows", ("training", "test_size")
            )
        elif training.test_size == 1 and isinstance(training.test_size, float):
            yield FieldProblem("test_size 1.0 leaves nothing to learn from", ("training", "test_size"))
        if training.label_keys is not None and (training.label_source is None or not training.label_keys):
            yield FieldProblem("label_keys say how label_source is joined", ("training", "label_keys"))

    def references(self, spec: ModelSpec) -> Iterable[tuple[str, tuple[str | int, ...]]]:
        if spec.training.label_source is not None:
            yield spec.training.label_source, ("training", "label_source")

    def schema(
        self, spec: ModelSpec, inputs: Sequence[dict[str, str] | None], around: Surroundings
    ) -> dict[str, str] | None:
        columns, _ = columns_of(spec, inputs)
        return output_schema(spec, columns, inputs[0] or {}) if columns is not None else None

    def verify(
        self, spec: ModelSpec, inputs: Sequence[Mapping[str, str] | None], schema: Mapping[str, str] | None
    ) -> Iterable[FieldProblem]:
        columns, problems = columns_of(spec, inputs)
        yield from problems
        if columns is not None and columns.dropped:
            message = f"no numbers, so no features: {', '.join(columns.dropped)}"
            hint = "make numbers of them in a transform, or name `features`"
            yield FieldProblem(message, ("inputs",), hint, is_warning=True)

    def reads(
        self, spec: ModelSpec, inputs: Sequence[str], schemas: Sequence[Mapping[str, str] | None]
    ) -> dict[str, tuple[str, ...] | None]:
        columns, _ = columns_of(spec, schemas)
        if columns is None:
            return dict.fromkeys(inputs)
        joined = bool(columns.label_keys)
        own = (*columns.keys, *columns.features, *(one for one, _ in columns.label_keys))
        read: dict[str, tuple[str, ...] | None] = {}
        read[inputs[0]] = tuple(dict.fromkeys((*own, *(() if joined else (columns.label,)))))
        if joined:
            other = inputs[label_position(spec)]
            read[other] = tuple(dict.fromkeys((*(two for _, two in columns.label_keys), columns.label)))
        return read

    def identity(self, spec: ModelSpec, around: Surroundings) -> list[Any]:
        training = msgspec.to_builtins(spec.training)
        # Which node that is stands among the inputs, whatever the case it is written in.
        training["label_source"] = spec.training.label_source is not None
        return [training, spec.output_columns, ALGORITHMS[spec.training.algorithm].versions()]

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        from seeknal.nodes.model_execution import Execution

        return Execution(task, bench).artifact()


# what a model says


def _check_outputs(spec: ModelSpec, algorithm: Algorithm) -> Iterable[FieldProblem]:
    most = 2 if algorithm.gives_probabilities else 1
    if not spec.output_columns:
        yield FieldProblem("a model needs a column for its prediction", ("output_columns",), "write `[prediction]`")
    if len(spec.output_columns) > most:
        gives = "a prediction and its probability" if most == 2 else "a prediction and no probability"
        yield FieldProblem(
            f"{algorithm.name} gives {gives}: {most} output column(s), not {len(spec.output_columns)}",
            ("output_columns", most),
        )
    if len({fold(name) for name in spec.output_columns}) < len(spec.output_columns):
        yield FieldProblem("two output columns have one name", ("output_columns",))
    for index, name in enumerate(spec.output_columns):
        if not name.strip():
            yield FieldProblem("the name of an output column is empty", ("output_columns", index))


def _declared(spec: ModelSpec) -> list[str]:
    """The inputs as they are declared, in lower case, each once."""
    said = [entry.get("ref") if isinstance(entry, dict) else entry for entry in spec.inputs]
    return list(dict.fromkeys(str(name).lower() for name in said))


def _label_source(spec: ModelSpec) -> str | None:
    """The other node that has the label, in lower case; None where the first input has it."""
    source = spec.training.label_source
    declared = _declared(spec)
    return None if source is None or (declared and source.lower() == declared[0]) else source.lower()


def label_position(spec: ModelSpec) -> int:
    """Which of the inputs has the label."""
    source, declared = _label_source(spec), _declared(spec)
    if source is None:
        return 0
    return declared.index(source) if source in declared else len(declared)


def columns_of(
    spec: ModelSpec, inputs: Sequence[Mapping[str, str] | None]
) -> tuple[ModelColumns | None, list[FieldProblem]]:
    """What each column is; nothing, and no problem either, where the columns are not known yet."""
    position = label_position(spec)
    table = inputs[0] if inputs else None
    labels = inputs[position] if position < len(inputs) else None
    algorithm = ALGORITHMS.get(spec.training.algorithm)
    if table is None or labels is None or algorithm is None:
        return None, []
    training = spec.training
    choice = ColumnChoice(
        label=training.label_column,
        keys=training.keys,
        features=training.features,
        label_keys=training.label_keys,
        classifies=algorithm.classifies,
        outputs=spec.output_columns,
    )
    return choose_columns(choice, table, labels if position else None)


def output_schema(spec: ModelSpec, columns: ModelColumns, table: Mapping[str, str]) -> dict[str, str]:
    """The columns of the predictions: the keys, the prediction with the label's type, its probability."""
    schema = {name: table[name] for name in columns.keys}
    if ALGORITHMS[spec.training.algorithm].classifies:
        text = family(columns.label_type) == "VARCHAR"
        schema[spec.output_columns[0]] = "VARCHAR" if text else columns.label_type
    else:
        schema[spec.output_columns[0]] = "DOUBLE"
    return schema | dict.fromkeys(spec.output_columns[1:], "DOUBLE")
