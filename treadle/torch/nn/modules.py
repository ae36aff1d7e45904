"""`Module` of the facade, and Treadle's layers as subclasses of it.

A layer of the facade is Treadle's layer: same code, arguments, defaults and keys. What differs is
of which class its parameters and buffers are, so that `layer.weight.view(-1)` is PyTorch's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, Self

import treadle.nn as native
from treadle.nn.module import Keys, Module as _Module
from treadle.torch.device import no_cuda
from treadle.torch.names import keyword_error, nearest
from treadle.torch.tensor import adopted, destination


class Module(_Module):
    """Base of networks, with PyTorch's methods: assign parameters and modules, define `forward`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _Module):
            adopt(value)
        super().__setattr__(name, adopted(value))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        near = nearest(name, [*dir(type(self)), *vars(self)])
        hint = f"; the nearest that it has: {', '.join(near)}" if near else ""
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name
        )

    # --- the tree ----------------------------------------------------------------------------

    def add_module(self, name: str, module: _Module | None) -> None:
        """Register a child under a name."""
        setattr(self, name, module)

    register_module = add_module

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """A tensor that belongs to the state but is not trained."""
        super().register_buffer(name, tensor, persistent)

    def get_submodule(self, target: str) -> Any:
        """The module at a path, "" for this one."""
        return functools.reduce(getattr, target.split("."), self) if target else self

    def get_parameter(self, target: str) -> Any:
        """The parameter at a path."""
        return self.get_submodule(target)

    get_buffer = get_parameter

    # --- saving and loading ------------------------------------------------------------------

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Keys:
        """Copy values into the parameters and buffers; returns the keys that did not match."""
        return super().load_state_dict(state_dict, strict)

    # --- other dtypes and places -------------------------------------------------------------

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Parameters and buffers of float dtypes in another float dtype. Raises ArgumentError for
        a device that is not there."""
        dtype, _ = destination(args, kwargs)
        if dtype is not None:
            super().to(dtype)
            adopt(self)
        return self

    def type(self, dst_type: Any) -> Self:
        """`to(dtype)`"""
        return self.to(dst_type)

    def cpu(self) -> Self:
        """The module itself."""
        return self

    def cuda(self, device: Any = None) -> Self:
        raise no_cuda()

    def compile(self, **options: Any) -> None:
        """From now on calls of this module are compiled."""
        from treadle.tracer.jit import jit

        vars(self)["forward"] = jit(type(self).forward.__get__(self), **options)


def adopt(module: _Module) -> None:
    """A module that Treadle's own code has made, with all below, as the facade's."""
    for each in module.modules():
        layer = _FACADES.get(type(each))
        if layer is not None:
            each.__class__ = layer
        for value in vars(each).values():
            adopted(value)


# PyTorch's layers that take `inplace`, as their last argument.
_MAY_WRITE = frozenset(
    {"CELU", "Dropout", "ELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "Mish", "ReLU"}
    | {"ReLU6", "SELU", "SiLU"}
)


def _layer(name: str, base: type[_Module]) -> type[_Module]:
    """The subclass of one of Treadle's layers."""
    given = base.__init__
    takes = inspect.signature(given).parameters
    kinds = [p.kind for p in takes.values()]
    places = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) - 1
    anything = inspect.Parameter.VAR_KEYWORD in kinds  # a layer without options of its own
    writes = name in _MAY_WRITE and "inplace" not in takes
    takes_dtype = "dtype" in takes

    @functools.wraps(given)
    def init(self: Any, *args: Any, device: Any = None, dtype: Any = None, **kwargs: Any) -> None:
        if writes:  # the result is the same; what is overwritten is for the compiler to say
            kwargs.pop("inplace", None)
            args = args[:places]
        if anything and kwargs:
            raise TypeError(f"{name}() of treadle.torch takes no keyword {next(iter(kwargs))!r}")
        options = kwargs if dtype is None or not takes_dtype else {**kwargs, "dtype": dtype}
        try:
            super(made, self).__init__(*args, **options)
        except TypeError as error:
            told = keyword_error(given, name, options)
            if told is None:
                raise
            raise told from error
        if device is not None or (dtype is not None and not takes_dtype):
            self.to(device, dtype)

    made: type[_Module] = type(
        name,
        (Module, base),
        {"__init__": init, "__module__": "treadle.torch.nn", "__doc__": base.__doc__},
    )
    return made


def _is_layer(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, _Module) and value is not _Module


LAYERS: dict[str, type[_Module]] = {
    name: _layer(name, getattr(native, name))
    for name in native.__all__
    if _is_layer(getattr(native, name))
}
_FACADES = {getattr(native, name): layer for name, layer in LAYERS.items()}
