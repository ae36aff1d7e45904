"""A function of a user's script, traced: with given argument types, or at its first call."""

from __future__ import annotations

import runpy
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from treadle.ir.errors import TreadleError
from treadle.ir.graph import Function
from treadle.ir.parser import parse_arguments
from treadle.tracer.jit import Jitted, jit, on_first_call


class ScriptError(TreadleError):
    """The script, or the function in it, cannot be traced."""


class _Stop(BaseException):
    """Ends the script when the wanted function is called; not an Exception, so that no handler of
    the script's catches it."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn


def trace_script(script: Path, name: str | None, types: str | None) -> Function:
    """The traced function `name` of `script` (default: the first that is called).

    With `types` (text such as `f32[32, 64], i64[32]`) the script is imported, as a module that is
    not `__main__`, and the function is traced with arguments of these types; else the script runs
    until the function's first call and stops there. Raises ScriptError.
    """
    if not script.is_file():
        raise ScriptError(f"there is no file {script}")
    if types is None:
        return _until_first_call(script, name)
    if name is None:
        raise ScriptError("--args needs a function: FILE:FUNCTION")
    arguments = parse_arguments(types, "--args")
    namespace = _run(script, "__treadle_dump__")
    function = _find(namespace, name, script)
    traced = function if isinstance(function, Jitted) else jit(function)
    found: Function = traced.trace(*arguments)
    return found


def _until_first_call(script: Path, name: str | None) -> Function:
    def stop(function: Jitted, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name is None or name in (function.__name__, function.__qualname__):
            raise _Stop(function.trace(*args, **kwargs))

    on_first_call.append(stop)
    try:
        _run(script, "__main__")
    except _Stop as stopped:
        return stopped.fn
    finally:
        on_first_call.remove(stop)
    called = f"{name} of {script}" if name else f"a jitted function of {script}"
    raise ScriptError(
        f"the script ended and {called} was never called; give the argument types with --args"
    )


def _run(script: Path, as_name: str) -> dict[str, Any]:
    """The script's globals after running it as `python script` would."""
    argv, path = sys.argv, list(sys.path)
    sys.argv = [str(script)]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        return runpy.run_path(str(script), run_name=as_name)
    finally:
        sys.argv, sys.path[:] = argv, path


def _find(namespace: dict[str, Any], name: str, script: Path) -> Any:
    head, *rest = name.split(".")
    if head not in namespace:
        names = [n for n, v in namespace.items() if callable(v) and not n.startswith("__")]
        near = get_close_matches(head, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"
        raise ScriptError(f"{script} has no function {head!r}; {hint}")
    found = namespace[head]
    for piece in rest:
        found = getattr(found, piece)
    if not callable(found):
        raise ScriptError(f"{name} of {script} is a {type(found).__name__}, not a function")
    return found
