"""Delivery: what exposures rendered reaches its place outside the store.

An exposure's content was rendered into the store when the node ran; delivering copies or sends it, after the
environment's ref has moved. Production delivers to the path or the URL that the exposure names, every other environment
to a file below ``target/environments/<env>/output/``: nothing of it goes to the network. What was delivered is
remembered, a file with its stat, so delivering twice writes or sends once, and a file that somebody changed or removed
is delivered again.

A delivery of several files (``partition_by``) replaces the files that the last delivery wrote there; other files in
that folder are left alone. Links are followed, and where they lead counts: not out of the project, unless its settings
allow that, and never into what is Seeknal's own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from seeknal.dag.manifest import Manifest, Node, NodeType
from seeknal.dag.names import PRODUCTION, one_on_some_disks
from seeknal.dag.parameters import RunParameters
from seeknal.dag.project import Project
from seeknal.dag.rendering import Renderer
from seeknal.errors import DeliveryError
from seeknal.nodes.delivered import delivered_blobs, is_as_left
from seeknal.nodes.exposure_type import ExposureSpec
from seeknal.nodes.file_exposure import output_path
from seeknal.nodes.http_request import RequestSettings, request_settings
from seeknal.nodes.late_value import LateValues
from seeknal.store.column_digests import digest_file
from seeknal.store.filesystem import digest_bytes, sync_folder
from seeknal.store.objects import Artifact, Blob, Deliveries, Delivery, Tree
from seeknal.store.store import Store
from seeknal.timeline import timed
from seeknal.workflow.events import Delivered, Listener, silent
from seeknal.workflow.limits import StopRequest


@timed("deliver")
def deliver(
    project: Project,
    store: Store,
    environment: str,
    manifest: Manifest,
    tree: Tree,
    only: Collection[str] | None = None,
    listener: Listener = silent,
    stop: StopRequest | None = None,
    parameters: RunParameters | None = None,
) -> list[DeliveryError]:
    """Deliver an environment's exposures (``only`` these nodes); gives an error for each that could not be.

    ``parameters`` are what templates in their paths and URLs are filled in with.

    An error's message begins with the node's id. Raises FormatTooNewError where a newer version delivered before.
    """
    remembered = store.read_deliveries(environment).nodes
    done = {node_id: files for node_id, files in remembered.items() if node_id in manifest.nodes}
    errors: list[DeliveryError] = []
    taken: dict[str, str] = {}
    renderer = Renderer(project, parameters or RunParameters())
    for node_id, node in manifest.nodes.items():
        entry = tree.nodes.get(node_id)
        if node.node_type is not NodeType.EXPOSURE or entry is None or entry.stale:
            continue
        try:
            spec = _spec(renderer, node)
        except DeliveryError as error:
            errors.append(error)
            continue
        request = None if spec.type == "file" else request_settings(spec)
        sends = request is not None and environment == PRODUCTION
        place = delivery_path(project, environment, output_path(spec) or f"{spec.type}/{node.name}.json")
        other = node_id if sends else taken.setdefault(one_on_some_disks(os.path.realpath(place)), node_id)
        if only is not None and node_id not in only:
            continue
        before, files = remembered.get(node_id, {}), dict[str, Delivery]()
        try:
            if other != node_id:
                raise DeliveryError(f"{node_id}: {place} is where {other} is delivered to", hint="change one's path")
            if request is not None and sends:
                # Without what is new in every run: for that alone nothing is sent again.
                url = request_settings(_spec(renderer, node, real=False)).url
                note = _Note(store, environment, {**done, node_id: before})
                if _send_node(store, node_id, request, url, entry.artifact, before, files, note, stop):
                    listener(Delivered(node_id, request.shown()))
                    store.write_deliveries(environment, Deliveries({**done, node_id: files}))
            elif _deliver_node(_Place(project, environment, node_id, place), store, entry.artifact, before, files):
                listener(Delivered(node_id, str(place), f"not sent: {request.shown()}" if request else ""))
            done[node_id] = files
        except DeliveryError as error:
            if sends:
                done[node_id] = {**before, **files}
            errors.append(error)
        except OSError as error:
            # What was written before that counts, so that the next delivery knows the files for its own.
            done[node_id] = {**before, **files}
            where = request.shown() if request is not None and sends else str(place)
            errors.append(_could_not_deliver(store, node_id, where, entry.artifact, error))
    if done != remembered:
        try:
            store.write_deliveries(environment, Deliveries(done))
        except OSError as error:
            new = [node_id for node_id in done if done[node_id] != remembered.get(node_id)]
            message = f"delivered, but that could not be noted: {error.strerror or error}"
            errors += [DeliveryError(f"{node_id}: {message}") for node_id in new]
    return errors


def delivery_path(project: Project, environment: str, path: str) -> Path:
    """Where an environment's delivery to ``path`` goes."""
    if environment == PRODUCTION:
        return project.root / path
    # A path out of the project would leave the environment's folder again.
    inner = Path(*[part for part in Path(path).parts if part not in ("..", "/")])
    return project.environment_folder(environment) / "output" / inner


def _spec(renderer: Renderer, node: Node, *, real: bool = True) -> ExposureSpec:
    """The fields of an exposure, their templates filled in. Raises DeliveryError."""
    rendered = renderer.render({"kind": node.kind, "name": node.name, **node.config}, real=real)
    for problem in rendered.problems:
        raise DeliveryError(f"{node.id}: {problem.message}", hint=problem.hint)
    config = rendered.values
    own = {field: config[field] for field in ExposureSpec.__struct_fields__ if config.get(field) is not None}
    return msgspec.convert(own, ExposureSpec)


class _Note:
    """Notes what was sent as soon as it was: what is forgotten in a crash would be sent again.

    Of very many small requests not each is noted: no more than a tenth of the time is for that.
    """

    def __init__(self, store: Store, environment: str, known: Mapping[str, Mapping[str, Delivery]]) -> None:
        self._store = store
        self._environment = environment
        self._known = known
        self._not_before = 0.0

    def __call__(self, node_id: str, files: Mapping[str, Delivery]) -> None:
        began = time.monotonic()
        if began < self._not_before:
            return
        nodes = {name: dict(known) for name, known in self._known.items()}
        nodes[node_id] = {**nodes.get(node_id, {}), **files}
        self._store.write_deliveries(self._environment, Deliveries(nodes))
        now = time.monotonic()
        self._not_before = now + 10 * (now - began)


def _send_node(
    store: Store,
    node_id: str,
    request: RequestSettings,
    url: str,
    artifact: Artifact,
    remembered: Mapping[str, Delivery],
    files: dict[str, Delivery],
    note: _Note,
    stop: StopRequest | None,
) -> bool:
    """Send what was not sent yet of a node, noting it in ``files``; says whether that was anything.

    ``url`` is what tells whether it goes where it went before.

    The key of a request covers all that the node delivers, so where one of several bodies changed, all are sent again;
    where one could not be sent, the next run begins with that one. Raises DeliveryError, OSError.
    """
    from seeknal.workflow.http_delivery import send

    content = "/".join(f"{name}:{blob.digest}" for name, blob in artifact.side_blobs)
    sent = False
    for name, blob in delivered_blobs(artifact):
        key = digest_bytes("\0".join((node_id, request.method, url, content, name)).encode())
        known = remembered.get(name)
        if known is None or known.digest != key:
            path = store.blob_path(blob)
            if digest_file(path)[0] != blob.digest:
                raise OSError(errno.EIO, "its blob in the store is damaged")
            try:
                send(request, path, key, LateValues(os.environ), stop)
            except DeliveryError as error:
                raise DeliveryError(f"{node_id}: {error.message}", hint=error.hint) from error
            known = Delivery(request.shown(), key, blob.size_bytes, 0, time.time())
            sent = True
            files[name] = known
            note(node_id, files)
        files[name] = known
    return sent


def _could_not_deliver(store: Store, node_id: str, place: str, artifact: Artifact, error: OSError) -> DeliveryError:
    fault = store.find_fault(artifact)
    if fault:
        return DeliveryError(f"{node_id}: its output {fault}", hint="`seeknal run` builds it again")
    reason = error.strerror or str(error)
    return DeliveryError(f"{node_id}: could not write {place}: {reason}", hint="fix that and run again")


class _Place:
    """Where a node's files go: the path that it names, and the folders that links must not lead out of, or into."""

    def __init__(self, project: Project, environment: str, node_id: str, path: Path) -> None:
        self.path = path
        self._node_id = node_id
        self._free = project.settings.allow_external_paths
        own = Path(os.path.realpath(project.target))
        if environment == PRODUCTION:
            self._inside, self._outside = Path(os.path.realpath(project.root)), own
        else:
            output = project.environment_folder(environment).relative_to(project.target) / "output"
            self._inside, self._outside = own / output, own / "store"

    def named(self, name: str) -> Path:
        """The path of one of the files; an exposure of one file calls it by the empty name."""
        return self.path / name if name else self.path

    def real(self, name: str) -> Path:
        """The file that a path means, links followed. Raises DeliveryError where that one may not be written."""
        path = self.named(name)
        real = Path(os.path.realpath(path))
        if real.is_relative_to(self._outside):
            raise DeliveryError(f"{self._node_id}: {path} leads into target/, which is Seeknal's own")
        if not self._free and not real.is_relative_to(self._inside):
            raise DeliveryError(
                f"{self._node_id}: {path} leads out of the project, to {real}",
                hint="set `allow_external_paths: true` in seeknal_project.yml",
            )
        return real


def _deliver_node(
    place: _Place, store: Store, artifact: Artifact, remembered: Mapping[str, Delivery], files: dict[str, Delivery]
) -> bool:
    """Bring a node's files to their place, noting them in ``files``; says whether any was written.

    Raises DeliveryError, OSError.
    """
    before = {name: known for name, known in remembered.items() if known.path == str(place.named(name))}
    wanted = dict(delivered_blobs(artifact))
    targets = {name: place.real(name) for name in wanted}
    if ("" in before) != ("" in wanted):
        # A file stands where a folder shall, or the other way round.
        _withdraw(place, before)
        before = {}
    wrote = False
    for name, blob in wanted.items():
        known = before.get(name)
        if known is None or known.digest != blob.digest or not is_as_left(known):
            known = _copy(store, blob, place.named(name), targets[name])
            wrote = True
        files[name] = known
    _withdraw(place, {name: known for name, known in before.items() if name not in wanted})
    return wrote


def _withdraw(place: _Place, files: Mapping[str, Delivery]) -> None:
    """Remove files that an earlier delivery wrote and nobody changed, and the folders that become empty."""
    for name, known in files.items():
        with contextlib.suppress(OSError, DeliveryError):
            if is_as_left(known):
                place.real(name).unlink()
                folder = place.named(name).parent
                while name and folder.is_relative_to(place.path):
                    folder.rmdir()
                    folder = folder.parent


def _copy(store: Store, blob: Blob, path: Path, real: Path) -> Delivery:
    """Copy a blob to its place in one step, so that a reader never sees half a file."""
    real.parent.mkdir(parents=True, exist_ok=True)
    # The same name each time, so that what a killed delivery leaves beside it is replaced by the next one.
    temporary = real.with_name(f".{digest_bytes(os.fsencode(real))}.part")
    try:
        temporary.unlink(missing_ok=True)
        shutil.copyfile(store.blob_path(blob), temporary)
        if digest_file(temporary)[0] != blob.digest:
            raise OSError(errno.EIO, "its blob in the store is damaged")
        os.chmod(temporary, 0o644)
        # Else a power cut could leave an empty file in the place of a good one.
        sync_folder(temporary)
        os.replace(temporary, real)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    stat = os.stat(real)
    return Delivery(str(path), blob.digest, stat.st_size, stat.st_mtime_ns)
