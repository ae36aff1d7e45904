"""`treadle opt`: chosen passes on an IR text file, so that a bug report is a text file."""

from __future__ import annotations

import argparse

from treadle.cli.mistake import unknown
from treadle.cli.output import FORMATS, read_functions, render
from treadle.passes.manager import Pass, Record, run_pipeline
from treadle.passes.pipeline import pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="an IR text file, or - for standard input")
    parser.add_argument(
        "--passes",
        default="",
        help=f"comma-separated, of {', '.join(p.name for p in pipeline())}; none: parse and verify",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument(
        "--notes", action="store_true", help="as comments: rules that fired, reasons, times"
    )


def run(args: argparse.Namespace) -> int:
    passes = [_pass(name.strip()) for name in args.passes.split(",") if name.strip()]
    for fn in read_functions(args.file):
        record = Record()
        after = run_pipeline(fn, passes, [record], verify="all")
        print(render(after, args.format))
        if args.notes:
            print("\n".join(_notes(record)))
    return 0


def _pass(name: str) -> Pass:
    passes = {p.name: p for p in pipeline()}
    if name not in passes:
        raise unknown("pass", name, passes)
    return passes[name]


def _notes(record: Record) -> list[str]:
    lines = []
    for step in record.steps:
        lines.append(f"; {step.pass_.name}: {step.milliseconds:.2f} ms")
        lines += [f";   {note}" for note in step.notes]
    return lines
