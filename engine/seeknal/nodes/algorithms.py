"""The algorithms that a model can be trained with, known without importing the packages they come from.

- *classification* predicts one of the classes that the label has; *regression* predicts a number.
- *package*: what must be installed, by the name it is imported under.
"""

from __future__ import annotations

from importlib.util import find_spec

import msgspec

# What a model's bytes depend on, beside the data. The numbers come from numpy's and scipy's routines.
_LIBRARIES = ("scikit-learn", "skops", "numpy", "scipy")


class Algorithm(msgspec.Struct, frozen=True):
    """One algorithm: the estimator's class, and whether it predicts classes, with probabilities or without."""

    name: str
    module: str
    estimator: str
    classifies: bool
    gives_probabilities: bool = False

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def missing(self) -> tuple[str, str] | None:
        """The package that is not installed and the command that installs it; None where everything is there."""
        for package, title in (("sklearn", "scikit-learn"), ("skops", "skops")):
            if not _is_installed(package):
                return title, "pip install 'seeknal[ml]'"
        if not _is_installed(self.package):
            return self.package, f"pip install 'seeknal[ml]' {self.package}"
        return None

    def versions(self) -> dict[str, str]:
        """The versions of everything that the trained model depends on; empty texts for what is not installed."""
        own = (self.package,) if self.package != "sklearn" else ()
        return {library: _version(library) for library in (*_LIBRARIES, *own)}


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _version(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


ALGORITHMS = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("linear_regression", "sklearn.linear_model", "LinearRegression", False),
        Algorithm("logistic_regression", "sklearn.linear_model", "LogisticRegression", True, True),
        Algorithm("random_forest", "sklearn.ensemble", "RandomForestClassifier", True, True),
        Algorithm("random_forest_regressor", "sklearn.ensemble", "RandomForestRegressor", False),
        Algorithm("xgboost", "xgboost", "XGBClassifier", True, True),
        Algorithm("xgboost_regressor", "xgboost", "XGBRegressor", False),
        Algorithm("svm", "sklearn.svm", "SVC", True),
        Algorithm("svm_regressor", "sklearn.svm", "SVR", False),
    )
}
