"""`make ulp`: the largest error of each function, measured, and put into docs/accuracy.md.

float32 functions of one operand over all 2^32 inputs, pow and float64 on stratified samples, on
every target that runs here. `PEERS=1` measures NumPy, torch and JAX, where they are installed, by
the same sweep. What is found is kept in a JSON file, function by function, so that a run can be
taken in pieces: `python -m treadle.bench.ulp exp log --json FILE`, and at last
`--json FILE --page PAGE`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final, get_args

from treadle.bench.accuracy import measure, measure_function
from treadle.bench.accuracy_page import with_tables
from treadle.bench.peer_maths import installed, maths_of, version_of
from treadle.bench.sweep import FUNCTIONS, sweep
from treadle.codegen.target import Target, named
from treadle.ir.scalar import MathName
from treadle.ir.types import DType, float32, float64

Found = dict[str, Any]

_PAIRS: Final = 2_000_000 // 64 * 64
_DOUBLES: Final = 131_072


def targets_here() -> list[Target]:
    names = ("neon",) if named("neon").runs_here() else ("sse2", "avx2", "avx512")
    return [named(n) for n in names if named(n).runs_here()]


def single(name: str, targets: list[Target], peers: tuple[str, ...], stride: int) -> Found:
    """A function of one float32 operand, ours and the peers'."""
    maths = {p: maths_of(p) for p in peers}
    fns = {p: fns[name] for p, fns in maths.items() if name in fns}
    return {who: _told(w.error, (w.x,)) for who, w in sweep(name, targets, fns, stride).items()}


def double(name: MathName, targets: list[Target], peers: tuple[str, ...]) -> Found:
    """A float64 function against mpmath, ours and the peers'."""
    return _sampled(name, float64, _DOUBLES, targets, peers)


def power(targets: list[Target], peers: tuple[str, ...]) -> Found:
    """pow of float32 against float64, ours and the peers'."""
    return _sampled("pow", float32, _PAIRS, targets, peers)


def _sampled(
    name: MathName, dtype: DType, count: int, targets: list[Target], peers: tuple[str, ...]
) -> Found:
    rows = {t.name: measure(name, dtype, t, count) for t in targets}
    for peer in peers:
        fn = maths_of(peer).get(name)
        if fn is not None:
            rows[peer] = measure_function(name, dtype, fn, count)
    return {who: _told(row.error, row.worst) for who, row in rows.items()}


def _told(error: float, at: tuple[float, ...]) -> Found:
    """As JSON has it, which knows no infinity."""
    return {"ulp": str(float(error)), "at": [str(x) for x in at]}


def main() -> None:
    """Measure the functions that are named (all of them by default), then print the page."""
    parser = argparse.ArgumentParser(prog="ulp", description="errors in units of the last place")
    names = [*FUNCTIONS, "pow", "float64"]
    parser.add_argument("what", nargs="*", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--peers", action="store_true", help="NumPy, torch and JAX as well")
    here = ",".join(t.name for t in targets_here())
    parser.add_argument("--targets", default=here, help=f"default: {here}; '' for the peers alone")
    parser.add_argument("--stride", type=int, default=1, help="only every so manieth input")
    parser.add_argument("--json", type=Path, help="add what is found to this file")
    parser.add_argument("--page", type=Path, help="put the tables of --json into this page")
    args = parser.parse_args()
    unknown = sorted(set(args.what) - set(names))
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(names)}")
    if args.page is None or args.what:
        _measure(args.what or names, args)
    if args.page is not None:
        found = _read(args.json, args.stride)
        args.page.write_text(with_tables(args.page.read_text("utf-8"), found), "utf-8")


def _read(file: Path | None, stride: int) -> Found:
    """What was found before, if anything."""
    if file is None or not file.is_file():
        return {"float32": {}, "float64": {}, "versions": {}, "stride": stride}
    found: Found = json.loads(file.read_text("utf-8"))
    if found["stride"] != stride:
        raise SystemExit(f"{file} was measured with --stride {found['stride']}")
    return found


def _measure(what: list[str], args: argparse.Namespace) -> None:
    targets = [t for t in targets_here() if t.name in args.targets.split(",")]
    peers = installed() if args.peers else ()
    for name in what:
        begun = perf_counter()
        if name == "float64":
            dtype, rows = "float64", {fn: double(fn, targets, peers) for fn in get_args(MathName)}
        elif name == "pow":
            dtype, rows = "float32", {name: power(targets, peers)}
        else:
            dtype, rows = "float32", {name: single(name, targets, peers, args.stride)}
        for fn, row in rows.items():
            cells = ", ".join(f"{who} {c['ulp'][:6]} at {c['at']}" for who, c in row.items())
            print(f"{fn}: {cells}")
        print(f"  {perf_counter() - begun:.1f} s", flush=True)
        if args.json:
            _keep(args.json, args.stride, dtype, rows, peers)


def _keep(
    file: Path, stride: int, dtype: str, rows: Mapping[str, Found], peers: Sequence[str]
) -> None:
    """Add rows to the file as it is now: another piece of the work may have written to it."""
    found = _read(file, stride)
    for name, row in rows.items():
        found[dtype].setdefault(name, {}).update(row)
    found["versions"] |= {p: version_of(p) for p in peers}
    file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
