"""Training: numbers and labels become an estimator, its metrics and its predictions.

- *complete row*: one that has a value for every feature; the others are neither learned from nor predicted.
- *labelled row*: one that has a label. Complete and labelled rows are split into a *training* and a *test* part.
- *metrics* are measured on the test part, which the estimator never saw; without one, on what it was trained on.

Everything here is a function of its arguments: one seed, one thread, and rows in the order in which they come. So the
same rows give the same bytes.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seeknal.dag.names import did_you_mean
from seeknal.errors import NodeFailedError
from seeknal.nodes.algorithms import Algorithm

SEED = 42

# Beyond it, not every whole number is a float64.
_GREATEST_CLASS = 2**53

_MOST_LIBRARY_WARNINGS = 3


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learned from: a column of numbers per feature, and the label's.

    Numbers are float64 arrays, NaN where there is no value. ``label`` is such an array too, or an array of texts with
    None where there is none. All have one length.
    """

    features: Mapping[str, Any]
    label: Any
    label_name: str


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model. ``classes`` are the label's values, as texts and sorted by value; empty for a regression.

    ``predicted`` has for every row a number (of a class: its position in ``classes``), masked where the row is not
    complete; ``probability`` likewise, None where the algorithm gives none. ``rows`` counts them by their fate.
    """

    estimator: Any
    classes: tuple[str, ...]
    predicted: Any
    probability: Any
    metrics: dict[str, float]
    measured_on: str
    rows: dict[str, int]
    warnings: tuple[str, ...]


def train(algorithm: Algorithm, parameters: Mapping[str, Any], test_size: float | int, lesson: Lesson) -> Trained:
    """Train, measure and predict. Raises NodeFailedError where the data does not allow it."""
    import numpy
    from threadpoolctl import threadpool_limits

    matrix = _matrix(lesson)
    complete = ~numpy.isnan(matrix).any(axis=1)
    labelled = _has_value(lesson.label)
    usable = complete & labelled
    _check_rows(len(matrix), complete, labelled, usable, lesson.label_name)
    classes, target = _target(algorithm, lesson, usable)
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(limits=1):
        warnings.simplefilter("always")
        estimator = _estimator(algorithm, parameters)
        train_rows, test_rows = _split(usable, target, test_size, algorithm.classifies)
        _check_classes(classes, target[train_rows], lesson.label_name)
        try:
            present = _fit(algorithm, estimator, matrix[train_rows], classes, target[train_rows])
            predicted, probability = _predictions(algorithm, estimator, matrix, complete, present)
        except (ValueError, TypeError, MemoryError, OverflowError) as error:
            raise NodeFailedError(f"{algorithm.name} cannot be trained: {_first_line(error)}") from error
        measured = test_rows if len(test_rows) else train_rows
        metrics = _metrics(algorithm.classifies, len(classes), target[measured], predicted[measured].data)
    rows = {
        "total": len(matrix),
        "trained": len(train_rows),
        "tested": len(test_rows),
        "without_label": int((complete & ~labelled).sum()),
        "incomplete": int((~complete).sum()),
    }
    return Trained(
        estimator,
        tuple(str(value) for value in classes),
        predicted,
        probability,
        metrics,
        "test rows" if len(test_rows) else "training rows",
        rows,
        tuple(_library_warnings(caught)),
    )


# rows


def _matrix(lesson: Lesson) -> Any:
    import numpy

    for name, values in lesson.features.items():
        infinite = int(numpy.isinf(values).sum())
        if infinite:
            raise NodeFailedError(
                f"feature '{name}' is infinite in {_counted(infinite, 'row')}",
                hint="make NULLs of these in a transform",
            )
    return numpy.column_stack(list(lesson.features.values()))


def _has_value(label: Any) -> Any:
    import numpy

    if label.dtype == object:
        return numpy.array([value is not None for value in label], dtype=bool)
    return ~numpy.isnan(label)


def _check_rows(total: int, complete: Any, labelled: Any, usable: Any, label: str) -> None:
    if total == 0:
        raise NodeFailedError("the first input has no rows to learn from")
    if int(usable.sum()) >= 2:
        return
    if not labelled.any():
        raise NodeFailedError(f"no row has a label: '{label}' is NULL everywhere")
    if not complete.any():
        raise NodeFailedError("every row lacks a feature", hint="fill NULLs in a transform, or name other `features`")
    raise NodeFailedError(f"{_counted(int(usable.sum()), 'row')} with all features and a label; two are the least")


def _target(algorithm: Algorithm, lesson: Lesson, usable: Any) -> tuple[Any, Any]:
    """The classes, sorted, and the label as numbers: of a regression as it is, else each row's position among them."""
    import numpy

    values = lesson.label
    if not algorithm.classifies:
        infinite = int(numpy.isinf(values).sum())
        if infinite:
            raise NodeFailedError(f"the label '{lesson.label_name}' is infinite in {_counted(infinite, 'row')}")
        return numpy.array([]), values
    if values.dtype == object:
        names = sorted(set(values[usable]))
        positions = {name: position for position, name in enumerate(names)}
        found = numpy.array([positions.get(value, -1) for value in values], dtype=numpy.int64)
        return numpy.array(names), found
    known = values[usable]
    fractions = known[known != numpy.floor(known)]
    if len(fractions):
        raise NodeFailedError(
            f"the label '{lesson.label_name}' has fractions ({fractions[0]:g}), and classes are whole numbers",
            hint=f"to predict numbers, take a regression instead of {algorithm.name}",
        )
    if numpy.abs(known).max() > _GREATEST_CLASS:
        raise NodeFailedError(
            f"the label '{lesson.label_name}' has classes beyond 2^53", hint="make texts of them in a transform"
        )
    numbers = numpy.unique(known)
    found = numpy.searchsorted(numbers, numpy.where(usable, values, numbers[0]))
    return numbers.astype(numpy.int64), numpy.where(usable, found, -1)


def _split(usable: Any, target: Any, test_size: float | int, classifies: bool) -> tuple[Any, Any]:
    """The rows to train on and those to test on. Classes have equal shares in both where there are rows enough."""
    import numpy
    from sklearn.model_selection import train_test_split

    rows = numpy.flatnonzero(usable)
    if not test_size:
        return rows, rows[:0]
    tested = int(numpy.ceil(test_size * len(rows))) if isinstance(test_size, float) else test_size
    if tested >= len(rows):
        raise NodeFailedError(f"test_size takes {tested} of {len(rows)} rows, and none is left to learn from")
    stratify = None
    if classifies:
        counts = numpy.unique(target[rows], return_counts=True)[1]
        if counts.min() >= 2 and tested >= len(counts) and len(rows) - tested >= len(counts):
            stratify = target[rows]
    train_rows, test_rows = train_test_split(rows, test_size=tested, random_state=SEED, stratify=stratify)
    return train_rows, test_rows


def _check_classes(classes: Any, target: Any, label: str) -> None:
    import numpy

    if not len(classes):
        return
    found = numpy.unique(target)
    if len(found) < 2:
        where = "all rows" if len(classes) < 2 else "the rows to train on"
        message = f"the label '{label}' has one class only, {str(classes[found[0]])!r}, in {where}"
        raise NodeFailedError(message, hint="a classification needs two" if len(classes) < 2 else "it needs more rows")


# the estimator


def _estimator(algorithm: Algorithm, parameters: Mapping[str, Any]) -> Any:
    """Make the estimator. One thread and the seed are ours unless a seed is given. Raises NodeFailedError."""
    module = importlib.import_module(algorithm.module)
    kind = getattr(module, algorithm.estimator)
    known = kind().get_params()
    for name in parameters:
        if name not in known:
            raise NodeFailedError(f"{algorithm.name} has no parameter '{name}'", hint=did_you_mean(name, known))
    given = {name: value for name, value in parameters.items() if name not in ("n_jobs", "nthread")}
    if "random_state" in known:
        given.setdefault("random_state", SEED)
    if algorithm.package == "xgboost":
        given["n_jobs"] = 1
    return kind(**given)


def _fit(algorithm: Algorithm, estimator: Any, matrix: Any, classes: Any, target: Any) -> Any:
    """Fit, and give for each class that the estimator then knows its position in ``classes``; None for a regression.

    Estimators get the classes themselves, so that the file of the model predicts them. xgboost's want positions,
    without a gap where the rows to train on lack a class.
    """
    import numpy

    if not algorithm.classifies:
        estimator.fit(matrix, target)
        return None
    present = numpy.unique(target)
    estimator.fit(matrix, numpy.searchsorted(present, target) if algorithm.package == "xgboost" else classes[target])
    return present


def _predictions(algorithm: Algorithm, estimator: Any, matrix: Any, complete: Any, present: Any) -> tuple[Any, Any]:
    """The prediction for each complete row, and its probability where there is one; masked elsewhere."""
    import numpy

    rows = matrix[complete]
    found = estimator.predict(rows)
    if not algorithm.classifies:
        return _spread(numpy.asarray(found, dtype=numpy.float64), complete), None
    known = numpy.arange(len(present)) if algorithm.package == "xgboost" else estimator.classes_
    predicted = _spread(present[numpy.searchsorted(known, found)], complete)
    if not algorithm.gives_probabilities:
        return predicted, None
    chances = numpy.asarray(estimator.predict_proba(rows), dtype=numpy.float64)
    return predicted, _spread(chances[:, 1] if chances.shape[1] == 2 else chances.max(axis=1), complete)


def _spread(values: Any, complete: Any) -> Any:
    """Values of the complete rows, each at its row's place."""
    import numpy

    everywhere = numpy.zeros(len(complete), dtype=values.dtype)
    everywhere[complete] = values
    return numpy.ma.masked_array(everywhere, mask=~complete)


# what to tell


def _metrics(classifies: bool, classes: int, truth: Any, predicted: Any) -> dict[str, float]:
    """Measure predictions. Precision, recall and F1 are of the greater of two classes, of more the weighted mean."""
    from sklearn import metrics

    if not classifies:
        found = {
            "mse": metrics.mean_squared_error(truth, predicted),
            "mae": metrics.mean_absolute_error(truth, predicted),
        }
        if len(truth) > 1:
            found["r2"] = metrics.r2_score(truth, predicted)
        return {name: float(value) for name, value in found.items()}
    average: Any = {"average": "binary", "pos_label": 1} if classes == 2 else {"average": "weighted"}
    found = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "precision": metrics.precision_score(truth, predicted, zero_division=0.0, **average),
        "recall": metrics.recall_score(truth, predicted, zero_division=0.0, **average),
        "f1_score": metrics.f1_score(truth, predicted, zero_division=0.0, **average),
    }
    return {name: float(value) for name, value in found.items()}


def _library_warnings(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """What the libraries warned of, each once and in one line; not of what their next versions will change."""
    of_the_future = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)
    said = [_first_line(entry.message) for entry in caught if not issubclass(entry.category, of_the_future)]
    return list(dict.fromkeys(said))[:_MOST_LIBRARY_WARNINGS]


def _first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
