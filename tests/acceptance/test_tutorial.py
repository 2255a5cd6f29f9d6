"""The environment tutorial, typed by a new user: every command of it as it stands there, in a real shell."""

from __future__ import annotations

import re
import shutil
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

import pytest

from tests.acceptance.project import Answer, Project

VERIFY_INSTALLATION = """\
seeknal --version
seeknal --help | grep "env "
"""

INITIALIZE = """\
seeknal init --name env-tutorial --description "Environment management tutorial"
cd env-tutorial
pwd
"""

COPY_EXAMPLES = """\
# Copy the 8 example YAML files from the examples directory
cp -r /path/to/seeknal/examples/environment-management/* seeknal/

# Verify structure
tree seeknal/
"""

SAMPLE_DATA = """\
mkdir -p data

# Create orders.csv
cat > data/orders.csv << 'EOF'
order_id,customer_id,product_id,order_date,quantity,unit_price,total_amount,status
1,101,1001,2024-01-10,2,25.00,50.00,completed
2,102,1002,2024-01-11,1,100.00,100.00,completed
3,101,1003,2024-01-12,3,15.00,45.00,pending
EOF

# Create customers.csv
cat > data/customers.csv << 'EOF'
customer_id,email,first_name,last_name,country,signup_date,customer_segment
101,john@example.com,John,Doe,US,2024-01-01,premium
102,jane@example.com,Jane,Smith,UK,2024-01-02,standard
EOF

# Create inventory.csv
cat > data/inventory.csv << 'EOF'
product_id,product_name,category,stock_quantity,reorder_level,last_updated
1001,Widget A,Electronics,50,10,2024-01-15
1002,Widget B,Electronics,5,10,2024-01-15
1003,Widget C,Home,100,20,2024-01-15
EOF

ls -lh data/
"""

PLAN_OUTPUT = """\
Parsing project: env-tutorial
  Path: */env-tutorial
✓ Manifest generated: target/manifest.json
  Nodes: 8
  Edges: 7
"""

RUN_OUTPUT = """\
Seeknal Pipeline Execution
============================================================
  Project: env-tutorial
  Mode: Incremental
ℹ Building DAG from seeknal/ directory...
✓ DAG built: 8 nodes, 7 edges
ℹ No previous state found (first run)
ℹ Detecting changes...
ℹ Nodes to run: 8

Execution
============================================================
1/8: orders [[]RUNNING]
  SUCCESS in *s
  Rows: 3

2/8: customers [[]RUNNING]
  SUCCESS in *s
  Rows: 2

3/8: inventory [[]RUNNING]
  SUCCESS in *s
  Rows: 3

4/8: clean_orders [[]RUNNING]
  SUCCESS in *s
  Rows: 3

5/8: inventory_status [[]RUNNING]
  SUCCESS in *s
  Rows: 3

6/8: customer_enriched [[]RUNNING]
  SUCCESS in *s
  Rows: 2

7/8: daily_sales [[]RUNNING]
  SUCCESS in *s

8/8: warehouse_export [[]RUNNING]
  SUCCESS in *s

✓ State saved

Execution Summary
============================================================
  Total nodes:    8
  Executed:       8
  Duration:       *s
============================================================
"""

ADD_A_COLUMN = """\
cat > seeknal/04_transform_clean_orders.yml << 'EOF'
kind: transform
name: clean_orders
description: Clean and validate order data with discount calculation
owner: analytics-team
transform: |
  SELECT
    order_id,
    customer_id,
    product_id,
    order_date,
    quantity,
    unit_price,
    total_amount,
    UPPER(TRIM(status)) as status,
    CASE
      WHEN total_amount != (quantity * unit_price) THEN 'invalid'
      WHEN total_amount <= 0 THEN 'invalid'
      ELSE 'valid'
    END as validation_status,
    -- NEW: Calculate discount percentage
    CASE
      WHEN quantity >= 3 THEN 0.10
      WHEN quantity >= 2 THEN 0.05
      ELSE 0.00
    END as discount_pct
  FROM source.orders
  WHERE order_date IS NOT NULL
    AND customer_id IS NOT NULL
    AND total_amount > 0
inputs:
  - ref: source.orders
tags:
  - transformation
  - data-quality
EOF
"""

PLAN_DEV_OUTPUT = """\
Environment Plan: dev
============================================================
  Base: production (latest state)
  Target: seeknal/ directory (current state)

Change Detection
============================================================
ℹ Analyzing 8 nodes...

Modified Nodes:
  1. clean_orders
     Category: NON_BREAKING
     Details:
       - transform: Added 'discount_pct' column

Downstream Impact:
  2. customer_enriched
     Reason: Depends on clean_orders
     Category: NON_BREAKING

  3. daily_sales
     Reason: Depends on clean_orders
     Category: NON_BREAKING

  4. warehouse_export
     Reason: Depends on customer_enriched
     Category: NON_BREAKING

Execution Plan:
============================================================
  Total nodes to rebuild: 4
  Breaking changes: 0
  Non-breaking changes: 4
  Metadata-only changes: 0

Nodes to Execute:
"""

# What reads no changed column is not executed: neither source.orders, nor what is downstream of clean_orders.
APPLY_OUTPUT = """\
Applying Environment: dev
============================================================
ℹ Loading plan from: target/*dev*.json
ℹ Plan created: 20??-??-?? ??:??:?? UTC
ℹ Base state: production

Execution
============================================================
?/8: clean_orders [[]RUNNING]
  SUCCESS in *s
  Rows: 3

✓ Environment state saved: target/environments/dev/state.json

Execution Summary
============================================================
  Executed:       1
  Duration:       *s
============================================================
"""

APPLY_PARALLEL_OUTPUT = """\
Applying Environment: dev (parallel mode)
============================================================
ℹ Loading plan from: target/*dev*.json
ℹ Parallel workers: *

✓ Environment state saved*

Execution Summary
============================================================
  Duration:       *s*
============================================================
"""

LIST_OUTPUT = """\
Virtual Environments
============================================================
  Environment | Nodes | Last Updated        | Status
  ------------|-------|---------------------|---*
  dev         | 8     | 20??-??-?? ??:??:?? | applied
  prod        | 8     | 20??-??-?? ??:??:?? | applied
"""

PROMOTE_OUTPUT = """\
Promoting Environment: dev → prod
============================================================
ℹ Source environment: dev
ℹ Target environment: prod
ℹ Comparing states...

Changes to Promote:
    - clean_orders (NON_BREAKING)

ℹ No breaking changes detected
✓ Safe to promote

✓ Production environment updated

Summary
============================================================
  Environment: prod
  Nodes updated: 1
  Breaking changes: 0
  Promoted at: 20??-??-?? ??:??:?? UTC
============================================================
"""

RENAME_A_COLUMN = """\
cat > seeknal/01_source_orders.yml << 'EOF'
kind: source
name: orders
description: E-commerce order transactions
owner: data-team
source: csv
table: data/orders.csv
params:
  delimiter: ","
  header: true
schema:
  - name: order_id
    data_type: integer
  - name: cust_id  # RENAMED: customer_id → cust_id
    data_type: integer
  - name: product_id
    data_type: integer
  - name: order_date
    data_type: date
  - name: quantity
    data_type: integer
  - name: unit_price
    data_type: float
  - name: total_amount
    data_type: float
  - name: status
    data_type: string
tags:
  - raw-data
  - sales
EOF
"""

PLAN_STAGING_OUTPUT = """\
Environment Plan: staging
============================================================

Change Detection
============================================================
Modified Nodes:
  1. orders
     Category: BREAKING
     Changed fields: schema
     Details:
       - schema.customer_id: REMOVED (column deleted)
       - schema.cust_id: ADDED (new column)

⚠ WARNING: Breaking changes detected!

Downstream Impact:
  2. clean_orders
     Reason: Depends on orders (BREAKING change)
     Category: BREAKING
     Impact: References missing column 'customer_id'*

  3. customer_enriched
     Reason: Depends on clean_orders*
     Category: BREAKING

  4. daily_sales
     Reason: Depends on clean_orders*
     Category: BREAKING

  5. warehouse_export
     Reason: Depends on customer_enriched*
     Category: BREAKING

Execution Plan:
============================================================
  Total nodes to rebuild: 5
  Breaking changes: 5
  Non-breaking changes: 0

⚠ Action Required:
  - Update downstream transforms to use 'cust_id' instead of 'customer_id'
  - Review all SQL queries referencing this column
  - Test thoroughly before promoting to production
"""

RUN_PARALLEL = """\
# Restore original schema (revert breaking change)
git restore seeknal/01_source_orders.yml

# Run with parallel execution
seeknal run --parallel
"""

PARALLEL_OUTPUT = """\
Seeknal Pipeline Execution (Parallel Mode)
============================================================
  Project: env-tutorial
  Mode: Incremental
  Parallelism: enabled
  Max workers: *

ℹ Building DAG from seeknal/ directory...
✓ DAG built: 8 nodes, 7 edges
ℹ Loaded previous state
ℹ Detecting changes...
"""

# The tutorial's picture of this run: four batches, the widest of three nodes.
FULL_PARALLEL_OUTPUT = """\
  Mode: Full
ℹ Nodes to run: 8

Execution
============================================================
✓ State saved*
Execution Summary
============================================================
  Total nodes:    8
  Executed:       8
  Duration:       *s*
  Batches:        4
  Max concurrent: ? nodes
============================================================
"""

MAX_WORKERS = """\
# Use 8 parallel workers
seeknal run --parallel --max-workers 8

# Use 2 parallel workers (conservative)
seeknal run --parallel --max-workers 2
"""

STATE_FILE = """\
# Show state file
cat target/environments/dev/state.json | python -m json.tool | head -20
"""


def examples() -> Path:
    """The folder that stands for /path/to/seeknal/examples: what the package ships."""
    return Path(str(files("seeknal.cli").joinpath("examples")))


def shows(answer: Answer, expected: str) -> None:
    """Check success, and that stdout has these lines in this order; `*` and `?` stand for what differs by run."""
    assert answer.code == 0, answer.text
    lines = iter(answer.stdout.splitlines())
    for wanted in filter(None, expected.splitlines()):
        assert any(fnmatchcase(line, wanted) for line in lines), f"no {wanted!r}, or too early, in:\n{answer.stdout}"


@pytest.fixture
def tutorial(tmp_path: Path) -> Project:
    """The project as it is at the end of part 1."""
    made = Project(tmp_path).shell(INITIALIZE)
    assert made.code == 0, made.text
    root = tmp_path / "env-tutorial"
    assert made.stdout.splitlines()[-1] == str(root)
    project = Project(root)
    # Not every machine has `tree`.
    tree = 'command -v tree > /dev/null || tree() { find "$1"; }\n'
    copied = project.shell(tree + COPY_EXAMPLES.replace("/path/to/seeknal/examples", str(examples())))
    assert copied.code == 0, copied.text
    made = project.shell(SAMPLE_DATA)
    assert made.code == 0, made.text
    return project


def commit_to_git(project: Project) -> None:
    done = project.shell(
        "git init --quiet && git add --all\n"
        "git -c user.name=you -c user.email=you@example.com commit --quiet --message first"
    )
    assert done.code == 0, done.text


def test_the_installation_is_verified_as_the_tutorial_says(tmp_path: Path) -> None:
    answer = Project(tmp_path).shell(VERIFY_INSTALLATION)
    assert answer.code == 0, answer.text
    assert re.match(r"seeknal, version \d+\.\d+", answer.stdout)
    for command in ("env plan", "env apply", "env promote"):
        assert command in answer.stdout


def test_part_1_makes_a_project_with_the_eight_files(tutorial: Project) -> None:
    assert sorted(path.name for path in (tutorial.root / "seeknal").glob("*.yml")) == [
        "01_source_orders.yml",
        "02_source_customers.yml",
        "03_source_inventory.yml",
        "04_transform_clean_orders.yml",
        "05_transform_customer_enriched.yml",
        "06_transform_inventory_status.yml",
        "07_aggregation_daily_sales.yml",
        "08_exposure_warehouse.yml",
    ]
    assert "Environment management tutorial" in tutorial.read("seeknal_project.yml")
    data = sorted(path.name for path in (tutorial.root / "data").iterdir())
    assert data == ["customers.csv", "inventory.csv", "orders.csv"]


def test_parts_2_to_7_plan_run_apply_and_promote_as_shown(tutorial: Project) -> None:
    shows(tutorial.shell("seeknal plan"), PLAN_OUTPUT)
    assert len(tutorial.json("target/manifest.json")["nodes"]) == 8
    # The other names of a command, here and below, need no process of their own.
    shows(tutorial.type_in("seeknal parse"), PLAN_OUTPUT)
    shows(tutorial.shell("seeknal run"), RUN_OUTPUT)
    assert (tutorial.root / "output" / "warehouse_export.parquet").is_file()

    assert tutorial.shell(ADD_A_COLUMN).code == 0
    shows(tutorial.shell("seeknal plan dev"), PLAN_DEV_OUTPUT)
    shows(tutorial.type_in("seeknal env plan dev"), PLAN_DEV_OUTPUT)
    for saved in ("target/plans/dev.json", "target/environments/dev/plan.json"):
        assert tutorial.json(saved)["categorized_changes"]["transform.clean_orders"] == "non_breaking"

    shows(tutorial.shell("seeknal run --env dev"), APPLY_OUTPUT)
    assert [float(row["discount_pct"]) for row in tutorial.rows("transform.clean_orders", "dev")] == [0.05, 0, 0.1]
    assert "discount_pct" not in tutorial.rows("transform.clean_orders")[0]
    shows(tutorial.shell("seeknal run --env dev --parallel"), APPLY_PARALLEL_OUTPUT)
    shows(tutorial.type_in("seeknal env apply dev"), "Applying Environment: dev\n")
    shows(tutorial.type_in("seeknal env apply dev --parallel"), "Applying Environment: dev (parallel mode)\n")

    shows(tutorial.shell("seeknal env list"), LIST_OUTPUT)
    state = tutorial.shell(STATE_FILE)
    assert state.code == 0, state.text
    assert len(state.stdout.splitlines()) == 20
    assert "transform.clean_orders" in tutorial.json("target/environments/dev/state.json")["nodes"]

    shows(tutorial.shell("seeknal promote dev"), PROMOTE_OUTPUT)
    assert [float(row["discount_pct"]) for row in tutorial.rows("transform.clean_orders")] == [0.05, 0, 0.1]
    shows(tutorial.type_in("seeknal env promote dev prod"), "Promoting Environment: dev → prod\n  Nodes updated: 0\n")
    shows(tutorial.shell("seeknal env list"), LIST_OUTPUT.replace("| applied", "| promoted"))
    shows(tutorial.shell("seeknal run"), "✓ No changes detected. Nothing to run.\n  Cached:         8\n")


@pytest.mark.skipif(shutil.which("git") is None, reason="the tutorial undoes its change with git")
def test_parts_8_and_9_show_the_breaking_change_and_run_in_parallel(tutorial: Project) -> None:
    commit_to_git(tutorial)
    shows(tutorial.shell("seeknal run"), "✓ State saved\n")
    assert tutorial.shell(RENAME_A_COLUMN).code == 0
    shows(tutorial.shell("seeknal plan staging"), PLAN_STAGING_OUTPUT)
    shows(tutorial.type_in("seeknal env plan staging"), PLAN_STAGING_OUTPUT)

    # Nothing changed since, so nothing runs; to run all eight again takes --full.
    shows(tutorial.shell(RUN_PARALLEL), PARALLEL_OUTPUT + "✓ No changes detected. Nothing to run.\n")
    shows(tutorial.type_in("seeknal run --parallel --full"), FULL_PARALLEL_OUTPUT)
    shows(tutorial.shell(MAX_WORKERS), "  Max workers: 8\n  Max workers: 2\n")
    shows(tutorial.shell("seeknal env delete staging"), "✓ Environment 'staging' deleted\n")
    assert not (tutorial.root / "target" / "environments" / "staging").exists()
