"""Views: the store in the shape that people and other tools look for, as links and small JSON files.

Made after a ref moved and never read back as truth. A tree's view is a folder of links, built once per tree; an
environment's ``cache`` and ``intermediate`` are one link each into it, so a promotion repoints a handful of links,
whatever the number of nodes.

    target/manifest.json  run_state.json  cache/<kind>/<name>.parquet  intermediate/<kind>_<name>.parquet
    target/intermediate/feature_group_<name>_meta.json  feature_store/<entity>/features.parquet  _entity_catalog.json
    target/models/<name>_<algorithm>.skops  <name>_<algorithm>.json
    target/environments/<env>/…  the same, with env_config.json  plan.json  refs.json  state.json
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seeknal.dag.names import PRODUCTION
from seeknal.dag.project import Project
from seeknal.errors import DeliveryError, way_out_of
from seeknal.json_document import Computed, indented_pieces
from seeknal.store.filesystem import leads_elsewhere, link_atomically, temporary_name, write_atomically
from seeknal.store.objects import Blob, EnvironmentRecord, Snapshot, Tree, TreeEntry
from seeknal.store.store import Store
from seeknal.timeline import timed
from seeknal.version import __version__
from seeknal.workflow.events import Listener, Warned, silent

FEATURE_STORE = "feature_store"
MODELS = "models"


def timestamp(seconds: float) -> str:
    """A time as the documents of the project show it: UTC, ``2026-02-09T10:00:00``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def shown_time(seconds: float) -> str:
    """A time as people are told it: ``2026-02-09 10:00:00 UTC``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@timed("show")
def show_environment(
    project: Project,
    store: Store,
    environment: str,
    snapshot: Snapshot,
    tree: Tree | None = None,
    listener: Listener = silent,
) -> list[DeliveryError]:
    """Point an environment's links at a snapshot. Gives an error for each that the disk did not take.

    What stands in their way and is none of Seeknal's is left there, with a warning to the listener.
    """
    view = store.view_folder(snapshot.tree)
    folder = project.environment_folder(environment)
    try:
        if tree is not None and view.is_dir() and not is_whole(view, tree):
            _remove(store, view)
        if not view.is_dir():
            _build(store, view, tree if tree is not None else store.read_tree(snapshot.tree))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return [_not_shown(folder, error)]
    links = shown_links(project, store, environment, snapshot)
    errors = []
    for name in (FEATURE_STORE, MODELS):
        if name not in links and (folder / name).is_symlink() and not leads_elsewhere(folder / name, store.root):
            try:
                (folder / name).unlink(missing_ok=True)
            except OSError as error:
                errors.append(_not_shown(folder / name, error))
    for name, target in links.items():
        try:
            show_link(store, target, folder / name, listener)
        except OSError as error:
            errors.append(_not_shown(folder / name, error))
    return errors


def show_link(store: Store, target: Path, link: Path, listener: Callable[[Warned], None]) -> None:
    """Make a link that shows something in the store. What is none of ours is left there, with a warning.

    Raises OSError.
    """
    try:
        link_atomically(target, link, store.temporary_folder, ours=store.root)
    except FileExistsError as error:
        if error.filename != str(link):
            raise
        text = f"{link} is none of Seeknal's ({error.strerror}), so it is left there, and shows nothing"
        listener(Warned(f"{text}; move it away, or let `seeknal store verify --repair` do that"))


def shown_links(project: Project, store: Store, environment: str, snapshot: Snapshot) -> dict[str, Path]:
    """The links that show a snapshot in an environment's folder, whose view is built: name → where they lead."""
    view = store.view_folder(snapshot.tree)
    links = {
        "cache": view / "cache",
        "intermediate": view / "intermediate",
        "run_state.json": view / "run_state.json",
        "manifest.json": store.manifest_path(snapshot.manifest),
    }
    if environment != PRODUCTION:
        links["state.json"] = project.environment_folder(environment) / "run_state.json"
    return links | {name: view / name for name in (FEATURE_STORE, MODELS) if (view / name).is_dir()}


def _not_shown(path: Path, error: OSError) -> DeliveryError:
    where = f" ({error.filename})" if error.filename else ""
    reason = f"{error.strerror or error}{where}"
    return DeliveryError(
        f"{path} does not show this environment: {reason}", hint=way_out_of(error) or "fix that and try again"
    )


def _remove(store: Store, folder: Path) -> None:
    """Take a folder away in one step, then its files. Raises OSError."""
    doomed = temporary_name(store.temporary_folder)
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def is_whole(view: Path, tree: Tree) -> bool:
    """Say whether a view has all its links: people clean up in folders that they find."""
    parts = sum(len(entry.artifact.parts) for entry in tree.nodes.values())
    models = sum(len(model_files(node_id, entry)) for node_id, entry in tree.nodes.items())
    groups = sum(is_feature_group(entry) for entry in tree.nodes.values())
    entities = [node_id.partition(".")[2] for node_id in tree.nodes if is_entity(node_id)]
    try:
        kinds = [entry.path for entry in os.scandir(view / "cache") if entry.is_dir()]
        shown = _links_in(view / "intermediate")
        stores = all(len(os.listdir(view / FEATURE_STORE / name)) == 2 for name in entities)
        stores = stores and (not models or len(os.listdir(view / MODELS)) == models)
        stores = stores and len(os.listdir(view / "intermediate")) == parts + groups
        return shown == parts == sum(map(_links_in, kinds)) and stores
    except OSError:
        return False


def _links_in(folder: Path | str) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.is_symlink() for entry in entries)


def _build(store: Store, view: Path, tree: Tree) -> None:
    """Build a tree's folder of links beside its place, then move it there in one step. Raises OSError."""
    building = temporary_name(store.temporary_folder)
    try:
        made: set[str] = set()
        for name in ("cache", "intermediate"):
            os.makedirs(building / name)
        for path, content in view_entries(store, view, tree):
            folder = path.rpartition("/")[0]
            if folder not in made:
                os.makedirs(building / folder, exist_ok=True)
                made.add(folder)
            if isinstance(content, str):
                os.symlink(content, f"{building}/{path}")
            else:
                _write(building / path, content)
        view.parent.mkdir(parents=True, exist_ok=True)
        os.rename(building, view)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        # Another process may have built the same tree's view first.
        if not view.is_dir():
            raise


def view_entries(store: Store, view: Path, tree: Tree) -> Iterator[tuple[str, Any]]:
    """Everything that stands in a tree's view: its path there, and where it leads (a text) or which document it is."""
    # Links are relative to where they will stand, not to where they are built.
    inside = len(str(store.root / "blobs"))
    blobs = os.path.relpath(store.root / "blobs", view)

    def linked(blob: Blob) -> str:
        return f"{blobs}{str(store.blob_path(blob))[inside:]}"

    for node_id, entry in tree.nodes.items():
        kind, _, name = node_id.partition(".")
        for number, part in enumerate(entry.artifact.parts):
            path = linked(part)
            ending = f".{number}.parquet" if number else ".parquet"
            yield f"cache/{kind}/{name}{ending}", f"../../{path}"
            yield f"intermediate/{kind}_{name}{ending}", f"../{path}"
        if is_feature_group(entry):
            yield f"intermediate/{kind}_{name}_meta.json", entry.artifact.metadata
        if is_entity(node_id):
            yield f"{FEATURE_STORE}/{name}/features.parquet", f"../../{linked(entry.artifact.parts[0])}"
            yield f"{FEATURE_STORE}/{name}/_entity_catalog.json", entity_catalog(tree, node_id)
        for file, blob in model_files(node_id, entry):
            yield f"{MODELS}/{file}", f"../{linked(blob)}"
    yield "run_state.json", run_state(tree)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        file.writelines(indented_pieces(document))


def model_files(node_id: str, entry: TreeEntry) -> list[tuple[str, Blob]]:
    """What a model's artifact holds beside its table, by the names it is shown under."""
    kind, _, name = node_id.partition(".")
    return [(f"{name}_{file}", blob) for file, blob in entry.artifact.side_blobs] if kind == "model" else []


def run_state(tree: Tree) -> dict[str, Any]:
    """The document ``run_state.json``: per node its state, as far as the tree tells."""

    def state(entry: TreeEntry) -> dict[str, Any]:
        artifact = entry.artifact
        return {
            "hash": entry.fingerprint,
            "fingerprint": entry.fingerprint,
            "last_run": timestamp(artifact.built_at),
            "status": "stale" if entry.stale else "success",
            "duration_ms": round(artifact.duration_seconds * 1000, 3),
            "row_count": artifact.row_count,
            "version": 1,
            "metadata": {"blobs": [blob.digest for blob in artifact.blobs()], **artifact.metadata},
            "completed_intervals": [],
            "completed_partitions": [],
            "restatement_intervals": [],
        }

    last = max((entry.artifact.built_at for entry in tree.nodes.values()), default=0.0)
    run_id = next((e.artifact.run_id for e in tree.nodes.values() if e.artifact.built_at == last), "")
    return {
        "schema_version": "2.0",
        "seeknal_version": __version__,
        "last_run": timestamp(last),
        "run_id": run_id,
        "config": {},
        "nodes": Computed(tree.nodes, state),
    }


def is_feature_group(entry: TreeEntry) -> bool:
    return "entity_name" in entry.artifact.metadata


def is_entity(node_id: str) -> bool:
    return node_id.startswith("entity.")


def entity_catalog(tree: Tree, node_id: str) -> dict[str, Any]:
    """The document ``_entity_catalog.json``: what an entity's table is made of, as far as the tree tells.

    ``row_count`` of a feature group counts its rows, ``superseded_rows`` those of them that a later row of the same key
    and time stands for.
    """
    entity = tree.nodes[node_id].artifact
    keys: list[str] = entity.metadata["join_keys"]
    groups: dict[str, Any] = {}
    for name, superseded in entity.metadata["superseded_rows"].items():
        entry = tree.nodes.get(f"feature_group.{name}")
        if entry is None:
            # It is gone from the project, and the entity was not made anew yet.
            continue
        group = entry.artifact
        event_time = group.metadata.get("event_time_col")
        own = {column.lower() for column in [*keys, *([event_time] if event_time else [])]}
        groups[name] = {
            "name": name,
            "features": [column for column in group.schema() if column.lower() not in own],
            "event_time_col": event_time,
            "last_updated": timestamp(group.built_at),
            "row_count": group.row_count,
            "superseded_rows": superseded,
            "schema": group.schema(),
        }
    return {
        "entity_name": node_id.partition(".")[2],
        "join_keys": keys,
        "feature_groups": groups,
        "consolidated_at": timestamp(entity.built_at),
        "schema_version": "1.0",
    }


def write_json(store: Store, path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file in one step."""
    store.prepare()
    write_atomically(path, indented_pieces(document), store.temporary_folder)


def show_record(project: Project, store: Store, record: EnvironmentRecord) -> None:
    """Write an environment's ``env_config.json``."""
    document = {
        "name": record.name,
        "created_at": timestamp(record.created_at),
        "last_accessed": timestamp(record.last_accessed),
        "promoted_from": record.promoted_from,
        "ttl_seconds": record.ttl_seconds,
        "status": record.status,
    }
    write_json(store, project.environment_folder(record.name) / "env_config.json", document)


def show_references(project: Project, store: Store, environment: str, tree: Tree, unchanged: Iterable[str]) -> None:
    """Write an environment's ``refs.json``: the production outputs that its unchanged nodes stand on."""

    def references() -> Iterator[dict[str, Any]]:
        for node_id in unchanged:
            entry = tree.nodes.get(node_id)
            if entry is not None and entry.artifact.parts:
                kind, _, name = node_id.partition(".")
                part = entry.artifact.parts[0]
                yield {
                    "node_id": node_id,
                    "output_path": f"target/cache/{kind}/{name}.parquet",
                    "fingerprint": part.digest,
                    "size_bytes": part.size_bytes,
                }

    write_json(store, project.environment_folder(environment) / "refs.json", {"refs": references()})


def hide_environment(project: Project, environment: str) -> None:
    """Remove an environment's folder of views and deliveries, and its plan. Production's stay. Raises OSError."""
    if environment == PRODUCTION:
        return
    folder = project.environment_folder(environment)
    if folder.is_dir():
        # In one step: half an environment is never seen, and a name in use by someone cannot fail us halfway.
        _remove(project.store(), folder)
    with contextlib.suppress(FileNotFoundError):
        (project.target / "plans" / f"{environment}.json").unlink()
