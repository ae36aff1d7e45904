"""How functions of the facade take PyTorch's keywords and give the facade's tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from treadle.torch.names import keyword_error
from treadle.torch.tensor import adopted, own
from treadle.tracer.traceback import as_door, door


def facade(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` as a function of the facade: its results are the facade's tensors, NumPy's keywords
    `axis`, `keepdims` and `x` are taken for PyTorch's, as PyTorch does, `out=` writes the result
    there, and an unknown keyword is told of."""
    parameters = inspect.signature(fn).parameters
    aliases = {
        alias: name
        for alias, name in (("axis", "dim"), ("keepdims", "keepdim"), ("x", "input"))
        if name in parameters and alias not in parameters
    }
    takes_out = "out" not in parameters

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        out = None
        if kwargs:
            for alias, name in aliases.items():
                if alias in kwargs:
                    kwargs[name] = kwargs.pop(alias)
            if takes_out and "out" in kwargs:
                out = kwargs.pop("out")
        try:
            found = fn(*args, **kwargs)
        except TypeError as error:
            told = keyword_error(fn, fn.__name__, kwargs)
            if told is None:
                raise
            raise told from error
        if out is not None:
            return out.copy_(found)
        if any(found is arg for arg in args):
            return own(found)
        return adopted(found)

    return door(as_door(call))
