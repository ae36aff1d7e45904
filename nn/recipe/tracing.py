"""A model traced for a look: which layer and which line made each instruction, and which reshapes
the user wrote.

Nothing of the user's is touched by a trace. What it gives is compiled and run on arrays; parameters
and state are the model's own, read only, unless others are given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.op import Attrs, OpDef
from treadle.ir.types import type_of_array
from treadle.nn.containers import ModuleList, Sequential
from treadle.nn.dropout import Dropout
from treadle.nn.module import Module
from treadle.nn.normalization import BatchNorm1d, BatchNorm2d
from treadle.tracer import pytree
from treadle.tracer.backend import CompileOptions, compiler
from treadle.tracer.location import is_inside
from treadle.tracer.modes import enable_grad
from treadle.tracer.shapes import ShapeTrace
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace

Array = npt.NDArray[Any]
Hook = Callable[["LookTrace", str, Module, Any], Any]

_NN: Final = Path(__file__).resolve().parent.parent
_API: Final = _NN.parent / "tracer" / "api"
# Layers that reshape as their user tells them to.
_THE_USERS: Final = str(_NN / "shape.py")
_TELLING: Final = frozenset({"debug_print", "watch"})
_RESHAPES: Final = frozenset({"reshape", "flatten"})
_AROUND: Final = frozenset(
    str(_NN / name) for name in ("module.py", "containers.py", "hooks.py", "shape.py")
) | frozenset(str(p) for p in Path(__file__).resolve().parent.glob("*.py"))


class LookTrace(ShapeTrace):
    """A trace that knows the layer that each instruction was made in."""

    def __init__(self) -> None:
        numbers = count()
        Trace.__init__(self, "check", lambda _: f"state{next(numbers)}")
        self.layers: list[str] = []  # the layers that are running, the innermost last
        self.made_in: dict[Instr, str] = {}
        self.reshapes: list[Instr] = []  # those that the user wrote

    def apply(self, op: OpDef, operands: Sequence[Tensor], attrs: Attrs) -> tuple[Tensor, ...]:
        """Record `op`, unless it only tells others of values; a reshape is noted where the user
        wrote it."""
        if op.name in _TELLING:
            return ()
        before = len(self.builder.instrs)
        found = super().apply(op, operands, attrs)
        self._note_reshapes(before)
        return found

    def show(self, x: Tensor) -> None:
        """A new view; a reshape is noted where the user wrote it."""
        before = len(self.builder.instrs)
        super().show(x)
        self._note_reshapes(before)

    def _note_reshapes(self, before: int) -> None:
        made = [i for i in self.builder.instrs[before:] if i.op.name == "reshape"]
        if made and _asked_by_the_user():
            self.reshapes += made

    def enter(self, layer: str) -> None:
        """A layer begins to run."""
        self._name()
        self.layers.append(layer)

    def leave(self) -> None:
        """The innermost layer has run."""
        self._name()
        self.layers.pop()

    def _name(self) -> None:
        """What was recorded since the last change belongs to the innermost layer."""
        layer = self.layers[-1] if self.layers else ""
        for instr in self.builder.instrs[len(self.made_in) :]:
            self.made_in[instr] = layer

    def function(self, results: Mapping[str, Tensor]) -> Function:
        """What was traced, as far as these results need it, by name."""
        self._name()
        listed = [Result(self.value_of(t), name) for name, t in results.items()]
        return self.finish(listed)

    def state(self) -> dict[Value, Array]:
        """What was captured, as it is now."""
        found = {}
        for capture in self.captures:
            source = capture.source
            found[capture.value] = source.cell.buffer if isinstance(source, Tensor) else source
        return found

    def line_of(self, instr: Instr | None) -> str:
        """The user's line that made an instruction, `file:line`."""
        return "" if instr is None or instr.loc is None else str(instr.loc)


def _asked_by_the_user() -> bool:
    """Whether the reshape that is being recorded stands in the user's code, rather than inside of a
    function or a layer of the library."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and is_inside(frame.f_code.co_filename):
        path = frame.f_code.co_filename
        if path == _THE_USERS:
            return True
        inside_nn = path.startswith(str(_NN)) and path not in _AROUND
        other_function = (
            path.startswith(str(_API))
            and not path.endswith("arguments.py")
            and frame.f_code.co_name not in _RESHAPES
        )
        if inside_nn or other_function:
            return False
        frame = frame.f_back
    return True


@contextmanager
def looking(model: Module, hook: Hook | None = None) -> Iterator[LookTrace]:
    """In this block the thread traces; `hook(trace, path, module, result)` is called with the
    result of each layer, and what it returns, unless None, takes its place."""
    trace = LookTrace()
    handles = []

    def enter(path: str) -> Callable[..., None]:
        return lambda module, args: trace.enter(path)

    def leave(path: str) -> Callable[..., Any]:
        def after(module: Module, args: Any, result: Any) -> Any:
            trace.leave()
            return None if hook is None else hook(trace, path, module, result)

        return after

    try:
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(enter(path)))
            handles.append(module.register_forward_hook(leave(path)))
        with trace, enable_grad():
            yield trace
    finally:
        for handle in handles:
            handle.remove()


def arguments(trace: LookTrace, arrays: Sequence[Array], names: str) -> list[Tensor]:
    """A tensor for each array."""
    return [trace.arg(type_of_array(a), f"{names}{n}") for n, a in enumerate(arrays)]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A compiled Function with the arrays of its state."""

    function: Function
    state: Mapping[Value, Array]
    executable: Any

    def run(
        self, arrays: Mapping[str, Array], other: Mapping[Value, Array] | None = None
    ) -> dict[str, Array]:
        """The results by name. `arrays`: the arguments by path; `other`: what takes the place of
        state."""
        state = {**self.state, **(other or {})}
        given = [
            arrays[p.path] if p.path in arrays else state[p.value] for p in self.function.params
        ]
        written = {param for param, _ in self.executable.in_place}
        own = [
            np.array(a, order="C") if n in written else np.ascontiguousarray(a).reshape(a.shape)
            for n, a in enumerate(given)
        ]
        found = self.executable.run(own)
        names = [r.path for r in self.function.results]
        return dict(zip(names, found, strict=True))


def compiled(trace: LookTrace, function: Function) -> Program:
    """What was traced, ready to run; to be called when the trace is over."""
    return Program(function, trace.state(), compiler().compile(function, CompileOptions()))


# --- what models give ------------------------------------------------------------------------


def tensors_in(found: Any) -> list[Tensor]:
    """The tensors of a tree, in order."""
    return [x for x in pytree.flatten(found)[0] if isinstance(x, Tensor)]


def total(found: Any) -> Tensor:
    """One loss: itself, or the sum of several in a dict, a tuple or a list."""
    losses = tensors_in(found)
    return sum(losses[1:], losses[0])


def is_leaf(module: Module) -> bool:
    """Whether no layer is inside."""
    return not isinstance(module, (Sequential, ModuleList)) and not list(module.children())


def has_batch_norm(model: Module) -> bool:
    """Whether a layer takes statistics over the batch."""
    return any(isinstance(m, (BatchNorm1d, BatchNorm2d)) for m in model.modules())


def set_training(model: Module) -> None:
    """Training mode without what is random: dropout rests, batch norm takes the batch's
    statistics. Modules of the user's own train."""
    for module in model.modules():
        own = type(module).__module__.startswith("treadle.nn")
        module.training = isinstance(module, (BatchNorm1d, BatchNorm2d)) or not own
        if isinstance(module, Dropout):
            module.training = False


def layer_name(model: Module, path: str) -> str:
    """`encoder.2 (Linear)`"""
    module = dict(model.named_modules()).get(path)
    kind = "" if module is None else type(module).__name__
    return f"{path} ({kind})" if path else kind
