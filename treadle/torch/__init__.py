"""PyTorch's names and keywords over Treadle: `import treadle.torch as torch`.

A thin layer for programs that move over; see docs/from-pytorch.md for what is the same and what is
not. What is missing raises AttributeError naming it and the nearest thing that is there.
"""

# ruff: noqa: F401  what is imported is to be found here

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module as _import_module
from math import e, inf, nan, pi
from typing import Any

import treadle as _treadle
from treadle.ir.errors import ArgumentError as _ArgumentError
from treadle.ir.types import (
    DType as dtype,  # noqa: N813
    bool_,
    dtype_of as _dtype_of,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
)
from treadle.ir.version import VERSION as _VERSION
from treadle.torch import (
    autograd,
    combining as _combining,
    creation as _creation,
    cuda,
    indexing as _indexing,
    linalg,
    methods as _methods,
    pointwise as _pointwise,
    products as _products,
    reductions as _reductions,
    shaping as _shaping,
    special,
)
from treadle.torch.compiling import compile
from treadle.torch.device import checked_device as _checked_device, device
from treadle.torch.grad_modes import inference_mode, no_grad, set_grad_enabled
from treadle.torch.names import missing as _missing
from treadle.torch.serialization import load, save
from treadle.torch.tensor import Size, Tensor
from treadle.tracer.errors import located as _located
from treadle.tracer.generator import Generator as _Generator
from treadle.tracer.modes import enable_grad, is_grad_enabled
from treadle.tracer.tensor import Tensor as _Tensor

for _module in (
    _pointwise, _reductions, _shaping, _indexing, _products, _combining, _creation,
):  # fmt: skip
    for _name in _module.__all__:
        if _name not in _shaping.METHODS_ONLY:
            globals()[_name] = getattr(_module, _name)

__version__ = _VERSION

bool = bool_
double = float64
float = float32
int = int32
long = int64
newaxis = None
contiguous_format = preserve_format = "contiguous"
strided = "strided"


def Generator(device: Any = "cpu") -> _Generator:
    """A stream of random numbers; `manual_seed` starts it."""
    _checked_device(device)
    return _Generator()


def manual_seed(seed: Any) -> _Generator:
    """Start the generators from which all draw that are given no other."""
    return _treadle.manual_seed(seed)


def seed() -> Any:
    """Start the generators from a number of the system's; returns it."""
    import secrets

    found = secrets.randbits(63)
    _treadle.manual_seed(found)
    return found


def is_tensor(obj: Any) -> Any:
    """Whether `obj` is a tensor."""
    return isinstance(obj, _Tensor)


def is_floating_point(input: Any) -> Any:
    """Whether a tensor's dtype is a float."""
    return input.dtype.is_float


def is_nonzero(input: Any) -> Any:
    """Whether the only element is not 0."""
    return input.item() != 0


def numel(input: Any) -> Any:
    """The number of elements."""
    return input.type.size


def clone(input: Any, *, memory_format: Any = None) -> Any:
    """A copy with storage of its own."""
    return input.clone()


def detach(input: Any) -> Any:
    """The same storage without history."""
    return input.detach()


def get_default_dtype() -> dtype:
    """float32"""
    return float32


def set_default_dtype(d: Any) -> None:
    """Nothing for float32. Raises ArgumentError for another: Treadle's default is float32."""
    if _dtype_of(d) != float32:
        raise _located(
            _ArgumentError(
                "the default dtype is float32; give dtype=torch.float64 where a tensor is made, or "
                "call model.double()"
            )
        )


def get_default_device() -> device:
    """The CPU."""
    return device("cpu")


def set_default_device(device: Any) -> None:
    """Nothing for the CPU; ArgumentError for any other."""
    _checked_device(device)


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that these have together."""
    import numpy as np

    return Size(np.broadcast_shapes(*shapes))


def promote_types(type1: Any, type2: Any) -> dtype:
    """The dtype that holds the values of both."""
    from treadle.tracer.promote import promote_types as of

    return of(_dtype_of(type1), _dtype_of(type2))


def result_type(tensor1: Any, tensor2: Any) -> dtype:
    """The dtype of an operation on both."""
    from treadle.tracer.promote import result_dtype

    return result_dtype(tensor1, tensor2)


def finfo(type: Any = None) -> Any:
    """The limits of a float dtype: `eps`, `max`, `min`, `tiny`."""
    import numpy as np

    return np.finfo(_dtype_of(float32 if type is None else type).dtype)


def iinfo(type: Any) -> Any:
    """The limits of an integer dtype: `max`, `min`, `bits`."""
    import numpy as np

    return np.iinfo(_dtype_of(type).dtype)


def get_num_threads() -> Any:
    """How many threads a compiled call uses."""
    return _treadle.get_num_threads()


def set_num_threads(num: Any) -> None:
    """Let compiled calls use that many threads."""
    _treadle.set_num_threads(num)


def set_float32_matmul_precision(precision: str) -> None:
    """Nothing: products of float32 are float32's."""


def set_printoptions(**options: Any) -> None:
    """Nothing: tensors are shown as NumPy shows arrays; numpy.set_printoptions changes that."""


def use_deterministic_algorithms(mode: Any, *, warn_only: Any = False) -> None:
    """Nothing: everything is deterministic."""


def _legacy(name: str, kind: dtype) -> Callable[..., Any]:
    def make(*data: Any) -> Any:
        made = Tensor(*data)
        return made.to(kind) if len(data) != 1 else _creation.tensor(data[0], dtype=kind)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"A tensor of {kind.name}, from data or sizes."
    return make


FloatTensor = _legacy("FloatTensor", float32)
DoubleTensor = _legacy("DoubleTensor", float64)
LongTensor = _legacy("LongTensor", int64)
IntTensor = _legacy("IntTensor", int32)
BoolTensor = _legacy("BoolTensor", bool_)
ByteTensor = _legacy("ByteTensor", uint8)

_PACKAGES = ("nn", "optim", "utils")
_HERE = [
    n for n in globals() if not n.startswith("_") and n not in ("Any", "Callable", "annotations")
]
__all__ = [*_HERE]


# Network functions that PyTorch has here as well.
_OF_NETWORKS = frozenset(
    {"avg_pool1d", "celu", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"}
    | {"cosine_similarity", "dropout", "embedding", "group_norm", "hardshrink", "layer_norm"}
    | {"max_pool1d", "max_pool2d", "pairwise_distance", "pixel_shuffle", "pixel_unshuffle"}
    | {"poisson_nll_loss", "prelu", "rms_norm", "selu", "triplet_margin_loss"}
    | {"margin_ranking_loss", "adaptive_avg_pool1d"}
)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return _import_module(f"treadle.torch.{name}")
    if name in _OF_NETWORKS:
        return getattr(_import_module("treadle.torch.nn.functional"), name)
    if name.endswith("_") and not name.startswith("_") and hasattr(Tensor, name):
        return getattr(Tensor, name)  # torch.relu_(x) is x.relu_()
    if name.startswith("__"):
        raise AttributeError(name)
    raise _missing("treadle.torch", name, [*__all__, *_PACKAGES])


def __dir__() -> list[str]:
    return [*__all__, *_PACKAGES]
