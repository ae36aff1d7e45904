"""The command line: `treadle demo | dump | opt | run | cache | profile | doctor | bench`.

Each command is a module of this package with `add_arguments(parser)` and `run(args) -> exit code`;
it is imported only when it is called.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from treadle import __version__
from treadle.cli.mistake import EXIT_CODE, Mistake, unknown
from treadle.ir.errors import TreadleError


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    summary: str
    example: str


COMMANDS = (
    _Command("demo", "train an MLP on real handwritten digits", "treadle demo --epochs 40"),
    _Command(
        "dump",
        "print what a jitted function of a script becomes, after any pass",
        "treadle dump train.py:step --args 'f32[32,64], i64[32]' --stage fuse",
    ),
    _Command(
        "opt", "run chosen passes on an IR text file", "treadle opt --passes stabilize,dce f.ir"
    ),
    _Command(
        "run",
        "run a saved graph, or a part of it, on arrays from files",
        "treadle run model.graph --feed x=x.npy --fetch v3",
    ),
    _Command("cache", "show, check or remove the compiled code kept on disk", "treadle cache info"),
    _Command(
        "profile",
        "show where the time of a jitted function of a script goes",
        "treadle profile train.py:step --roofline step.png",
    ),
    _Command(
        "doctor",
        "show what this machine and this installation can do, and what is amiss",
        "treadle doctor",
    ),
    _Command(
        "bench",
        "measure workloads beside the installed peers",
        "treadle bench --peers numpy,torch,jax softmax mlp-128",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's). Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        _parser().print_help()
        return EXIT_CODE
    if words[0].startswith("-"):
        _parser().parse_args(words)
        return 0
    try:
        return _run(words[0], words[1:])
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(name: str, words: Sequence[str]) -> int:
    """Run one command; what it refuses is said in one line on stderr."""
    commands = {c.name: c for c in COMMANDS}
    try:
        if name not in commands:
            raise unknown("command", name, commands)
        module = import_module(f"treadle.cli.{name}")
        sub = _SubParser(
            prog=f"treadle {name}",
            description=f"{commands[name].summary[0].upper()}{commands[name].summary[1:]}.",
            epilog=f"example: {commands[name].example}",
        )
        module.add_arguments(sub)
        code: int = module.run(sub.parse_args(words))
        sys.stdout.flush()
    except Mistake as mistake:
        print(f"treadle{f' {name}' if name in commands else ''}: {mistake}", file=sys.stderr)
        return EXIT_CODE
    except TreadleError as error:
        print(f"treadle {name}: {error}", file=sys.stderr)
        return 1
    return code


class _SubParser(argparse.ArgumentParser):
    """Says in one line what is wrong and how help is asked for."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_CODE, f"{self.prog}: {message}\n(see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    width = max(len(c.name) for c in COMMANDS)
    listed = "\n".join(
        f"  {c.name:<{width}}  {c.summary}\n  {'':<{width}}    {c.example}" for c in COMMANDS
    )
    parser = _SubParser(
        prog="treadle",
        usage="treadle COMMAND ... (treadle COMMAND --help says more)",
        description="Treadle compiles NumPy-like Python to one native function.",
        epilog=f"commands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"treadle {__version__}")
    return parser
