"""The user's line: the nearest frame outside of the treadle package.

`examples` and `bench` count as user code although they are shipped inside the package.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
from pathlib import Path
from types import FrameType

from treadle.ir.graph import Loc

_ROOT = Path(__file__).resolve().parent.parent
_PARTS = ("treadle", "tracer", "ir", "passes", "codegen", "runtime", "nn", "cli")
_INSIDE = tuple(f"{_ROOT / part}/" for part in _PARTS)

# Wrappers of the standard library stand between a decorated function and its caller, copy between
# a tensor and who copies what holds it.
_is_inside: dict[str, bool] = {str(m.__file__): True for m in (contextlib, copy, functools)}


def _inside(filename: str) -> bool:
    """True for a file of the package, for frozen modules and for what Treadle generates.

    Other names in brackets, `<stdin>`, `<string>`, `<ipython-input-...>`, are the user's.
    """
    if filename.startswith("<"):
        return filename.startswith(("<frozen", "<treadle"))
    path = str(Path(filename).resolve())
    return path.startswith(_INSIDE) or Path(path).parent == _ROOT / "treadle"


def is_inside(filename: str) -> bool:
    """Whether code of that file is Treadle's, not the user's."""
    inside = _is_inside.get(filename)
    if inside is None:
        inside = _is_inside[filename] = _inside(filename)
    return inside


def user_location() -> Loc | None:
    """File and line of the nearest caller outside of the package; None if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not is_inside(filename):
            return Loc(filename, frame.f_lineno)
        frame = frame.f_back
    return None
