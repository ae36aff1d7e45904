"""The op table. Importing this package registers every op; each file holds one family."""

from treadle.ir.ops import (
    activations as activations,
    arithmetic as arithmetic,
    cast as cast,
    chain as chain,
    checks as checks,
    identity as identity,
    indexing as indexing,
    kernels as kernels,
    leaf as leaf,
    linalg as linalg,
    logic as logic,
    losses as losses,
    movement as movement,
    normalization as normalization,
    reductions as reductions,
    rounding as rounding,
    scan as scan,
    slicing as slicing,
    softmax as softmax,
    transcendental as transcendental,
)
