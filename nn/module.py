"""`Module`: a tree of parameters and the function that they parametrise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError, TreadleError
from treadle.ir.types import DType, dtype_of, float32, float64, shape_text
from treadle.nn.hooks import Handle, Hook, PreHook, call_with_hooks, name_layer
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import leaving, open_constructor

T = TypeVar("T")


class Keys(NamedTuple):
    """What `load_state_dict` did not find, and what it found besides."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of all networks: assign parameters and modules as attributes, define `forward`.

    Attributes live where Python puts them, in `__dict__`; a module finds its parameters (attributes
    that are `Parameter`), buffers (named by `register_buffer`) and children there.
    """

    training: bool
    _forward_pre_hooks: tuple[PreHook, ...] = ()
    _forward_hooks: tuple[Hook, ...] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        open_constructor(cls)

    def __init__(self) -> None:
        self.training = True
        self._buffer_names: tuple[str, ...] = ()
        self._passing_names: tuple[str, ...] = ()  # buffers that are not persistent

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network computes; a subclass defines it."""
        raise TreadleError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            pre, post = self._forward_pre_hooks, self._forward_hooks
            if pre or post:
                return call_with_hooks(self, pre, post, args, kwargs)
            return self.forward(*args, **kwargs)
        except BaseException as error:
            name_layer(error, self)
            leaving(error)
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Module)) and "training" not in self.__dict__:
            raise TreadleError(
                f"{type(self).__name__}.__init__ must call super().__init__() before it "
                f"assigns {name!r}"
            )
        old = self.__dict__.get(name)
        if isinstance(old, Parameter) and not isinstance(value, (Parameter, type(None))):
            raise DTypeError(
                f"{name} is a Parameter: assign a Parameter or None, found {type(value).__name__}"
            )
        super().__setattr__(name, value)

    # --- the tree ----------------------------------------------------------------------------

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """A tensor that belongs to the state but is not trained (running statistics). One that is
        not `persistent` (a cache) is in no `state_dict`. Raises DTypeError for what is no tensor,
        ArgumentError for a name with a dot, which would be a path."""
        if not isinstance(tensor, (Tensor, type(None))):
            raise located(DTypeError(f"buffer {name} is no tensor, found {type(tensor).__name__}"))
        if "." in name:
            raise located(ArgumentError(f"a buffer's name holds no dot, found {name!r}"))
        if name not in self._buffer_names:
            self._buffer_names = (*self._buffer_names, name)
        others = tuple(n for n in self._passing_names if n != name)
        self._passing_names = others if persistent else (*others, name)
        setattr(self, name, tensor)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        setattr(self, name, param)

    def register_module(self, name: str, module: Module | None) -> None:
        setattr(self, name, module)

    add_module = register_module

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as "encoder.2.conv"; "" is this one.

        Raises AttributeError where there is none."""
        found: Module = self
        for name in target.split(".") if target else []:
            below = found.__dict__.get(name)
            if not isinstance(below, Module):
                raise AttributeError(
                    f"{type(found).__name__} has no module {name!r} (of {target!r})"
                )
            found = below
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path. Raises AttributeError where there is none."""
        return self._leaf(target, Parameter, "parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path. Raises AttributeError where there is none."""
        path, _, name = target.rpartition(".")
        if name not in self.get_submodule(path)._buffer_names:
            raise AttributeError(f"{type(self).__name__} has no buffer {target!r}")
        return self._leaf(target, Tensor, "buffer")

    def _leaf(self, target: str, kind: type[T], what: str) -> T:
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path).__dict__.get(name)
        if not isinstance(found, kind):
            raise AttributeError(f"{type(self).__name__} has no {what} {target!r}")
        return found

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules directly below, each module once."""
        seen: set[int] = set()
        for name, value in self.__dict__.items():
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below, each module once, parents first."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [(_join(path, name), child) for name, child in module._members(Module)]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), each parameter once, in the order of assignment."""
        yield from self._named(Parameter, prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer), each buffer once."""
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name in module._buffer_names:
                buffer = module.__dict__.get(name)
                if buffer is not None:
                    yield _join(path, name), buffer

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _members(self, kind: type[Any]) -> list[tuple[str, Any]]:
        return [(n, v) for n, v in self.__dict__.items() if isinstance(v, kind)]

    def _named(self, kind: type[Any], prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            module._check_complete(path)
            for name, value in module._members(kind):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield _join(path, name), value

    def _check_complete(self, path: str) -> None:
        """Raises TreadleError where the parameters of this module at `path` are not made yet."""

    # --- modes and gradients -----------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Training mode on (or off) for this module and all below."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze or unfreeze all parameters."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for param in self.parameters():
            clear_grad(param, set_to_none)

    def apply(self, fn: Callable[[Module], None]) -> Self:
        """Call `fn` on every module below, children first, and on this one."""
        for module in reversed(list(self.modules())):
            fn(module)
        return self

    def to(self, dtype: object) -> Self:
        """Parameters and buffers of float dtypes in `dtype`, here and below; a shared one stays
        shared. They are new tensors: make the optimiser afterwards. Raises DTypeError for a dtype
        that is not float."""
        kind = dtype_of(dtype)
        if not kind.is_float:
            raise located(DTypeError(f"a module's dtype is a float, found {kind.name}"))
        made: dict[int, Tensor] = {}
        for path, module in self.named_modules():
            module._check_complete(path)
            for name, value in list(module.__dict__.items()):
                is_state = isinstance(value, Parameter) or name in module._buffer_names
                if not is_state or value is None or not value.dtype.is_float:
                    continue
                if id(value) not in made:
                    made[id(value)] = _cast(value, kind)
                module.__dict__[name] = made[id(value)]
        return self

    def double(self) -> Self:
        """`to(float64)`"""
        return self.to(float64)

    def float(self) -> Self:
        """`to(float32)`"""
        return self.to(float32)

    def register_forward_pre_hook(self, hook: PreHook) -> Handle:
        """Call `hook(module, args)` before each forward; what it returns, unless None, are the
        arguments. In a jitted function it runs when that is traced."""
        return Handle(self, "_forward_pre_hooks", hook)

    def register_forward_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, args, result)` after each forward; what it returns, unless None, is
        the result. In a jitted function it runs when that is traced."""
        return Handle(self, "_forward_hooks", hook)

    # --- saving and loading ------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by path, sharing storage; a shared one under each of
        its paths."""
        state: dict[str, Tensor] = {}
        for path, module in self._all_paths():
            module._check_complete(path)
            for name, value in module.__dict__.items():
                saved = name in module._buffer_names and name not in module._passing_names
                if isinstance(value, Parameter) or (saved and value is not None):
                    state[_join(path, name)] = value.detach()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Keys:
        """Copy values into the parameters and buffers, in place; returns the keys that did not
        match.

        Checked before anything is written: raises KeyError for missing or unknown keys (unless
        not `strict`), ShapeError for a wrong shape, DTypeError for what is no array of numbers, or
        of floats where integers are. Floats are rounded to this module's dtype.
        """
        self.check_state_dict(state_dict, strict)
        own = self.state_dict()
        values = {key: _loadable(key, state_dict[key]) for key in own.keys() & state_dict.keys()}
        with no_grad():
            for key, value in values.items():
                own[key].copy_(value)
        return _unmatched(own, state_dict)

    def check_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Raises as `load_state_dict` would, and changes nothing."""
        given: object = state_dict
        if not isinstance(given, Mapping):
            raise TypeError(f"a state_dict maps names to values, found {type(given).__name__}")
        own = self.state_dict()
        missing, unknown = _unmatched(own, state_dict)
        if strict and (missing or unknown):
            raise KeyError(
                f"state_dict does not fit {type(self).__name__}: "
                f"missing {_some(missing)}, unknown {_some(unknown)}"
            )
        for key in own:
            if key in state_dict:
                _check_loadable(key, own[key], _loadable(key, state_dict[key]))

    def _all_paths(self) -> Iterator[tuple[str, Module]]:
        """(path, module), a shared module under each path; a cycle is entered once."""
        stack: list[tuple[str, Module, tuple[int, ...]]] = [("", self, ())]
        while stack:
            path, module, above = stack.pop()
            if id(module) in above:
                continue
            yield path, module
            inner = (*above, id(module))
            below = [(_join(path, n), child, inner) for n, child in module._members(Module)]
            stack.extend(reversed(below))

    # --- showing -----------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses of `repr`, children aside."""
        return ""

    def __repr__(self) -> str:
        children = [f"({n}): {_indented(repr(m))}" for n, m in self._members(Module)]
        inside = self.extra_repr()
        if not children:
            return f"{type(self).__name__}({inside})"
        lines = [inside] if inside else []
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines + children) + "\n)"

    def _repr_html_(self) -> str:
        from treadle.nn.notebook import module_html

        return module_html(self)


def clear_grad(param: Tensor, set_to_none: bool) -> None:
    """Forget the gradient of `param`, or set it to zero."""
    if set_to_none:
        param.grad = None  # not read before: a jitted step would come to depend on what it was
    elif param.grad is not None:
        param.grad = api.zeros_like(param)


def _loadable(key: str, value: Any) -> Any:
    """`value` as a tensor or an array; another library's tensor is read as an array. Raises
    DTypeError, which names `key`, where it holds no numbers that a tensor can hold."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    try:
        dtype_of(array.dtype)
    except DTypeError as error:
        error.add_note(f"in {key} of the state_dict")
        raise
    return array


def _check_loadable(key: str, own: Tensor, value: Any) -> None:
    """Raises ShapeError for another shape, DTypeError where integers or bools would be made of
    floats, or bools of numbers."""
    if value.shape != own.shape:
        raise ShapeError(
            f"{key} has shape {shape_text(own.shape)}, "
            f"the state_dict brings {shape_text(value.shape)}"
        )
    kind = value.dtype.dtype if isinstance(value, Tensor) else value.dtype
    if not np.can_cast(kind, own.dtype.dtype, "same_kind"):
        raise DTypeError(
            f"{key} is {own.dtype.name}, the state_dict brings {dtype_of(kind).name}, which does "
            "not fit into it without loss: convert it first"
        )


def _cast(value: Tensor, dtype: DType) -> Tensor:
    with no_grad():
        cast = value.detach().astype(dtype)
    return Parameter(cast, value.requires_grad) if isinstance(value, Parameter) else cast


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _unmatched(own: Mapping[str, Any], given: Mapping[str, Any]) -> Keys:
    return Keys([k for k in own if k not in given], [k for k in given if k not in own])


def _some(names: list[str]) -> str:
    """A list for a message: not hundreds of names."""
    shown = ", ".join(map(repr, names[:6]))
    return (shown or "nothing") + (f" and {len(names) - 6} more" if len(names) > 6 else "")
