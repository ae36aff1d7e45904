"""Layers with the same weights: results, gradients of all parameters and of the input, buffers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from agreement import Array, Case

import treadle

Make = Callable[[Any], Any]  # of a package's nn to a module in float64
Inputs = Sequence[Any]  # shapes of normal inputs, or integer arrays


def _values(name: str, shape: Sequence[int], dtype: str) -> Array:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if dtype in ("i64", "torch.int64"):
        return np.zeros(tuple(shape), np.int64)
    found = rng.standard_normal(tuple(shape))
    return np.abs(found) + 0.5 if "var" in name else found


def _arrays(name: str, inputs: Inputs) -> list[Array]:
    return [
        x if isinstance(x, np.ndarray) else _values(f"{name}{n}", x, "f64")
        for n, x in enumerate(inputs)
    ]


def _flat(outs: Any) -> list[Any]:
    if not isinstance(outs, (tuple, list)):
        return [outs]
    return [x for o in outs for x in _flat(o)]


def _weighted(outs: list[Any], make: Callable[[Array], Any]) -> Any:
    floats = [o for o in outs if str(o.dtype) in ("f64", "torch.float64")]
    return sum(
        (o * make(_values(f"weights{k}", o.shape, "f64"))).sum() for k, o in enumerate(floats)
    )


def _run(module: Any, arrays: list[Array], tensor: Callable[..., Any], training: bool) -> Any:
    """(function of the inputs that gives results, the tensors whose gradients count)"""
    module.train(training)
    state = {k: _values(k, v.shape, str(v.dtype)) for k, v in module.state_dict().items()}
    module.load_state_dict({k: tensor(v) for k, v in state.items()})
    return [tensor(a) for a in arrays]


def _layer(
    name: str, make: Make, inputs: Inputs, training: bool = True, ours: Make | None = None
) -> list[Case]:
    """An eager case and a jitted one. `ours`: how it is made here, where that differs."""

    def here(jitted: bool) -> list[Any]:
        module = (ours or make)(treadle.nn)
        arrays = _arrays(name, inputs)
        xs = _run(module.double(), arrays, treadle.tensor, training)
        leaves = [x for x in xs if x.dtype == treadle.float64]
        for x in leaves:
            x.requires_grad_()

        def step(*xs: Any) -> list[Any]:
            outs = _flat(module(*xs))
            _weighted(outs, treadle.tensor).backward()
            return [o.detach() for o in outs]

        outs = (treadle.jit(step) if jitted else step)(*xs)
        grads = [p.grad for p in [*leaves, *module.parameters()]]
        return [*outs, *grads, *(b.detach() for b in module.buffers())]

    def there(torch: Any) -> list[Any]:
        module = make(torch.nn).double()
        xs = _run(module, _arrays(name, inputs), torch.tensor, training)
        leaves = [x for x in xs if x.dtype == torch.float64]
        for x in leaves:
            x.requires_grad_()
        outs = _flat(module(*xs))
        _weighted(outs, torch.tensor).backward()
        grads = [p.grad for p in [*leaves, *module.parameters()]]
        return [*(o.detach() for o in outs), *grads, *(b.detach() for b in module.buffers())]

    label = f"{name}-{'train' if training else 'eval'}"
    return [
        Case(f"{label}-eager", lambda: here(False), there, (), whole=False),
        Case(f"{label}-jit", lambda: here(True), there, (), whole=False),
    ]


_IMAGES = [(2, 4, 6, 5)]
_ROWS = [(2, 4, 9)]
_TOKENS = [np.array([[0, 3, 2], [3, 5, 1]])]
_PADDED = np.array(
    [[False] * 5, [False, False, True, True, True], [True, False, False, False, True]]
)
_CAUSAL = np.triu(np.ones((5, 5), bool), 1)

LAYERS: dict[str, tuple[Make, Inputs]] = {
    "linear": (lambda nn: nn.Linear(5, 3), [(2, 4, 5)]),
    "linear-plain": (lambda nn: nn.Linear(5, 3, bias=False), [(4, 5)]),
    "conv1d": (lambda nn: nn.Conv1d(4, 6, 3, padding=1), _ROWS),
    "conv1d-strided": (lambda nn: nn.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2), _ROWS),
    "conv2d": (lambda nn: nn.Conv2d(4, 6, 3), _IMAGES),
    "conv2d-same": (lambda nn: nn.Conv2d(4, 6, (3, 2), padding="same", bias=False), _IMAGES),
    "conv2d-depthwise": (lambda nn: nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), _IMAGES),
    "conv2d-alone": (lambda nn: nn.Conv2d(4, 6, 3), [(4, 6, 5)]),
    "convtranspose1d": (lambda nn: nn.ConvTranspose1d(4, 6, 3, stride=2), _ROWS),
    "convtranspose2d": (
        lambda nn: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        _IMAGES,
    ),
    "batchnorm1d": (lambda nn: nn.BatchNorm1d(4), [(5, 4)]),
    "batchnorm1d-rows": (lambda nn: nn.BatchNorm1d(4, eps=1e-3, momentum=0.3), _ROWS),
    "batchnorm2d": (lambda nn: nn.BatchNorm2d(4), _IMAGES),
    "batchnorm2d-average": (lambda nn: nn.BatchNorm2d(4, momentum=None), _IMAGES),
    "batchnorm2d-plain": (lambda nn: nn.BatchNorm2d(4, affine=False), _IMAGES),
    "batchnorm2d-untracked": (lambda nn: nn.BatchNorm2d(4, track_running_stats=False), _IMAGES),
    "layernorm": (lambda nn: nn.LayerNorm(5), [(2, 3, 5)]),
    "layernorm-two": (lambda nn: nn.LayerNorm((3, 5), eps=1e-3, bias=False), [(2, 3, 5)]),
    "layernorm-plain": (lambda nn: nn.LayerNorm(5, elementwise_affine=False), [(2, 3, 5)]),
    "rmsnorm": (lambda nn: nn.RMSNorm(5), [(2, 3, 5)]),
    "rmsnorm-eps": (lambda nn: nn.RMSNorm((3, 5), eps=1e-3), [(2, 3, 5)]),
    "groupnorm": (lambda nn: nn.GroupNorm(2, 4), _IMAGES),
    "groupnorm-plain": (lambda nn: nn.GroupNorm(4, 4, affine=False), _ROWS),
    "embedding": (lambda nn: nn.Embedding(7, 3), _TOKENS),
    "embedding-padded": (lambda nn: nn.Embedding(7, 3, padding_idx=3), _TOKENS),
    "maxpool1d": (lambda nn: nn.MaxPool1d(2), _ROWS),
    "maxpool2d": (lambda nn: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), _IMAGES),
    "avgpool1d": (lambda nn: nn.AvgPool1d(2, 1), _ROWS),
    "avgpool2d": (lambda nn: nn.AvgPool2d(3, padding=1, count_include_pad=False), _IMAGES),
    "adaptiveavgpool1d": (lambda nn: nn.AdaptiveAvgPool1d(4), _ROWS),
    "adaptivemaxpool1d": (lambda nn: nn.AdaptiveMaxPool1d(4), _ROWS),
    "adaptivemaxpool2d": (lambda nn: nn.AdaptiveMaxPool2d((4, 2)), _IMAGES),
    "upsample": (lambda nn: nn.Upsample(scale_factor=2), _ROWS),
    "upsample-bilinear": (lambda nn: nn.Upsample((9, 4), mode="bilinear"), _IMAGES),
    "upsample-bicubic": (
        lambda nn: nn.Upsample(scale_factor=1.5, mode="bicubic", align_corners=True),
        _IMAGES,
    ),
    "flatten": (lambda nn: nn.Flatten(0, -2), _IMAGES),
    "unflatten": (lambda nn: nn.Unflatten(1, (2, -1)), _IMAGES),
    "identity": (lambda nn: nn.Identity(3, unused=True), _IMAGES),
    "dropout": (lambda nn: nn.Dropout(0.5), _IMAGES),
    "conv2d-reflect": (lambda nn: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), _IMAGES),
    "conv1d-circular": (
        lambda nn: nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"),
        _ROWS,
    ),
    "adaptiveavgpool2d": (lambda nn: nn.AdaptiveAvgPool2d((2, None)), _IMAGES),
    "prelu": (lambda nn: nn.PReLU(4), _IMAGES),
    "attention": (
        lambda nn: nn.MultiheadAttention(6, 2),
        [(4, 3, 6), (5, 3, 6), (5, 3, 6), _PADDED],
    ),
    "attention-sizes": (
        lambda nn: nn.MultiheadAttention(6, 3, bias=False, kdim=4, vdim=5, batch_first=True),
        [(3, 4, 6), (3, 5, 4), (3, 5, 5)],
    ),
    "attention-alone": (lambda nn: nn.MultiheadAttention(6, 2), [(4, 6), (5, 6), (5, 6)]),
    "attention-more-keys": (
        lambda nn: nn.MultiheadAttention(6, 2, 0.0, True, True, True),
        [(4, 3, 6), (5, 3, 6), (5, 3, 6), _PADDED],
    ),
    "attention-learned-key": (
        lambda nn: nn.MultiheadAttention(6, 3, add_bias_kv=True, kdim=4, vdim=5, batch_first=True),
        [(3, 4, 6), (3, 5, 4), (3, 5, 5)],
    ),
    "batchnorm2d-no-bias": (lambda nn: nn.BatchNorm2d(4, bias=False), _IMAGES),
    "groupnorm-no-bias": (lambda nn: nn.GroupNorm(2, 4, bias=False), _IMAGES),
    "encoder-layer": (
        lambda nn: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0),
        [(5, 3, 6), _CAUSAL],
    ),
    "encoder-layer-first": (
        lambda nn: nn.TransformerEncoderLayer(
            6, 3, 8, 0.0, activation="gelu", batch_first=True, norm_first=True, bias=False
        ),
        [(3, 5, 6)],
    ),
    "encoder": (
        lambda nn: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0), 2, nn.LayerNorm(6)
        ),
        [(5, 3, 6)],
    ),
    "rnn": (lambda nn: nn.RNN(3, 4), [(5, 2, 3)]),
    "rnn-relu": (
        lambda nn: nn.RNN(3, 4, 2, nonlinearity="relu", bias=False),
        [(5, 2, 3), (2, 2, 4)],
    ),
    "lstm": (lambda nn: nn.LSTM(3, 4), [(5, 2, 3)]),
    "lstm-layers": (
        lambda nn: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True),
        [(2, 5, 3)],
    ),
    "gru": (lambda nn: nn.GRU(3, 4, bidirectional=True), [(5, 2, 3), (2, 2, 4)]),
    "gru-alone": (lambda nn: nn.GRU(3, 4, 2), [(5, 3), (2, 4)]),
    "sequential": (
        lambda nn: nn.Sequential(
            nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
        ),
        _IMAGES,
    ),
}

# Activations as modules: what they compute is compared in cases_activations, here their options.
PLAIN: dict[str, Make] = {
    "relu": lambda nn: nn.ReLU(),
    "relu6": lambda nn: nn.ReLU6(),
    "leakyrelu": lambda nn: nn.LeakyReLU(0.2),
    "elu": lambda nn: nn.ELU(0.5),
    "celu": lambda nn: nn.CELU(0.5),
    "selu": lambda nn: nn.SELU(),
    "gelu": lambda nn: nn.GELU("tanh"),
    "silu": lambda nn: nn.SiLU(),
    "mish": lambda nn: nn.Mish(),
    "sigmoid": lambda nn: nn.Sigmoid(),
    "logsigmoid": lambda nn: nn.LogSigmoid(),
    "hardsigmoid": lambda nn: nn.Hardsigmoid(),
    "tanh": lambda nn: nn.Tanh(),
    "hardtanh": lambda nn: nn.Hardtanh(-0.5, 0.7),
    "hardswish": lambda nn: nn.Hardswish(),
    "softplus": lambda nn: nn.Softplus(2.0, 1.5),
    "softsign": lambda nn: nn.Softsign(),
    "tanhshrink": lambda nn: nn.Tanhshrink(),
    "softmax": lambda nn: nn.Softmax(1),
    "softmin": lambda nn: nn.Softmin(-1),
    "logsoftmax": lambda nn: nn.LogSoftmax(0),
    "glu": lambda nn: nn.GLU(1),
}
LAYERS |= {name: (make, [(2, 4, 5)]) for name, make in PLAIN.items()}
# PyTorch's derivative of hardsigmoid takes the float32 nearest to 1/6 in float64 as well.
_TOLERANCES = {"hardsigmoid": 1e-7}


def _modes(name: str) -> tuple[bool, ...]:
    if name == "dropout":
        return (False,)
    return (True, False) if "batchnorm" in name or name == "sequential" else (True,)


CASES = [
    replace(case, tolerance=_TOLERANCES.get(name, case.tolerance))
    for name, (make, inputs) in LAYERS.items()
    for training in _modes(name)
    for case in _layer(name, make, inputs, training)
    if name not in PLAIN or case.name.endswith("jit")
]
RECORDED = 12  # all of them have their digests
