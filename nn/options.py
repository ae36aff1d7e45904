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


class NoOptions(Options):
    """A module that is a function of its inputs alone. Raises TypeError where it is given options:
    a misspelt name would do nothing otherwise."""

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        found = [*map(repr, values), *(f"{name}={value!r}" for name, value in named.items())]
        if found:
            hint = "; no layer works in place, leave it out" if "inplace" in named else ""
            raise TypeError(f"{type(self).__name__}() takes no options, found {found[0]}{hint}")
