"""What a call must bring to machine code, and what it gets: all that outlives a compilation.

It is plain data that can be written to disk beside the code. Everything else that a compilation
knows (its stages, the user's lines) is made again when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from treadle.ir.dataclass import dataclass
from treadle.ir.op import ArrayData
from treadle.ir.types import DType, TensorType

if TYPE_CHECKING:
    from treadle.codegen.emission import HostCall
    from treadle.runtime.stages import Compilation


Types = tuple[tuple[tuple[int, ...], DType], ...]  # shapes and dtypes
Call = tuple[str, str, int, Types, Types]  # op, text, number, what it takes, what it gives


@dataclass(frozen=True, slots=True)
class Interface:
    """How machine code is called.

    `entry`: its symbol. `params`: how many buffers come first. `results`: shape and dtype of each.
    `in_place`: (param, result) pairs that share the parameter's
    buffer. `constants`: the arrays that are passed behind the results. `workspace` bytes and after
    them `scratch` bytes for each thread are what a call needs besides. `parallel`: whether more
    than one thread can be of use. `cycles`: about how long a run takes on one thread. `given`: the
    results that callers get; what follows is shown in the texts `prints`. `objects`: the sizes of
    the object files that the code is made of. `host_calls`: where it calls Python.
    """

    entry: str
    params: int
    results: tuple[tuple[tuple[int, ...], DType], ...]
    in_place: tuple[tuple[int, int], ...]
    constants: tuple[ArrayData, ...]
    workspace: int
    scratch: int
    parallel: bool
    cycles: int
    given: int
    prints: tuple[str, ...]
    objects: tuple[int, ...]
    host_calls: tuple[Call, ...] = ()


def interface_of(compilation: Compilation, objects: Sequence[bytes]) -> Interface:
    """The interface of the code that `compilation` emitted, compiled to `objects`."""
    from treadle.runtime.outcome import printed_texts

    fn, emitted = compilation.kernels, compilation.emitted
    return Interface(
        entry=emitted.entry,
        params=len(fn.params),
        results=tuple((v.type.static_shape, v.type.dtype) for v in fn.outputs),
        in_place=compilation.memory.in_place,
        constants=emitted.constants,
        workspace=emitted.workspace,
        scratch=emitted.scratch,
        parallel=emitted.parallel,
        cycles=sum(_cycles(k.body) for k in compilation.plan.kernels),
        given=sum(r.kind != "print" for r in fn.results),
        prints=printed_texts(fn),
        objects=tuple(map(len, objects)),
        host_calls=host_calls_of(emitted.host_calls),
    )


def host_calls_of(calls: Sequence[HostCall]) -> tuple[Call, ...]:
    """The calls of Python code as plain data."""
    return tuple((c.op, c.text, c.number, _plain(c.takes), _plain(c.gives)) for c in calls)


def _plain(types: Sequence[TensorType]) -> Types:
    return tuple((t.static_shape, t.dtype) for t in types)


_UNKNOWN = 1 << 20  # cycles of a kernel whose plan does not tell


def _cycles(body: object) -> int:
    """The work that the plan of a kernel states."""
    tiling = getattr(body, "tiling", body)
    return int(getattr(tiling, "work", _UNKNOWN))
