"""Convolutions: a grid over stride, padding, dilation and groups, with sizes that go round in it,
and single cases at the edges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

from agreement import Case, Draw, normal

from treadle.nn import functional

RECORDED = 60

Pads = tuple[tuple[int, int], ...]


def _text(value: Any) -> str:
    """An argument as a case's name shows it: `2x1` for (2, 1)."""
    if isinstance(value, tuple):
        return "x".join(_text(v) for v in value)
    return str(value)


def _named(*parts: Any) -> str:
    return "-".join(_text(p) for p in parts)


def _pairs(padding: Any) -> bool:
    return isinstance(padding, tuple) and isinstance(padding[0], tuple)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * rank


def _total_pads(padding: Any, rank: int) -> list[int]:
    if isinstance(padding, str):
        return [0] * rank
    if _pairs(padding):
        return [sum(p) for p in padding]
    return [2 * p for p in _each(padding, rank)]


def _flat(pads: Pads) -> list[int]:
    """torch.nn.functional.pad's argument: from the last axis to the first."""
    return [n for pair in reversed(pads) for n in pair]


# --- one case ----------------------------------------------------------------------------------


def conv(
    x: Sequence[int], w: Sequence[int], bias: bool = False, twice: bool = False, **options: Any
) -> Case:
    """conv1d or conv2d; PyTorch pads by pairs in a step of its own."""
    rank = len(w) - 2
    ours, name = getattr(functional, f"conv{rank}d"), f"conv{rank}d"
    padding = options.get("padding", 0)

    def theirs(torch: Any, x: Any, *rest: Any) -> Any:
        f = torch.nn.functional
        if not _pairs(padding):
            return getattr(f, name)(x, *rest, **options)
        x = f.pad(x, _flat(padding))
        return getattr(f, name)(x, *rest, **{**options, "padding": 0})

    draws: tuple[Draw, ...] = (normal(*x), normal(*w), *((normal(w[0]),) if bias else ()))
    given = [f"{key}={_text(value)}" for key, value in options.items()]
    return Case(
        _named(name, tuple(x), tuple(w), *given, *(["bias"] if bias else [])),
        lambda *xs: ours(*xs, **options), theirs, draws, twice,
    )  # fmt: skip


def conv_transpose(
    x: Sequence[int], w: Sequence[int], bias: bool = False, twice: bool = False, **options: Any
) -> Case:
    """conv_transpose1d or -2d; where pads are pairs, PyTorch's result without any is cut."""
    rank = len(w) - 2
    ours, name = getattr(functional, f"conv_transpose{rank}d"), f"conv_transpose{rank}d"
    padding = options.get("padding", 0)

    def theirs(torch: Any, *xs: Any) -> Any:
        fn = getattr(torch.nn.functional, name)
        if not _pairs(padding):
            return fn(*xs, **options)
        whole = fn(*xs, **{**options, "padding": 0})
        sizes = whole.shape[-rank:]
        inside = (slice(low, size - high) for (low, high), size in zip(padding, sizes, strict=True))
        return whole[(..., *inside)]

    outputs = w[1] * options.get("groups", 1)
    draws: tuple[Draw, ...] = (normal(*x), normal(*w), *((normal(outputs),) if bias else ()))
    given = [f"{key}={_text(value)}" for key, value in options.items()]
    return Case(
        _named(name, tuple(x), tuple(w), *given, *(["bias"] if bias else [])),
        lambda *xs: ours(*xs, **options), theirs, draws, twice,
    )  # fmt: skip


# --- the grid ----------------------------------------------------------------------------------

_CHANNELS = {1: ((2, 3), (3, 2), (1, 4), (5, 1)), 2: ((4, 2), (2, 6)), 3: ((3, 3), (3, 6))}


class _Turns:
    """What goes round while the grid is walked: batch, channels, kernel, bias, second order."""

    def __init__(self, kernels: Sequence[tuple[int, ...]]) -> None:
        self.batch = cycle((2, 1, 3))
        self.kernels = cycle(kernels)
        self.channels = {groups: cycle(listed) for groups, listed in _CHANNELS.items()}
        self.more = cycle((0, 1, 3, 2, 4))
        self.bias = cycle((True, False, False))
        self.twice = cycle((True, False, False, False, False))


def _sizes(
    kernel: Sequence[int], dilation: Any, padding: Any, more: int, least: int = 1
) -> tuple[int, ...]:
    """Spatial sizes that the kernel fits into, with `more` to spare."""
    rank = len(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, _each(dilation, rank), strict=True)]
    pads = _total_pads(padding, rank)
    return tuple(
        max(span - pad, least) + more + axis
        for axis, (span, pad) in enumerate(zip(spans, pads, strict=True))
    )


def _grid(
    rank: int, strides: Sequence[Any], paddings: Sequence[Any], dilations: Sequence[Any],
    kernels: Sequence[tuple[int, ...]],
) -> list[Case]:  # fmt: skip
    turns, found = _Turns(kernels), []
    for stride, padding, dilation, groups in product(strides, paddings, dilations, (1, 2, 3)):
        if padding == "same" and stride != 1:
            continue
        kernel = next(turns.kernels)
        channels, outputs = next(turns.channels[groups])
        size = _sizes(kernel, dilation, padding, next(turns.more))
        case = conv(
            (next(turns.batch), channels, *size),
            (outputs, channels // groups, *kernel),
            next(turns.bias),
            next(turns.twice),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        found.append(case)
    return found


def _transposed_grid(
    rank: int, strides: Sequence[Any], paddings: Sequence[Any], dilations: Sequence[Any],
    kernels: Sequence[tuple[int, ...]],
) -> list[Case]:  # fmt: skip
    turns, found = _Turns(kernels), []
    for stride, padding, dilation, groups in product(strides, paddings, dilations, (1, 2, 3)):
        kernel = next(turns.kernels)
        channels, outputs = next(turns.channels[groups])
        steps, apart = _each(stride, rank), _each(dilation, rank)
        more = next(turns.more)
        left = tuple(min(more, max(s, d) - 1) for s, d in zip(steps, apart, strict=True))
        size = tuple(3 + more % 3 + axis for axis in range(rank))
        case = conv_transpose(
            (next(turns.batch), channels, *size),
            (channels, outputs // groups, *kernel),
            next(turns.bias),
            next(turns.twice),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            output_padding=left,
        )
        found.append(case)
    return found


def _edges() -> list[Case]:
    """Empty batches, inputs without a batch axis, kernels as large as the input, single elements,
    depthwise with more outputs than inputs."""
    return [
        conv((0, 3, 5, 6), (4, 3, 3, 3), bias=True),
        conv((0, 2, 7), (4, 2, 3), stride=2),
        conv((3, 5, 6), (4, 3, 3, 3), bias=True, padding=1),
        conv((3, 9), (4, 3, 3), bias=True, stride=2),
        conv((2, 3, 5, 6), (4, 3, 5, 6), bias=True, twice=True),
        conv((2, 3, 4, 4), (2, 3, 6, 6), padding=1),
        conv((1, 1, 1, 1), (1, 1, 1, 1), twice=True),
        conv((1, 1, 1), (1, 1, 1), bias=True),
        conv((1, 1, 1, 1), (3, 1, 3, 3), padding=1),
        conv((2, 4, 9, 7), (12, 1, 3, 3), groups=4, padding=1, twice=True),
        conv((2, 8, 6, 6), (8, 1, 3, 3), groups=8, padding=1),
        conv((1, 6, 10), (12, 1, 4), groups=6, stride=3),
        conv((2, 3, 12, 12), (4, 3, 7, 7), stride=2, padding=3),
        conv((1, 2, 17, 15), (3, 2, 11, 1), padding=(5, 0)),
        conv((1, 2, 40), (2, 2, 33), padding=16),
        conv((2, 3, 9, 9), (2, 3, 2, 2), stride=(5, 4)),
        conv((2, 3, 9, 9), (2, 3, 1, 1), stride=3),
        conv((2, 3, 3, 30), (2, 3, 3, 3), dilation=(1, 12)),
        conv((1, 16, 5, 5), (17, 16, 3, 3), padding=1),
        conv((2, 5, 8), (3, 5, 2), padding="valid"),
        conv_transpose((0, 3, 4, 5), (3, 2, 3, 3), bias=True),
        conv_transpose((3, 4, 5), (3, 2, 3, 3), bias=True, stride=2),
        conv_transpose((3, 4), (3, 2, 3), bias=True, stride=2, output_padding=1),
        conv_transpose((1, 1, 1, 1), (1, 1, 4, 4), stride=2, padding=1, twice=True),
        conv_transpose((2, 4, 3, 3), (4, 1, 2, 2), groups=4, stride=2),
        conv_transpose((2, 4, 3, 4), (4, 1, 1, 2), groups=2, stride=(4, 3)),
        conv_transpose((1, 2, 6, 5), (2, 3, 3, 2), padding=((2, 0), (1, 3)), twice=True),
        conv_transpose((1, 2, 6), (2, 3, 4), stride=2, padding=((1, 3),)),
        conv_transpose((1, 2, 4), (2, 2, 2), dilation=5, stride=2, output_padding=4),
    ]


_KERNELS_2D = ((3, 3), (1, 1), (2, 3), (5, 2), (3, 1), (4, 4))
_KERNELS_1D = ((3,), (1,), (2,), (5,), (4,))

CASES = [
    *_grid(
        2,
        (1, 2, 3, (2, 1)),
        (0, 1, (1, 2), ((0, 1), (2, 1)), "same"),
        (1, 2, (1, 3)),
        _KERNELS_2D,
    ),
    *_grid(
        1, (1, 2, 3), (0, 1, 2, ((1, 0),), ((0, 3),), ((2, 1),), "same"), (1, 2, 3), _KERNELS_1D
    ),
    *_transposed_grid(2, (1, 2, 3, (1, 2)), (0, 1, (1, 0)), (1, 2, (2, 1)), _KERNELS_2D[2:]),
    *_transposed_grid(1, (1, 2, 3), (0, 1), (1, 2, 3), _KERNELS_1D[2:]),
    *_edges(),
]
