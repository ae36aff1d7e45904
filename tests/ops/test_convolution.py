"""What the ops that convolve promise beyond the op table: messages, sizes, counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treadle.ir.builder import Builder
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import get_op
from treadle.ir.parser import parse_function
from treadle.ir.types import Dim, TensorType, float32, float64
from treadle.ir.work import work_of

PLAIN: dict[str, Any] = {
    "stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1,
}  # fmt: skip


def infer(name: str, *shapes: tuple[Any, ...], **attrs: Any) -> TensorType:
    op = get_op(name)
    (found,) = op.infer_types(
        op.attrs(**{**PLAIN, **attrs}), [TensorType(float32, shape) for shape in shapes]
    )
    return found


@pytest.mark.parametrize(
    ("shapes", "attrs", "message"),
    [
        (((2, 6, 8, 8), (7, 3, 3, 3)), {"groups": 2}, "groups=2 does not divide the 7 output"),
        (((2, 5, 8, 8), (4, 3, 3, 3)), {}, r"weight \(4, 3, 3, 3\) takes 3 input channels, found"),
        (((2, 5, 8, 8), (4, 3, 3, 3)), {"groups": 2}, "3 input channels in each of 2 groups, fo"),
        (((2, 3, 4, 8), (4, 3, 5, 3)), {}, r"5 taps span 5 elements of spatial axis 0, which has"),
        (((2, 3, 8, 6), (4, 3, 3, 3)), {"dilation": (1, 4)}, "3 taps with dilation 4 span 9 elem"),
        (((2, 3, 8), (4, 3, 3, 3)), {}, "two operands of one rank"),
        (((2, 3), (4, 3)), {}, "one spatial axis or more"),
        (((2, 3, 8, 8), (4, 3, 3, 3)), {"stride": (1,)}, "stride needs one entry for each of 2"),
        (((2, 3, 8, 8), (4, 3, 3, 3)), {"stride": (0, 1)}, "stride must be at least 1, found"),
        (((2, 3, 8, 8), (4, 3, 3, 3)), {"dilation": (1, -1)}, "dilation must be at least 1"),
        (((2, 3, 8, 8), (4, 3, 3, 3)), {"padding": ((0, -1), (0, 0))}, "padding must be pairs of"),
        (((2, 3, 8, 8), (4, 3, 3, 3)), {"groups": 0}, "groups must be at least 1, found 0"),
        (((2, 3, 8, 8), (4, 3, 0, 3)), {}, "sizes of at least 1, found 0"),
        (((2, 3, Dim.of("h"), 8), (4, 3, 3, 3)), {"stride": (2, 1)}, "fixed size for stride 2"),
    ],
)
def test_what_does_not_fit_is_named(shapes: Any, attrs: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        infer("conv", *shapes, **attrs)


def test_derivatives_name_what_does_not_fit() -> None:
    size = (8, 8)
    with pytest.raises(ShapeError, match=r"\(6, 6\) windows over .* \(8, 8\), found .* \(5, 6\)"):
        infer("conv_input_grad", (2, 4, 5, 6), (4, 3, 3, 3), size=size)
    with pytest.raises(ShapeError, match="needs the 4 output channels"):
        infer("conv_input_grad", (2, 5, 6, 6), (4, 3, 3, 3), size=size)
    with pytest.raises(ShapeError, match="size needs 2 numbers of at least 0"):
        infer("conv_input_grad", (2, 4, 6, 6), (4, 3, 3, 3), size=(8, -1))
    with pytest.raises(ShapeError, match="groups=2 does not divide the 3 input channels"):
        infer("conv_weight_grad", (2, 3, 8, 8), (2, 4, 6, 6), size=(3, 3), groups=2)
    with pytest.raises(ShapeError, match="the same batch size"):
        infer("conv_weight_grad", (2, 3, 8, 8), (1, 4, 6, 6), size=(3, 3))


def test_dtypes_must_be_one_float_type() -> None:
    op = get_op("conv")
    x, w = TensorType(float32, (2, 3, 8, 8)), TensorType(float64, (4, 3, 3, 3))
    with pytest.raises(DTypeError, match="operands of conv must have one dtype"):
        op.infer_types(op.attrs(**PLAIN), [x, w])


def test_the_batch_and_an_axis_of_stride_one_may_be_symbolic() -> None:
    n, h = Dim.of("n"), Dim.of("h")
    found = infer("conv", (n, 3, h, 8), (4, 3, 3, 3), padding=((1, 1), (0, 1)))
    assert found == TensorType(float32, (n, 4, h, 7))
    back = infer("conv_input_grad", (n, 4, 6, 6), (4, 3, 3, 3), size=(8, 8))
    assert back == TensorType(float32, (n, 3, 8, 8))
    b = Builder()
    op = get_op("conv")
    params = (
        b.param(TensorType(float32, (n, 3, 8, 8)), "x"),
        b.param(TensorType(float32, (4, 3, 3, 3)), "w"),
    )
    assert op.expand is not None
    assert op.expand(b, op.attrs(**PLAIN), *params).type == TensorType(float32, (n, 4, 6, 6))


def test_expansions_make_no_buffer_of_all_windows() -> None:
    """Nothing is larger than the padded input, the padded cotangent, or the result."""
    shapes = {"x": (2, 8, 16, 16), "w": (8, 8, 3, 3), "g": (2, 8, 8, 8)}
    windows = {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    for name, operands, size in [
        ("conv", "xw", {}),
        ("conv_input_grad", "gw", {"size": (16, 16)}),
        ("conv_weight_grad", "xg", {"size": (3, 3)}),
    ]:
        b = Builder()
        op = get_op(name)
        assert op.expand is not None
        params = [b.param(TensorType(float32, shapes[k]), k) for k in operands]
        op.expand(b, op.attrs(**windows, **size), *params)
        largest = max(int(np.prod(i.result.type.static_shape)) for i in b.instrs)
        assert largest <= 2 * 8 * 18 * 18


@pytest.mark.parametrize("name", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_a_convolution_counts_two_operations_a_product(name: str) -> None:
    args = {"conv": "%0, %1", "conv_input_grad": "%2, %1", "conv_weight_grad": "%0, %2"}[name]
    out = {"conv": "2, 6, 4, 3", "conv_input_grad": "2, 4, 8, 5", "conv_weight_grad": "6, 2, 3, 3"}
    size = {"conv": "", "conv_input_grad": "size=(8, 5), ", "conv_weight_grad": "size=(3, 3), "}
    windows = "stride=(2, 1), padding=((1, 0), (0, 0)), dilation=(1, 1), groups=2"
    text = f"""func @f(%0: f32[2, 4, 8, 5] "x", %1: f32[6, 2, 3, 3] "w", %2: f32[2, 6, 4, 3] "g") {{
      %3: f32[{out[name]}] = {name}({args}, {size[name]}{windows})
      return %3 "out"
    }}"""
    (instr,) = parse_function(text).instrs
    assert work_of(instr).flops == 2 * (2 * 6 * 4 * 3) * (2 * 3 * 3)
