"""`treadle opt`: chosen passes on an IR text file, so that a bug report is a text file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from treadle.cli.output import FORMATS, render
from treadle.ir.parser import parse_functions
from treadle.passes.manager import Pass, Record, run_pipeline
from treadle.passes.pipeline import find_pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="an IR text file, or - for standard input")
    parser.add_argument(
        "--passes", default="", help="names of passes, comma-separated; none: parse and verify"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument(
        "--notes", action="store_true", help="as comments: rules that fired, reasons, times"
    )


def run(args: argparse.Namespace) -> int:
    try:
        passes = [find_pass(name.strip()) for name in args.passes.split(",") if name.strip()]
    except KeyError as error:
        print(f"treadle opt: {error.args[0]}", file=sys.stderr)
        return 2
    try:
        text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"treadle opt: cannot read {args.file}: {error}", file=sys.stderr)
        return 1
    for fn in parse_functions(text, args.file):
        record = Record()
        after = run_pipeline(fn, passes, [record], verify="all")
        print(render(after, args.format))
        if args.notes:
            print("\n".join(_notes(record, passes)))
    return 0


def _notes(record: Record, passes: list[Pass]) -> list[str]:
    lines = []
    for step in record.steps:
        lines.append(f"; {step.pass_.name}: {step.milliseconds:.2f} ms")
        lines += [f";   {note}" for note in step.notes]
    return lines
