"""The command ``seeknal``: finds the subcommand, imports only that, and turns errors into lines and exit codes."""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from seeknal.version import __version__

if TYPE_CHECKING:
    from seeknal.errors import SeeknalError

# Command → module and attribute. A command's module is imported when the command is used, so that `seeknal --help`
# costs little more than click.
COMMANDS = {
    "init": ("seeknal.cli.init_command", "init", "Create a project."),
    "plan": ("seeknal.cli.plan_command", "plan", "Show what would change, in production or in an environment."),
    "parse": ("seeknal.cli.plan_command", "parse", "Check the project and write its manifest (like plan)."),
    "run": ("seeknal.cli.run_command", "run", "Execute the pipeline."),
    "promote": ("seeknal.cli.promote_command", "promote", "Make an environment's state production's."),
    "rollback": ("seeknal.cli.rollback_command", "rollback", "Let an environment go back to an earlier state."),
    "env": (
        "seeknal.cli.env_command",
        "env",
        "Plan, apply, promote, look back at, delete and clean up environments.",
    ),
    "diff": ("seeknal.cli.diff_command", "diff", "Compare the project's files with production."),
    "repl": ("seeknal.cli.repl_command", "repl", "Query an environment's tables with SQL."),
    "gc": ("seeknal.cli.gc_command", "gc", "Give back the space of what nobody needs any more."),
    "store": ("seeknal.cli.store_command", "store", "Verify and repair the store."),
    "inspect": ("seeknal.cli.inspect_command", "inspect", "Look at a node's stored output."),
    "schema": ("seeknal.cli.schema_command", "schema", "Print JSON Schemas of the YAML, for editors."),
    "entity": ("seeknal.cli.entity_command", "entity", "List entities, or show one."),
    "consolidate": ("seeknal.cli.entity_command", "consolidate", "Bring entities up to date."),
    "migrate-state": ("seeknal.cli.migrate_command", "migrate_state", "Move the records of runs to another backend."),
    "audit": ("seeknal.cli.audit_command", "audit", "Check stored outputs again."),
    "validate": ("seeknal.cli.audit_command", "validate", "Check the project without running it."),
}

# Those that have commands of their own.
GROUPS = ("env", "entity", "store")

EPILOG = """\b
Environments:
  seeknal env plan NAME      the same as: seeknal plan NAME
  seeknal env apply NAME     the same as: seeknal run --env NAME
  seeknal env promote NAME   the same as: seeknal promote NAME

\b
Exit codes: 0 done, 1 failed, 2 usage, 3 changes found, 4 stale plan or lost race,
5 refused, 11 busy, 12 corruption, 130 Ctrl-C, 143 SIGTERM.
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; their short help stands in COMMANDS."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            close = self._groups_with(name, context) or difflib.get_close_matches(name, COMMANDS, n=2)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise click.UsageError(f"No such command '{name}'.{hint}", context)
        return super().resolve_command(context, args)

    def _groups_with(self, name: str, context: click.Context) -> list[str]:
        """The commands of groups that are called so: `env history` for `history`."""
        groups = ((group, self.get_command(context, group)) for group in GROUPS)
        return [
            f"{group} {name}" for group, found in groups if isinstance(found, click.Group) and name in found.commands
        ]


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="seeknal")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Seeknal runs data pipelines: plan a change, try it in an environment, promote it."""
    context.obj = {"debug": debug}


def _notice_ctrl_c() -> list[int]:
    """Note each Ctrl-C, beside the KeyboardInterrupt that it is: a query may swallow that."""
    pressed: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    return pressed


def _end(error: SeeknalError, *, as_json: bool) -> NoReturn:
    from seeknal.cli.console import print_document, report_error

    report_error(error)
    if as_json:
        # A command prints its own document last, so none was printed where it raised.
        errors = [str(problem) for problem in error.problems()]
        print_document({"schema_version": 1, "status": "failed", "errors": errors})
    sys.exit(error.exit_code)


def _code_of_printing() -> int:
    """1 where what a command did could not be told, on a full disk, say."""
    # Only a command that prints imported it.
    console = sys.modules.get("seeknal.cli.console")
    error = console.not_printed() if console is not None else None
    if console is None or error is None:
        return 0
    console.tell(f"error: done, but not everything could be printed: {error.strerror or error}")
    return 1


def _end_at_once(code: int) -> None:
    """End the process where nothing in it waits for that.

    Taking a large project's objects apart one by one takes a tenth of the time that planning takes, or that running
    small nodes does; the system takes all of it back at once. A thread that is left is waited for; and whoever traces
    the process has something to do at its end.
    """
    threads = sys.modules.get("threading")
    alone = threads is None or threads.active_count() == 1
    # Since Python 3.12, whoever traces may use this instead; there are six of them at most.
    monitoring = getattr(sys, "monitoring", None)
    monitored = monitoring is not None and any(map(monitoring.get_tool, range(6)))
    if alone and not (sys.gettrace() or sys.getprofile() or monitored):
        # What was registered to be done at the end: temporary folders are removed, for one.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(args: list[str] | None = None) -> Any:
    """Run the command line; ends the process with the documented exit code."""
    from seeknal.errors import SeeknalError

    if sys.platform == "win32":
        sys.exit("seeknal runs on Linux and macOS; on Windows, use it in WSL")
    # Large projects are many objects that stay. Looking through them for cycles takes longer than what they are for.
    gc.set_threshold(200_000, 10, 10)
    given = sys.argv[1:] if args is None else args
    debug = "--debug" in given
    # Python has no stream where the caller closed it. Ours stays open to the end.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not become a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    pressed = _notice_ctrl_c()
    try:
        code = cli.main(args, prog_name="seeknal", standalone_mode=False)
        code = (code if isinstance(code, int) else 0) or _code_of_printing()
        if args is None:
            _end_at_once(code)
        sys.exit(code)
    except SeeknalError as error:
        if debug:
            raise
        if pressed:
            # DuckDB makes an error of some other kind of it where it guesses a file's columns.
            click.echo("interrupted", err=True)
            sys.exit(130)
        _end(error, as_json="--json" in given)
    except (click.exceptions.Abort, KeyboardInterrupt):
        # click makes the one of the other.
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        from seeknal.cli.console import tell

        # It may repeat what it was given, which came from anywhere.
        said = io.StringIO()
        error.show(said)
        tell(said.getvalue().rstrip("\n"))
        sys.exit(error.exit_code)
    except RuntimeError as error:
        if debug or str(error) != "Query interrupted":
            raise
        # What DuckDB makes of a Ctrl-C during a query.
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        from seeknal.errors import of_the_system

        _end(of_the_system(error), as_json="--json" in given)


if __name__ == "__main__":
    main()
