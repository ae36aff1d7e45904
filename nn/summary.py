"""`summary`: what each layer of a model gives and costs, from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ArgumentError, DTypeError, TreadleError
from treadle.ir.types import TensorType, dtype_of, float32, shape_text
from treadle.ir.work import work_of
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.nn.table import text_table
from treadle.tracer.errors import located
from treadle.tracer.shapes import shape_trace
from treadle.tracer.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One call of one layer. `parameters`: its own, those of layers inside not counted; 0 where
    they were counted before. `flops`: its operations, those of layers inside not counted."""

    path: str
    layer: str
    output: str
    parameters: int
    flops: int
    depth: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows, in the order in which the layers are called; `str` is a table."""

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """The number of all parameters, a shared one once."""
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> int:
        """The floating-point operations of one forward pass."""
        return sum(row.flops for row in self.rows)

    def __str__(self) -> str:
        cells = [
            (
                "  " * row.depth + (f"{name}: " if (name := row.path.rpartition(".")[2]) else "")
                + row.layer,
                row.output, f"{row.parameters:,}", f"{row.flops:,}",
            )
            for row in self.rows
        ]  # fmt: skip
        return text_table(
            ("layer", "output shape", "parameters", "FLOPs"),
            cells,
            ("total", "", f"{self.parameters:,}", f"{self.flops:,}"),
        )


def summary(
    model: Module, input_shape: Sequence[Any] | TensorType | str, dtype: object = None
) -> Summary:
    """What each layer of `model` gives for inputs of these shapes, with its parameters and FLOPs.

    `input_shape`: a shape, or one for each input; `dtype` (float32) is theirs, or one for each. A
    text such as "i64[2, 3], f32[2, 4]" says both.
    Nothing is computed. Layers that wait for their first input get their size from this one;
    running statistics and generators stay as they are. Raises what the model raises for such
    inputs.
    """
    shapes = _shapes(input_shape)
    if isinstance(dtype, (list, tuple)) and len(dtype) != len(shapes):
        raise located(ArgumentError(f"dtype has {len(dtype)} entries for {len(shapes)} inputs"))
    kinds = list(dtype) if isinstance(dtype, (list, tuple)) else [dtype] * len(shapes)
    types = [
        s if isinstance(s, TensorType) else TensorType(float32 if k is None else dtype_of(k), s)
        for s, k in zip(shapes, kinds, strict=True)
    ]
    return _Looker(model).look(types)


def _shapes(given: Any) -> list[Any]:
    if isinstance(given, TensorType):
        return [given]
    if isinstance(given, str):
        from treadle.ir.parser import parse_arguments  # where a text is given

        return _shapes(parse_arguments(given))
    if not isinstance(given, Sequence) or not given:
        raise _no_shape(given)
    if all(isinstance(n, int) for n in given):
        return [_sizes(given)]
    return [g if isinstance(g, TensorType) else _sizes(g) for g in given]


def _sizes(given: Any) -> tuple[int, ...]:
    if not isinstance(given, (list, tuple)):
        raise _no_shape(given)
    if not all(isinstance(n, int) and n >= 0 for n in given):
        raise _no_shape(given)
    return tuple(given)


def _no_shape(given: Any) -> TreadleError:
    return located(DTypeError(f"input_shape must be a shape or shapes, found {given!r:.60}"))


class _Looker:
    """Follows the calls of a model's layers during a trace of shapes."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.paths = {id(m): path for path, m in model.named_modules()}
        self.rows: list[Row | None] = []
        self.open: list[tuple[int, int, int]] = []  # row, first instruction, operations inside
        self.counted: set[int] = set()

    def look(self, types: Sequence[TensorType]) -> Summary:
        handles = []
        try:
            with shape_trace() as trace:
                self.instrs = trace.builder.instrs
                for module in self.model.modules():
                    handles.append(module.register_forward_pre_hook(self._enter))
                    handles.append(module.register_forward_hook(self._leave))
                self.model(*(trace.arg(t, f"input{n}") for n, t in enumerate(types)))
        finally:
            for handle in handles:
                handle.remove()
        return Summary(tuple(row for row in self.rows if row is not None))

    def _enter(self, module: Module, args: tuple[Any, ...]) -> None:
        self.open.append((len(self.rows), len(self.instrs), 0))
        self.rows.append(None)

    def _leave(self, module: Module, args: tuple[Any, ...], result: Any) -> None:
        at, first, inside = self.open.pop()
        whole = sum(work_of(i).flops for i in self.instrs[first:])
        self.rows[at] = Row(
            self.paths[id(module)], type(module).__name__, _shape(result),
            self._parameters(module), whole - inside, len(self.open),
        )  # fmt: skip
        if self.open:
            outer, start, other = self.open[-1]
            self.open[-1] = (outer, start, other + whole)

    def _parameters(self, module: Module) -> int:
        own = [v for v in module.__dict__.values() if isinstance(v, Parameter)]
        new = {id(p): p.size for p in own if id(p) not in self.counted}
        self.counted |= set(new)
        return sum(new.values())


def _shape(result: Any) -> str:
    if isinstance(result, Tensor):
        return shape_text(result.shape)
    if isinstance(result, (tuple, list)):
        return ", ".join(_shape(r) for r in result)
    return "-" if result is None else type(result).__name__
