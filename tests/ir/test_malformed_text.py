"""Malformed IR text is refused by a ParseError or a VerifyError, never by another exception."""

import re
from pathlib import Path
from random import Random

import pytest

from treadle.ir.errors import ParseError, VerifyError
from treadle.ir.graph import Function, Instr, Level, Param, Result, Value
from treadle.ir.op import all_ops, get_op
from treadle.ir.parser import parse_function, parse_functions
from treadle.ir.printer import print_function
from treadle.ir.types import TensorType, float32
from treadle.ir.verifier import verify
from treadle.passes.manager import level_of, run_pipeline
from treadle.passes.pipeline import pipeline

GOLDEN = Path(__file__).parents[1] / "golden"
WRONG_ATTRIBUTES = {
    "softmax(%0, axis=True)": "attribute axis must be int, found True",
    "softmax(%0, axis=0.0)": "attribute axis must be int, found 0.0",
    "sum(%0, axes=0)": "attribute axes must be a tuple of int, found 0",
    'sum(%0, axes=("x",))': "attribute axes must be a tuple of int",
    "sum(%0, axes=(0,), keepdims=1)": "attribute keepdims must be bool, found 1",
    "layer_norm(%0, axes=(1,), eps=(1,))": "attribute eps must be float, found",
    "reshape(%0, shape=(6.0,))": "attribute shape must be a tuple of int or symbolic size",
    "cast(%0, dtype=3)": "attribute dtype must be DType, found 3",
    "slice(%0, starts=(0, None), steps=(1, 1), shape=(2, 3))": "attribute starts must be",
    "contract(%0, %0, spec=3)": "attribute spec must be str, found 3",
    "const(data=1.0)": "attribute data must be ArrayData, found 1.0",
}


@pytest.mark.parametrize("call", WRONG_ATTRIBUTES)
def test_an_attribute_of_a_wrong_type_is_named_with_its_line(call: str) -> None:
    text = f'func @f(%0: f32[2, 3] "x") {{\n  %1: f32[2, 3] = {call}\n  return %1\n}}'
    with pytest.raises(ParseError, match=r"<text>:2:\d+: ") as caught:
        parse_function(text)
    assert WRONG_ATTRIBUTES[call] in str(caught.value)


def test_the_verifier_names_an_attribute_of_a_wrong_type() -> None:
    op, x = get_op("softmax"), Value(TensorType(float32, (2,)))
    instr = Instr(op, (x,), op.attrs(axis="last"), (x.type,))
    fn = Function("f", (Param(x, "x"),), (instr,), (Result(instr.result, "y"),))
    with pytest.raises(VerifyError, match="attribute axis must be int, found 'last'"):
        verify(fn, Level.TRACED)


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        ("f32[n] {1.0}", "the shape of a constant must be of ints"),
        ("f32[99999999999999999999] {1.0}", "expected 99999999999999999999 elements, found 1"),
        ("f32[1000000, 1000000, 1000000, 1000000] {}", "elements, found 0"),
        ('f32[2] {hex "00"}', "expected 2 elements, found 0"),
        ('f32[2] {hex "zz"}', "malformed hexadecimal data"),
        ("i32[1] {4000000000}", "malformed elements of i32"),
        ("i32[1] {None}", "malformed elements of i32"),
    ],
)
def test_a_malformed_constant_is_named_with_its_line(constant: str, message: str) -> None:
    text = f"func @f() {{\n  %0: f32[2] = const(data={constant})\n  return %0\n}}"
    with pytest.raises(ParseError, match=r"<text>:2:\d+: ") as caught:
        parse_function(text)
    assert message in str(caught.value)


# --- random damage ---------------------------------------------------------------------------

_WORD = re.compile(r'%\w+|"[^"]*"|-?\d+\.\d+|\w+|[^\w\s]|\s+')
_ODD = [
    *("-1", "0", "1", "99", "18446744073709551616", "1000000000000", "None", "True", "1.5", "nan"),
    *('"x"', "()", "(0,)", "(-1,)", "(0, 0)", "n", "f32", "bool", "f32[2] {1.0, 2.0}", "-n", "2*n"),
]
_OPS = [op.name for op in all_ops()]


def damaged(text: str, rng: Random) -> str:
    """`text` with one to three words removed, repeated, swapped or replaced."""
    words = _WORD.findall(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        likes = [k for k, w in enumerate(words) if w[0] == words[i][0] and w[0] != " "]
        match rng.randrange(6):
            case 0:
                words[i] = ""
            case 1:
                words[i], words[j] = words[j], words[i]
            case 2:
                words.insert(i, words[j])
            case 3 if likes:
                words[i] = words[rng.choice(likes)]
            case 4:
                words[i] = rng.choice(_OPS) if words[i] in _OPS else words[i]
            case _:
                words[i] = rng.choice(_ODD)
        words = [w for w in words if w] or [" "]
    return "".join(words)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("**/*.ir")), ids=lambda f: f.stem)
def test_damaged_text_is_refused_or_a_program_that_all_passes_take(file: Path) -> None:
    rng = Random(file.name)
    text = file.read_text("utf-8")
    starts = [m.start() for m in re.finditer(r"^func ", text, re.MULTILINE)]
    for _ in range(120):
        start = rng.choice(starts)
        end = text.find("\n}", start) + 2
        try:
            functions = parse_functions(damaged(text[start:end], rng))
            for fn in functions:
                level = level_of(fn)
                verify(fn, level if level is Level.KERNELS else Level.TRACED)
        except (ParseError, VerifyError):
            continue
        for fn in functions:
            printed = print_function(fn)
            assert print_function(parse_function(printed)) == printed
            if level_of(fn) is not Level.KERNELS:
                run_pipeline(fn, pipeline(), verify="all")
