"""The file of a trained model: written so that equal models are equal bytes, read so that nothing in it runs.

The format is skops': a ZIP archive of arrays in numpy's own format, and of a JSON document that says which objects they
make up. Reading it constructs objects of known types only; a pickle runs whatever its author wrote. Estimators of
xgboost are kept in its own UBJSON, which holds numbers and settings only.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from seeknal.errors import CorruptObjectError, RefusedError

# The trees of forests: compiled code of scikit-learn's that takes up arrays, which skops does not trust unasked.
_TRUSTED = frozenset({"sklearn.tree._tree.Tree"})

_MOMENT = (1980, 1, 1, 0, 0, 0)


def file_suffix(estimator: Any) -> str:
    """The ending of the file that an estimator is kept in."""
    return ".ubj" if type(estimator).__module__.startswith("xgboost") else ".skops"


def write_model(estimator: Any, path: Path) -> None:
    """Write an estimator; the same estimator gives the same bytes, in whichever process and when."""
    if file_suffix(estimator) == ".ubj":
        estimator.save_model(path)
        return
    import skops.io

    path.write_bytes(_canonical(skops.io.dumps(estimator)))


def load_model(path: Path | str) -> Any:
    """Read a model's ``.skops`` file and give the estimator. scikit-learn and skops must be installed.

    Raises RefusedError where the file asks for a type that no model of ours has: nothing of it was constructed then.
    Raises CorruptObjectError where it is no model, OSError where it cannot be read. The file of an xgboost model is
    read by xgboost's own ``load_model``.
    """
    import skops.io

    data = Path(path).read_bytes()
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - _TRUSTED)
        if unknown:
            raise RefusedError(
                f"{path} asks for {', '.join(unknown)}, which no trained model has",
                hint="load only files that a model node wrote",
            )
        return skops.io.loads(data, trusted=sorted(_TRUSTED))
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise CorruptObjectError(f"{path} is no model that can be read: {error}") from error


def _canonical(data: bytes) -> bytes:
    """Write skops' archive anew without what differs from run to run: times, and addresses in memory as names."""
    numbers: dict[int, int] = {}
    names: dict[str, str] = {}

    def renumbered(value: Any) -> Any:
        if isinstance(value, list):
            return [renumbered(item) for item in value]
        if not isinstance(value, dict):
            return value
        result = {}
        for key, item in value.items():
            if key == "__id__" and isinstance(item, int):
                item = numbers.setdefault(item, len(numbers) + 1)
            elif key == "file" and isinstance(item, str):
                item = names.setdefault(item, f"{len(names) + 1}{Path(item).suffix}")
            result[key] = renumbered(item)
        return result

    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        schema = renumbered(json.loads(source.read("schema.json")))
        for old, new in names.items():
            archive.writestr(zipfile.ZipInfo(new, _MOMENT), source.read(old), zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("schema.json", _MOMENT), json.dumps(schema), zipfile.ZIP_DEFLATED)
    return target.getvalue()
