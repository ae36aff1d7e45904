"""A function of a user's script, looked at: with given argument types, or at its first call."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from treadle.cli.mistake import Mistake, unknown
from treadle.ir.errors import TreadleError
from treadle.ir.graph import Function
from treadle.ir.parser import parse_arguments
from treadle.tracer.jit import Jitted, jit, on_first_call

_IMPORTED = "__treadle_dump__"  # the script's name as a module that is not `__main__`


class ScriptError(TreadleError):
    """The script failed, or ended before the function was called."""


class _Stop(BaseException):
    """Ends the script when the wanted function is called; not an Exception, so that no handler of
    the script's catches it."""

    def __init__(self, found: Any) -> None:
        self.found = found


# A look at a call: the jitted function, its arguments.
Look = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def script_and_function(text: str) -> tuple[Path, str | None]:
    """`FILE[:FUNCTION]` in its two pieces; a drive letter is no file."""
    script, _, name = text.rpartition(":")
    if not script or name.startswith(("/", "\\")):
        return Path(text), None
    return Path(script), name or None


def trace_script(script: Path, name: str | None, types: str | None) -> Function:
    """The traced function `name` of `script`; see `look_at_script`."""
    found: Function = look_at_script(
        script, name, types, lambda fn, args, kwargs: fn.trace(*args, **kwargs)
    )
    return found


def look_at_script(script: Path, name: str | None, types: str | None, look: Look) -> Any:
    """What `look` finds in a call of the function `name` of `script` (default: the first that is
    called).

    With `types` (text such as `f32[32, 64], i64[32]`) the script is imported, as a module that is
    not `__main__`, and the call is one with arguments of these types; else the script runs
    until the function's first call and stops there. Raises Mistake where there is no such file or
    function, ScriptError where the script fails, and what `look` raises.
    """
    if not script.is_file():
        raise Mistake(f"there is no file {script}")
    if types is None:
        return _until_first_call(script, name, look)
    if name is None:
        raise Mistake("--args needs a function: FILE:FUNCTION")
    arguments = parse_arguments(types, "--args")
    with _readable_failures(script):
        namespace = _run(script, _IMPORTED)
    function = _find(namespace, name, script)
    with _readable_failures(script):
        jitted = function if hasattr(type(function), "__treadle_jit__") else jit(function)
        return look(jitted, tuple(arguments), {})


def _until_first_call(script: Path, name: str | None, look: Look) -> Any:
    called: list[str] = []

    def stop(function: Jitted, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = (function.__name__, getattr(function, "__qualname__", function.__name__))
        called.append(names[0])
        if name is None or name in names:
            raise _Stop(look(function, args, kwargs))

    on_first_call.append(stop)
    try:
        with _readable_failures(script):
            _run(script, "__main__")
    except _Stop as stopped:
        return stopped.found
    finally:
        on_first_call.remove(stop)
    if name is None or not called:
        raise ScriptError(
            f"{script} ended and no jitted function was called; "
            "name one and give its argument types: FILE:FUNCTION --args TYPES"
        )
    where = f" among those that {script} called (--args traces one that is not called)"
    raise unknown("jitted function", name, dict.fromkeys(called), where)


def _run(script: Path, as_name: str) -> dict[str, Any]:
    """The script's globals after running it as `python script` would.

    A module that stays in `sys.modules`, so that functions, dataclasses and pickles of the script
    find their module afterwards; `__main__` is given back.
    """
    module = ModuleType(as_name)
    module.__file__ = str(script)
    code = compile(script.read_bytes(), str(script), "exec")
    argv, path, main = sys.argv, list(sys.path), sys.modules["__main__"]
    sys.argv = [str(script)]
    sys.path.insert(0, str(script.resolve().parent))
    sys.modules[as_name] = module
    try:
        exec(code, module.__dict__)
    finally:
        sys.argv, sys.path[:] = argv, path
        sys.modules["__main__"] = main
    return module.__dict__


@contextmanager
def _readable_failures(script: Path) -> Iterator[None]:
    """What the script raises, as a ScriptError with the script's part of the traceback; Treadle's
    own errors name the user's line already. An early `sys.exit()` is an end like any other."""
    try:
        yield
    except (TreadleError, Mistake):
        raise
    except SystemExit:
        return
    except Exception as error:
        tb = error.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename != str(script):
            tb = tb.tb_next
        lines = traceback.format_exception(type(error), error, tb)
        raise ScriptError(f"{script} failed\n{''.join(lines).rstrip()}") from None


def _find(namespace: dict[str, Any], name: str, script: Path) -> Any:
    """The function or method `name`, which may have dots."""
    found: Any = None
    known, where = namespace, f" in {script}"
    for piece in name.split("."):
        if piece not in known:
            names = [n for n, v in known.items() if callable(v) and not n.startswith("_")]
            raise unknown("function", piece, names, where)
        found = known[piece] if known is namespace else getattr(found, piece)
        known = {n: getattr(found, n, None) for n in dir(found)}
        where = f" in {piece} of {script}"
    if not callable(found):
        raise Mistake(f"{name} of {script} is a {type(found).__name__}, not a function")
    return found
