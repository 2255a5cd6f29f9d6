from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.project import Answer, Project
from tests.engine.workflow.projects import transform, write, write_project

CLEAN = """\
SELECT
  id,
  amount
FROM source.orders
WHERE amount > 0
"""

ORDERS = """
    kind: source
    name: orders
    description: What was ordered
    source: csv
    table: data/orders.csv
    schema:
      - name: id
        data_type: integer
      - name: amount
        data_type: float
"""

FILES = {
    "data/orders.csv": "id,amount\n1,10.5\n2,3\n",
    "seeknal/orders.yml": ORDERS,
    "seeknal/clean.yml": transform("clean", CLEAN),
    "seeknal/totals.yml": transform("totals", "SELECT sum(amount) AS total FROM transform.clean"),
    "seeknal/ids.yml": transform("ids", "SELECT id FROM transform.clean"),
}


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """A project whose files are what production was made of."""
    write_project(tmp_path, FILES)
    project = Project(tmp_path)
    project.ok("run")
    return project


def section(answer: Answer, heading: str) -> list[str]:
    """The lines below a heading, up to the next blank line or heading."""
    lines = answer.stdout.splitlines()
    start = lines.index(heading) + (2 if heading in ("Modified:", "New:", "Deleted:") else 1)
    body = []
    for line in lines[start:]:
        if not line:
            break
        body.append(line)
    return body


def test_files_as_production_knows_them_have_no_changes(shop: Project) -> None:
    before = shop.state()
    answer = shop.ok("diff")
    assert "No changes detected" in answer.stdout
    assert shop.seeknal("diff", "--exit-code").code == 0
    assert "No changes detected" in shop.ok("diff", "--stat").stdout
    assert shop.kept_state() == {name: held for name, held in before.items() if name in shop.kept_state()}


def test_a_changed_node_shows_its_lines_and_what_that_means(shop: Project) -> None:
    shop.replace("seeknal/clean.yml", "  amount\n", "  amount,\n    1 AS one\n")
    answer = shop.ok("diff")
    assert section(answer, "Modified:") == [
        "transform.clean [NON_BREAKING] +2 -1",
        "--- seeknal/clean.yml (production)",
        "+++ seeknal/clean.yml (files)",
        "@@ -3,6 +3,7 @@",
        " transform: |",
        "   SELECT",
        "     id,",
        "-    amount",
        "+    amount,",
        "+    1 AS one",
        "   FROM source.orders",
        "   WHERE amount > 0",
    ]
    assert answer.stdout.splitlines()[-1] == "1 modified"
    assert shop.seeknal("diff", "--exit-code").code == 1


def test_comments_and_spaces_in_the_sql_are_shown_as_metadata(shop: Project) -> None:
    shop.replace("seeknal/clean.yml", "  id,\n", "  id,   -- the key\n")
    lines = section(shop.ok("diff"), "Modified:")
    assert lines[0] == "transform.clean [METADATA] +1 -1"
    assert "+    id,   -- the key" in lines


def test_the_layout_of_a_file_is_no_change(shop: Project) -> None:
    shop.write(
        "seeknal/orders.yml",
        "# The orders.\ntable:   'data/orders.csv'\nschema: [{data_type: integer, name: id}, {data_type: float, name: "
        'amount}]\nname: "orders"\nkind: source\nsource: csv\ndescription: >-\n  What\n  was ordered\n',
    )
    assert "No changes detected" in shop.ok("diff").stdout


def test_a_removed_column_is_breaking_and_names_whom_it_reaches(shop: Project) -> None:
    shop.replace("seeknal/clean.yml", "    id,\n", "")
    answer = shop.ok("diff", "transform.clean")
    assert "-    id," in answer.stdout
    assert "Category: BREAKING" in answer.stdout
    assert any("id" in line for line in section(answer, "Details:"))
    impact = section(answer, "Downstream impact:")
    assert len(impact) == 2
    assert any(line.startswith("  - transform.totals [BREAKING]") for line in impact)
    assert any("transform.ids [BREAKING]: References missing column 'id'" in line for line in impact)


def test_queries_that_do_not_bind_are_a_warning_and_no_obstacle(shop: Project) -> None:
    shop.replace("seeknal/clean.yml", "  amount\n", "  amount AS amuont\n")
    answer = shop.seeknal("diff")
    assert answer.code == 0
    assert "seeknal/totals.yml" in answer.stderr
    assert "transform.clean [BREAKING] +1 -1" in section(answer, "Modified:")


def test_a_change_is_judged_by_itself_and_not_by_what_happens_upstream(shop: Project) -> None:
    shop.replace("seeknal/clean.yml", "    id,\n", "")
    shop.replace("seeknal/totals.yml", "name: totals", "name: totals\ndescription: All of it")
    assert "transform.totals [METADATA] +1 -0" in shop.ok("diff").stdout


def test_a_changed_node_that_does_not_work_any_more_is_breaking(shop: Project) -> None:
    shop.replace("seeknal/totals.yml", "sum(amount)", "sum(nothing)")
    assert "transform.totals [BREAKING] +1 -1" in shop.ok("diff").stdout


def test_new_and_deleted_nodes_are_listed_and_counted(shop: Project) -> None:
    (shop.root / "seeknal/ids.yml").unlink()
    shop.write("seeknal/more.yml", transform("more", "SELECT 1 AS a"))
    answer = shop.ok("diff")
    assert section(answer, "New:") == ["transform.more [NON_BREAKING] +4 -0"]
    assert section(answer, "Deleted:") == ["transform.ids [NON_BREAKING] +0 -4"]
    assert answer.stdout.splitlines()[-1] == "1 new, 1 deleted"
    assert "-name: ids" in shop.ok("diff", "ids").stdout.splitlines()
    assert "+name: more" in shop.ok("diff", "transforms/more").stdout.splitlines()


def test_deleting_what_others_read_is_breaking(shop: Project) -> None:
    (shop.root / "seeknal/clean.yml").unlink()
    shop.write("seeknal/totals.yml", transform("totals", "SELECT sum(amount) AS total FROM source.orders"))
    shop.write("seeknal/ids.yml", transform("ids", "SELECT id FROM source.orders"))
    assert section(shop.ok("diff"), "Deleted:") == ["transform.clean [BREAKING] +0 -8"]


def test_stat_is_one_line_for_each_node_and_a_total(shop: Project) -> None:
    shop.replace("seeknal/clean.yml", "    id,\n", "")
    shop.write("seeknal/more.yml", transform("more", "SELECT 1 AS a"))
    lines = [line.split() for line in shop.ok("diff", "--stat").stdout.splitlines()]
    assert lines == [
        ["transform.clean", "|", "+0", "-1", "[BREAKING]"],
        ["transform.more", "|", "+4", "-0", "[NON_BREAKING]", "new"],
        "2 nodes changed, 4 line(s) added, 1 removed".split(),
    ]


def test_a_type_narrows_what_is_shown_and_what_counts(shop: Project) -> None:
    shop.replace("seeknal/clean.yml", "    id,\n", "")
    assert "transform.clean" in shop.ok("diff", "--type", "transform").stdout
    assert "transform.clean" in shop.ok("diff", "-t", "sources,transforms").stdout
    assert "No changes detected" in shop.ok("diff", "--type", "source", "--exit-code").stdout
    wrong = shop.seeknal("diff", "--type", "transfrom")
    assert wrong.code == 1
    assert "'transform'" in wrong.stderr


def test_a_node_that_did_not_change_says_what_reaches_it(shop: Project) -> None:
    shop.replace("seeknal/clean.yml", "    id,\n", "")
    answer = shop.ok("diff", "totals", "--exit-code")
    assert "No changes detected" in answer.stdout
    assert "A change upstream reaches it: BREAKING" in answer.stdout


def test_a_file_that_moved_is_shown_as_moved(shop: Project) -> None:
    (shop.root / "seeknal/clean.yml").rename(shop.root / "seeknal/cleaned.yml")
    lines = section(shop.ok("diff"), "Modified:")
    assert lines == [
        "transform.clean [METADATA] +0 -0",
        "  file_path: Moved from 'seeknal/clean.yml' to 'seeknal/cleaned.yml'",
    ]


def test_columns_that_changed_in_the_data_are_shown_without_a_changed_line(tmp_path: Path) -> None:
    undeclared = "kind: source\nname: raw\nsource: csv\ntable: data/raw.csv\n"
    write_project(tmp_path, {"data/raw.csv": "a,b\n1,2\n", "seeknal/raw.yml": undeclared})
    project = Project(tmp_path)
    project.ok("run")
    write(tmp_path, "data/raw.csv", "a,c\n1,2\n")
    lines = section(project.ok("diff"), "Modified:")
    assert lines[0] == "source.raw [BREAKING] +0 -0"
    assert any("b" in line and "REMOVED" in line for line in lines[1:])


def test_where_production_was_never_run_every_node_is_new(tmp_path: Path) -> None:
    write_project(tmp_path, FILES)
    answer = Project(tmp_path).ok("diff")
    assert len(section(answer, "New:")) == 4
    assert "never run" in answer.stderr
    assert not (tmp_path / "target").exists()


def test_an_unknown_node_is_an_error_with_the_nearest(shop: Project) -> None:
    answer = shop.seeknal("diff", "transform.claen")
    assert answer.code == 1
    assert answer.errors == ["no node is called 'transform.claen'"]
    assert "'transform.clean'" in answer.stderr


def test_files_that_cannot_be_parsed_are_an_error_without_a_traceback(shop: Project) -> None:
    shop.write("seeknal/clean.yml", "kind: transform\nname: [\n")
    answer = shop.seeknal("diff")
    assert answer.code == 1
    assert "seeknal/clean.yml" in answer.errors[0]
    assert "Traceback" not in answer.text
