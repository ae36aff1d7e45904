"""`treadle run`: a saved graph, on arrays from files."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from treadle.cli.mistake import Mistake
from treadle.data import read_npy
from treadle.graph import Graph, load_graph
from treadle.tracer.tensor import Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help="a file that Graph.save wrote")
    parser.add_argument(
        "--feed", action="append", default=[], metavar="NAME=FILE.npy",
        help="an argument's value, or that of any value of the graph; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--fetch", action="append", default=[], metavar="NAME[=FILE.npy]",
        help="what to compute (default: the results), and where to write it; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--dump",
        action="store_true",
        help="print the part of the graph that is needed, run nothing",
    )


def run(args: argparse.Namespace) -> int:
    if not Path(args.graph).is_file():
        raise Mistake(f"there is no file {args.graph}")
    graph = load_graph(args.graph)
    feed = {}
    for word in args.feed:
        name, equals, path = word.partition("=")
        if not equals:
            raise Mistake(f"--feed takes NAME=FILE.npy, found {word}")
        try:
            feed[name] = read_npy(path)
        except FileNotFoundError as error:
            raise Mistake(str(error)) from None
    wanted = [word.partition("=") for word in args.fetch]
    names = [name for name, _, _ in wanted] or graph.outputs
    if args.dump:
        print(graph.part(names, feed))
        return 0
    found = graph.run(names, feed)
    values = found if isinstance(found, list) else [found]
    files = [path for _, _, path in wanted] or [""] * len(names)
    _give(graph, names, values, files)
    return 0


def _give(graph: Graph, names: list[str], values: list[Tensor], files: list[str]) -> None:
    for name, value, path in zip(names, values, files, strict=True):
        if path:
            np.save(path, value.numpy())
        else:
            print(f"{name}: {graph.value(name).type} = {np.array2string(value.numpy())}")
