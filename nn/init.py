"""Initialisers: they fill a tensor in place and return it.

All that draw take a `generator`: a seed, a NumPy generator or a `treadle.Generator`. Without one
they draw from one of their own, which `treadle.manual_seed` starts anew: the same seed and the same
order of calls give the same values. Drawing is NumPy's, on the host: it never runs inside a trace.
(What networks draw while they run comes from `treadle.Generator`.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import shape_text
from treadle.tracer.create import tensor as constant_tensor
from treadle.tracer.errors import located
from treadle.tracer.generator import Generator, default_generator
from treadle.tracer.items import library_generators
from treadle.tracer.modes import active_trace, no_grad
from treadle.tracer.tensor import Tensor

Nonlinearity = Literal[
    "linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "sigmoid", "tanh", "relu",
    "leaky_relu", "selu",
]  # fmt: skip
_LINEAR = ("linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "sigmoid")
FanMode = Literal["fan_in", "fan_out"]
Source = int | np.random.Generator | Generator | None

_generator = np.random.default_rng(0)
# A trace notices draws from these: the values would be the same at every call.
library_generators.append(_generator)


def manual_seed(seed: int) -> Generator:
    """Start the default generator, from which all draw that are given no other, and that of the
    initialisers anew; returns the former. Inside a jitted function the compiled call does this for
    the default generator each time that it runs, and the initialisers' is left as it is.

    Raises ArgumentError unless `seed` is an int from 0 to 2^64 - 1.
    """
    found = default_generator.manual_seed(seed)
    if active_trace() is None:
        _generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    return found


def draw_seed() -> int:
    """A seed for a generator of its own, from the generator of the initialisers."""
    return int(_generator.integers(2**63))


def generator_state() -> dict[str, Any]:
    """The state of the initialisers' generator, as numbers and texts."""
    return dict(_generator.bit_generator.state)


def set_generator_state(state: Mapping[str, Any]) -> None:
    """Go on from a state that `generator_state` gave."""
    _generator.bit_generator.state = dict(state)


def _drawing(source: Source) -> np.random.Generator:
    """What draws for `source`: the initialisers' own where it is None, a new one for a seed or a
    `treadle.Generator`, of which it takes one draw. Raises ArgumentError for anything else."""
    if source is None:
        return _generator
    if isinstance(source, np.random.Generator):
        return source
    if isinstance(source, Generator):
        state = source.get_state().numpy()
        source.set_state(constant_tensor(state + np.array([0, 1])))
        return np.random.default_rng(state.view(np.uint64))
    if isinstance(source, (int, np.integer)) and not isinstance(source, bool) and source >= 0:
        return np.random.default_rng(int(source))
    raise located(
        ArgumentError(
            "generator must be a seed, a numpy.random.Generator or a treadle.Generator, found "
            f"{type(source).__name__} {source!r:.40}"
        )
    )


def calculate_gain(nonlinearity: Nonlinearity, param: float | None = None) -> float:
    """The factor that keeps a signal's variance through `nonlinearity` (He et al., 2015).

    `param` is the slope of leaky_relu (0.01). Raises ValueError for an unknown name.
    """
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75, **dict.fromkeys(_LINEAR, 1.0)}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in gains:
        known = ", ".join([*gains, "leaky_relu"])
        raise ValueError(f"unknown nonlinearity {nonlinearity!r}; there are {known}")
    return gains[nonlinearity]


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Source = None) -> Tensor:
    """Evenly from [a, b)."""
    return _fill(tensor, _drawing(generator).uniform(a, b, tensor.shape))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Source = None
) -> Tensor:
    """From the normal distribution."""
    return _fill(tensor, _drawing(generator).normal(mean, std, tensor.shape))


def constant_(tensor: Tensor, val: float) -> Tensor:
    return _fill(tensor, np.full(tensor.shape, val))


def zeros_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 1.0)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: FanMode = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    generator: Source = None,
) -> Tensor:
    """Evenly with a bound of gain * sqrt(3 / fan) (He et al., 2015)."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: FanMode = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    generator: Source = None,
) -> Tensor:
    """Normal with a standard deviation of gain / sqrt(fan) (He et al., 2015)."""
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return normal_(tensor, 0.0, std, generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Source = None) -> Tensor:
    """Evenly with a bound of gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Source = None) -> Tensor:
    """Normal with a standard deviation of gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), generator)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Source = None,
) -> Tensor:
    """From the normal distribution, drawn again where a value is outside of [a, b].

    Raises ArgumentError where hardly any value would be inside."""
    if not std > 0:
        raise located(ArgumentError(f"std must be above 0, found {std}"))
    low, high = (math.erf((x - mean) / (std * math.sqrt(2))) / 2 for x in (a, b))
    if not high - low > 1e-3:
        raise located(
            ArgumentError(f"[{a}, {b}] holds {high - low:.1g} of a normal({mean}, {std})")
        )
    rng = _drawing(generator)
    values = rng.normal(mean, std, tensor.shape)
    while (out := (values < a) | (values > b)).any():
        values[out] = rng.normal(mean, std, int(out.sum()))
    return _fill(tensor, values)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Source = None) -> Tensor:
    """`gain` times a matrix [out, in * ..] of orthonormal rows, or columns if there are more rows
    (Saxe et al., 2014): the Q of a normal matrix, signs such that R's diagonal is positive.

    Raises ShapeError below rank 2."""
    fans(tensor)
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    normal = _drawing(generator).normal(0.0, 1.0, (rows, columns))
    q, r = np.linalg.qr(normal if rows >= columns else normal.T)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def eye_(tensor: Tensor) -> Tensor:
    """The identity; of a matrix that is not square as much as it has. Raises ShapeError unless the
    rank is 2."""
    if tensor.ndim != 2:
        raise located(ShapeError(f"eye_ fills a matrix, found shape {shape_text(tensor.shape)}"))
    return _fill(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight that passes as many channels on as it can, in each of `groups`. Raises
    ShapeError below rank 3, ArgumentError where the groups do not divide the channels."""
    if tensor.ndim < 3:
        raise located(
            ShapeError(
                f"dirac_ fills the weight of a convolution, found {shape_text(tensor.shape)}"
            )
        )
    if groups < 1 or tensor.shape[0] % groups:
        raise located(ArgumentError(f"{groups} groups do not divide {tensor.shape[0]} channels"))
    values = np.zeros(tensor.shape)
    middle = tuple(size // 2 for size in tensor.shape[2:])
    rows = tensor.shape[0] // groups
    for start in range(0, tensor.shape[0], max(rows, 1)):
        for channel in range(min(rows, tensor.shape[1])):
            values[(start + channel, channel, *middle)] = 1.0
    return _fill(tensor, values)


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, ...]. Raises ShapeError below rank 2."""
    if tensor.ndim < 2:
        raise ShapeError(f"fans need a weight of rank 2 or more, found {shape_text(tensor.shape)}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _fan(tensor: Tensor, mode: FanMode) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be fan_in or fan_out, found {mode!r}")
    fan_in, fan_out = fans(tensor)
    return max(fan_in if mode == "fan_in" else fan_out, 1)


def _fill(tensor: Tensor, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise located(DTypeError(f"an initialiser fills a tensor, found {type(tensor).__name__}"))
    if not tensor.dtype.is_float and (values != np.floor(values)).any():
        raise located(DTypeError(f"a tensor of {tensor.dtype.name} cannot hold what is drawn"))
    with no_grad():
        tensor.copy_(values.astype(tensor.dtype.dtype))
    return tensor
