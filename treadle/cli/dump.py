"""`treadle dump`: what a jitted function of a user's script becomes, after any pass."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from treadle.cli.output import FORMATS, render
from treadle.cli.script import ScriptError, trace_script
from treadle.ir.graph import Function
from treadle.ir.parser import parse_function
from treadle.ir.types import float32
from treadle.runtime.driver import chosen_target, compile_stages
from treadle.runtime.stages import Compilation
from treadle.tracer.backend import CompileOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE[:FUNCTION]",
        help="a script and one of its functions (default: its first jitted call), or an .ir file",
    )
    parser.add_argument(
        "--args",
        metavar="TYPES",
        help="argument types, such as 'f32[32,64], i64[32]'; default: the script runs until the "
        "function's first call",
    )
    parser.add_argument(
        "--stage",
        default="fuse",
        help="a pass's name, or traced, memory, plan, llvm, asm (default: fuse)",
    )
    parser.add_argument("--diff", action="store_true", help="show what that pass changed")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")


def run(args: argparse.Namespace) -> int:
    try:
        fn = _function(args.file, args.args)
    except (ScriptError, OSError, UnicodeDecodeError) as error:
        print(f"treadle dump: {error}", file=sys.stderr)
        return 1
    compilation = compile_stages(fn, CompileOptions(), chosen_target())
    try:
        text = compilation.diff(args.stage) if args.diff else _shown(compilation, args)
    except KeyError as error:
        print(f"treadle dump: {error.args[0]}", file=sys.stderr)
        return 2
    if args.format == "text":
        print("\n".join(_header(compilation, args.stage)))
    print(text)
    return 0


def _function(file: str, types: str | None) -> Function:
    if file.endswith(".ir"):
        return parse_function(Path(file).read_text("utf-8"), file)
    script, _, name = file.rpartition(":") if ":" in file else (file, "", "")
    if not script or script.endswith(("/", "\\")):  # a drive letter or no function at all
        script, name = file, ""
    return trace_script(Path(script), name or None, types)


def _shown(compilation: Compilation, args: argparse.Namespace) -> str:
    fn = compilation.function(args.stage)
    if fn is None or args.format == "text":
        return compilation.text(args.stage)
    return render(fn, args.format)


def _header(compilation: Compilation, stage: str) -> Iterator[str]:
    """Comment lines: target, times, rules that fired, reasons; IR text may follow and be parsed."""
    target = compilation.target
    yield (
        f"; @{compilation.traced.name} at stage {stage}; target {target.name} ({target.cpu}), "
        f"vectors of {target.vector_bytes} bytes ({target.lanes(float32)} x f32)"
    )
    yield "; ms: " + ", ".join(f"{t.name} {t.milliseconds:.2f}" for t in compilation.timings)
    for heading, is_rule in (("rules that fired", True), ("not done", False)):
        found = Counter(
            f"{pass_name}: {note}"
            for pass_name, note in compilation.notes()
            if (note.kind == "rule") == is_rule
        )
        if found:
            yield f"; {heading}:"
            yield from (
                f";   {n} x {text}" if n > 1 else f";   {text}" for text, n in found.items()
            )
