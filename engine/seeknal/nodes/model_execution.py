"""Executing a model: from its inputs' rows to the predictions, metrics and estimator that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from seeknal.dag.sql import literal, quoted, quoted_node
from seeknal.errors import NodeFailedError
from seeknal.nodes.algorithms import ALGORITHMS
from seeknal.nodes.kind import Task
from seeknal.nodes.model import ModelSpec, columns_of, label_position, output_schema
from seeknal.nodes.model_columns import is_number
from seeknal.nodes.model_file import file_suffix, write_model
from seeknal.nodes.training import Lesson, Trained, train
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact, Blob

# The version of the document of metrics.
METRICS_FORMAT = 1


class Execution:
    """One model's execution in a worker.

    Raises NodeFailedError where the node and its inputs' columns do not go together.
    """

    def __init__(self, task: Task, bench: Workbench) -> None:
        self._spec = msgspec.convert(task.spec, ModelSpec)
        self._algorithm = ALGORITHMS[self._spec.training.algorithm]
        if label_position(self._spec) >= len(task.inputs):
            # What a function gives is the one input.
            raise NodeFailedError("label_source cannot be joined to rows that a function gives; let it give the label")
        columns, problems = columns_of(self._spec, [dict(table.columns) for table in task.inputs])
        if columns is None:
            raise NodeFailedError(problems[0].message, hint=problems[0].hint)
        self._columns = columns
        self._table = task.inputs[0]
        self._labels = task.inputs[label_position(self._spec)]
        self._bench = bench
        # One thread whatever the rows: their order and the sums of floating-point numbers depend on it.
        self._connection = bench.hermetic_connection(1, task.memory_limit_bytes)
        bench.make_views(self._connection, task)

    def artifact(self) -> Artifact:
        """Train, and put what came out into the store. Raises NodeFailedError where the data does not allow it."""
        training = self._spec.training
        return self._store(train(self._algorithm, training.params, training.test_size, self._lesson()))

    def _lesson(self) -> Lesson:
        """Read features and labels, in the order of the first input's rows. Raises NodeFailedError."""
        import numpy

        columns = self._columns
        aliases = {f"f{number}": name for number, name in enumerate(columns.features)}
        features = ", ".join(f"CAST({quoted(name)} AS DOUBLE) AS {alias}" for alias, name in aliases.items())
        is_numeric = is_number(columns.label_type)
        label = f"CAST({quoted(columns.label)} AS {'DOUBLE' if is_numeric else 'VARCHAR'}) AS label"
        table = quoted_node(self._table.node_id)
        query = f"SELECT {features}, {label} FROM {table}"
        if columns.label_keys:
            query = self._joined(features, label, ", ".join(aliases))
        found = self._connection.execute(query).fetchnumpy()
        arrays = {name: _with_gaps(found[alias]) for alias, name in aliases.items()}
        if is_numeric:
            return Lesson(arrays, _with_gaps(found["label"]), columns.label)
        texts = numpy.ma.getdata(found["label"]).astype(object)
        # Not by numpy's own way to fill, to which None means some text of its choice.
        texts[numpy.ma.getmaskarray(found["label"])] = None
        return Lesson(arrays, texts, columns.label)

    def _joined(self, features: str, label: str, aliases: str) -> str:
        """SQL of the features with the labels of the other table, in the order of the first input's rows."""
        pairs = self._columns.label_keys
        own = ", ".join(f"{quoted(one)} AS k{number}" for number, (one, _) in enumerate(pairs))
        other = ", ".join(f"{quoted(two)} AS k{number}" for number, (_, two) in enumerate(pairs))
        keys = ", ".join(f"k{number}" for number in range(len(pairs)))
        # What is said twice counts once; what is said twice differently has no answer.
        labels = f"SELECT DISTINCT {other}, {label} FROM {quoted_node(self._labels.node_id)}"
        self._refuse_contradictions(labels, keys)
        rows = f"SELECT {features}, {own}, row_number() OVER () AS n FROM {quoted_node(self._table.node_id)}"
        return f"SELECT {aliases}, label FROM ({rows}) LEFT JOIN ({labels}) USING ({keys}) ORDER BY n"

    def _refuse_contradictions(self, labels: str, keys: str) -> None:
        pairs = self._columns.label_keys
        known = " AND ".join(f"k{number} IS NOT NULL" for number in range(len(pairs)))
        query = f"SELECT {keys}, count(*) OVER () FROM ({labels}) WHERE {known} GROUP BY {keys} HAVING count(*) > 1"
        found = self._connection.execute(f"{query} ORDER BY {keys} LIMIT 1").fetchone()
        if found is not None:
            example = ", ".join(f"{two} = {value}" for (_, two), value in zip(pairs, found, strict=False))
            raise NodeFailedError(
                f"label_source has more than one label for {example} (and {found[-1] - 1:,} other keys)",
                hint="keep one row per key in a transform, or join on more `label_keys`",
            )

    def _store(self, trained: Trained) -> Artifact:
        """Put predictions, metrics and the estimator's file into the store."""
        artifact = self._store_predictions(trained)
        report = self._report(trained)
        side_blobs = (
            (f"{self._algorithm.name}.json", self._store_metrics(report)),
            (f"{self._algorithm.name}{file_suffix(trained.estimator)}", self._store_estimator(trained.estimator)),
        )
        metadata = {"metrics": trained.metrics, "measured_on": trained.measured_on, "warnings": self._warnings(trained)}
        return msgspec.structs.replace(artifact, side_blobs=side_blobs, metadata=metadata)

    def _store_predictions(self, trained: Trained) -> Artifact:
        columns = dict(self._table.columns)
        schema = output_schema(self._spec, self._columns, columns)
        registered = {"prediction": trained.predicted}
        prediction = "CAST(p.prediction AS DOUBLE)"
        if self._algorithm.classifies:
            type_ = schema[self._spec.output_columns[0]]
            classes = ", ".join(literal(name) for name in trained.classes)
            prediction = f"CAST(CAST(list_extract([{classes}], p.prediction + 1) AS {_through(type_)}) AS {type_})"
        selected = [f"i.{quoted(name)}" for name in self._columns.keys]
        selected.append(f"{prediction} AS {quoted(self._spec.output_columns[0])}")
        if len(self._spec.output_columns) > 1:
            registered["probability"] = trained.probability
            selected.append(f"p.probability AS {quoted(self._spec.output_columns[1])}")
        self._connection.register("seeknal_predictions", registered)
        try:
            query = f"SELECT {', '.join(selected)} FROM {quoted_node(self._table.node_id)} AS i"
            return self._bench.copy_to_store(
                self._connection, f"{query} POSITIONAL JOIN seeknal_predictions AS p", schema
            )
        finally:
            self._connection.unregister("seeknal_predictions")

    def _report(self, trained: Trained) -> dict[str, Any]:
        training = self._spec.training
        return {
            "format": METRICS_FORMAT,
            "algorithm": self._algorithm.name,
            "metrics": trained.metrics,
            "measured_on": trained.measured_on,
            "rows": trained.rows,
            "label": self._columns.label,
            "classes": list(trained.classes),
            "features": list(self._columns.features),
            "no_features": list(self._columns.dropped),
            "params": training.params,
            "versions": self._algorithm.versions(),
            "warnings": self._warnings(trained),
        }

    def _warnings(self, trained: Trained) -> list[str]:
        found = []
        lacking, total = trained.rows["incomplete"], trained.rows["total"]
        if lacking:
            found.append(f"{lacking:,} of {total:,} rows lack a feature: no prediction")
        return [*found, *trained.warnings]

    def _store_metrics(self, report: Mapping[str, Any]) -> Blob:
        file = self._bench.store.temporary_path(".json")
        try:
            file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
            return self._bench.store.adopt_file(file)
        finally:
            file.unlink(missing_ok=True)

    def _store_estimator(self, estimator: Any) -> Blob:
        file = self._bench.store.temporary_path(file_suffix(estimator))
        try:
            write_model(estimator, file)
            return self._bench.store.adopt_file(file)
        finally:
            file.unlink(missing_ok=True)


def _with_gaps(values: Any) -> Any:
    """Numbers as DuckDB gives them, with NaN for NULL."""
    import numpy

    return numpy.asarray(numpy.ma.filled(numpy.ma.asarray(values, dtype=numpy.float64), numpy.nan))


def _through(type_: str) -> str:
    """The type in which a class's text becomes a value: whole numbers for all numbers, so that 1 is 1.00 and true."""
    return "BIGINT" if is_number(type_) else "VARCHAR"
