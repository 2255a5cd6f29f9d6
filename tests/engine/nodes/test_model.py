"""Models: what is trained on what, the same bytes each time, scikit-learn's metrics, one line for wrong data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import numpy
import pytest
from sklearn import metrics
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split

from seeknal.dag.project import Project
from seeknal.errors import CorruptObjectError, RefusedError, SeeknalError
from seeknal.nodes.model_file import load_model
from seeknal.workflow.results import RunOptions, RunResult
from seeknal.workflow.session import Session
from seeknal.workflow.settled import settled_run
from seeknal.workflow.workers import Inline
from tests.engine.workflow import projects
from tests.engine.workflow.projects import executed, write, write_project

CUSTOMERS = """
kind: source
name: customers
source: csv
table: customers.csv
"""

LABELS = """
kind: source
name: labels
source: csv
table: labels.csv
"""

REGRESSION = {"algorithm": "linear_regression", "label_column": "age"}


def customers(count: int = 60) -> str:
    """Rows whose age and spending tell who stays; ages lack now and then."""
    lines = ["customer_id,seen_on,country,age,spent,active,stays,value"]
    for number in range(count):
        age = 20 + (number * 37) % 50
        spent = round((number * 7919) % 1000 / 10, 1)
        stays = "yes" if spent + age > 90 else "no"
        shown = "" if number % 20 == 19 else str(age)
        active = "true" if number % 3 else "false"
        lines.append(f"{number},2024-01-{1 + number % 28:02},US,{shown},{spent},{active},{stays},{2 * spent - age}")
    return "\n".join(lines) + "\n"


def model(
    name: str = "m", *, inputs: str = "[source.customers]", outputs: str = "[prediction]", **training: Any
) -> str:
    training = {"algorithm": "random_forest", "label_column": "stays"} | training
    if "forest" in training["algorithm"]:
        training["params"] = {"n_estimators": 10} | training.get("params", {})
    said = json.dumps(training)
    return f"kind: model\nname: {name}\ninputs: {inputs}\noutput_columns: {outputs}\ntraining: {said}\n"


def project(root: Path, *nodes: str, data: str | None = None, labels: str = "") -> Path:
    text = "---\n".join(("", CUSTOMERS, *([LABELS] if labels else []), *nodes))
    files = {"seeknal/nodes.yml": text, "customers.csv": customers() if data is None else data}
    return write_project(root, files | ({"labels.csv": labels} if labels else {}))


def run(root: Path, environment: str = "prod", **options: Any) -> RunResult:
    """Run in this process, where scikit-learn is imported once. Users' runs take a worker; a test below does too."""
    workers = Inline()
    with Session.open(Project.open(root)) as session:
        try:
            return session.run(environment, RunOptions(**options), workers=workers)
        finally:
            workers.close()


def executed_in(root: Path) -> list[str]:
    result = run(root)
    assert result.status == "success"
    return executed(result)


def rows(root: Path, name: str = "m") -> list[tuple[Any, ...]]:
    return duckdb.sql(f"FROM '{root}/target/cache/model/{name}.parquet'").fetchall()


def report(root: Path, name: str = "m_random_forest") -> Any:
    return json.loads((root / f"target/models/{name}.json").read_text())


def features(root: Path, names: str) -> Any:
    selected = ", ".join(f"{name}::DOUBLE" for name in names.split())
    found = duckdb.sql(f"SELECT {selected} FROM '{root}/customers.csv'").fetchall()
    return numpy.array(found, dtype=numpy.float64)


def problem(root: Path) -> str:
    """The one line that says what is wrong, found when planning or running."""
    try:
        result = run(root)
    except SeeknalError as error:
        (found,) = error.problems()
        return str(found)
    (found,) = result.problems()
    assert result.status == "failed"
    text = str(found)
    assert "\n" not in text
    return text


# what is trained on what


def test_predictions_have_the_keys_and_a_row_for_each_row_of_the_input(tmp_path: Path) -> None:
    root = project(tmp_path, model(outputs="[stays, chance]"))
    assert executed_in(root) == ["customers", "m"]
    described = duckdb.sql(f"DESCRIBE FROM '{root}/target/cache/model/m.parquet'").fetchall()
    assert [column[:2] for column in described] == [
        ("customer_id", "BIGINT"),
        ("seen_on", "DATE"),
        ("stays", "VARCHAR"),
        ("chance", "DOUBLE"),
    ]
    found = rows(root)
    assert [row[0] for row in found] == list(range(60))
    # Rows that lack a feature have no prediction.
    assert [row[0] for row in found if row[2] is None] == [19, 39, 59] == [row[0] for row in found if row[3] is None]
    assert {row[2] for row in found if row[2] is not None} == {"no", "yes"}
    # Of two classes the chance is that of the greater.
    assert all((row[3] > 0.5) == (row[2] == "yes") for row in found if row[2] is not None and row[3] != 0.5)


def test_numbers_are_features_keys_and_label_are_not_and_the_rest_is_dropped_with_a_warning(tmp_path: Path) -> None:
    root = project(tmp_path, model())
    run(root)
    said = report(root)
    assert said["features"] == ["age", "spent", "active", "value"]
    assert said["no_features"] == ["country"]
    assert said["warnings"] == ["3 of 60 rows lack a feature: no prediction"]
    with Session.open(Project.open(root)) as session:
        assert [warning.message for warning in session.compiled.parsed.warnings] == [
            "model.m: no numbers, so no features: country"
        ]
    assert said["rows"] == {"total": 60, "trained": 45, "tested": 12, "without_label": 0, "incomplete": 3}


def test_a_model_reads_only_the_columns_that_it_uses(tmp_path: Path) -> None:
    root = project(tmp_path, model(features=["age", "spent"], keys=["customer_id"]))
    assert executed_in(root) == ["customers", "m"]
    write(root, "customers.csv", customers().replace(",US,", ",UK,").replace(",true,", ",false,"))
    assert executed_in(root) == ["customers"]
    write(root, "customers.csv", customers().replace(",yes,", ",maybe,"))
    assert executed_in(root) == ["customers", "m"]


def test_labels_of_another_node_are_joined_on_the_key_that_both_have(tmp_path: Path) -> None:
    labels = "customer_id,kept\n" + "".join(f"{n},{'true' if n % 4 else 'false'}\n" for n in reversed(range(50)))
    # The same label twice says nothing new; a customer of nobody is left alone.
    labels += "7,true\n999,true\n"
    root = project(
        tmp_path, model(label_source="source.labels", label_column="kept", features=["spent"]), labels=labels
    )
    run(root)
    said = report(root)
    assert said["rows"] == {"total": 60, "trained": 40, "tested": 10, "without_label": 10, "incomplete": 0}
    assert len(rows(root)) == 60
    assert all(isinstance(row[-1], bool) for row in rows(root))
    X = features(root, "spent")[:50]
    y = numpy.array([n % 4 != 0 for n in range(50)])
    train, _ = train_test_split(numpy.arange(50), test_size=10, random_state=42, stratify=y)
    expected = RandomForestClassifier(10, random_state=42).fit(X[train], y[train].astype(int)).predict(X)
    assert [row[-1] for row in rows(root)][:50] == list(expected.astype(bool))


def test_two_labels_for_one_key_fail_the_node(tmp_path: Path) -> None:
    labels = "customer_id,kept\n1,true\n1,false\n2,true\n"
    root = project(tmp_path, model(label_source="source.labels", label_column="kept"), labels=labels)
    assert "label_source has more than one label for customer_id = 1" in problem(root)


@pytest.mark.parametrize(
    ("training", "labels", "said"),
    [
        ({"label_column": "stay"}, "", "the first input has no column 'stay' (did you mean 'stays'?)"),
        ({"features": ["agge"]}, "", "the first input has no column 'agge' (did you mean 'age'?)"),
        ({"features": ["country"]}, "", "feature 'country' is VARCHAR, no number"),
        ({"features": ["stays"]}, "", "'stays' is the label, so it can be no feature"),
        ({"keys": ["customer"]}, "", "the first input has no column 'customer' (did you mean 'customer_id'?)"),
        ({"algorithm": "linear_regression"}, "", "the label 'stays' is VARCHAR, and a regression predicts numbers"),
        ({"label_column": "seen_on"}, "", "the label 'seen_on' is DATE"),
        ({"algorithm": "random_florest"}, "", "unknown algorithm 'random_florest' (did you mean 'random_forest'"),
        ({"test_size": 1.5}, "", "test_size 1.5 is neither a share nor a number of rows"),
        ({"label_source": "source.labels"}, "who,stays\n1,yes\n", "label_source has no key in common"),
        (
            {"label_source": "source.labels"},
            "customer_id,seen_on,stays\n1,2024-01-01,yes\n",
            "share customer_id and seen_on; which of them join is not clear (say `label_keys: [customer_id]`",
        ),
        ({"label_source": "source.labels"}, "customer_id,stays\nx,yes\n", "key 'customer_id' is BIGINT in the first"),
        ({"label_source": "source.labels"}, "customer_id,left\n1,yes\n", "label_source has no column 'stays'"),
        ({"label_source": "source.label"}, "customer_id,stays\n1,yes\n", "did you mean 'source.labels'?"),
        ({"label_keys": ["customer_id"]}, "", "label_keys say how label_source is joined"),
    ],
)
def test_what_is_wrong_with_columns_is_said_before_anything_runs(
    tmp_path: Path, training: dict[str, Any], labels: str, said: str
) -> None:
    root = project(tmp_path, model(**training), labels=labels)
    with pytest.raises(SeeknalError) as caught:
        run(root)
    (found,) = caught.value.problems()
    assert said in str(found)
    assert "seeknal/nodes.yml:" in str(found)
    assert not (root / "target/store/blobs").exists()


@pytest.mark.parametrize(
    ("data", "training", "said"),
    [
        ("customer_id,age,stays\n", {}, "has no column of numbers to learn from"),
        ("customer_id,age,stays\n1,5,\n2,6,\n", {}, "no row has a label: 'stays' is NULL everywhere"),
        ("customer_id,age,stays\n1,5,a\n2,6,a\n3,7,a\n", {}, "the label 'stays' has one class only, 'a', in all rows"),
        ("customer_id,age,stays\n1,5,a\n2,6,b\n", {}, "one class only"),
        ("customer_id,age,stays\n1,5,0.5\n2,6,1\n3,7,1\n", {}, "the label 'stays' has fractions (0.5)"),
        ("customer_id,age,stays\n1,5,a\n", {}, "1 row with all features and a label; two are the least"),
        ("customer_id,age,stays\n1,5,a\n2,6,b\n", {"test_size": 2}, "test_size takes 2 of 2 rows"),
        ("customer_id,age,stays\n1,5,a\n2,6,b\n", {"params": {"max_dept": 2}}, "no parameter 'max_dept' (did you mean"),
        (None, {"params": {"max_depth": -4}}, "cannot be trained: The 'max_depth' parameter"),
        (
            None,
            {"algorithm": "svm_regressor", "label_column": "value", "params": {"C": -1}},
            "cannot be trained: The 'C'",
        ),
    ],
)
def test_data_that_cannot_be_learned_from_fails_in_one_line(
    tmp_path: Path, data: str | None, training: dict[str, Any], said: str
) -> None:
    root = project(tmp_path, model(**training), data=data)
    assert said in problem(root)


def test_an_input_without_rows_fails_in_one_line(tmp_path: Path) -> None:
    none = "kind: transform\nname: none\ntransform: FROM source.customers WHERE false\n"
    root = project(tmp_path, none, model(inputs="[transform.none]"))
    assert "the first input has no rows to learn from" in problem(root)


@pytest.mark.parametrize(
    ("training", "said"),
    [({}, "feature 'age' is infinite in 1 row"), (REGRESSION, "the label 'age' is infinite in 1 row")],
)
def test_infinity_fails_in_one_line(tmp_path: Path, training: dict[str, Any], said: str) -> None:
    changed = "CASE WHEN customer_id = 1 THEN 'inf'::DOUBLE ELSE age END AS age"
    wild = f'kind: transform\nname: wild\ntransform: "SELECT * REPLACE ({changed}) FROM source.customers"\n'
    root = project(tmp_path, wild, model(inputs="[transform.wild]", **training))
    assert said in problem(root)


def test_scikit_learn_missing_is_said_when_planning_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    root = project(tmp_path, model())
    assert problem(root).endswith("needs scikit-learn, which is not installed (run: pip install 'seeknal[ml]')")


def test_planning_does_not_import_scikit_learn(tmp_path: Path) -> None:
    root = project(tmp_path, model())
    plan = "from seeknal.cli.main import cli; cli(['plan'], standalone_mode=False)"
    code = f"import sys; {plan}; print('sklearn' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


# the same bytes

EVERY_ALGORITHM = {
    "linear_regression": "value",
    "logistic_regression": "stays",
    "random_forest": "stays",
    "random_forest_regressor": "value",
    "svm": "stays",
    "svm_regressor": "value",
}


def models() -> list[str]:
    return [
        model(algorithm, algorithm=algorithm, label_column=label, params={"n_jobs": 4} if "forest" in algorithm else {})
        for algorithm, label in EVERY_ALGORITHM.items()
    ]


def blobs(root: Path) -> dict[str, bytes]:
    kinds = ("cache/model/*.parquet", "models/*")
    return {path.name: path.read_bytes() for kind in kinds for path in (root / "target").glob(kind)}


def test_every_algorithm_gives_the_same_bytes_again_alone_and_in_parallel(tmp_path: Path) -> None:
    one, other = project(tmp_path / "one", *models()), project(tmp_path / "other", *models())
    assert projects.run(one).status == projects.run(other, parallel=True, max_workers=2).status == "success"
    assert blobs(one) == blobs(other)
    assert len(blobs(one)) == 3 * len(EVERY_ALGORITHM)
    before = {path: path.resolve() for path in (one / "target/models").glob("*")}
    assert run(one, full=True).status == "success"
    assert {path: path.resolve() for path in before} == before
    # And nothing is left to do.
    assert settled_run(one, publish=True) is not None
    (one / "target/models").unlink()
    assert settled_run(one, publish=True) is None


@pytest.mark.parametrize("algorithm", EVERY_ALGORITHM)
def test_a_model_read_back_predicts_what_the_node_predicted(tmp_path: Path, algorithm: str) -> None:
    label = EVERY_ALGORITHM[algorithm]
    names = "age spent" if label == "value" else "age spent value"
    root = project(tmp_path, model(algorithm=algorithm, label_column=label, features=names.split()))
    run(root)
    estimator = load_model(root / f"target/models/m_{algorithm}.skops")
    X = features(root, names)
    complete = ~numpy.isnan(X).any(axis=1)
    stored = [row[-1] for row in rows(root)]
    assert list(estimator.predict(X[complete])) == [value for value in stored if value is not None]


# metrics


def test_metrics_of_classes_are_scikit_learns_on_the_test_rows(tmp_path: Path) -> None:
    root = project(
        tmp_path, model(features=["age", "spent"], params={"n_estimators": 5, "max_depth": 2}, test_size=0.3)
    )
    run(root)
    X = features(root, "age spent")
    y = (
        duckdb.sql(f"SELECT stays FROM read_csv('{root}/customers.csv', all_varchar = true)")
        .fetchnumpy()["stays"]
        .astype(str)
    )
    complete = numpy.flatnonzero(~numpy.isnan(X).any(axis=1))
    train, test = train_test_split(complete, test_size=0.3, random_state=42, stratify=y[complete])
    fitted = RandomForestClassifier(n_estimators=5, max_depth=2, random_state=42).fit(X[train], y[train])
    guess = fitted.predict(X[test])
    assert report(root)["measured_on"] == "test rows"
    assert report(root)["metrics"] == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y[test], guess),
            "precision": metrics.precision_score(y[test], guess, pos_label="yes"),
            "recall": metrics.recall_score(y[test], guess, pos_label="yes"),
            "f1_score": metrics.f1_score(y[test], guess, pos_label="yes"),
        }
    )


def test_metrics_of_numbers_are_scikit_learns_and_on_training_rows_without_a_test(tmp_path: Path) -> None:
    training = {"algorithm": "linear_regression", "label_column": "value", "features": ["spent"], "test_size": 0}
    root = project(tmp_path, model(**training))
    run(root)
    X, y = features(root, "spent"), features(root, "value")[:, 0]
    guess = LinearRegression().fit(X, y).predict(X)
    said = report(root, "m_linear_regression")
    assert said["measured_on"] == "training rows"
    assert said["metrics"] == pytest.approx(
        {
            "mse": metrics.mean_squared_error(y, guess),
            "mae": metrics.mean_absolute_error(y, guess),
            "r2": metrics.r2_score(y, guess),
        }
    )


def test_classes_that_are_numbers_come_back_as_the_labels_own_type(tmp_path: Path) -> None:
    data = "customer_id,age,level\n" + "".join(f"{n},{n * 10},{n % 3}.0\n" for n in range(30))
    root = project(tmp_path, model(label_column="level", outputs="[level, chance]"), data=data)
    run(root)
    assert duckdb.sql(f"DESCRIBE FROM '{root}/target/cache/model/m.parquet'").fetchall()[1][:2] == ("level", "DOUBLE")
    assert {row[1] for row in rows(root)} == {0.0, 1.0, 2.0}
    assert report(root)["classes"] == ["0", "1", "2"]


def test_texts_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    data = "customer_id,age,code\n" + "".join(f"{n},{n * 10},0{n % 2}\n" for n in range(30))
    codes = "kind: transform\nname: t\ntransform: SELECT * REPLACE ('0' || code AS code) FROM source.customers\n"
    root = project(tmp_path, codes, model(label_column="code", inputs="[transform.t]"), data=data)
    run(root)
    assert {row[1] for row in rows(root)} == {"000", "001"}


# tests of a model


def test_a_model_that_is_not_good_enough_fails_and_production_keeps_the_one_before(tmp_path: Path) -> None:
    root = project(tmp_path, model())
    run(root)
    before = (root / "target/models/m_random_forest.skops").resolve()
    worse = model(features=["age"], params={"max_depth": 1}) + "tests: [{min_accuracy: 0.99}]\n"
    write(root, "seeknal/nodes.yml", f"{CUSTOMERS}---\n{worse}")
    said = problem(root)
    assert "min_accuracy: accuracy is 0." in said
    assert "and at least 0.99 is expected" in said
    assert (root / "target/models/m_random_forest.skops").resolve() == before
    # Asked for less, the same model will do; it is checked, not trained again.
    write(root, "seeknal/nodes.yml", f"{CUSTOMERS}---\n{worse.replace('0.99', '0.1')}")
    (outcome,) = [node for node in run(root).nodes if node.node_id == "model.m"]
    assert outcome.status in ("success", "cached")
    assert (root / "target/models/m_random_forest.skops").resolve() != before


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("{min_r2: 0.1}", "the model has no r2; its metrics: accuracy, precision, recall, f1_score"),
        ("{min_accuracy: high}", "min_accuracy needs a number"),
        ("{min_acuracy: 0.8}", "did you mean 'min_accuracy'"),
    ],
)
def test_a_test_that_means_no_metric_is_said_in_one_line(tmp_path: Path, test: str, said: str) -> None:
    assert said in problem(project(tmp_path, f"{model()}tests: [{test}]\n"))


def test_metrics_of_what_is_no_model_are_refused_when_planning(tmp_path: Path) -> None:
    node = "kind: transform\nname: t\ntransform: FROM source.customers\ntests: [{min_accuracy: 0.8}]\n"
    assert "min_accuracy is a check of models, and transform.t is none" in problem(project(tmp_path, node))


# rows that a function gives

FUNCTION = """
from seeknal.pipeline import model


@model(name="m", training={training}, output_columns=["stays"])
def m(ctx):
    rows = ctx.ref("source.customers")
    return rows[rows["spent"] > 50]
"""


def test_a_model_learns_from_the_rows_that_a_function_gives(tmp_path: Path) -> None:
    root = project(tmp_path)
    training = {"algorithm": "svm", "label_column": "stays", "features": ["spent", "value"]}
    write(root, "seeknal/m.py", FUNCTION.replace("{training}", repr(training)))
    result = projects.run(root)
    assert result.status == "success", [str(problem) for problem in result.problems()]
    spent = duckdb.sql(f"SELECT count(*) FROM '{root}/customers.csv' WHERE spent > 50").fetchall()[0][0]
    assert report(root, "m_svm")["rows"]["total"] == len(rows(root)) == spent
    labels = {**training, "label_source": "source.customers"}
    write(root, "seeknal/m.py", FUNCTION.replace("{training}", repr(labels)))
    (problem_,) = projects.run(root).problems()
    assert "label_source cannot be joined to rows that a function gives" in str(problem_)


# the file


def test_a_file_that_asks_for_other_types_is_refused(tmp_path: Path) -> None:
    import skops.io

    class Fine:
        pass

    path = tmp_path / "other.skops"
    skops.io.dump({"a": os.path.join}, path)
    with pytest.raises(RefusedError, match="which no trained model has"):
        load_model(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(CorruptObjectError, match="is no model that can be read"):
        load_model(path)


def test_nothing_in_the_file_tells_when_or_where_it_was_written(tmp_path: Path) -> None:
    root = project(tmp_path, model())
    run(root)
    with zipfile.ZipFile(root / "target/models/m_random_forest.skops") as archive:
        names = archive.namelist()
        assert names == [f"{number}.npy" for number in range(1, len(names))] + ["schema.json"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


# environments


def test_the_links_to_models_follow_the_environment_and_go_with_the_last_model(tmp_path: Path) -> None:
    root = project(tmp_path, model())
    run(root)
    first = (root / "target/models/m_random_forest.skops").resolve()
    write(root, "seeknal/nodes.yml", f"{CUSTOMERS}---\n{model(params={'n_estimators': 3})}")
    run(root, "dev")
    assert (root / "target/models/m_random_forest.skops").resolve() == first
    other = (root / "target/environments/dev/models/m_random_forest.skops").resolve()
    assert other != first
    assert other.is_file()
    write(root, "seeknal/nodes.yml", CUSTOMERS)
    run(root)
    assert not (root / "target/models").is_symlink()


# being stopped


def test_ctrl_c_stops_a_training_that_takes_long(tmp_path: Path) -> None:
    data = "customer_id,age,stays\n" + "".join(f"{n},{(n * 7919) % 1000},{n % 2}\n" for n in range(2000))
    root = project(tmp_path, model(params={"n_estimators": 1_000_000}), data=data)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "seeknal.cli.main", "run"]
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if ": m [RUNNING]" in line:
                break
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(timeout=30) == 130, said
    assert "interrupted" in said
