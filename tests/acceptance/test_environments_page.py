"""What the page on virtual environments promises: its commands, its files, its error messages."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from seeknal.store.store import Store
from tests.acceptance.project import Project, example

CLEAN_ORDERS = "seeknal/04_transform_clean_orders.yml"


def change(project: Project, factor: int = 2) -> None:
    """Change what clean_orders computes."""
    project.write(CLEAN_ORDERS, re.sub(r"    total_amount\b.*,", f"    total_amount * {factor} AS total_amount,",
                                       project.read(CLEAN_ORDERS), count=1))  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, run in production, then changed in one node; to be copied."""
    project = example(tmp_path_factory.mktemp("built") / "shop")
    project.ok("run")
    change(project)
    return project.root


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Project:
    return Project(shutil.copytree(built, tmp_path / "shop", symlinks=True))


def amounts(project: Project, environment: str | None = None) -> list[float]:
    return [row["total_amount"] for row in project.rows("transform.clean_orders", environment)]


# the workflow


def test_individual_development_plans_runs_and_promotes(shop: Project) -> None:
    answer = shop.type_in("seeknal plan dev\nseeknal run --env dev\n# validate locally\nseeknal promote dev")
    assert answer.code == 0, answer.text
    assert amounts(shop) == [100.0, 200.0, 90.0]


def test_a_team_shares_staging_and_compares_it_with_production(shop: Project) -> None:
    shop.ok("plan", "staging")
    shop.ok("run", "--env", "staging", "--parallel", "--max-workers", "8")
    assert "staging" in shop.ok("env", "list").stdout
    assert "clean_orders" in shop.ok("diff").stdout
    assert amounts(shop) == [50.0, 100.0, 45.0]
    shop.ok("promote", "staging")
    assert amounts(shop) == [100.0, 200.0, 90.0]


def test_continuous_integration_uses_an_environment_per_commit(shop: Project) -> None:
    sha = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"
    shop.ok("plan", f"ci-{sha}")
    shop.ok("run", "--env", f"ci-{sha}", "--parallel")
    shop.ok("promote", f"ci-{sha}")
    assert amounts(shop) == [100.0, 200.0, 90.0]


@pytest.mark.parametrize("name", ["dev", "staging", "hotfix", "exp-ml", "test-1", "old-experiment"])
def test_the_names_of_the_conventions_are_allowed(shop: Project, name: str) -> None:
    shop.ok("plan", name)
    shop.ok("env", "delete", name)
    assert name not in shop.ok("env", "list").stdout


def test_plan_and_apply_by_their_older_names_do_the_same(shop: Project) -> None:
    shop.ok("env", "plan", "dev")
    shop.ok("env", "apply", "dev", "--parallel")
    shop.ok("env", "promote", "dev", "prod")
    assert amounts(shop) == [100.0, 200.0, 90.0]


# what stands where


def test_an_environments_folder_holds_what_the_page_draws(shop: Project) -> None:
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    production = shop.root / "target"
    assert all((production / name).exists() for name in ("manifest.json", "run_state.json", "cache"))
    folder = production / "environments" / "dev"
    for name in ("env_config.json", "plan.json", "manifest.json", "run_state.json", "refs.json"):
        assert shop.json(f"target/environments/dev/{name}"), name
    assert (folder / "cache" / "transform" / "clean_orders.parquet").is_file()
    # Isolated: each has its own definitions and its own data.
    assert shop.json("target/manifest.json") != shop.json("target/environments/dev/manifest.json")
    assert amounts(shop, "dev") == [100.0, 200.0, 90.0]
    assert amounts(shop) == [50.0, 100.0, 45.0]


def test_env_config_has_the_fields_of_the_page(shop: Project) -> None:
    shop.ok("plan", "dev")
    config = shop.json("target/environments/dev/env_config.json")
    assert config["name"] == "dev"
    assert config["promoted_from"] is None
    assert config["ttl_seconds"] == 604800
    for key in ("created_at", "last_accessed"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", config[key])


def test_refs_point_to_productions_unchanged_outputs_by_content(shop: Project) -> None:
    shop.ok("plan", "dev")
    refs = {entry["node_id"]: entry for entry in shop.json("target/environments/dev/refs.json")["refs"]}
    assert "transform.clean_orders" not in refs
    orders = refs["source.orders"]
    assert orders["output_path"] == "target/cache/source/orders.parquet"
    path = (shop.root / orders["output_path"]).resolve()
    assert path.is_file()
    assert orders["fingerprint"] == path.parent.name + path.stem
    before = shop.state("target/store/blobs")
    shop.ok("run", "--env", "dev")
    # Unchanged nodes are the very same files, not copies.
    assert (shop.root / "target/environments/dev/cache/source/orders.parquet").resolve() == path
    assert len(shop.state("target/store/blobs").keys() - before.keys()) < 8


def test_promoting_writes_no_data(shop: Project) -> None:
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    before = shop.state("target/store/blobs")
    shop.ok("promote", "dev")
    assert shop.state("target/store/blobs") == before


# the promotion chain


def test_a_change_moves_from_dev_to_staging_to_production(shop: Project) -> None:
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    answer = shop.type_in(
        "# dev → staging\nseeknal promote dev\nseeknal env promote dev staging\n\n"
        "# staging → production\nseeknal promote staging\n"
    )
    assert answer.code == 0, answer.text
    config = shop.json("target/environments/staging/env_config.json")
    assert config["name"] == "staging"
    assert config["promoted_from"] == "dev"
    assert config["last_accessed"]
    assert amounts(shop) == amounts(shop, "staging") == [100.0, 200.0, 90.0]


def test_staging_can_stand_between_dev_and_production(shop: Project) -> None:
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    shop.ok("env", "promote", "dev", "staging")
    assert amounts(shop, "staging") == [100.0, 200.0, 90.0]
    assert amounts(shop) == [50.0, 100.0, 45.0]
    shop.ok("promote", "staging")
    assert amounts(shop) == [100.0, 200.0, 90.0]
    statuses = {entry["name"]: entry["status"] for entry in shop.ok("env", "list", "--json").document["environments"]}
    assert statuses["staging"] == statuses["prod"] == "promoted"


# troubleshooting


def test_a_plan_older_than_the_files_is_stale(shop: Project) -> None:
    shop.ok("plan", "dev")
    assert len(shop.json("target/environments/dev/plan.json")["manifest_fingerprint"]) == 64
    change(shop, 3)
    before = shop.state()
    answer = shop.seeknal("run", "--env", "dev")
    assert answer.code == 4
    assert answer.errors == ["Plan is stale -- manifest has changed"]
    assert "seeknal plan dev" in answer.stderr
    assert "--force" in answer.stderr
    assert answer.stdout == ""
    assert shop.state() == before
    shop.ok("run", "--env", "dev", "--force")
    assert amounts(shop, "dev") == [150.0, 300.0, 135.0]


def test_planning_again_cures_a_stale_plan(shop: Project) -> None:
    shop.ok("plan", "dev")
    change(shop, 3)
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    assert amounts(shop, "dev") == [150.0, 300.0, 135.0]


@pytest.mark.parametrize("command", [("run", "--env", "dev"), ("promote", "dev"), ("env", "delete", "dev")])
def test_an_environment_that_was_never_planned_is_not_found(shop: Project, command: tuple[str, ...]) -> None:
    answer = shop.seeknal(*command)
    assert answer.code == 1
    assert answer.errors == ["Environment 'dev' not found"]
    assert "seeknal plan dev" in answer.stderr


def test_what_was_only_planned_is_not_promoted(shop: Project) -> None:
    shop.ok("plan", "dev")
    before = shop.state()
    answer = shop.seeknal("promote", "dev")
    assert answer.code == 1
    assert answer.errors == ["Environment 'dev' has not been applied"]
    assert "seeknal run --env dev" in answer.stderr
    assert shop.state() == before
    shop.ok("run", "--env", "dev")
    shop.ok("promote", "dev")


def test_an_expired_environment_is_marked_and_goes_with_cleanup_only(shop: Project) -> None:
    shop.ok("plan", "dev")
    shop.ok("plan", "old-experiment")
    store = Store(shop.root / "target" / "store")
    record = store.read_environment("old-experiment")
    assert record is not None
    eight_days_ago = time.time() - 8 * 24 * 3600
    store.write_environment(msgspec.structs.replace(record, last_accessed=eight_days_ago))
    assert re.search(r"old-experiment .*\(expired\)", shop.ok("env", "list").stdout)
    # Nothing is deleted behind anybody's back.
    assert (shop.root / "target/environments/old-experiment").is_dir()
    assert "'old-experiment' deleted" in shop.ok("env", "cleanup").stdout
    assert not (shop.root / "target/environments/old-experiment").exists()
    names = [entry["name"] for entry in shop.ok("env", "list", "--json").document["environments"]]
    assert names == ["dev", "prod"]
    assert "No expired environments" in shop.ok("env", "cleanup").stdout
    # Recreate it.
    shop.ok("plan", "old-experiment")
    shop.ok("run", "--env", "old-experiment")


def test_production_never_expires(shop: Project) -> None:
    production = shop.ok("env", "list", "--json").document["environments"][-1]
    assert production["name"] == "prod"
    assert production["expired"] is False


# what is to come


def test_profiles_of_environments_are_refused_as_not_available_yet(shop: Project) -> None:
    answer = shop.seeknal("env", "plan", "staging", "--profile", "profiles-staging.yml")
    assert answer.code == 2
    assert answer.errors == ["--profile is not available yet"]
    assert not (shop.root / "target/environments").exists()
