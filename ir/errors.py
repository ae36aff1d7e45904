"""The errors that Treadle raises. Each message says what was found, what was expected and where.

Every class also derives from the built-in exception that NumPy users expect, so that
`except ValueError` keeps working.
"""

from __future__ import annotations


class TreadleError(Exception):
    """Base of all errors raised by Treadle on purpose.

    `located`: the message ends with the user's file and line.
    """

    located: bool = False


class ShapeError(TreadleError, ValueError):
    """Shapes, ranks or axes that do not fit the operation."""


class DTypeError(TreadleError, TypeError):
    """A dtype that the operation does not take, or a non-numeric argument."""


class ArgumentError(TreadleError, ValueError):
    """An option or a number outside of what a function takes."""


class IndexFault(TreadleError, IndexError):
    """An index or label outside its axis."""


class CheckError(TreadleError, AssertionError):
    """A `treadle.check` that does not hold."""


class GradientError(TreadleError, RuntimeError):
    """A derivative that does not exist, or whose saved values were changed in place."""


class TraceError(TreadleError, RuntimeError):
    """Something that a trace cannot follow: data-dependent control flow, leaked values."""


class ParseError(TreadleError, ValueError):
    """Malformed IR text; the message names line and column."""


class VerifyError(TreadleError):
    """A Function that breaks an invariant of its level; the message lists all faults."""


class CompileError(TreadleError, RuntimeError):
    """LLVM refused the module; the message holds the IR text that it refused."""
