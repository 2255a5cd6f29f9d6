"""Canaries: values planted wherever one can enter, then looked for in all that was printed and in every file.

- *canary*: a random value that stands nowhere else. Some hold characters that SQL, JSON, a shell or a URL escape.
- *entrance*: how it got in: a variable that a template names, one of ``.env``, one that code reads, a request's part.

Looked for are the value, its escaped forms, and its base64 and URL forms at any alignment.
"""

from __future__ import annotations

import base64
import json
import os
import random
import string
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.acceptance.project import Answer, Project
from tests.engine.workflow.receiver import receiver, respond

SPECIAL = "'\"/+&%<>= \\$`é"


def canary(seed: str, length: int = 24, special: str = "") -> str:
    """A value of letters and digits, with these characters somewhere inside."""
    rng = random.Random(seed)
    letters = [rng.choice(string.ascii_letters + string.digits) for _ in range(length)]
    for character in special:
        letters.insert(rng.randrange(4, len(letters) - 4), character)
    return "".join(letters)


def forms(value: str) -> Iterator[str]:
    """What would give the value away."""
    yield value
    yield value.replace("'", "''")
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield urllib.parse.quote(value, safe="")
    yield urllib.parse.quote(value)
    yield urllib.parse.quote_plus(value)
    data = value.encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data).decode()[4 if shift else 0 :]
        yield encoded[: len(encoded) // 4 * 4 - 4]


class Canaries:
    """The values that were planted, by the variables that hold them."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self._needles = [
            (name, needle.encode())
            for name, value in values.items()
            for needle in dict.fromkeys(forms(value))
            if len(needle) >= len(value) * 0.8
        ]

    def look(self, project: Project, *answers: Answer, also: Path | None = None) -> int:
        """Fail where one stands in what was printed, or in a file that Seeknal wrote; gives how many texts it read."""
        texts = [(f"what `{index}` printed", answer.text.encode()) for index, answer in enumerate(answers)]
        for folder in filter(None, [project.root / "target", also]):
            texts += [(str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
        texts += [(str(path), os.fsencode(path)) for path in (project.root / "target").rglob("*")]
        for where, text in texts:
            for name, needle in self._needles:
                assert needle not in text, f"{name} stands in {where} as {needle!r}: …{around(text, needle)!r}…"
        return len(texts)


def around(text: bytes, needle: bytes) -> bytes:
    at = text.index(needle)
    return text[max(0, at - 60) : at + len(needle) + 60]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(folder))
    return folder


def project_of(root: Path, **files: str) -> Project:
    project = Project(root)
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("data/orders.csv", "id,amount,region\n1,2.5,east\n2,3.5,west\n")
    project.write("seeknal/orders.yml", "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n")
    for name, text in files.items():
        project.write(f"seeknal/{name}.{'py' if 'import ' in text else 'yml'}", text)
    return project


COMMANDS = """
plan --json
plan dev
run --env dev
diff
inspect transform.t --failed --env dev
audit --json
migrate-state --backend database --no-dry-run
run --full
plan
diff --json
run --env dev --json
promote dev --yes
env list --json
env history prod --json
inspect transform.t
inspect transform.t --json
audit
store verify --json
gc --dry-run --json
env du
migrate-state --backend file --no-dry-run --json
run
store verify
"""


def after_everything(project: Project, most: int | None) -> list[Answer]:
    """What commands say that look at a project or tidy it up, in both backends; all of them, or the first."""
    return [project.seeknal(*line.split()) for line in COMMANDS.strip().splitlines()[:most]]


def sql(name: str, text: str, more: str = "") -> str:
    return f"kind: transform\nname: {name}\ntransform: |\n  {text}\n{more}"


WORKS = sql(
    "t",
    "SELECT id, region FROM source.orders WHERE region <> '{{ env:CANARY_A }}' AND length('{{ env:CANARY_B }}') > 0",
)
AUDITS = """\
audits:
  - {type: custom_sql, sql: "SELECT * FROM transform.t WHERE region <> '{{ env:CANARY_A }}'"}
  - {severity: warn, value: "region = '{{ env:CANARY_B }}'"}
"""
RULE = """\
kind: rule
name: r
inputs: [transform.t]
rule: {type: accepted_values, column: region, values: ["{{ env:CANARY_B }}"]}
"""
SOURCE = """\
kind: source
name: t
source: csv
table: data/orders.csv
params: {nullstr: "{{ env:CANARY_A }}", delimiter: "{{ env:CANARY_B }}"}
"""
EXPOSURE = """\
kind: exposure
name: t
type: file
path: "out/{{ env:CANARY_A }}/x.nope"
format: "{{ env:CANARY_B }}"
inputs: [source.orders]
"""


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"t": WORKS}, id="sql that works"),
        pytest.param({"t": sql("t", "SELECT CAST('{{ env:CANARY_A }}' AS INTEGER) AS n")}, id="a cast that fails"),
        pytest.param({"t": sql("t", "SELECT error('no ' || '{{ env:CANARY_B }}') AS n")}, id="an error of its own"),
        pytest.param({"t": sql("t", "SELECT {{ env:CANARY_A|identifier }} AS n FROM source.orders")}, id="no template"),
        pytest.param({"t": sql("t", "SELECT {{ env:CANARY_B }} AS n")}, id="a value that is no SQL"),
        pytest.param(
            {"t": sql("t", "SELECT {{ limit }} AS n", "params: {limit: '{{ env:CANARY_B }}'}\n")}, id="a param"
        ),
        pytest.param({"t": WORKS + AUDITS}, id="audits that fail"),
        pytest.param({"t": WORKS, "r": RULE}, id="a rule that fails"),
        pytest.param({"t": SOURCE}, id="options of a source"),
        pytest.param({"t": EXPOSURE}, id="a path that is wrong"),
    ],
)
def test_no_value_of_a_template_is_told_or_kept(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    torture: bool,
    tally: Callable[[str, int], None],
    files: dict[str, str],
) -> None:
    canaries = Canaries(CANARY_A=canary("a"), CANARY_B=canary("b", 40, SPECIAL.replace("$", "")))
    for name, value in canaries.values.items():
        monkeypatch.setenv(name, value)
    project = project_of(tmp_path / "shop", **files)
    whole = torture or len(files) == 2
    answers = [
        project.seeknal("run", "--json"),
        project.seeknal("run"),
        *after_everything(project, None if whole else 6),
    ]
    assert canaries.look(project, *answers, also=home) > 5
    tally("secret in a template", len(answers))


def test_no_value_of_a_request_is_told_or_kept(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[[str, int], None]
) -> None:
    values = {
        name: canary(name, 30, special)
        for name, special in (
            ("CANARY_PATH", ""),
            ("CANARY_QUERY", "+"),
            ("CANARY_HEADER", "'\"/+&%<>= \\"),
            ("CANARY_TOKEN", "+/="),
            ("CANARY_PASSWORD", SPECIAL),
        )
    }
    values["CANARY_SHORT"] = "k3yq"
    canaries = Canaries(**values)

    def echo(handler: BaseHTTPRequestHandler) -> None:
        """A receiver that says all that it got, in every form that it may have."""
        said = [handler.path, *handler.headers.values(), *values.values()]
        said += [base64.b64encode(f"{pad}{text}".encode()).decode() for text in said for pad in ("", "a", "ab")]
        said += [urllib.parse.quote(text, safe=safe) for text in values.values() for safe in ("", "/")]
        said += [json.dumps(text) for text in values.values()] + [repr(text) for text in values.values()]
        random.Random(handler.path).shuffle(said)
        respond(handler, 422, (" | ".join(said)).encode())

    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.close()

    auths = [
        "{type: bearer, token: '{{ env:CANARY_TOKEN }}'}",
        "{type: basic, username: me, password: env:CANARY_PASSWORD}",
        "{type: header, name: X-Key, value: '{{ env:CANARY_TOKEN }}'}",
    ]
    with receiver(echo, echo, echo, hang_up, echo, echo) as server:
        values["CANARY_URL"] = (
            f"{server.url}/hooks/{values['CANARY_PATH']}?key={urllib.parse.quote(values['CANARY_QUERY'])}"
        )
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        exposures = {
            f"e{index}": f"kind: exposure\nname: e{index}\ntype: api\nurl: env:CANARY_URL\ninputs: [source.orders]\n"
            f"params:\n  retries: 0\n  headers: {{X-One: 'env:CANARY_HEADER', X-Two: 'a {{{{ env:CANARY_SHORT }}}}'}}\n"
            f"  auth: {auth}\n"
            for index, auth in enumerate(auths)
        }
        project = project_of(tmp_path / "shop", **exposures)
        answers = [project.seeknal("run"), project.seeknal("run", "--json"), *after_everything(project, 6)]
        assert [answer.code for answer in answers[:2]] == [1, 1]
        assert answers[0].stderr.count("422") == 3
        # Now it is taken, and remembered.
        answers += [project.seeknal("run"), project.seeknal("run")]
        assert answers[-1].code == 0, answers[-1].text
        assert len(server.got) >= 9
    canaries.look(project, *answers, also=home)
    tally("secret in a request", len(answers))


CODE = """\
import os, sys, subprocess
from seeknal.pipeline import transform

def look_up(name):
    return os.environ[name]

@transform(name="prints")
def prints(ctx):
    print(os.environ["CANARY_CODE"], dict(os.environ), file=sys.stderr)
    subprocess.run(["env"])
    os.write(1, os.environ.get('CANARY_BYTES').encode() * 3)
    return ctx.duckdb.sql("SELECT 1 AS n")

@transform(name="raises")
def raises(ctx):
    raise ValueError("x" * 270 + os.getenv("CANARY_CODE"))

@transform(name="leaves")
def leaves(ctx):
    sys.exit("no " + os.environ["CANARY_DB_PASSWORD"])

@transform(name="asks")
def asks(ctx):
    return ctx.duckdb.sql(f"SELECT CAST('{look_up('CANARY_ENV_FILE')}' AS INTEGER) AS n")

@transform(name="crashes")
def crashes(ctx):
    os.write(1, os.environ["CANARY_CODE"].encode() * 1000)
    import time; time.sleep(0.3)
    os.kill(os.getpid(), 9)
"""


DECORATED = """\
from os import environ
from seeknal.pipeline import source

KEPT = environ["CANARY_DB_PASSWORD"]

@source(name="d", note="a " + KEPT)
def d():
    pass
"""


def test_no_value_that_code_reads_is_told_or_kept(
    tmp_path: Path, home: Path, tally: Callable[[str, int], None]
) -> None:
    values = {
        "CANARY_CODE": canary("code", 30, SPECIAL),
        "CANARY_BYTES": canary("bytes", 30),
        "CANARY_DB_PASSWORD": canary("password", 8),
        "CANARY_ENV_FILE": canary("file", 30),
        "CANARY_IMPORT_TOKEN": canary("import", 30),
        "CANARY_PROFILE": canary("profile", 30),
    }
    canaries = Canaries(**values)
    in_file = values.pop("CANARY_ENV_FILE")
    project = project_of(tmp_path / "shop", nodes=CODE)
    project.write(".env", f"CANARY_ENV_FILE={in_file}\nSEEKNAL_STATE_BACKEND=database\n")
    project.write("profiles.yml", f"default: {{password: {values.pop('CANARY_PROFILE')}}}\n")
    answers = [
        project.process("run", "--continue-on-error", environment=values),
        project.process("run", "--parallel", "--json", environment=values),
    ]
    assert answers[0].code == 1
    for node in ("raises", "leaves", "asks", "crashes"):
        assert f"transform.{node}: " in answers[0].stderr, answers[0].stderr
    assert "***" in project.read("target/logs/transform.prints.log")
    assert "***" in project.read("target/logs/transform.crashes.log")
    project.write(
        "seeknal/nodes.py", f"import os\n{CODE}\nraise ValueError('y' * 280 + os.environ['CANARY_IMPORT_TOKEN'])\n"
    )
    answers += [project.process("plan", environment=values), project.process("plan", "--json", environment=values)]
    assert "cannot be imported" in answers[-1].stderr
    project.write("seeknal/nodes.py", DECORATED)
    answers.append(project.process("plan", environment=values))
    assert "seeknal/nodes.py:6:" in answers[-1].stderr
    assert "'note' holds the value of a variable that is a secret by its name" in answers[-1].stderr
    canaries.look(project, *answers, also=home)
    tally("secret in Python", len(answers))
