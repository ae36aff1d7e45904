"""`torch.compile`, which is `treadle.jit`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from treadle.ir.errors import ArgumentError
from treadle.nn.module import Module
from treadle.tracer.errors import located
from treadle.tracer.jit import Jitted, jit


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """`treadle.jit(model)`: a function, or a module, whose call is then one native function.

    The options choose nothing here: the whole function is compiled, for the shapes that it is
    called with; `disable` gives it back as it is. Raises ArgumentError for a backend that is a
    function.
    """
    if callable(backend):
        raise located(ArgumentError("torch.compile has no other backends than Treadle's own"))
    if model is None:
        return functools.partial(compile, disable=disable)
    if disable:
        return model
    return CompiledModule(model) if isinstance(model, Module) else jit(model)


class CompiledModule:
    """A module whose calls are compiled; everything else is the module's own."""

    def __init__(self, module: Module) -> None:
        self._orig_mod = module
        self._compiled: Jitted = jit(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":
            raise AttributeError(name)
        return getattr(self._orig_mod, name)

    def __repr__(self) -> str:
        return f"compiled {self._orig_mod!r}"
