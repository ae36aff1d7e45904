"""`treadle bench`: the workloads of `bench/` beside the installed peers, in one run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from treadle.bench.workload import PEERS, Workload, workloads
from treadle.cli.mistake import Mistake, positive_int, positive_seconds, unknown
from treadle.ir.errors import TreadleError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workload", nargs="*", help="default: all but those that take long; see --list"
    )
    parser.add_argument(
        "--peers", help=f"comma-separated, of {','.join(PEERS)}; default: all that are installed"
    )
    parser.add_argument("--list", action="store_true", help="list the workloads and stop")
    parser.add_argument(
        "--rounds", type=positive_int, default=3, help="turns of each peer (default 3)"
    )
    parser.add_argument(
        "--seconds", type=positive_seconds, default=1.0, help="time of a turn (default 1)"
    )
    parser.add_argument(
        "--avx2", action="store_true", help="hold us and the peers to AVX2 on a machine with more"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table as text")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it (needs matplotlib)")
    parser.add_argument("--compare", type=Path, metavar="BASE", help="an earlier --json file")


def run(args: argparse.Namespace) -> int:
    known = workloads()
    if args.list:
        width = max(map(len, known))
        print("\n".join(f"{w.name:<{width}}  {w.title}" for w in known.values()))
        return 0
    wanted = args.peers.split(",") if args.peers else list(PEERS)
    for what, names, all_names in (
        ("workload", args.workload, list(known)),
        ("peer", wanted, list(PEERS)),
    ):
        for name in names:
            if name not in all_names:
                raise unknown(what, name, all_names)
    for file in (args.json, args.table, args.picture):
        if file is not None and not file.parent.is_dir():
            raise Mistake(f"there is no folder {file.parent} for {file.name}")
    base = _read(args.compare) if args.compare else None
    chosen = [known[n] for n in args.workload] or [w for w in known.values() if not w.on_request]
    result = _measure(args, chosen, wanted, explicit=bool(args.peers))
    return _report(args, result, base)


def _measure(
    args: argparse.Namespace, chosen: list[Workload], wanted: list[str], explicit: bool
) -> dict[str, Any]:
    from treadle.bench.report import to_json
    from treadle.bench.run import installed_peers, run_benchmark
    from treadle.bench.width import only_avx2

    if args.avx2:
        only_avx2()
    peers = installed_peers(wanted)
    for peer in wanted if explicit else ():
        if peer not in peers:
            print(f"treadle bench: {peer} is not installed here: left out", file=sys.stderr)
    done = run_benchmark(
        chosen, peers, rounds=args.rounds, seconds=args.seconds, progress=_progress
    )
    _progress("")
    return to_json(done)


def _report(args: argparse.Namespace, result: dict[str, Any], base: dict[str, Any] | None) -> int:
    from treadle.bench.report import compare, draw, save, table

    text = table(result)
    print(text)
    if base is not None:
        print(f"\ncompared with {args.compare}:\n{compare(base, result)}")
    if args.table:
        args.table.write_text(text + "\n", encoding="utf-8")
    if args.json:
        save(result, args.json)
    if args.picture:
        draw(result, args.picture)
    failed = any("error" in c for row in result["rows"] for c in row["cells"].values())
    return 1 if failed else 0


def _progress(text: str) -> None:
    """One line on a terminal, overwritten; nothing where stderr is a file."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["rows"], found["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TreadleError(f"{path} is not a result of `treadle bench --json`: {error}") from None
    return dict(found)
