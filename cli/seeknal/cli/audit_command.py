"""`seeknal audit` and `seeknal validate`: is what is stored as it should be, and is the project?"""

from __future__ import annotations

from pathlib import Path

import click

from seeknal.cli.console import Console, print_document, report_error
from seeknal.cli.options import json_option, open_project, project_option


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@click.option("--env", "env_name", metavar="NAME", default="prod", help="The environment. [default: production]")
@json_option
@project_option
def audit(nodes: tuple[str, ...], env_name: str, as_json: bool, project_path: Path | None) -> int:
    """Check what is stored: the audits, tests and rules of the NODEs, else of all, without running anything.

    Exits with 1 where a check of severity error fails.
    """
    from seeknal.cli.run_report import sample_lines
    from seeknal.workflow.auditing import audit as evaluate
    from seeknal.workflow.session import Session

    project = open_project(project_path)
    with Session.open(project) as session:
        found = evaluate(session, env_name, nodes)
    console = Console(to_stderr=as_json)
    for node in found:
        if node.missing:
            console.line(f"SKIP {node.node_id}: {node.missing} has no stored output")
        for result in node.results:
            console.line(f"{result.word} {node.node_id}: {result.label}: {result.message}")
            for line in () if result.passed else sample_lines(result):
                console.line(line)
    results = [result for node in found for result in node.results]
    passed = sum(result.passed for result in results)
    failed = sum(result.failed_for_good for result in results)
    warned = len(results) - passed - failed
    console.line(f"Audit Summary: {passed} passed, {failed} failed" + (f", {warned} warning(s)" if warned else ""))
    if as_json:
        document = {
            "schema_version": 1,
            "env": env_name,
            "status": "failed" if failed else "success",
            "nodes": [node.to_dict() for node in found],
        }
        print_document(document)
    return 1 if failed else 0


@click.command()
@json_option
@project_option
def validate(as_json: bool, project_path: Path | None) -> int:
    """Check the project without running it: YAML, names, references, SQL, columns and types, checks.

    Prints every problem and exits with 1 where there is one.
    """
    from seeknal.errors import ProjectError
    from seeknal.workflow.session import Session

    project = open_project(project_path)
    console = Console(to_stderr=as_json)
    errors: list[str] = []
    warnings: list[str] = []
    nodes = 0
    try:
        with Session.open(project) as session:
            warnings = [str(warning) for warning in session.compiled.parsed.warnings]
            nodes = len(session.manifest.nodes)
            for warning in session.compiled.parsed.warnings:
                console.problem("warning", warning)
            session.compiled.analysis.check()
    except ProjectError as error:
        errors = [str(problem) for problem in error.problems()]
        report_error(error)
    if errors:
        console.mark("error", f"{len(errors)} problem{'s' * (len(errors) != 1)}")
    else:
        console.mark("ok", f"The project is valid: {nodes} node{'s' * (nodes != 1)}")
    if as_json:
        status = "failed" if errors else "success"
        print_document({"schema_version": 1, "status": status, "errors": errors, "warnings": warnings})
    return 1 if errors else 0
