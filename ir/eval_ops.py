"""`NumpyOps`: rules written with `Ops` run at once on NumPy arrays, op by op by the references."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.ir.builder import Ops
from treadle.ir.op import NO_ATTRS, Array, Attrs, OpDef
from treadle.ir.types import TensorType, type_of_array


class NumpyOps(Ops[Array]):
    """Ops on arrays. The type rule runs first, so bad operands give its error."""

    def emit(self, op: OpDef, args: Sequence[Array], attrs: Attrs = NO_ATTRS) -> tuple[Array, ...]:
        op.infer_types(attrs, [type_of_array(a) for a in args])
        return op.run_ref(attrs, args)

    def type_of(self, x: Array) -> TensorType:
        return type_of_array(x)
