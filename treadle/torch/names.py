"""How the facade says what it lacks.

A name that is not there raises AttributeError with the nearest names that are; a keyword that a
function does not take raises TypeError with the nearest that it takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

# What does the same work under another name, or takes another way.
KNOWN: Final[Mapping[str, str]] = {
    "acos": "atan and its like have no op yet; sin, cos and tanh are there",
    "atan": "it has no op yet; sin, cos and tanh are there",
    "atan2": "it has no op yet; sin, cos and tanh are there",
    "asin": "it has no op yet; sin, cos and tanh are there",
    "bfloat16": "there are float32 and float64",
    "complex64": "there are no complex numbers; keep two real tensors",
    "float16": "there are float32 and float64",
    "half": "there are float32 and float64: float(), double()",
    "int8": "there are uint8, int32 and int64",
    "int16": "there are uint8, int32 and int64",
    "jit": "torch.compile, which is treadle.jit",
    "vmap": "write the batch axis out, or use treadle.map",
    "func": "treadle.grad and treadle.value_and_grad are there",
    "fx": "treadle.trace(fn, specs) gives a graph",
    "export": "treadle.trace(fn, specs).save writes a graph with its weights",
    "onnx": "treadle.trace(fn, specs).save writes a graph with its weights",
    "distributed": "Treadle computes in one process; treadle.set_num_threads sets its threads",
    "multiprocessing": "DataLoader(num_workers=) starts processes for data",
    "amp": "there are float32 and float64",
    "autocast": "there are float32 and float64",
    "GradScaler": "there are float32 and float64, whose gradients need no scaling",
    "profiler": "treadle profile SCRIPT on the command line",
    "register_hook": "treadle.watch delivers a value from inside of a step",
    "retain_grad": "treadle.grad, or torch.autograd.grad by a leaf",
    "share_memory_": "tensors stay in their process",
    "DataParallel": "one process uses all cores",
    "Conv3d": "Conv1d and Conv2d",
    "IterableDataset": "Dataset, with __len__ and __getitem__",
    "SummaryWriter": "tensorboardX.SummaryWriter writes the same files",
    "checkpoint": "treadle.remat(fn), which computes again what backward() needs",
    "LBFGS": "Adam, SGD",
    "swa_utils": "treadle.optim.ExponentialMovingAverage",
    "inverse": "treadle.linalg has products and norms only; use NumPy outside of a step",
    "svd": "treadle.linalg has products and norms only; use NumPy outside of a step",
    "solve": "treadle.linalg has products and norms only; use NumPy outside of a step",
}


# Keywords that PyTorch has had for what has another one.
KEYWORDS: Final[Mapping[str, str]] = {
    "size_average": "reduction", "reduce": "reduction", "learning_rate": "lr",
}  # fmt: skip


def missing(owner: str, name: str, there: Iterable[str]) -> AttributeError:
    """The error for `owner.name`, where only `there` is."""
    near = nearest(name, there)
    if name in KNOWN:
        hint = f": {KNOWN[name]}"
    elif near:
        hint = f"; the nearest that it has: {', '.join(near)}"
    else:
        hint = "; docs/from-pytorch.md lists what it has"
    return AttributeError(f"{owner} has no {name!r} of PyTorch's{hint}", name=name)


def nearest(name: str, there: Iterable[str]) -> list[str]:
    """Up to three names that are spelled nearly so, or begin or end alike."""
    public = [n for n in there if not n.startswith("_")]
    lower = {n.lower(): n for n in reversed(public)}
    close = get_close_matches(name.lower(), lower, n=3, cutoff=0.6)
    within = [
        n
        for n in lower
        if len(name) > 3 and (name.lower() in n or (len(n) > 3 and n in name.lower()))
    ]
    return [lower[n] for n in dict.fromkeys([*close, *within])][:3]


def keyword_error(fn: Callable[..., Any], name: str, kwargs: Mapping[str, Any]) -> TypeError | None:
    """The error for a keyword that `fn` does not take; None where it takes all."""
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    takes = [n for n, p in parameters.items() if p.kind is not p.POSITIONAL_ONLY and n != "self"]
    unknown = next((k for k in kwargs if k not in takes), None)
    if unknown is None:
        return None
    known = KEYWORDS.get(unknown)
    near = [known] if known in takes else nearest(unknown, takes)
    hint = f"; the nearest that it takes: {', '.join(near)}" if near else ""
    return TypeError(
        f"{name}() of treadle.torch takes no keyword {unknown!r}{hint} (it takes "
        f"{', '.join(takes) or 'none'})"
    )
