"""`seeknal schema`: JSON Schemas of the project's YAML, for editors."""

from __future__ import annotations

from pathlib import Path

import click

from seeknal.cli.console import Console


@click.command()
@click.argument("kind", required=False)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the schemas into this folder instead: of KIND, else all of them.",
)
def schema(kind: str | None, output: Path | None) -> int:
    """Print the JSON Schema of KIND: a kind of node, `project` for the project file, or `node` for files of nodes.

    Without KIND, that of files of nodes. Editors that speak YAML's language server find the schemas by the comments
    that `seeknal init` writes into YAML files.
    """
    from seeknal.dag.json_schema import NODE, json_schema, schema_files, schema_text

    if output is None:
        click.echo(schema_text(json_schema(kind or NODE)), nl=False)
        return 0
    files = schema_files() if kind is None else {f"{kind}.json": schema_text(json_schema(kind)).encode()}
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (output / name).write_bytes(content)
    Console().mark("ok", f"{len(files)} schema(s) written to {click.format_filename(output)}")
    return 0
