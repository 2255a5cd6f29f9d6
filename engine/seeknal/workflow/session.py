"""A session: one project opened for work. Parsed and analysed once, with its store at hand.

Everything that the command line and the Python API do with a project starts here: it reads what an environment stands
at, prepares runs against it, executes and commits them, and keeps the views, the deliveries and the run records in
step with the ref.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from seeknal.dag.code_stamp import reading_stamp
from seeknal.dag.inference import CompiledProject, Inference
from seeknal.dag.manifest import Manifest
from seeknal.dag.names import PRODUCTION
from seeknal.dag.parameters import GivenParameters, RunParameters
from seeknal.dag.parse import IncompleteProjectError, ParsedProject, parse_project
from seeknal.dag.project import Project, project_files
from seeknal.dag.project_memo import ProjectMemo
from seeknal.dag.python_stamp import python_stamp
from seeknal.errors import BusyError, CorruptObjectError, Problem, ProjectError
from seeknal.pipeline.node_state import keep_states
from seeknal.redaction import show_names
from seeknal.state.locks import Patience
from seeknal.store.file_memo import FileDigests
from seeknal.store.leases import Lease
from seeknal.store.memo import Memo
from seeknal.store.objects import FailedNodes, Tree
from seeknal.store.shared_trees import SharedTrees
from seeknal.store.store import Store
from seeknal.workflow.commit import commit, fingerprints_of, schemas_of
from seeknal.workflow.events import Listener, Warned, silent
from seeknal.workflow.forecast import forecast_run, waiting
from seeknal.workflow.heads import RUN_COMMAND, Head, environment_lock, read_head
from seeknal.workflow.limits import LARGE_NODES, StopRequest, give_back_memory
from seeknal.workflow.planning import ChangePlan, plan_change
from seeknal.workflow.resolution import Base, Resolver
from seeknal.workflow.results import Forecast, RunOptions, RunResult, new_run_id
from seeknal.workflow.selection import Selection, outputs_of, select
from seeknal.workflow.views import show_environment, show_link

if TYPE_CHECKING:
    from seeknal.workflow.execution import Run
    from seeknal.workflow.workers import Workers

# No node is expected to write one file for longer than this.
UNFINISHED_SECONDS = 2 * 24 * 3600

# From so many tables on, giving back the memory of those that binding made is worth a new connection.
FEW_TABLES = 50

EMPTY = Base(Tree({}), None)


class Session:
    """An opened project. Use it as a context manager, or close it."""

    def __init__(self, project: Project, parsed: ParsedProject, digests: FileDigests | None = None) -> None:
        self.project = project
        self.store = project.store()
        self.digests = digests or file_digests(self.store)
        self._of_files = digests is not None
        self._has_run = False
        self._read_heads: dict[str, Head] = {}
        self._shared = SharedTrees()
        with contextlib.ExitStack() as undo:
            # What this session finds in the store stays there while it is open.
            undo.enter_context(self.store.leases.hold("session", only_reading=True))
            self._heads = {name: _head_or_damage(self.store, name) for name in self.store.refs.names()}
            show_names(self._heads)
            self._inference = Inference(parsed, self.digests)
            self.compiled = CompiledProject(parsed, self._inference.analyse())
            self._open = undo.pop_all()

    @classmethod
    def open(cls, project: Project, given: GivenParameters | None = None) -> Session:
        """Parse and analyse a project, for runs that are given these parameters.

        Raises ProjectError for what is wrong with its files.

        Queries that do not bind stand in ``compiled.analysis.problems``; running raises them.
        """
        digests = file_digests(project.store())
        # Before parsing: a file that changes meanwhile then counts as changed.
        for path in project_files(project):
            with contextlib.suppress(OSError):
                digests.digest(path)
        memo = project_memo(project.store(), digests)
        try:
            parsed = parse_project(project, run_parameters(given), memo)
        except IncompleteProjectError as error:
            problems = [*error.problems(), *_problems_of(error.sound, digests)]
            if project.store().root.is_dir():
                # Whoever mends one file after the other need not wait for the others each time.
                project.store().prepare()
                memo.save()
            raise ProjectError(problems) from error
        for name in parsed.imported:
            with contextlib.suppress(OSError):
                digests.digest(project.root / name)
        return cls(project, parsed, digests)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()
        self._inference.close()
        if self.store.root.is_dir():
            self.store.prepare()
            self.digests.save()
            self.compiled.parsed.memo.save()

    def _rest(self, *, from_tables: int = 0) -> None:
        """Give back the memory that only reading and analysing the project take; running takes its own.

        ``from_tables``: as for :meth:`Inference.rest`.
        """
        drafts, analyses = self.compiled.parsed.drafts, self.compiled.analysis.nodes
        if all(node.schema or not drafts[name].implementation.makes_table for name, node in analyses.items()):
            # Otherwise more is to be bound when running tells what is not known yet.
            self._inference.rest(from_tables=from_tables)
        if self.store.root.is_dir():
            self.store.prepare()
            self.compiled.parsed.memo.rest()
        if len(drafts) >= LARGE_NODES:
            give_back_memory()

    @property
    def manifest(self) -> Manifest:
        return self.compiled.parsed.manifest

    @property
    def parameters(self) -> RunParameters:
        """What the next run is given."""
        return self.compiled.parsed.parameters

    def base(self, environment: str) -> Base:
        """What a run in an environment compares with: its own outputs, and production's where it has none."""
        own = self._head(environment)
        if environment == PRODUCTION:
            return Base(own.tree, own.manifest) if own else EMPTY
        production = self._head(PRODUCTION)
        entries = {**(production.tree.nodes if production else {}), **(own.tree.nodes if own else {})}
        manifest = own.manifest if own else production.manifest if production else None
        return Base(Tree(entries), manifest)

    def _head(self, environment: str) -> Head | None:
        """As :func:`read_head`; a state that was read before is not read again."""
        known = self._read_heads.get(self.store.refs.read(environment) or "")
        if known is not None:
            return known
        head = read_head(self.store, environment, self.manifest, self._shared)
        if head is not None:
            self._read_heads[head.digest] = head
        return head

    def prepare_run(
        self,
        environment: str,
        options: RunOptions,
        *,
        listener: Listener = silent,
        stop: StopRequest | None = None,
        workers: Workers | None = None,
    ) -> Run:
        """Make a run that can be forecast or executed. Raises ProjectError where the project does not type-check."""
        if options.run_id is not None or self._has_run:
            self.parameters.run_id = options.run_id or new_run_id()
        from seeknal.workflow.execution import Run

        return Run(
            self.compiled,
            self._inference,
            self.store,
            environment,
            self.base(environment),
            replace(options, run_id=self.parameters.run_id),
            listener=listener,
            stop=stop,
            workers=workers,
        )

    def plan(self, environment: str, options: RunOptions | None = None) -> ChangePlan:
        """Compare the project with production, and forecast a run in an environment where it type-checks."""
        # What compares queries has use for a connection.
        self._rest(from_tables=FEW_TABLES)
        production = self._head(PRODUCTION)
        runnable = not self.compiled.analysis.problems
        return plan_change(
            self.compiled,
            environment=environment,
            base=production.digest if production else None,
            base_manifest=production.manifest if production else None,
            base_schemas=schemas_of(production.tree) if production else {},
            base_fingerprints=fingerprints_of(production.tree) if production else {},
            forecast=self._forecast(environment, options or RunOptions()) if runnable else [],
            parser=self._inference.parser,
        )

    def _forecast(self, environment: str, options: RunOptions) -> list[Forecast]:
        """As a prepared run forecasts, without what only executing needs."""
        base = self.base(environment)
        selection = select(self.manifest, options.filters, outputs_of(self.store, base.tree, options.filters))
        resolver = self.resolver(base, selection, full=options.full)
        return forecast_run(waiting(self.compiled), resolver, selection, base, full=options.full)

    def show_manifest(self, listener: Callable[[Warned], None] = silent) -> None:
        """Make ``target/manifest.json`` show the project as its files are now."""
        self.store.prepare()
        path = self.store.write_manifest(self.manifest.fingerprint(), self.manifest.pieces())
        show_link(self.store, path, self.project.target / "manifest.json", listener)

    def resolver(self, base: Base, selection: Selection, *, full: bool) -> Resolver:
        """Make a resolver for nodes that somebody else drives, one by one."""
        drafts, analyses = self.compiled.parsed.drafts, self.compiled.analysis.nodes
        return Resolver(self.store, self._inference, drafts, analyses, base, selection, full=full)

    def run(
        self,
        environment: str,
        options: RunOptions,
        *,
        listener: Listener = silent,
        stop: StopRequest | None = None,
        workers: Workers | None = None,
        base_snapshot: str | None = None,
        publish: bool = True,
        lease: Lease | None = None,
    ) -> RunResult:
        """Run the project in an environment, and move its ref where that succeeded.

        ``base_snapshot`` is the production snapshot that the environment was planned against; ``lease`` says that the
        caller holds the environment's lock. Raises ProjectError before anything runs, BusyError where another process
        runs in this environment.
        """
        # What only executing needs is imported here: planning takes a fraction of the time that all imports take.
        from seeknal.workflow.delivery import deliver
        from seeknal.workflow.run_records import record, recording

        self.compiled.analysis.check()
        self.store.prepare()
        self._rest()
        lock = contextlib.nullcontext(lease) if lease else self.locked(environment, run_purpose(environment))
        with lock, recording(self.project, options.run_id) as records:
            run = self.prepare_run(environment, options, listener=listener, stop=stop, workers=workers)
            head, before = self.store.refs.read(environment), self._heads.get(environment)
            if isinstance(before, CorruptObjectError):
                # It can be read now, but nobody knows whether it stood there before.
                raise before
            if head != before:
                raise BusyError(
                    f"environment '{environment}' was moved by another process while the project was read",
                    hint="run again",
                )
            self.store.sweep_temporary(UNFINISHED_SECONDS)
            # Refuses before anything is executed: a run id that cannot be one, and what a newer version delivered.
            records.get_run(run.run_id)
            self.store.read_deliveries(environment)
            self._has_run = True
            result, tree = run.execute()
            if result.executed or result.status != "success":
                record(records, result)
            self._remember_failures(environment, run, result)
            keeps_going = result.status == "failed" and options.continue_on_error
            if result.status != "success" and not keeps_going:
                # What was finished is in the cache; make that durable too, the ref stays.
                self.store.sync(run.written)
                return replace(result, snapshot=head)
            manifest = run.built_manifest(tree)
            snapshot = commit(
                self.store,
                environment,
                tree,
                manifest,
                expected_head=head,
                reason="run",
                run_id=result.run_id,
                base=base_snapshot,
                parameters=self.parameters,
                written=run.written,
                listener=listener,
            )
            done = {node.node_id for node in result.nodes if node.status in ("success", "cached")}
            keep_states(self.project.environment_folder(environment), fingerprints_of(tree, done))
            now = self.store.read_snapshot(snapshot)
            errors = show_environment(self.project, self.store, environment, now, tree, listener)
            if result.status == "success":
                self._remember_changes(environment, head, Head(snapshot, now, tree, manifest))
            if publish:
                errors += deliver(
                    self.project, self.store, environment, self.manifest, tree, done, listener, stop, self.parameters
                )
            result = replace(result, snapshot=snapshot).with_delivery_errors(errors)
            if errors and stop is not None and stop.requested:
                result = replace(result, status="interrupted")
            whole = environment == PRODUCTION and not options.filters and result.status == "success"
            if whole and self._of_files and self.compiled.parsed.repeatable and not self._depends_on_the_moment():
                self._remember_settled(snapshot, publish, result)
            return result

    def _depends_on_the_moment(self) -> bool:
        drafts = self.compiled.parsed.drafts.values()
        return self.parameters.never_settles or any(draft.always_runs or draft.always_checks for draft in drafts)

    def _remember_failures(self, environment: str, run: Run, result: RunResult) -> None:
        """Note which nodes' checks failed, and forget those that passed since or are gone."""
        before = self.store.read_failed(environment).nodes
        over = {node.node_id for node in result.nodes if node.status in ("success", "cached")}
        kept = {name: node for name, node in before.items() if name in self.manifest.nodes and name not in over}
        after = {**kept, **run.failed_nodes()}
        if after != before:
            self.store.write_failed(environment, FailedNodes(after))

    def _remember_changes(self, environment: str, head: str | None, now: Head) -> None:
        """Note what a promotion of a state would change, and what going back from it would."""
        before = self._read_heads.get(head or "") if environment == PRODUCTION else self._head(PRODUCTION)
        ways = [] if environment == PRODUCTION else [(before, now)]
        if before is not None and before.digest != now.digest:
            ways.append((now, before))
        if ways:
            from seeknal.workflow.tree_change import remember_changes

            remember_changes(self.store, *ways)

    def _remember_settled(self, head: str, published: bool, result: RunResult) -> None:
        """Note what this state rests on; see :mod:`seeknal.workflow.settled`."""
        from seeknal.workflow.settled import remember, settled

        warnings = [str(warning) for warning in self.compiled.parsed.warnings]
        warnings += [warning for node in result.nodes for warning in node.warnings]
        checks = {node.node_id: [found.to_dict() for found in node.checks] for node in result.nodes if node.checks}
        edges = len(self.manifest.edges)
        record = settled(
            head,
            self.digests,
            self.parameters,
            edges=edges,
            published=published,
            warnings=warnings,
            python=python_stamp() if self.compiled.parsed.imported else "",
            checks=checks,
            project=self.project.name,
        )
        remember(self.store, record)

    @contextmanager
    def locked(self, environment: str, purpose: str) -> Iterator[Lease]:
        """Keep other runs and promotions off an environment. Raises BusyError."""
        with environment_lock(self.store, environment, purpose) as lease:
            yield lease


def run_parameters(given: GivenParameters | None = None) -> RunParameters:
    """The parameters of a run that begins now."""
    given = given or GivenParameters()
    return RunParameters(given, given.run_id or new_run_id())


def _head_or_damage(store: Store, environment: str) -> str | CorruptObjectError | None:
    """Where an environment stands; that another than the one to run in is damaged is in nobody's way."""
    try:
        return store.refs.read(environment)
    except CorruptObjectError as error:
        return error


def _problems_of(parsed: ParsedProject | None, digests: FileDigests) -> list[Problem]:
    """What type-checking finds in the part of a project that could be read, so that everything is told at once."""
    if parsed is None:
        return []
    with Inference(parsed, digests) as inference:
        return [problem for found in inference.analyse().problems.values() for problem in found]


def file_digests(store: Store) -> FileDigests:
    """The digests of a project's files, with what the store remembers of them."""
    return FileDigests(store.root / "memo" / "files", store.temporary_folder)


def project_memo(store: Store, digests: FileDigests) -> ProjectMemo:
    """What the store remembers of reading and analysing the project."""
    memo = Memo(store.root / "memo" / "project", store.temporary_folder, reading_stamp())
    return ProjectMemo(memo, digests)


def run_purpose(environment: str) -> str:
    """What others are told who find an environment locked by a run."""
    return RUN_COMMAND if environment == PRODUCTION else f"{RUN_COMMAND} --env {environment}"


@contextmanager
def waited_for(project: Project, environment: str, patience: Patience) -> Iterator[Lease]:
    """Wait for an environment, and for the records of runs, and hold both for a run.

    Whoever waits begins with this and opens the project after it: the run is then one of the files as they are when
    its turn comes, upon the state that the one before it left. Raises BusyError.
    """
    from seeknal.workflow.run_records import records_lock

    with contextlib.ExitStack() as held:
        lease = held.enter_context(environment_lock(project.store(), environment, run_purpose(environment), patience))
        records = records_lock(project, RUN_COMMAND, shared=True)
        records.acquire(patience)
        held.callback(records.release)
        yield lease
