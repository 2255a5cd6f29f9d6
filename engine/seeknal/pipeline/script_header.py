"""The header of a script (PEP 723): which Python and which packages a file needs.

Packages are not installed for it: a node runs in the environment that Seeknal runs in, and what that lacks is told,
with the command that installs it.

https://packaging.python.org/en/latest/specifications/inline-script-metadata/
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from typing import Any

from seeknal.pipeline.discovered import FoundProblem

_BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_OPENING = re.compile(r"(?m)^# /// script$")


def header_problems(file: str, text: str) -> Iterator[FoundProblem]:
    """Find what a file's header asks for and this environment does not have."""
    openings = list(_OPENING.finditer(text))
    if not openings:
        return
    if len(openings) > 1:
        yield FoundProblem("has a second header of the script", file, _line(text, openings[1].start()), hint="keep one")
        return
    start = openings[0].start()
    block = _BLOCK.search(text)
    if block is None:
        message = "the header of the script does not end"
        yield FoundProblem(message, file, _line(text, start), hint="its last line is `# ///`, and each begins with `#`")
        return
    import tomllib

    lines = block["content"].splitlines()
    try:
        said = tomllib.loads("\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines))
    except tomllib.TOMLDecodeError as error:
        message = f"the header of the script is not valid TOML: {error}"
        yield FoundProblem(message, file, _line(text, start))
        return
    yield from _python_problems(said.get("requires-python"), file, text)
    dependencies = said.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(entry, str) for entry in dependencies):
        yield FoundProblem("'dependencies' must be a list of texts", file, _line_of(text, start, "dependencies"))
        return
    for entry in dependencies:
        yield from _dependency_problems(entry, file, _line_of(text, start, entry))


def _python_problems(said: Any, file: str, text: str) -> Iterator[FoundProblem]:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if said is None:
        return
    line = _line_of(text, 0, "requires-python")
    version = platform.python_version()
    try:
        if not SpecifierSet(said).contains(version, prereleases=True):
            hint = "run Seeknal with another Python, or change the header"
            yield FoundProblem(f"needs Python {said}, and this is {version}", file, line, hint=hint)
    except (InvalidSpecifier, TypeError, AttributeError):
        yield FoundProblem(f"'requires-python' cannot be understood: {said!r}", file, line, hint='write ">=3.11"')


def _dependency_problems(said: str, file: str, line: int) -> Iterator[FoundProblem]:
    from importlib import metadata

    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(said)
    except InvalidRequirement:
        yield FoundProblem(f"'{said}' is no requirement", file, line, hint='write "pandas>=2"')
        return
    if requirement.marker is not None and not requirement.marker.evaluate():
        return
    hint = f"pip install '{said}'"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        # Seeknal itself may run from its sources.
        if requirement.name != "seeknal":
            yield FoundProblem(f"needs '{said}', which is not installed", file, line, hint=hint)
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield FoundProblem(f"needs '{said}', and {version} is installed", file, line, hint=hint)


def _line(text: str, index: int) -> int:
    return text.count("\n", 0, index) + 1


def _line_of(text: str, start: int, part: str) -> int:
    """The line of a part of the header; the header's first one where it is written in another way."""
    found = text.find(part, start)
    return _line(text, found if found >= 0 else max(start, 0))
