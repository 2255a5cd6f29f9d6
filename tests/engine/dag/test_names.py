from __future__ import annotations

import keyword

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seeknal.dag.names import (
    LONGEST_NAME,
    RESERVED_SQL_WORDS,
    check_node_name,
    did_you_mean,
    environment_name,
    nearest,
    nearest_files,
    short_names,
    shown,
)
from seeknal.errors import NameNotAllowedError


def test_reserved_words_are_duckdbs() -> None:
    rows = duckdb.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").fetchall()
    assert {word for (word,) in rows} == RESERVED_SQL_WORDS


@pytest.mark.parametrize("name", ["orders", "_x", "a1", "Clean-Orders", "v1.2", "x" * LONGEST_NAME, "values", "date"])
def test_plain_names_are_allowed(name: str) -> None:
    assert check_node_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "1a",
        "-a",
        ".a",
        "a.",
        "a..b",
        "a b",
        "a/b",
        "../a",
        "a\\b",
        "a'b",
        'a"b',
        "a;b",
        "a\n",
        "a\x00",
        "é",
        "a:b",
    ],
)
def test_names_that_could_be_something_else_are_not_allowed(name: str) -> None:
    assert check_node_name(name)


@pytest.mark.parametrize("name", [*sorted(RESERVED_SQL_WORDS), *keyword.kwlist, "Select", "ORDER"])
def test_reserved_words_are_no_names_and_the_way_out_is_said(name: str) -> None:
    wrong = check_node_name(name)
    assert wrong is not None
    assert f"try '{name}_data'" in wrong
    assert check_node_name(f"{name}_data") is None


def test_a_name_has_an_end() -> None:
    assert check_node_name("x" * (LONGEST_NAME + 1)) == f"a name has at most {LONGEST_NAME} characters"


@given(st.text(max_size=20))
def test_an_allowed_name_is_one_part_of_a_path_and_quotes_plainly(name: str) -> None:
    if check_node_name(name) is None:
        assert name.isascii()
        assert not set(name) & set("/\\'\"` \n\t\0;:*?")
        assert name not in (".", "..")


def test_production_has_two_names() -> None:
    assert [environment_name(name) for name in ("prod", "Production", "PROD", "dev")] == ["prod"] * 3 + ["dev"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "-x", ".x", "a b", "x.", "a..b", "x" * 129, "a\n", "é"])
def test_an_environment_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(NameNotAllowedError, match="not a valid environment name"):
        environment_name(name)


def test_the_nearest_names_are_those_that_look_alike() -> None:
    known = ["source.orders", "source.products", "source.u", "transform.clean_orders"]
    assert nearest("source.ordrs", known) == ["source.orders"]
    assert nearest("SOURCE.ORDERS", known)[0] == "source.orders"
    assert nearest("transform.orders", known) == ["source.orders", "transform.clean_orders"]
    assert nearest("soruce.orders", known)[0] == "source.orders"
    assert nearest("orders", known)[0] == "source.orders"
    assert nearest("source.xyz", known) == []
    assert nearest("nam", ["name", "kind"], 1) == ["name"]
    assert nearest("x", []) == []


def test_a_hint_names_the_nearest_else_all_of_few() -> None:
    assert did_you_mean("csvv", ["csv", "parquet"]) == "did you mean 'csv'?"
    assert did_you_mean("zzz", ["csv", "parquet"]) == "there is: csv, parquet"
    assert did_you_mean("zzz", [f"n{index}" for index in range(20)]) == ""
    assert did_you_mean("zzz", []) == ""


def test_what_is_shown_is_one_printable_line() -> None:
    assert shown("a 'plain' name") == "a 'plain' name"
    assert shown("SELECT\n  1\t+ 1\x00") == "SELECT 1 + 1\ufffd"
    assert shown("x" * 100) == "x" * 79 + "…"


def test_a_name_that_two_nodes_have_is_told_with_its_kind() -> None:
    assert short_names(["source.orders", "transform.orders", "transform.v1.orders", "rule.paid"]) == {
        "source.orders": "source.orders",
        "transform.orders": "transform.orders",
        "transform.v1.orders": "v1.orders",
        "rule.paid": "paid",
    }


def test_files_of_one_ending_are_not_alike_for_that() -> None:
    files = ["customers.csv", "orders.csv", "orders.parquet", "products.csv", "README"]
    assert nearest_files("order.csv", files) == ["orders.csv"]
    assert nearest_files("ORDERS.CSV", files)[0] == "orders.csv"
    assert nearest_files("orders", files) == ["orders.csv", "orders.parquet"]
    assert nearest_files("weather.csv", files) == []
