"""`Graph`: a program that was traced from shapes alone, to look at, to save and to run in parts.

    def program():
        v1 = treadle.tensor([1.0])
        v2 = treadle.exp(v1)
        v3 = v2 + 1
        v4 = v2 * v3
        return v4

    graph = treadle.trace(program, [])
    graph.run(fetch="v3")                        # only what v3 needs is compiled and run
    graph.run(fetch="v4", feed={"v2": [2.0]})    # v2 is given, not computed

A value is named as the line names it that made it (`v3 = ...`; the last such line), by the path of
its parameter, or as the printed program numbers it (`%3`).
"""

from __future__ import annotations

import ast
import json
import linecache
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.cut import cut
from treadle.ir.errors import ArgumentError, DTypeError, ParseError, ShapeError
from treadle.ir.graph import Function, Loc, Param, Value
from treadle.ir.parser import parse_arguments, parse_function
from treadle.ir.printer import print_function, value_names
from treadle.ir.types import TensorType, shape_text
from treadle.tracer.backend import CompileOptions, Executable, compiler
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located, located_errors
from treadle.tracer.jit import Jitted, jit
from treadle.tracer.tensor import Tensor

Array = npt.NDArray[Any]
Names = str | Sequence[str]
_HEAD = "; names: "


class Graph:
    """A program with the values of what it captured.

    `function`: the traced program. `state`: the array of each state parameter, by path. `names`:
    values by name.
    """

    def __init__(
        self, function: Function, state: Mapping[str, Array], names: Mapping[str, Value]
    ) -> None:
        self.function = function
        self.state = dict(state)
        self.names = dict(names)
        self._numbers = {name: value for value, name in value_names(function).items()}
        self._compiled: dict[tuple[tuple[Value, ...], tuple[Value, ...]], Executable] = {}

    def __str__(self) -> str:
        return print_function(self.function)

    def _repr_html_(self) -> str:
        return self.function._repr_html_()

    @property
    def outputs(self) -> list[str]:
        """The names of the program's results."""
        return [r.path for r in self.function.results if r.kind == "out"]

    def value(self, name: str) -> Value:
        """The value called `name`. Raises ArgumentError where there is none."""
        own = {r.path: r.value for r in self.function.results if r.kind == "out"}
        params = {p.path: p.value for p in self.function.params}
        for table in (self.names, params, own, self._numbers):
            if name in table:
                return table[name]
        known = ", ".join([*params, *self.names, *own])
        raise located(ArgumentError(f"the graph has no value {name!r}; there are {known}"))

    def part(self, fetch: Names | None = None, feed: Iterable[str] = ()) -> Function:
        """The program that computes what is fetched (default: the results) from what is fed and
        the parameters: values named in `feed` become parameters, and what nobody needs is left
        out."""
        names = self._fetched(fetch)
        fed = {self.value(name): name for name in feed}
        return cut(self.function, [(n, self.value(n)) for n in names], fed)

    def run(
        self, fetch: Names | None = None, feed: Mapping[str, Any] | None = None
    ) -> Tensor | list[Tensor]:
        """The values of what is fetched: one for a name, a list for several; the results unless
        something is named.

        `feed`: arguments, other values for captured ones, and values inside of the program that are
        then not computed. Raises ArgumentError for unknown names and missing arguments, ShapeError
        and DTypeError for what does not fit.
        """
        with located_errors():
            given = dict(feed or {})
            values = {self.value(name): array for name, array in given.items()}
            part = self.part(fetch, given)
            arrays = [self._array(param, values, given) for param in part.params]
            key = tuple(values), tuple(r.value for r in part.results)
            if key not in self._compiled:
                self._compiled[key] = compiler().compile(part, CompileOptions())
            tensors = run_on_copies(self._compiled[key], arrays)
        single = isinstance(fetch, str) or (fetch is None and len(tensors) == 1)
        return tensors[0] if single else tensors

    def save(self, path: str | Path) -> None:
        """Write the program as text to `path`, and what it captured, if anything, beside it as
        `path` + ".safetensors". `treadle run` and `load_graph` need no Python source.

        Each file is written under another name and renamed. The second names the first by its
        checksum: a process that dies between both leaves a pair that `load_graph` refuses.
        """
        from treadle.nn.weights_file import replace_file, write_file  # when they are used

        numbers = value_names(self.function)
        names = {name: numbers[value] for name, value in self.names.items()}
        text = f"{_HEAD}{json.dumps(names)}\n{print_function(self.function)}\n"
        with located_errors():
            if self.state:
                write_file(_weights(Path(path)), self.state, {"graph": _checksum(text)})
            replace_file(Path(path), text.encode("utf-8"))

    def _fetched(self, fetch: Names | None) -> list[str]:
        if fetch is None:
            return self.outputs
        return [fetch] if isinstance(fetch, str) else list(fetch)

    def _array(self, param: Param, given: Mapping[Value, Any], names: Mapping[str, Any]) -> Array:
        """What `param` of a part gets: by value, for a parameter of the whole, or by name."""
        if param.value in given:
            found = given[param.value]
        elif param.path in names:
            found = names[param.path]
        elif param.path in self.state:
            return self.state[param.path]
        else:
            raise ArgumentError(f"{param.path} is an argument of the graph: feed it")
        return fitting(param.path, found, param.value.type)


def trace(fn: Callable[..., Any], specs: Sequence[Any] = ()) -> Graph:
    """The graph of `fn` for arguments of these types; nothing is run.

    `specs`: a TensorType, a text such as "f32[2, 3]", or a tensor or array for each argument; any
    other value is the argument itself. What `fn` captures is copied as it is now. Raises what the
    function raises, and ArgumentError for specs that are no list or tuple.
    """
    if not isinstance(specs, (list, tuple)):
        raise located(
            ArgumentError(
                f"specs is a list with one entry for each argument, found {type(specs).__name__}: "
                "write [spec]"
            )
        )
    jitted = fn if isinstance(fn, Jitted) else jit(fn)
    arguments = [parse_arguments(s)[0] if isinstance(s, str) else s for s in specs]
    function, captured = jitted.captured(*arguments)
    state = {path: _copy(source) for path, source in captured.items()}
    return Graph(function, state, source_names(function))


def _copy(source: Any) -> Array:
    return np.array(source.cell.buffer if isinstance(source, Tensor) else source)


def run_on_copies(executable: Executable, arrays: Sequence[Array]) -> list[Tensor]:
    """The results; parameters whose buffers results are written into are copied before."""
    written = {param for param, _ in executable.in_place}
    taken = list(arrays)
    found = []
    for out in executable.run([a.copy() if n in written else a for n, a in enumerate(arrays)]):
        own = np.array(out) if any(np.may_share_memory(out, a) for a in taken) else out
        taken.append(own)
        found.append(Tensor(Cell.of(own)))
    return found


def fitting(name: str, given: Any, type: TensorType) -> Array:
    """What is given for a parameter, in its dtype. Raises ShapeError or DTypeError where it does
    not fit."""
    array = given.detach().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if array.dtype != type.dtype.dtype:
        if not np.can_cast(array.dtype, type.dtype.dtype, "same_kind"):
            raise DTypeError(f"{name} is {type.dtype.name}, fed with {array.dtype}")
        array = array.astype(type.dtype.dtype)
    if array.shape != type.shape:
        raise ShapeError(
            f"{name} has shape {shape_text(type.shape)}, fed with {shape_text(array.shape)}"
        )
    return np.array(array, order="C")


# --- names -----------------------------------------------------------------------------------


def source_names(fn: Function) -> dict[str, Value]:
    """The value that each name of the user's program stands for in the end: `v3 = v2 + 1` names
    the last value that the line made."""
    last: dict[Loc, Value] = {}
    for instr in fn.instrs:
        if instr.results and instr.loc is not None and not instr.loc.role:
            last[instr.loc] = instr.results[0]
    found: dict[str, Value] = {}
    for loc, value in last.items():
        name = _assigned(linecache.getline(loc.file, loc.line))
        if name is not None:
            found[name] = value
    return found


def _assigned(line: str) -> str | None:
    """The name on the left of an assignment of one line."""
    try:
        (statement,) = ast.parse(line.strip()).body
    except (SyntaxError, ValueError):
        return None
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target: ast.expr = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    else:
        return None
    return target.id if isinstance(target, ast.Name) else None


# --- files -----------------------------------------------------------------------------------


def load_graph(path: str | Path) -> Graph:
    """A graph that `Graph.save` wrote. Raises FileNotFoundError; ParseError where the text is no
    program; CheckpointError for damaged or missing weights."""
    from treadle.nn.weights_file import CheckpointError, read_file

    with located_errors():
        path = Path(path)
        text = path.read_text(encoding="utf-8")
        fn = parse_function(text, str(path))
        numbers = {name: value for value, name in value_names(fn).items()}
        listed = _listed_names(path, text.partition("\n")[0])
        unknown = [n for n in listed.values() if n not in numbers]
        if unknown:
            raise ParseError(f"{path}: there is no value {unknown[0]}, which is named above")
        wanted = {p.path: p.value.type for p in fn.params if p.kind == "state"}
        state, notes = read_file(_weights(path)) if wanted else ({}, {})
        if notes.get("graph", _checksum(text)) != _checksum(text):
            raise CheckpointError(f"{_weights(path)} belongs to another graph than {path}")
        for name, type in wanted.items():
            found = state.get(name)
            if found is None or found.shape != type.shape or found.dtype != type.dtype.dtype:
                raise CheckpointError(f"{_weights(path)} lacks {name}: {type}")
        return Graph(fn, state, {k: numbers[v] for k, v in listed.items()})


def _listed_names(path: Path, line: str) -> dict[str, str]:
    """The names of values that the first line of a saved graph lists, if it does."""
    if not line.startswith(_HEAD):
        return {}
    try:
        found = json.loads(line.removeprefix(_HEAD))
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise ParseError(f"{path}, line 1: expected names of values, found {line[:60]!r}")
    return found


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode("utf-8"))


def _weights(path: Path) -> Path:
    return path.with_name(path.name + ".safetensors")
