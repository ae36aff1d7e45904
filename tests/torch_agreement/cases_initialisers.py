"""Initialisers and what layers start with, of the same draws: bounds, spreads, fans, gains, signs.

Both libraries get their uniform and normal numbers from one stream of NumPy's here, in the order in
which they ask, so that all that they make of them can be compared element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from agreement import Array, Case

import treadle
from treadle.nn import init as ours_init

Fill = Callable[[Any, Any], Any]  # of a package's nn.init and a tensor
Make = Callable[[Any], Any]  # of a package's nn to a module


class _Stream(np.random.Generator):
    """Numbers scaled as PyTorch does it: a + (b - a) u and mean + std n."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(7))

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return low + (high - low) * self.random(size)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return loc + scale * self.standard_normal(size)


@contextmanager
def _here() -> Iterator[None]:
    own = ours_init._generator
    ours_init._generator = _Stream()
    try:
        yield
    finally:
        ours_init._generator = own


@contextmanager
def _there(torch: Any) -> Iterator[None]:
    stream, kind = _Stream(), torch.Tensor

    def uniform_(self: Any, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> Any:
        return self.copy_(torch.tensor(stream.uniform(low, high, tuple(self.shape))))

    def normal_(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Any:
        return self.copy_(torch.tensor(stream.normal(mean, std, tuple(self.shape))))

    with torch.no_grad():
        inherited = {name: kind.__dict__.get(name) for name in ("uniform_", "normal_")}
        kind.uniform_, kind.normal_ = uniform_, normal_
        try:
            yield
        finally:
            for name, method in inherited.items():
                delattr(kind, name)
                if method is not None:
                    setattr(kind, name, method)


def _filled(name: str, shape: tuple[int, ...], fill: Fill) -> Case:
    def ours() -> Any:
        with _here():
            return fill(ours_init, treadle.zeros(shape, dtype=treadle.float64))

    def theirs(torch: Any) -> Any:
        with _there(torch):
            return fill(torch.nn.init, torch.zeros(shape, dtype=torch.float64))

    return Case(name, ours, theirs, (), whole=False)


def _started(name: str, make: Make) -> Case:
    """All parameters and buffers of a new layer."""

    def ours() -> list[Any]:
        with _here():
            module = make(treadle.nn)
        return [v.astype(treadle.float64) for v in module.state_dict().values()]

    def theirs(torch: Any) -> list[Any]:
        with _there(torch):
            module = make(torch.nn)
        return [v.double() for v in module.state_dict().values()]

    return Case(f"start-{name}", ours, theirs, (), whole=False)


def _gains() -> Case:
    names = ("linear", "conv2d", "sigmoid", "tanh", "relu", "selu", "leaky_relu")

    def values(init: Any) -> Array:
        return np.array([*map(init.calculate_gain, names), init.calculate_gain("leaky_relu", 0.3)])

    return Case(
        "gains",
        lambda: treadle.tensor(values(ours_init)),
        lambda torch: torch.tensor(values(torch.nn.init)),
        (),
        whole=False,
    )


_MATRIX, _KERNEL = (6, 4), (4, 3, 3, 5)
LAYERS: dict[str, Make] = {
    "linear": lambda nn: nn.Linear(5, 3),
    "conv1d": lambda nn: nn.Conv1d(4, 6, 3, groups=2),
    "conv2d": lambda nn: nn.Conv2d(3, 4, (3, 2)),
    "convtranspose1d": lambda nn: nn.ConvTranspose1d(4, 6, 3),
    "convtranspose2d": lambda nn: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "batchnorm": lambda nn: nn.BatchNorm2d(3),
    "layernorm": lambda nn: nn.LayerNorm((3, 4)),
    "groupnorm": lambda nn: nn.GroupNorm(2, 4),
    "rmsnorm": lambda nn: nn.RMSNorm(4),
    "embedding": lambda nn: nn.Embedding(5, 3, padding_idx=2),
    "prelu": lambda nn: nn.PReLU(3),
    "rnn": lambda nn: nn.RNN(3, 4, 2),
    "lstm": lambda nn: nn.LSTM(3, 4, bidirectional=True),
    "gru": lambda nn: nn.GRU(3, 4),
    "attention": lambda nn: nn.MultiheadAttention(6, 2),
    "attention-sizes": lambda nn: nn.MultiheadAttention(6, 2, kdim=4, vdim=5),
    "attention-learned-key": lambda nn: nn.MultiheadAttention(6, 2, add_bias_kv=True),
    "encoder-layer": lambda nn: nn.TransformerEncoderLayer(6, 2, 8),
}

CASES = [
    _gains(),
    _filled("uniform", _MATRIX, lambda init, t: init.uniform_(t, -0.5, 2.0)),
    _filled("normal", _MATRIX, lambda init, t: init.normal_(t, 1.0, 0.3)),
    _filled("constant", _MATRIX, lambda init, t: init.constant_(t, 0.7)),
    _filled("ones", _MATRIX, lambda init, t: init.ones_(t)),
    _filled("zeros", _MATRIX, lambda init, t: init.zeros_(t)),
    _filled("eye", _MATRIX, lambda init, t: init.eye_(t)),
    _filled("dirac", _KERNEL, lambda init, t: init.dirac_(t)),
    _filled("dirac-groups", _KERNEL, lambda init, t: init.dirac_(t, 2)),
    *(
        _filled(f"xavier_{kind}-{len(shape)}-{gain}", shape,
                lambda init, t, kind=kind, gain=gain: getattr(init, f"xavier_{kind}_")(t, gain))
        for kind in ("uniform", "normal") for shape in (_MATRIX, _KERNEL) for gain in (1.0, 1.5)
    ),
    *(
        _filled(f"kaiming_{kind}-{mode}-{name}-{a}", _KERNEL,
                lambda init, t, kind=kind, mode=mode, name=name, a=a:
                getattr(init, f"kaiming_{kind}_")(t, a, mode, name))
        for kind in ("uniform", "normal") for mode in ("fan_in", "fan_out")
        for name, a in (("relu", 0.0), ("leaky_relu", 0.2), ("tanh", 0.0), ("linear", 0.0))
    ),
    *(
        _filled(f"orthogonal-{shape}-{gain}", shape,
                lambda init, t, gain=gain: init.orthogonal_(t, gain))
        for shape in ((6, 4), (4, 6), (5, 5), (3, 2, 4)) for gain in (1.0, 0.5)
    ),
    *(_started(name, make) for name, make in LAYERS.items()),
]  # fmt: skip
RECORDED = len(CASES)
