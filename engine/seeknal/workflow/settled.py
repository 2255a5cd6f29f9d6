"""The settled record: what production's last successful run rests on, so that a run with nothing to do takes a blink.

After a run of the whole project, every file that it depended on is remembered with its content digest: the project
file, the node files, the shared configuration, the sources' files, and what each pattern of a source matched; and what
its templates asked for: parameters, environment variables, the day. While all of that, the engine and
the ref are the same, a run would find every node cached; so it need not even parse the project. The record is a memo:
losing it costs time, and nothing is believed of it that was not checked again (blobs and deliveries included).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.dag.code_stamp import engine_stamp
from seeknal.dag.names import PRODUCTION
from seeknal.dag.project import Project, project_files
from seeknal.dag.python_stamp import python_stamp
from seeknal.errors import StoreError
from seeknal.nodes.check import results_of
from seeknal.nodes.delivered import delivered_blobs, is_as_left
from seeknal.store.file_memo import FileDigests
from seeknal.store.file_patterns import matching_files
from seeknal.store.filesystem import write_atomically
from seeknal.store.objects import FORMAT_VERSIONS, Tree, decode, encode
from seeknal.store.store import Store
from seeknal.workflow.results import NodeOutcome, RunResult, new_run_id
from seeknal.workflow.views import FEATURE_STORE, MODELS, is_whole

if TYPE_CHECKING:
    from seeknal.dag.parameters import GivenParameters, RunParameters


class Settled(msgspec.Struct, frozen=True):
    """What production's ``head`` rests on.

    ``files``: path → content digest; ``listings``: pattern → paths. ``given``: the names that templates asked for, with
    a digest of what the run was given under them; ``variables``: the same for environment variables. ``today``: the
    day, where that mattered. What was not given or not set has the empty digest. ``python``: the Python and the
    packages that the project's Python files were imported with; empty without any. ``checks``: node → the results of
    its checks. ``project`` is the project's name.
    """

    engine: str
    head: str
    files: dict[str, str]
    listings: dict[str, list[str]]
    edges: int
    published: bool
    warnings: list[str] = []
    given: dict[str, str] = {}
    variables: dict[str, str] = {}
    today: str = ""
    python: str = ""
    checks: dict[str, list[dict[str, Any]]] = {}
    project: str = ""


FORMAT_VERSIONS[Settled] = ("settled", 2)


def remember(store: Store, settled: Settled) -> None:
    """Keep the record of a run that left nothing to do. A disk that does not take it costs time, and is no error."""
    with contextlib.suppress(OSError):
        write_atomically(_path(store), encode(settled), store.temporary_folder)


def settled(
    head: str,
    digests: FileDigests,
    parameters: RunParameters,
    *,
    edges: int,
    published: bool,
    warnings: list[str],
    python: str = "",
    checks: dict[str, list[dict[str, Any]]],
    project: str,
) -> Settled:
    """Make the record of a run that stands at ``head``."""
    given = parameters.given.values()
    return Settled(
        engine_stamp(),
        head,
        digests.asked,
        digests.listings,
        edges,
        published,
        warnings,
        {name: _digest(given.get(name), head) for name in sorted(parameters.asked)},
        {name: _digest(value, head) for name, value in sorted(parameters.variables.items())},
        parameters.today.isoformat() if parameters.rests_on_today else "",
        python,
        checks,
        project,
    )


def settled_run(root: Path, *, publish: bool, given: GivenParameters | None = None) -> tuple[RunResult, Settled] | None:
    """The result of a plain run of production where there is nothing to do; None where there may be something.

    ``root`` is the project's folder. Its settings are not read: what they say stands while their file does.
    """
    started = time.perf_counter()
    project = Project(root)
    store = project.store()
    try:
        settled = decode(_path(store).read_bytes(), Settled, "the settled record")
        head = store.refs.read(PRODUCTION)
        if not settled.project or head is None or head != settled.head or settled.engine != engine_stamp():
            return None
        if store.read_failed(PRODUCTION).nodes:
            # A run failed since. One that looks at each node forgets what passes now.
            return None
        if not _parameters_stand(settled, given):
            return None
        if settled.python and settled.python != python_stamp():
            return None
        if not _files_stand(project, store, settled) or not _views_stand(project):
            return None
        snapshot = store.read_snapshot(head)
        tree = store.read_tree(snapshot.tree)
    except (OSError, StoreError):
        return None
    if not all(store.is_whole(entry.artifact) for entry in tree.nodes.values()):
        return None
    view = store.view_folder(snapshot.tree)
    shown = [name for name in (FEATURE_STORE, MODELS) if (view / name).is_dir()]
    if not is_whole(view, tree) or not all((project.target / name).exists() for name in shown):
        return None
    if publish and not (settled.published and _deliveries_stand(store, tree)):
        return None
    nodes = [
        NodeOutcome(
            node_id,
            "cached",
            "unchanged",
            entry.artifact.row_count,
            0.0,
            entry.fingerprint,
            entry.artifact,
            checks=results_of(settled.checks[node_id]) if node_id in settled.checks else (),
        )
        for node_id, entry in tree.nodes.items()
    ]
    seconds = time.perf_counter() - started
    return RunResult(new_run_id(), PRODUCTION, "success", seconds, nodes, head, finished_at=time.time()), settled


def _path(store: Store) -> Path:
    return store.root / "memo" / "settled"


def _files_stand(project: Project, store: Store, settled: Settled) -> bool:
    digests = FileDigests(store.root / "memo" / "files", store.temporary_folder)
    if not settled.files.keys() >= set(project_files(project)):
        return False
    if any(matching_files(pattern) != found for pattern, found in settled.listings.items()):
        return False
    stands = all(digests.digest(path)[0] == digest for path, digest in settled.files.items())
    digests.save()
    return stands


def _parameters_stand(settled: Settled, given: GivenParameters | None) -> bool:
    values = given.values() if given is not None else {}
    if given is not None and not given.params.keys() <= settled.given.keys():
        # Nobody asked for it; somebody has to say so.
        return False
    if any(_digest(values.get(name), settled.head) != digest for name, digest in settled.given.items()):
        return False
    if any(_digest(os.environ.get(name), settled.head) != digest for name, digest in settled.variables.items()):
        return False
    return settled.today in ("", time.strftime("%Y-%m-%d"))


def _digest(value: Any, salt: str) -> str:
    """What a value is known by: it may be a secret, and stands in a file.

    Not by the digest that everything else has, which of a short value can be computed back.
    """
    if value is None:
        return ""
    try:
        # By the name that needs no OpenSSL, which takes longer to import than all that is done here.
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return blake2b(msgspec.json.encode(value, order="deterministic"), digest_size=16, key=salt.encode()).hexdigest()


def _deliveries_stand(store: Store, tree: Tree) -> bool:
    delivered = store.read_deliveries(PRODUCTION).nodes
    for node_id, entry in tree.nodes.items():
        # What stands beside a table, as a model's file does, is not delivered; nor what a rule keeps.
        if not node_id.startswith("exposure."):
            continue
        for name, _ in delivered_blobs(entry.artifact):
            delivery = delivered.get(node_id, {}).get(name)
            if delivery is None or not is_as_left(delivery):
                return False
    return True


def _views_stand(project: Project) -> bool:
    names = ("cache", "intermediate", "manifest.json", "run_state.json")
    return all(os.path.islink(path) and os.path.exists(path) for path in (f"{project.target}/{name}" for name in names))
