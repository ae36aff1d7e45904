"""What a run tells besides its results: the lines that it prints, and the error of one that failed.

A run that finds a fault has written nothing that outlives it (docs/decisions/0005), so its inputs
are as before. They are run once more, op by op with the references, up to the first op that fails:
that is the error which the program without jit raises, after what it prints before. Only what
leads to prints and to ops that can fail is run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from treadle.ir.errors import CheckError, IndexFault, TreadleError
from treadle.ir.graph import Function
from treadle.ir.host import runs_in_place
from treadle.ir.ops.checks import check_text
from treadle.ir.ops.prints import places, render

if TYPE_CHECKING:
    from treadle.codegen.emission import FaultSite

Array = npt.NDArray[Any]


def printed_texts(fn: Function) -> tuple[str, ...]:
    """The texts of the results of kind print, one for each group of results that it takes."""
    paths = [r.path for r in fn.results if r.kind == "print"]
    texts = []
    at = 0
    while at < len(paths):
        texts.append(paths[at])
        at += max(places(paths[at]), 1)
    return tuple(texts)


def show(texts: Sequence[str], arrays: Sequence[Array]) -> None:
    """Print the lines of a run that went well."""
    values = iter(arrays)
    for text in texts:
        print(render(text, list(_taken(values, text))), flush=True)


def _taken(values: Iterator[Array], text: str) -> Iterator[Array]:
    for _ in range(max(places(text), 1)):
        yield next(values)


def failure(
    program: Function, arrays: Sequence[Array], site: FaultSite, value: int
) -> TreadleError:
    """The error of a run of `program` (at level CORE) that recorded a fault."""
    from treadle.ir.interpreter import interpret  # these two: only where a run fails
    from treadle.passes import dce

    if runs_in_place(program):
        return _recorded(site, value)  # what it has called is not called again
    checks = Function(program.name, program.params, program.instrs, ())
    try:
        interpret(dce.sweep(checks), arrays)
    except (IndexFault, CheckError) as error:
        return error.with_traceback(None)
    except MemoryError:
        pass  # the references need more room than compiled code; the record says enough
    return _recorded(site, value)


def _recorded(site: FaultSite, value: int) -> TreadleError:
    """The error of the fault record, where the references compute another number than compiled
    code at the very edge of a condition."""
    where = f" (at {site.loc})" if site.loc is not None else ""
    error: TreadleError
    if site.checked is None:
        error = IndexFault(f"{site.message}, found {value}{where}")
    else:
        error = CheckError(check_text(site.message, site.checked, value) + where)
    error.located = True
    return error
