"""Max-pools behind and before other ops: what the rewrites around them must not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.ir.op import get_op
from treadle.nn import functional

ODD = np.array([-0.0, 0.0, -1.0, 2.0, np.nan, -np.inf, np.inf, 2.0], np.float32)


def _pool_before_and_behind(x: Any, kernel: int, pads: int) -> tuple[Any, Any]:
    """max_pool(relu(x)) and relu(max_pool(x)) by the definitions of both."""
    relu, pool = get_op("relu"), get_op("max_pool")
    attrs: Any = pool.attrs(
        axes=(1,), kernel=(kernel,), stride=(2,), padding=((pads, pads),), dilation=(1,)
    )
    none: Any = relu.attrs()
    before = pool.ref(attrs, relu.ref(none, x))[0]
    return before, relu.ref(none, pool.ref(attrs, x)[0])


@pytest.mark.parametrize(("kernel", "pads"), [(2, 0), (3, 1), (3, 2)])
def test_relu_behind_a_pool_gives_the_bits_of_relu_before_it(kernel: int, pads: int) -> None:
    rng = np.random.default_rng(kernel)
    before, behind = _pool_before_and_behind(rng.choice(ODD, (50, 31)), kernel, pads)
    assert before.tobytes() == behind.tobytes()


def _step(x: Any, w: Any, b: Any) -> tuple[Any, ...]:
    def loss(x: Any, w: Any, b: Any) -> Any:
        y = functional.max_pool2d(functional.relu(functional.conv2d(x, w, b, padding=1)), 2)
        return treadle.sum(y * y)

    return treadle.grad(loss, argnums=(0, 1, 2))(x, w, b)  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [8, 9])
def test_gradients_through_relu_and_pool_are_those_of_the_eager_ops(size: int) -> None:
    rng = np.random.default_rng(size)
    args = [rng.standard_normal(s) for s in ((2, 3, size, size), (5, 3, 3, 3), (5,))]
    args[0][0] = -4  # windows without a positive element
    given = [treadle.tensor(a) for a in args]
    for found, expected in zip(treadle.jit(_step)(*given), _step(*given), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-11, atol=1e-11)


def test_a_batch_norm_under_a_pool_sums_its_gradients_over_windows() -> None:
    rng = np.random.default_rng(3)
    x = treadle.tensor(rng.standard_normal((4, 3, 7, 8)))
    weight, bias = (treadle.tensor(rng.standard_normal(3)) for _ in range(2))

    def step(x: Any, weight: Any, bias: Any) -> Any:
        def loss(x: Any, weight: Any, bias: Any) -> Any:
            y = functional.batch_norm(x, None, None, weight, bias, training=True)
            return treadle.sum(functional.max_pool2d(functional.relu(y), 2) ** 3)

        return treadle.grad(loss, argnums=(0, 1, 2))(x, weight, bias)

    compiled = treadle.jit(step)
    for found, expected in zip(compiled(x, weight, bias), step(x, weight, bias), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9, atol=1e-9)
