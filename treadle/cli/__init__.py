"""The command line: `treadle demo | dump | opt | bench`.

Each command is a module of this package with `add_arguments(parser)` and `run(args) -> exit code`;
it is imported only when it is called.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from treadle import __version__
from treadle.ir.errors import TreadleError

USAGE = 2  # the exit code for a command line that makes no sense


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
        "bench",
        "measure workloads beside the installed peers",
        "treadle bench --peers numpy,torch,jax softmax mlp-128",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's). Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not words:
        parser.print_help()
        return USAGE
    if not words[0].startswith("-") and words[0] not in {c.name for c in COMMANDS}:
        return _unknown(words[0])
    if words[0].startswith("-"):
        parser.parse_args(words)
        return 0
    command = next(c for c in COMMANDS if c.name == words[0])
    module = import_module(f"treadle.cli.{command.name}")
    sub = _SubParser(
        prog=f"treadle {command.name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"example: {command.example}",
    )
    module.add_arguments(sub)
    args = sub.parse_args(words[1:])
    try:
        code: int = module.run(args)
    except TreadleError as error:
        print(f"treadle {command.name}: {error}", file=sys.stderr)
        return 1
    return code


class _SubParser(argparse.ArgumentParser):
    """Says in one line what is wrong and how help is asked for."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n(see `{self.prog} --help`)\n")


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


def _unknown(word: str) -> int:
    names = [c.name for c in COMMANDS]
    near = get_close_matches(word, names, n=1, cutoff=0.4)
    hint = f"did you mean `treadle {near[0]}`?" if near else f"there are {', '.join(names)}"
    print(f"treadle: there is no command {word!r}; {hint}", file=sys.stderr)
    return USAGE
