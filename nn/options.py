"""Modules that are a function with options: activations, losses, pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from treadle.nn.module import Module
from treadle.tracer.promote import Operand, as_operand
from treadle.tracer.tensor import Tensor


class Options(Module):
    """A module whose forward is `function` of its inputs and of the options that it keeps as
    attributes, which `repr` shows."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, *inputs: Tensor) -> Any:
        return type(self).function(*inputs, **self.given())

    def given(self) -> dict[str, Any]:
        """The options by name."""
        return {name: getattr(self, name) for name in self.options}

    def buffer(self, name: str, value: Operand | None) -> None:
        """An option that is a tensor: a buffer, part of the state and not trained."""
        self.register_buffer(name, None if value is None else as_operand(value))
        self.options = (*self.options, name)

    def extra_repr(self) -> str:
        shown = {k: v for k, v in self.given().items() if v is not None}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items() if not isinstance(v, Tensor))
