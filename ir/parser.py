"""Text -> Function: the inverse of `treadle.ir.printer`.

Types are taken from the text; `verify` compares them with the type rules. Every ParseError names
the line and column, what was found and what was expected.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from math import prod
from typing import Any, Literal, NoReturn

import numpy as np

from treadle.ir.attr_types import wrong_attributes
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ParseError
from treadle.ir.graph import Function, Instr, Loc, Param, Result, Value
from treadle.ir.op import ArrayData, Attrs, OpDef, get_op
from treadle.ir.types import DTYPES, Dim, DType, Size, TensorType

_TOKEN = re.compile(
    r"""
    (?P<comment>;[^\n]*)
  | (?P<space>[ \t\r]+)
  | (?P<newline>\n)
  | (?P<value>%[A-Za-z0-9_]+)
  | (?P<symbol>@[A-Za-z0-9_.<>$-]+)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<float>-?(?:\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|inf\b|nan\b))
  | (?P<int>-?\d+)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<punct>[(){}\[\],:=*+-])
    """,
    re.VERBOSE,
)
_LOC = re.compile(r"^(?P<file>.+):(?P<line>\d+)(?: \((?P<role>\w+)\))?$")
_DTYPES = {d.short: d for d in DTYPES}
_LITERALS: dict[str, Any] = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int
    column: int

    def __str__(self) -> str:
        return "end of text" if self.kind == "end" else repr(self.text)


def parse_function(text: str, file: str = "<text>") -> Function:
    """The one function that `text` holds. Raises ParseError."""
    functions = parse_functions(text, file)
    if len(functions) != 1:
        names = ", ".join(f"@{f.name}" for f in functions) or "none"
        raise ParseError(f"{file}: expected one function, found {len(functions)}: {names}")
    return functions[0]


def parse_functions(text: str, file: str = "<text>") -> list[Function]:
    """All functions of `text`, in order. Raises ParseError."""
    parser = _Parser(text, file)
    functions = []
    while parser.here.kind != "end":
        functions.append(parser.function())
    return functions


def parse_arguments(text: str, file: str = "<arguments>") -> list[Any]:
    """Arguments as the command line writes them: `f32[32, 64], i64[32], 0.1, True`.

    A type gives a TensorType, anything else the Python value. Raises ParseError.
    """
    parser = _Parser(text, file)
    found: list[Any] = []
    while parser.here.kind != "end":
        if found:
            parser.expect(",")
        is_type = parser.here.kind == "name" and parser.tokens[parser.at + 1].text == "["
        found.append(parser.type() if is_type else parser.attr())
    return found


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.tokens: list[_Token] = []
        self.remarks: dict[int, str] = {}  # line -> what stands behind its first `;`
        self.values: dict[str, Value] = {}
        self.at = 0
        self.scan(text)

    def scan(self, text: str) -> None:
        position, line, start = 0, 1, 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            column = position - start + 1
            if match is None:
                raise ParseError(
                    f"{self.file}:{line}:{column}: unexpected character {text[position]!r}"
                )
            kind = match.lastgroup or ""
            if kind == "newline":
                line, start = line + 1, match.end()
            elif kind == "comment":
                self.remarks[line] = match.group()[1:].split(";;")[0].strip()
            elif kind != "space":
                self.tokens.append(_Token(kind, match.group(), line, column))
            position = match.end()
        self.tokens.append(_Token("end", "", line, position - start + 1))

    # --- tokens ------------------------------------------------------------------------------

    @property
    def here(self) -> _Token:
        return self.tokens[self.at]

    def fail(self, expected: str, token: _Token | None = None) -> NoReturn:
        t = token or self.here
        raise ParseError(f"{self.file}:{t.line}:{t.column}: expected {expected}, found {t}")

    def complain(self, message: str, token: _Token) -> NoReturn:
        raise ParseError(f"{self.file}:{token.line}:{token.column}: {message}")

    def next(self) -> _Token:
        token = self.here
        if token.kind != "end":
            self.at += 1
        return token

    def expect(self, text: str) -> _Token:
        if self.here.text != text or self.here.kind == "string":
            self.fail(repr(text))
        return self.next()

    def take(self, text: str) -> bool:
        if self.here.text == text and self.here.kind != "string":
            self.at += 1
            return True
        return False

    def kind(self, kind: str, expected: str) -> _Token:
        if self.here.kind != kind:
            self.fail(expected)
        return self.next()

    # --- functions ---------------------------------------------------------------------------

    def function(self) -> Function:
        self.expect("func")
        name = self.kind("symbol", "the function's name, such as @main").text[1:]
        self.expect("(")
        outer, self.values = self.values, {}
        params: list[Param] = []
        while not self.take(")"):
            if params:
                self.expect(",")
            params.append(self.param(len(params)))
        self.expect("{")
        instrs: list[Instr] = []
        while self.here.text != "return":
            if self.here.kind == "end" or self.here.text == "}":
                self.fail("an instruction or 'return'")
            instrs.append(self.instr())
        results = self.returned()
        self.expect("}")
        self.values = outer
        return Function(name, tuple(params), tuple(instrs), results)

    def param(self, number: int) -> Param:
        is_state = self.take("state")
        token = self.kind("value", "a parameter such as %0: f32[4]")
        self.expect(":")
        value = Value(self.type())
        self.bind(token, value)
        path = self.path() or f"arg{number}"
        return Param(value, path, "state" if is_state else "arg")

    def returned(self) -> tuple[Result, ...]:
        self.expect("return")
        results: list[Result] = []
        while self.here.text != "}":
            if results:
                self.expect(",")
            kind: Literal["out", "state", "print"] = "out"
            if self.take("state"):
                kind = "state"
            elif self.take("print"):
                kind = "print"
            value = self.use()
            path = self.path() or f"out{len(results)}"
            results.append(Result(value, path, kind))
        return tuple(results)

    def path(self) -> str | None:
        return self.string() if self.here.kind == "string" else None

    def string(self) -> str:
        token = self.kind("string", "a string")
        try:
            return str(json.loads(token.text))
        except ValueError:
            self.complain(f"malformed string {token.text}", token)

    def bind(self, token: _Token, value: Value) -> None:
        if token.text in self.values:
            self.complain(f"{token.text} is defined twice", token)
        self.values[token.text] = value

    def use(self) -> Value:
        token = self.kind("value", "a value such as %3")
        if token.text not in self.values:
            self.complain(f"{token.text} is used before it is defined", token)
        return self.values[token.text]

    # --- instructions ------------------------------------------------------------------------

    def instr(self) -> Instr:
        line = self.here.line
        names: list[_Token] = []
        types: list[TensorType] = []
        while self.here.kind == "value":
            names.append(self.next())
            self.expect(":")
            types.append(self.type())
            if not self.take(","):
                break
        if names:
            self.expect("=")
        op, op_token = self.op()
        self.expect("(")
        args, given = self.operands()
        attrs = self.attrs(op, op_token, given)
        regions: list[Function] = []
        if self.take("{"):
            while not self.take("}"):
                regions.append(self.function())
        instr = Instr(op, args, attrs, types, self.loc(line), regions)
        for token, value in zip(names, instr.results, strict=True):
            self.bind(token, value)
        return instr

    def op(self) -> tuple[OpDef, _Token]:
        token = self.kind("name", "an op's name")
        try:
            return get_op(token.text), token
        except KeyError as error:
            self.complain(str(error.args[0]), token)

    def operands(self) -> tuple[list[Value], dict[str, Any]]:
        args: list[Value] = []
        given: dict[str, Any] = {}
        first = True
        while not self.take(")"):
            if not first:
                self.expect(",")
            first = False
            if self.here.kind == "value":
                args.append(self.use())
                continue
            name = self.kind("name", "a value such as %3 or an attribute such as axis=0")
            self.expect("=")
            if name.text in given:
                self.complain(f"attribute {name.text} is given twice", name)
            given[name.text] = self.attr()
        return args, given

    def attrs(self, op: OpDef, token: _Token, given: dict[str, Any]) -> Attrs:
        known = [f.name for f in fields(op.attrs)]
        for name in given:
            if name not in known:
                has = ", ".join(known) or "none"
                self.complain(f"{op.name} has no attribute {name!r}; it has {has}", token)
        try:
            attrs = op.attrs(**given)
        except TypeError:
            lacks = ", ".join(n for n in known if n not in given)
            self.complain(f"{op.name} lacks attributes: {lacks}", token)
        for wrong in wrong_attributes(attrs):
            self.complain(f"{op.name}: {wrong}", token)
        return attrs

    def loc(self, line: int) -> Loc | None:
        match = _LOC.match(self.remarks.get(line, ""))
        if match is None:
            return None
        return Loc(match["file"], int(match["line"]), match["role"] or "")

    # --- types and attribute values ----------------------------------------------------------

    def type(self) -> TensorType:
        return TensorType(self.dtype(), self.shape())

    def dtype(self) -> DType:
        token = self.kind("name", "a type such as f32[4]")
        if token.text not in _DTYPES:
            self.fail(f"a dtype ({', '.join(_DTYPES)})", token)
        return _DTYPES[token.text]

    def shape(self) -> tuple[Size, ...]:
        self.expect("[")
        sizes: list[Size] = []
        while not self.take("]"):
            if sizes:
                self.expect(",")
            token = self.here
            size = self.size()
            if isinstance(size, int) and size < 0:
                self.complain(f"a dimension cannot be negative: {size}", token)
            sizes.append(size)
        return tuple(sizes)

    def size(self) -> Size:
        """sum := ['-'] product (('+' | '-' | a negative int) product)*"""
        total = self.product()
        while True:
            if self.take("+"):
                total = total + self.product()
            elif self.take("-"):
                total = total + self.product() * -1
            elif self.here.kind == "int" and self.here.text.startswith("-"):
                total = total + self.product()
            else:
                return total

    def product(self) -> Size:
        sign = -1 if self.take("-") else 1
        total = self.factor() * sign
        while self.take("*"):
            total = total * self.factor()
        return total

    def factor(self) -> Size:
        token = self.next()
        if token.kind == "int":
            return int(token.text)
        if token.kind == "name":
            return Dim.of(token.text)
        self.fail("a dimension: an int or a name", token)

    def attr(self) -> Any:
        token = self.here
        if token.kind == "string":
            return self.string()
        if token.kind == "float":
            return float(self.next().text)
        if token.text == "(":
            return self.tuple()
        if token.text in _LITERALS:
            self.next()
            return _LITERALS[token.text]
        if token.text in _DTYPES:
            dtype = self.dtype()
            return self.array(dtype) if self.here.text == "[" else dtype
        if token.kind in ("int", "name") or token.text == "-":
            return self.size()
        self.fail("an attribute's value")

    def tuple(self) -> tuple[Any, ...]:
        self.expect("(")
        items: list[Any] = []
        while not self.take(")"):
            items.append(self.attr())
            if self.here.text != ")":
                self.expect(",")
        return tuple(items)

    def array(self, dtype: DType) -> ArrayData:
        token = self.here
        sizes = self.shape()
        shape = tuple(s for s in sizes if isinstance(s, int))
        if shape != sizes:
            self.complain("the shape of a constant must be of ints", token)
        self.expect("{")
        if self.take("hex"):
            text = self.string()
            try:
                data = bytes.fromhex(text)
            except ValueError:
                self.complain("malformed hexadecimal data", token)
        else:
            items: list[Any] = []
            while self.here.text != "}":
                if items:
                    self.expect(",")
                items.append(self.attr())
            try:
                data = np.array(items, dtype.dtype).tobytes()
            except (TypeError, ValueError, OverflowError) as error:
                self.complain(f"malformed elements of {dtype.short}: {error}", token)
        self.expect("}")
        count = len(data) // dtype.itemsize
        expected = prod(shape)
        if count != expected or len(data) % dtype.itemsize:
            self.complain(f"expected {expected} elements, found {count}", token)
        return ArrayData(dtype, shape, data)
