"""Treadle: a JIT tracing compiler for neural networks.

    import treadle

    @treadle.jit
    def step(x, y):
        ...

Array functions carry the Array API standard's names (`treadle.exp`, `treadle.matmul`,
`treadle.sum(x, axis=, keepdims=)`); networks are in `treadle.nn`, optimisers in `treadle.optim`.
"""

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any

# From a clone's root the folder `treadle/` hides the installed package; the pipeline's other
# folders (tracer/, ir/, ...) then lie beside it and are found through its parent.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file():
    __path__.append(str(_root))

# ruff: noqa: E402, F401  the path above comes first; everything is imported to be found here
from treadle.ir.collection import paused as _paused

with _paused():  # a module makes many objects and no garbage: 40 collections, 5 ms
    import treadle.runtime as _runtime  # registers the compiler
    from treadle import linalg, nn, optim, random
from treadle.ir.errors import (
    ArgumentError,
    CheckError,
    CompileError,
    DTypeError,
    GradientError,
    IndexFault,
    ParseError,
    ShapeError,
    TraceError,
    TreadleError,
    VerifyError,
)
from treadle.ir.types import (
    Dim,
    DType,
    TensorType,
    bool_ as bool,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
)
from treadle.ir.version import VERSION as _VERSION
from treadle.nn.checkpoint import load_checkpoint, save_checkpoint
from treadle.nn.init import manual_seed
from treadle.runtime.threads import get_num_threads, num_threads, set_num_threads
from treadle.tracer import api
from treadle.tracer.api import *  # noqa: F403  the array functions
from treadle.tracer.callback import callback
from treadle.tracer.control import cond, map, remat, scan, switch, while_loop
from treadle.tracer.create import tensor
from treadle.tracer.custom import custom_vjp
from treadle.tracer.execute import apply
from treadle.tracer.explain import set_explain
from treadle.tracer.function import Function
from treadle.tracer.generator import Generator
from treadle.tracer.grad import grad, value_and_grad
from treadle.tracer.growth import HistoryWarning
from treadle.tracer.jit import Jitted, clear_cache, disable_jit, jit
from treadle.tracer.modes import enable_grad, is_grad_enabled, no_grad
from treadle.tracer.random_keys import RandomKeyWarning
from treadle.tracer.random_names import (
    bernoulli,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
)
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import open_doors as _open_doors, opened as _opened, set_traceback
from treadle.tracer.watching import watch, watching

if _TYPE_CHECKING:
    from treadle import data as data, testing as testing, torch as torch
    from treadle.definition import define as define, function as function
    from treadle.graph import Graph as Graph, load_graph as load_graph, trace as trace

__version__ = _VERSION


# Where what few programs need is found when it is first used.
_LATE = {
    "Graph": "treadle.graph",
    "define": "treadle.definition",
    "function": "treadle.definition",
    "load_graph": "treadle.graph",
    "trace": "treadle.graph",
}


def __getattr__(name: str) -> _Any:
    """`treadle.data` and others are imported when they are first used: a tenth of the import's
    time."""
    if name in ("data", "testing", "torch"):
        return _import_module(f"treadle.{name}")
    if name in _LATE:
        return getattr(_import_module(_LATE[name]), name)
    raise AttributeError(f"module 'treadle' has no attribute {name!r}")


__all__ = [
    "ArgumentError",
    "CheckError",
    "CompileError",
    "DType",
    "DTypeError",
    "Dim",
    "Function",
    "Generator",
    "GradientError",
    "HistoryWarning",
    "IndexFault",
    "Jitted",
    "ParseError",
    "RandomKeyWarning",
    "ShapeError",
    "Tensor",
    "TensorType",
    "TraceError",
    "TreadleError",
    "VerifyError",
    "apply",
    "bernoulli",
    "bool",
    "callback",
    "clear_cache",
    "cond",
    "custom_vjp",
    "disable_jit",
    "enable_grad",
    "float32",
    "float64",
    "get_num_threads",
    "grad",
    "int32",
    "int64",
    "is_grad_enabled",
    "jit",
    "linalg",
    "load_checkpoint",
    "manual_seed",
    "map",
    "multinomial",
    "nn",
    "no_grad",
    "normal",
    "num_threads",
    "optim",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "random",
    "randperm",
    "remat",
    "save_checkpoint",
    "scan",
    "set_explain",
    "set_num_threads",
    "set_traceback",
    "switch",
    "tensor",
    "uint8",
    "uint32",
    "value_and_grad",
    "watch",
    "watching",
    "while_loop",
]
__all__ += api.__all__

# What users call leaves Treadle's own frames out of tracebacks.
globals().update(_opened({name: globals()[name] for name in __all__}))
for _class in Tensor.__mro__[:-1]:
    _open_doors(_class, besides=("__init__", "__hash__", "array", "detach"))
