"""`seeknal repl`: query an environment's tables with SQL, one statement at a time or in a session.

A session reads a statement up to its ``;``, and commands that begin with a dot. Results go to stdout, everything else
to stderr.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from seeknal.cli.console import tell
from seeknal.cli.options import open_project, project_option
from seeknal.errors import SeeknalError, UsageError

if TYPE_CHECKING:
    from seeknal.workflow.reading import TableReader

OUTPUT_FORMATS = {".csv": "csv", ".json": "json", ".parquet": "parquet"}

# More rows than these nobody reads on a screen.
SESSION_ROWS = 1000

HELP = """\
SQL ends with a semicolon. Tables are kind.name, kind_name and, where only one can be meant, name.
  .tables        list the tables
  .schema TABLE  show a table's columns
  .help          show this
  .quit          leave (also Ctrl-D)"""

# What other shells call some of these.
_WORDS_OF_SHELLS = {
    "exit": ".quit",
    "quit": ".quit",
    "\\q": ".quit",
    "help": ".help",
    "\\?": ".help",
    "\\dt": ".tables",
}


@click.command()
@click.option("-e", "--exec", "sql", metavar="SQL", help="Run one statement and stop; - reads it from stdin.")
@click.option("--env", "env_name", metavar="NAME", default="prod", help="The environment, or NAME@MOMENT.")
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How the result is printed.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --exec: write the result to a .csv, .json or .parquet file.",
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N rows of a result.")
@click.option("--profile", type=click.Path(), help="Connections (not available yet).")
@project_option
def repl(
    sql: str | None,
    env_name: str,
    form: str,
    output: Path | None,
    limit: int | None,
    profile: str | None,
    project_path: Path | None,
) -> int:
    """Query the tables of production or of an environment. Nothing can be written.

    Tables are named kind.name, as in a node's SQL, or kind_name, or plain name where only one can be meant.
    """
    if profile is not None:
        raise UsageError("--profile is not available yet", hint="leave it out")
    if sql is None and output is not None:
        raise UsageError("--output goes with --exec")
    if sql is None and not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to type at", hint="give a statement with --exec SQL, or on stdin with --exec -"
        )
    if output is not None and output.suffix.lower() not in OUTPUT_FORMATS:
        raise UsageError(f"--output '{output}': unknown file type", hint=f"end in {', '.join(OUTPUT_FORMATS)}")
    project = open_project(project_path)
    if sql == "-":
        sql = _read_stdin()
    if sql is None:
        from seeknal.workflow.reading import TableReader

        with TableReader.open(project.store(), env_name) as reader:
            return _Session(reader, form, SESSION_ROWS if limit is None else limit).run()
    if output is not None:
        return _write_file(project, env_name, sql, output, limit)
    return _print(project, env_name, sql, form, limit)


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SeeknalError(f"the SQL on stdin is not UTF-8: {error.reason}") from None


def _print(project: Any, env_name: str, sql: str, form: str, limit: int | None) -> int:
    from seeknal.cli.row_output import write_rows
    from seeknal.workflow.reading import TableReader

    with TableReader.open(project.store(), env_name) as reader:
        _tell_whose(reader)
        rows = reader.query(sql, limit=limit, as_json=form == "json")
        try:
            count = write_rows(rows, form, _stdout(form))
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read along (`head`, say) has seen enough. What is left in the buffer goes nowhere.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            return 0
    if form == "table":
        click.echo(f"({_count(count)})", err=True)
    return 0


def _write_file(project: Any, env_name: str, sql: str, output: Path, limit: int | None) -> int:
    """Write the result beside its place and move it there when it is whole."""
    from seeknal.cli.row_output import write_rows
    from seeknal.workflow.reading import TableReader

    form = OUTPUT_FORMATS[output.suffix.lower()]
    place = Path(os.path.realpath(output))
    store = project.store()
    if place.is_relative_to(os.path.realpath(store.root)):
        raise SeeknalError(f"'{output}' lies in the store, which is Seeknal's own", hint="write somewhere else")
    if not place.parent.is_dir():
        raise SeeknalError(f"cannot write '{output}': there is no folder {place.parent}")
    temporary = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with TableReader.open(store, env_name, writable=temporary) as reader:
            _tell_whose(reader)
            if form == "parquet":
                count = reader.write_parquet(sql, limit=limit)
            else:
                rows = reader.query(sql, limit=limit, as_json=form == "json")
                with temporary.open("w", encoding="utf-8", newline="") as stream:
                    count = write_rows(rows, form, stream)
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)
    tell(f"{_count(count)} written to {output}")
    return 0


def _stdout(form: str) -> TextIO:
    """Standard output; what programs read is UTF-8 whatever the terminal's encoding is."""
    if form != "table" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    return sys.stdout


def _tell_whose(reader: TableReader) -> None:
    outputs = reader.outputs
    if outputs.moment:
        click.echo(f"'{outputs.label}' is snapshot {outputs.snapshot[:12]}", err=True)
    if outputs.shown != outputs.environment:
        click.echo(f"environment '{outputs.environment}' was not applied yet; these are production's tables", err=True)


def _count(rows: int) -> str:
    return f"{rows} row" if rows == 1 else f"{rows} rows"


def _dot_command(line: str) -> list[str]:
    """The words of a dot command; none where the line is SQL."""
    said = line.strip().rstrip(";").strip().lower()
    if said in _WORDS_OF_SHELLS:
        return [_WORDS_OF_SHELLS[said]]
    return line.split() if line.strip().startswith(".") else []


class _Session:
    """The loop that reads statements from a terminal and answers them."""

    def __init__(self, reader: TableReader, form: str, limit: int) -> None:
        self.reader = reader
        self.form = form
        self.limit = limit

    def run(self) -> int:
        outputs = self.reader.outputs
        click.echo(f"{len(outputs.tables)} tables of '{outputs.label}'; read only. .help shows what to type.", err=True)
        _tell_whose(self.reader)
        with contextlib.suppress(ImportError):
            self._complete_names()
        pending = ""
        while True:
            # Whatever Ctrl-C meets, a line being typed, a query or the printing of a result, the session goes on.
            try:
                line = input("   ...> " if pending else "seeknal> ")
                if not pending and (words := _dot_command(line)):
                    if not self._command(words):
                        return 0
                    continue
                pending = f"{pending}\n{line}".strip()
                if _is_finished(pending):
                    sql, pending = pending, ""
                    self._answer(sql)
            except EOFError:
                click.echo(err=True)
                return 0
            except KeyboardInterrupt:
                click.echo(err=True)
                pending = ""

    def _complete_names(self) -> None:
        import readline

        names = self.reader.names()

        def complete(text: str, state: int) -> str | None:
            matches = [name for name in names if name.startswith(text.lower())]
            return matches[state] if state < len(matches) else None

        readline.set_completer(complete)
        readline.set_completer_delims(" \t\n,;()=<>'\"")
        readline.parse_and_bind("tab: complete")

    def _command(self, words: list[str]) -> bool:
        """Obey a dot command; False where it ends the session."""
        match words:
            case [".quit" | ".exit"]:
                return False
            case [".help"]:
                click.echo(HELP)
            case [".tables"]:
                rows = [[node_id, str(artifact.row_count)] for node_id, artifact in self.reader.outputs.tables.items()]
                _print_table(rows, ["Table", "Rows"])
            case [".schema", name]:
                self._schema(name)
            case [".schema", *_]:
                click.echo("error: .schema takes one table", err=True)
            case _:
                tell(f"error: unknown command {words[0]}; .help lists them")
        return True

    def _schema(self, name: str) -> None:
        from seeknal.cli.console import report_error

        try:
            artifact = self.reader.outputs.nodes[self.reader.find(name)].artifact
        except SeeknalError as error:
            report_error(error)
            return
        rows = [[column.name, column.type] for column in artifact.columns]
        _print_table(rows, ["Column", "Type"])

    def _answer(self, sql: str) -> None:
        from seeknal.cli.console import report_error
        from seeknal.cli.row_output import write_rows

        try:
            # One row more than is shown tells whether there are more.
            rows = self.reader.query(sql, limit=self.limit + 1, as_json=self.form == "json")
            count = write_rows(replace(rows, values=islice(rows.values, self.limit)), self.form, sys.stdout)
            sys.stdout.flush()
            more = "; there are more, --limit N shows them" if next(rows.values, None) is not None else ""
            click.echo(f"({_count(count)}{more})", err=True)
        except SeeknalError as error:
            sys.stdout.flush()
            report_error(error)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)


def _print_table(rows: list[list[str]], headings: list[str]) -> None:
    from seeknal.cli.console import table

    click.echo("\n".join(table(rows, headings, indent="")))


def _is_finished(text: str) -> bool:
    """Say whether a statement has come to its semicolon, one inside a string or comment left aside."""
    from seeknal.dag.tokens import tokens

    # The word at the end is one of its own unless an open string or comment swallows it.
    *before, last = tokens(f"{text}\nend")
    return last.text == "end" and bool(before) and before[-1].text == ";"
