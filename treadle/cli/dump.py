"""`treadle dump`: what a jitted function of a user's script becomes, after any pass."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator

from treadle.cli.mistake import Mistake, unknown
from treadle.cli.output import FORMATS, read_functions, render
from treadle.cli.script import look_at_script, script_and_function, trace_script
from treadle.codegen.target import Target
from treadle.ir.errors import TreadleError
from treadle.ir.graph import Function
from treadle.ir.types import float32
from treadle.passes.manager import Note, Record, run_pipeline
from treadle.passes.pipeline import pipeline
from treadle.runtime.driver import chosen_target, compile_stages
from treadle.runtime.stages import PLAN_STAGES, Compilation, Timing, diff_of_step
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
        "function's first call and stops there",
    )
    parser.add_argument(
        "--stage",
        default="fuse",
        help=f"traced, a pass ({', '.join(p.name for p in pipeline())}), "
        f"{', '.join(PLAN_STAGES)}; default: fuse",
    )
    parser.add_argument("--diff", action="store_true", help="show what that pass changed")
    parser.add_argument(
        "--format",
        choices=(*FORMATS, "html"),
        default="text",
        help="default: text; html: one page with the source and all stages, linked",
    )
    parser.add_argument(
        "--profile", action="store_true", help="with --format html: the times of each kernel too"
    )


def run(args: argparse.Namespace) -> int:
    if args.format == "html":
        print(_page(args))
        return 0
    if args.profile:
        raise Mistake("--profile goes with --format html; `treadle profile` prints the times")
    fn = _function(args.file, args.args)
    passes = [p.name for p in pipeline()]
    if args.stage not in ("traced", *passes, *PLAN_STAGES):
        raise unknown("stage", args.stage, ("traced", *passes, *PLAN_STAGES))
    if args.diff and args.stage not in passes:
        raise Mistake(f"--diff shows what a pass changed, and {args.stage} is not a pass")
    if args.format != "text" and (args.diff or args.stage in PLAN_STAGES):
        what = "a diff" if args.diff else f"stage {args.stage}"
        raise Mistake(f"{what} is text: it cannot be drawn as {args.format}")
    for line in _shown(fn, args):
        print(line)
    return 0


def _page(args: argparse.Namespace) -> str:
    """The page of a function, all stages on it."""
    from treadle.cli.page import page  # what the other formats do not need

    if args.diff:
        raise Mistake("a diff is text: it cannot be drawn as html")
    if not args.profile:
        fn = _function(args.file, args.args)
        return page(compile_stages(fn, CompileOptions(), chosen_target()))
    script, name = script_and_function(args.file)
    if script.suffix == ".ir":
        raise Mistake("an .ir file has no data to run on: leave --profile out")
    profile = look_at_script(
        script, name, args.args, lambda fn, given, named: fn.profile(*given, **named)
    )
    return page(compile_stages(profile.function, CompileOptions(), chosen_target()), profile)


def _function(file: str, types: str | None) -> Function:
    script, name = script_and_function(file)
    if script.suffix != ".ir":
        return trace_script(script, name, types)
    if types is not None:
        raise Mistake("an .ir file has its types: leave --args out")
    functions = {fn.name: fn for fn in read_functions(str(script))}
    if name and name not in functions:
        raise unknown("function", name, functions, f" in {script}")
    if not name and len(functions) > 1:
        raise Mistake(f"{script} holds {', '.join(functions)}: choose one with {script}:NAME")
    return functions[name] if name else next(iter(functions.values()))


def _shown(fn: Function, args: argparse.Namespace) -> Iterator[str]:
    target = chosen_target()
    try:
        compilation = compile_stages(fn, CompileOptions(), target)
    except TreadleError as error:
        if args.stage in PLAN_STAGES:
            raise
        yield from _shown_until(fn, args, target, error)
        return
    shown = compilation.function(args.stage)
    if shown is not None and args.format != "text":
        yield render(shown, args.format)
        return
    notes = [(p, n) for p, n in compilation.notes() if not args.diff or p == args.stage]
    yield from _header(fn, args.stage, target, compilation.timings, notes)
    yield _diff(compilation, args.stage) if args.diff else compilation.text(args.stage)


def _diff(compilation: Compilation, stage: str) -> str:
    return compilation.diff(stage) or f"; {stage} changes nothing"


def _shown_until(
    fn: Function, args: argparse.Namespace, target: Target, error: TreadleError
) -> Iterator[str]:
    """The stage of a program that a later stage refuses: only the passes up to it are run."""
    names = [p.name for p in pipeline()]
    count = names.index(args.stage) + 1 if args.stage in names else 0
    record = Record()
    after = run_pipeline(fn, pipeline()[:count], [record])
    if args.format != "text":
        yield render(after, args.format)
        return
    timings = [Timing(s.pass_.name, s.milliseconds) for s in record.steps]
    notes = [(s.pass_.name, n) for s in record.steps for n in s.notes]
    yield from _header(fn, args.stage, target, timings, notes)
    yield f"; a later stage fails: {str(error).splitlines()[0]}"
    if args.diff:
        yield diff_of_step(record.steps[-1]) or f"; {args.stage} changes nothing"
    else:
        yield render(after, "text")


def _header(
    fn: Function,
    stage: str,
    target: Target,
    timings: Iterable[Timing],
    notes: Iterable[tuple[str, Note]],
) -> Iterator[str]:
    """Comment lines: target, times, rules that fired, reasons; IR text may follow and be parsed."""
    yield (
        f"; @{fn.name} at stage {stage}; target {target.name} ({target.cpu}), "
        f"vectors of {target.vector_bytes} bytes ({target.lanes(float32)} x f32)"
    )
    yield "; ms: " + ", ".join(f"{t.name} {t.milliseconds:.2f}" for t in timings)
    told = list(notes)
    for heading, is_rule in (("rules that fired", True), ("not done, and why", False)):
        found = Counter(
            f"{pass_name}: {note}" for pass_name, note in told if (note.kind == "rule") == is_rule
        )
        if found:
            yield f"; {heading}:"
            yield from (
                f";   {n} x {text}" if n > 1 else f";   {text}" for text, n in found.items()
            )
