"""How a contraction with windows runs that no other kernel takes: plain loops.

For each element of the result a sum over the other letters, one term after the other, those under
padding left out. Any dtype, any spec, any size; nothing is gathered.
"""

from __future__ import annotations

from math import prod

from treadle.codegen.plan_epilogue import plan_epilogue
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.plan_tiles import Tiling, tiling
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function
from treadle.ir.ops.contract_spec import Spec, letter_sizes, letters, read_spec
from treadle.ir.types import DType, TensorType


@dataclass(frozen=True, slots=True)
class WindowLoopsPlan:
    """`sizes`: of the result's letters, then of the summed ones."""

    spec: Spec
    dtype: DType
    left: tuple[int, ...]
    right: tuple[int, ...]
    out: tuple[int, ...]
    summed: tuple[int, ...]
    tiling: Tiling
    epilogue: FusedPlan | None

    spread = False
    shared = 0
    own = 0

    @property
    def sums(self) -> str:
        """The summed letters."""
        both = dict.fromkeys(letters(self.spec.left) + letters(self.spec.right))
        return "".join(x for x in both if x not in self.spec.out)

    def __str__(self) -> str:
        text = f"plain loops over {prod(self.out)} sums of {prod(self.summed)} {self.dtype}"
        return f"{text}, windows {self.spec}; {self.tiling}"


def plan_window_loops(
    text: str,
    left: TensorType,
    right: TensorType,
    result: TensorType,
    target: Target,
    region: Function | None,
) -> WindowLoopsPlan:
    """The plan for any contraction."""
    spec = read_spec(text)
    sizes = {x: n for x, n in letter_sizes(text, left, right).items() if isinstance(n, int)}
    both = dict.fromkeys(letters(spec.left) + letters(spec.right))
    summed = tuple(sizes[x] for x in both if x not in spec.out)
    out = result.static_shape
    epilogue = None
    if region is not None:
        loops = [(n, prod(out[i + 1 :])) for i, n in enumerate(out)] or [(1, 1)]
        epilogue = plan_epilogue(region, loops, target)
    cut = tiling(out, [1] * len(out), 4 * prod(out) * prod(summed))
    return WindowLoopsPlan(
        spec, result.dtype, left.static_shape, right.static_shape, out, summed, cut, epilogue
    )
