"""IR text prints and parses back to the same program; malformed text is a located error."""

import numpy as np
import pytest

from treadle.ir.builder import Builder
from treadle.ir.errors import ParseError
from treadle.ir.graph import Function, Loc, Result
from treadle.ir.op import ArrayData, get_op
from treadle.ir.parser import parse_arguments, parse_function
from treadle.ir.picture import to_dot, to_svg
from treadle.ir.printer import print_function, value_names
from treadle.ir.types import DTYPES, Dim, TensorType, bool_, float32, float64, int64

PROGRAM = """\
func @step(%0: f32[n, 4] "x", state %1: f32[4, 2*n+1] "model['w;'].weight") {
  %2: f32[n, 2*n+1] = matmul(%0, %1)  ; a dir/de mo.py:12
  %3: f32[2*n+1, n] = permute(%2, perm=(1, 0))  ; a dir/de mo.py:13 (backward)
  return %3 "out", state %2 "model['w;'].weight"
}"""


def build(shape: tuple[int, ...] = (2, 3)) -> Function:
    builder = Builder("f", Loc("user.py", 7))
    x = builder.param(TensorType(float32, shape), "x")
    return builder.finish([Result(builder.reshape(x, (6,)), "out")])


def test_text_reads_back_to_the_same_text() -> None:
    assert print_function(parse_function(PROGRAM)) == PROGRAM


def test_text_keeps_symbolic_dimensions_locations_and_state() -> None:
    fn = parse_function(PROGRAM)
    assert fn.params[1].kind == "state"
    assert fn.params[1].path == "model['w;'].weight"
    assert fn.params[1].value.type.shape[1] == Dim.of("n") * 2 + 1
    assert fn.instrs[1].loc == Loc("a dir/de mo.py", 13, "backward")
    assert fn.results[1].kind == "state"


def test_without_locations_and_paths_only_the_program_is_printed() -> None:
    here = print_function(build(), locs=False, paths=False)
    assert "user.py" not in here
    assert '"x"' not in here
    assert "reshape" in here


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_constants_of_every_dtype_keep_every_bit(dtype) -> None:
    info = np.finfo(dtype.dtype) if dtype.is_float else None
    if dtype is bool_:
        values = np.array([True, False])
    elif info is not None:
        values = np.array(
            [
                0.0,
                -0.0,
                1 / 3,
                np.inf,
                -np.inf,
                np.nan,
                info.tiny,
                info.smallest_subnormal,
                info.max,
            ],
            dtype.dtype,
        )
    else:
        limits = np.iinfo(dtype.dtype)
        values = np.array([0, limits.min, limits.max], dtype.dtype)
    for array in (values, values[:1].reshape(()), values[:0], np.resize(values, (5, 20))):
        builder = Builder("f")
        (out,) = builder.emit(get_op("const"), (), get_op("const").attrs(data=ArrayData.of(array)))
        fn = builder.finish([Result(out, "out")])
        back = parse_function(print_function(fn))
        assert back.instrs[0].attrs == fn.instrs[0].attrs


def test_nan_payloads_survive() -> None:
    array = np.array([0x7FC00001, 0xFFC00000], np.uint32).view(np.float32)
    builder = Builder("f")
    data = ArrayData.of(array)
    (out,) = builder.emit(get_op("const"), (), get_op("const").attrs(data=data))
    back = parse_function(print_function(builder.finish([Result(out, "out")])))
    assert back.instrs[0].attrs.data.data == array.tobytes()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("func main() {\n  return\n}", "1:6: expected the function's name"),
        ("func @f(%0: f33[2]) {\n  return %0\n}", "1:13: expected a dtype"),
        ("func @f(%0: f32[2]) {\n  return %1\n}", "2:10: %1 is used before it is defined"),
        ("func @f(%0: f32[2], %0: f32[2]) {\n  return %0\n}", "%0 is defined twice"),
        (
            "func @f(%0: f32[2]) {\n  %1: f32[2] = reshap(%0, shape=(2,))\n  return %1\n}",
            "did you mean reshape",
        ),
        (
            "func @f(%0: f32[2]) {\n  %1: f32[2] = reshape(%0, shap=(2,))\n  return %1\n}",
            "reshape has no attribute 'shap'; it has shape",
        ),
        (
            "func @f(%0: f32[2]) {\n  %1: f32[2] = reshape(%0)\n  return %1\n}",
            "reshape lacks attributes: shape",
        ),
        ("func @f(%0: f32[-2]) {\n  return %0\n}", "cannot be negative"),
        ("func @f(%0: f32[2]) {\n  return %0\n", "expected ',', found end of text"),
        ("func @f(%0: f32[2]) ?", "unexpected character '?'"),
        ("", "expected one function, found 0"),
        (
            "func @f() {\n  %0: f32[2] = const(data=f32[2]{1.0})\n  return %0\n}",
            "expected 2 elements",
        ),
        ("func @f() {\n  %0: u8[1] = const(data=u8[1]{300})\n  return %0\n}", "malformed elements"),
    ],
)
def test_malformed_text_is_an_error_that_says_where(text: str, complaint: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_function(text, "f.ir")
    assert complaint in str(caught.value)
    assert "f.ir" in str(caught.value)


def test_arguments_of_the_command_line() -> None:
    assert parse_arguments("f32[32, 64], i64[32], 0.5, True, f64[]") == [
        TensorType(float32, (32, 64)),
        TensorType(int64, (32,)),
        0.5,
        True,
        TensorType(float64),
    ]


def test_value_names_are_those_that_are_printed() -> None:
    fn = parse_function(PROGRAM)
    assert [value_names(fn)[v] for v in fn.outputs] == ["%3", "%2"]


def test_pictures_show_ops_shapes_and_lines() -> None:
    fn = build()
    for picture in (to_dot(fn), to_svg(fn)):
        assert "reshape" in picture
        assert "f32[6]" in picture
        assert "user.py:7" in picture
