"""Elementwise arithmetic is NumPy's, bit for bit; reordering and contraction are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import treadle

Array = npt.NDArray[Any]
DTYPES = [np.float32, np.float64]


def operands(dtype: Any) -> tuple[Array, Array]:
    """Numbers of all sizes, with infinities, NaN, zeros and subnormals among them."""
    rng = np.random.default_rng(4)
    limit = 30 if dtype is np.float32 else 250
    found = rng.standard_normal((2, 997)) * 10.0 ** rng.integers(-limit, limit, (2, 997))
    x, y = found.astype(dtype)
    tiny = np.finfo(dtype).smallest_subnormal
    x[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, tiny, -7 * tiny, np.finfo(dtype).max]
    y[:8] = [1.0, 3.0, 0.0, 2.0, 1.0, 0.5, 3.0, 10.0]
    return x, y


EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "a*b - a*b": lambda a, b: a * b - a * b,
    "a*b + a": lambda a, b: a * b + a,
    "a*b + a*-b": lambda a, b: a * b + a * -b,
    "(a + b) - a": lambda a, b: (a + b) - a,
    "a / b * b": lambda a, b: a / b * b,
    "1 / (a * b)": lambda a, b: 1 / (a * b),
    "a * 0.5 * b / 3": lambda a, b: a * 0.5 * b / 3,
}


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_elementwise_arithmetic_equals_numpys_bit_for_bit(name: str, dtype: Any) -> None:
    f, (x, y) = EXPRESSIONS[name], operands(dtype)
    expected = f(x, y)
    for call in (f, treadle.jit(f)):
        found = call(treadle.tensor(x), treadle.tensor(y)).numpy()
        np.testing.assert_array_equal(found, expected)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(expected)[number])


@pytest.mark.parametrize("dtype", DTYPES)
def test_underflow_is_gradual_and_the_processors_mode_is_left_alone(dtype: Any) -> None:
    """Subnormal operands count and subnormal results are kept, in all threads and afterwards."""
    normal = np.finfo(dtype).smallest_normal
    x = np.full(300_000, normal)
    f = treadle.jit(lambda x: (x * 0.25, (x * 0.25) * 4.0, treadle.sum(x * 0.25)))
    for threads in (1, 2):
        with treadle.num_threads(threads):
            quarters, back, total = f(treadle.tensor(x))
        assert (quarters.numpy() == normal / dtype(4)).all()
        assert (back.numpy() == normal).all()
        assert float(total) == pytest.approx(len(x) * float(normal) / 4)
    assert normal * dtype(0.5) > 0  # in NumPy too, on this thread


def flags(llvm: str) -> set[str]:
    """The fast-math flags of the additions and products in a program."""
    found = re.findall(r"= f(?:add|sub|mul)((?: [a-z]+)*) [<fd]", llvm)
    return {flag for each in found for flag in each.split()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, set()), ({"reassociate": True}, {"reassoc"}), ({"contract": True}, {"contract"})],
)
def test_reordering_and_contraction_are_asked_for(
    options: dict[str, bool], expected: set[str]
) -> None:
    f = treadle.jit(lambda a, b: treadle.sum(a * b + a), **options)
    x, y = (treadle.tensor(np.linspace(-2, 3, 1001)) for _ in range(2))
    found = float(f(x, y))
    assert flags(f.ir("llvm")) == expected
    assert found == pytest.approx(float((x * y + x).sum()), rel=1e-12)


def test_contract_fuses_a_product_with_a_sum() -> None:
    """1 + 2^-30 squared, less 1 + 2^-29, is 0 in float64 products and 2^-60 in one operation."""
    a = treadle.tensor(np.full(64, 1 + 2.0**-30))
    b = treadle.tensor(np.full(64, -(1 + 2.0**-29)))
    plain = treadle.jit(lambda a, b: a * a + b)
    fused = treadle.jit(lambda a, b: a * a + b, contract=True)
    assert set(plain(a, b).tolist()) == {0.0}
    found = set(fused(a, b).tolist())
    has_fma = re.search(r"fmadd|fmla", fused.ir("asm")) is not None
    assert found == {2.0**-60 if has_fma else 0.0}  # SSE2 has nothing to fuse with


@pytest.mark.parametrize("number", [2.0, 3.3, 7.7, 1e3])
@pytest.mark.parametrize("n", [1, 3, 100, 768, 4096])
def test_equal_elements_are_within_the_bound_of_their_mean(number: float, n: int) -> None:
    x = treadle.tensor(np.full((2, n), number, np.float32))
    off = (40 + np.log2(n)) * 2.0**-24 * number
    bounds = [
        (lambda x: treadle.mean(x, axis=1) - number, off + number * 2.0**-24),
        (lambda x: treadle.std(x, axis=1), off),
        (lambda x: treadle.layer_norm(x, n), off / np.sqrt(1e-5)),
    ]
    for f, bound in bounds:
        assert abs(f(x).numpy()).max() <= bound
        assert abs(treadle.jit(f)(x).numpy()).max() <= bound
