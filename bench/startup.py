"""How long the command takes before it does anything: `seeknal --help` and `--version` over `python -c "import click"`.

python bench/startup.py [--seeknal PATH] [--rounds 15] [--out FOLDER]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from report import (
    Result,
    Table,
    checkout_environment,
    finish,
    measure_alternating,
    options,
    run_process,
    seeknal_command,
)


def main() -> None:
    given = options(__doc__, rounds=15).parse_args()
    seeknal = seeknal_command(given.seeknal)
    run = partial(run_process, environment=checkout_environment())
    series = measure_alternating(
        {
            "python -c pass": lambda: run([sys.executable, "-c", "pass"]),
            "python -c 'import click'": lambda: run([sys.executable, "-c", "import click"]),
            "seeknal --version": lambda: run([*seeknal, "--version"]),
            "seeknal --help": lambda: run([*seeknal, "--help"]),
            "seeknal run --help": lambda: run([*seeknal, "run", "--help"]),
        },
        given.rounds,
    )
    table = Table("Starting the command")
    table.add(*(Result.of(name, found, "cpu_seconds", unit="ms") for name, found in series.items()))
    click = series["python -c 'import click'"]
    table.add(
        Result.ratio("--help over import click (CPU)", series["seeknal --help"], click, "cpu_seconds", target=1.6),
        Result.ratio("--help over import click (wall)", series["seeknal --help"], click, target=1.6),
    )
    finish("startup", table, given.out, series)


if __name__ == "__main__":
    main()
