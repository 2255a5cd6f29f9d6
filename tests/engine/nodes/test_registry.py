"""The list of kinds says what the kinds say of themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seeknal.dag.manifest import NodeType
from seeknal.nodes.registry import DECLARABLE_KINDS, KINDS


def test_kinds_are_listed_under_their_names() -> None:
    assert [kind.name for kind in KINDS.values()] == list(KINDS)
    assert set(KINDS) <= {node_type.value for node_type in NodeType}


def test_kinds_that_files_may_name_are_those_that_are_declarable() -> None:
    assert [name for name, kind in KINDS.items() if kind.declarable] == DECLARABLE_KINDS


def test_an_unknown_kind_is_not_there() -> None:
    assert "nonsense" not in KINDS
    with pytest.raises(KeyError, match="nonsense"):
        KINDS["nonsense"]


def test_a_kind_is_made_once() -> None:
    assert KINDS["source"] is KINDS["source"]


def test_a_kind_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys\nfrom seeknal.nodes.registry import KINDS\n"
        "assert 'model' in KINDS and not {'seeknal.nodes.model', 'seeknal.nodes.transform'} & set(sys.modules)\n"
        "KINDS['transform']\n"
        "assert 'seeknal.nodes.transform' in sys.modules and 'seeknal.nodes.model' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
