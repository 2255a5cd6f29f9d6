"""Delivery: exposures' files reach their place outside the store.

An exposure's content was rendered into the store when the node ran; delivering copies it, after the environment's ref
has moved. Production delivers to the path that the exposure names, every other environment to the same path below
``target/environments/<env>/output/``. What was delivered is remembered with the file's stat, so delivering twice
writes once, and a file that somebody changed or removed is delivered again.

A delivery of several files (``partition_by``) replaces the files that the last delivery wrote there; other files in that
folder are left alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from seeknal.dag.manifest import Manifest, NodeType
from seeknal.dag.names import PRODUCTION
from seeknal.dag.project import Project
from seeknal.errors import DeliveryError
from seeknal.nodes.exposure import ExposureSpec, output_path
from seeknal.store.filesystem import temporary_name
from seeknal.store.objects import Artifact, Blob, Deliveries, Delivery, Tree
from seeknal.store.store import Store
from seeknal.workflow.events import Delivered, Listener, silent


def deliver(
    project: Project,
    store: Store,
    environment: str,
    manifest: Manifest,
    tree: Tree,
    only: Collection[str] | None = None,
    listener: Listener = silent,
) -> list[DeliveryError]:
    """Deliver an environment's exposures (``only`` these nodes); gives an error for each that could not be."""
    remembered = store.read_deliveries(environment).nodes
    done = dict(remembered)
    errors = []
    for node_id, node in manifest.nodes.items():
        entry = tree.nodes.get(node_id)
        if node.node_type is not NodeType.EXPOSURE or entry is None or entry.stale:
            continue
        if only is not None and node_id not in only:
            continue
        spec = msgspec.convert(_own_fields(node.config), ExposureSpec)
        place = delivery_path(project, environment, output_path(spec))
        try:
            done[node_id] = _deliver_node(store, entry.artifact, place, remembered.get(node_id, {}), node_id, listener)
        except OSError as error:
            reason = f"{error.strerror or error}"
            errors.append(DeliveryError(f"{node_id}: could not write {place}: {reason}", hint="fix that and run again"))
    if done != remembered:
        store.write_deliveries(environment, Deliveries(done))
    return errors


def delivery_path(project: Project, environment: str, path: str) -> Path:
    """Where an environment's delivery to ``path`` goes."""
    if environment == PRODUCTION:
        return project.root / path
    # A path out of the project would leave the environment's folder again.
    inner = Path(*[part for part in Path(path).parts if part not in ("..", "/")])
    return project.environment_folder(environment) / "output" / inner


def _own_fields(config: dict[str, object]) -> dict[str, object]:
    return {field: config[field] for field in ExposureSpec.__struct_fields__ if config.get(field) is not None}


def _deliver_node(
    store: Store,
    artifact: Artifact,
    place: Path,
    before: dict[str, Delivery],
    node_id: str,
    listener: Listener,
) -> dict[str, Delivery]:
    delivered: dict[str, Delivery] = {}
    wrote = False
    for name, blob in artifact.side_blobs:
        path = place / name if name else place
        known = before.get(name)
        if known is not None and known.path == str(path) and known.digest == blob.digest and _is_as_left(path, known):
            delivered[name] = known
            continue
        delivered[name] = _copy(store, blob, path)
        wrote = True
    for name, old in before.items():
        path = Path(old.path)
        if name not in delivered and name and _is_as_left(path, old):
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()
    if wrote:
        listener(Delivered(node_id, str(place)))
    return delivered


def _is_as_left(path: Path, known: Delivery) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (known.size_bytes, known.mtime_ns)


def _copy(store: Store, blob: Blob, path: Path) -> Delivery:
    """Copy a blob to its place in one step, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path.parent, ".part")
    temporary = temporary.with_name(f".{temporary.name}")
    try:
        shutil.copyfile(store.blob_path(blob), temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    stat = path.stat()
    return Delivery(str(path), blob.digest, stat.st_size, stat.st_mtime_ns)
