"""`treadle profile`: where the time of a jitted function of a user's script goes."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.mistake import Mistake, positive_int
from treadle.cli.script import look_at_script, script_and_function
from treadle.ir.errors import TreadleError
from treadle.runtime.threads import MAX_THREADS, num_threads

if TYPE_CHECKING:
    from treadle.tracer.backend import Profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE[:FUNCTION]",
        help="a script and one of its functions (default: its first jitted call)",
    )
    parser.add_argument(
        "--args",
        metavar="TYPES",
        help="argument types, such as 'f32[32,64], i64[32]', for a call with zeros; default: the "
        "script runs until the function's first call, which is profiled, and stops there",
    )
    parser.add_argument(
        "--repeat", type=positive_int, default=20, metavar="N", help="runs of the step (default 20)"
    )
    parser.add_argument(
        "--threads", type=positive_int, metavar="N", help="default: as in the script"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write a timeline for chrome://tracing, Perfetto"
    )
    parser.add_argument(
        "--roofline", type=Path, metavar="FILE", help="draw rates below limits (needs matplotlib)"
    )


def run(args: argparse.Namespace) -> int:
    for file in (args.trace, args.roofline):
        if file is not None and not file.parent.is_dir():
            raise Mistake(f"there is no folder {file.parent} for {file.name}")
    with _threads(args.threads):
        profile = _profile(args)
    print(profile)
    if args.trace is not None:
        profile.to_chrome_trace(args.trace)
    if args.roofline is not None:
        _draw(profile, args.roofline)
    return 0


def _threads(count: int | None) -> AbstractContextManager[None]:
    if count is None:
        return nullcontext()
    if count > MAX_THREADS:
        raise Mistake(f"--threads must be at most {MAX_THREADS}, found {count}")
    return num_threads(count)


def _profile(args: argparse.Namespace) -> Profile:
    script, name = script_and_function(args.file)
    if script.suffix == ".ir":
        raise Mistake("an .ir file has no data to run on: name a script")
    found: Profile = look_at_script(
        script, name, args.args,
        lambda fn, given, named: fn.profile(*given, repeat=args.repeat, **named),
    )  # fmt: skip
    return found


def _draw(profile: Profile, path: Path) -> None:
    try:
        profile.roofline(path)
    except (ImportError, ValueError, OSError) as error:
        raise TreadleError(f"{path.name} was not drawn: {error}") from None
