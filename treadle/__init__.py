"""Treadle: a JIT tracing compiler for neural networks."""

from pathlib import Path as _Path

__version__ = "0.1.0"

# From a clone's root the folder `treadle/` hides the installed package; the pipeline's other
# folders (tracer/, ir/, ...) then lie beside it and are found through its parent.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file():
    __path__.append(str(_root))
