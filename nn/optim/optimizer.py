"""`Optimizer`: parameter groups, their numbers, and the state of each parameter.

The numbers of a group (learning rate, momentum, step count) are tensors of rank 0 that behave like
Python floats, so that a jitted step reads them at run time: changing one never recompiles. Whether
a number is zero decides which terms a step has at all; that is a plain flag, and changing it
compiles another step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, TreadleError
from treadle.nn.module import clear_grad
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located, located_errors
from treadle.tracer.modes import no_grad
from treadle.tracer.promote import number_of
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import leaving, open_constructor

State = dict[str, Any]
_TERMS = ("momentum", "dampening", "weight_decay")  # a step leaves these out where they are zero


def number(value: float) -> Tensor:
    """`value` as a tensor of rank 0 in float64 that takes the dtype of the tensor beside it."""
    return Tensor(Cell.of(np.array(value, np.float64)), weak=True)


class Group(dict[str, Any]):
    """A parameter group: `params`, and options by name. Floats are kept as rank-0 tensors, which
    an assignment changes in place."""

    __slots__ = ("nonzero",)

    def __init__(self, params: list[Tensor], options: dict[str, Any]) -> None:
        super().__init__()
        self.nonzero: dict[str, bool] = {}
        super().__setitem__("params", params)
        for name, value in options.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        old = self.get(name)
        if isinstance(old, Tensor):
            if value is not old:
                with no_grad():
                    old.copy_(value)
        elif _is_number(value):
            super().__setitem__(name, number(float(value)))
        elif isinstance(value, tuple) and value and all(map(_is_number, value)):
            value = tuple(number(float(v)) for v in value) if not _same_size(old, value) else old
            super().__setitem__(name, value)
        else:
            super().__setitem__(name, value)
        if name in _TERMS:
            self.nonzero[name] = not (_is_number(value) and value == 0)


def _listed(params: Any) -> list[Any]:
    if isinstance(params, Tensor):
        return [params]
    if not isinstance(params, Iterable) or isinstance(params, (str, bytes)):
        raise DTypeError(
            f"an optimiser takes parameters, or dictionaries that hold them under 'params'; found "
            f"{type(params).__name__} {params!r:.60}"
        )
    return list(params)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same_size(old: Any, new: tuple[Any, ...]) -> bool:
    return isinstance(old, tuple) and len(old) == len(new)


class Optimizer:
    """Base of all optimisers; a subclass defines `new_state` and `update`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        open_constructor(cls)

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, State] = {}
        with located_errors():
            listed = _listed(params)
            if not listed:
                raise ArgumentError("an optimiser got no parameters")
            groups: list[Any] = listed if isinstance(listed[0], dict) else [{"params": listed}]
            for group in groups:
                self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add `{"params": [...], option: value, ...}`; missing options take the defaults.

        Raises TypeError for an unknown option, DTypeError for what is no tensor that requires
        grad, TreadleError for a parameter that is in a group already.
        """
        params = _listed(group["params"])
        unknown = sorted(set(group) - set(self.defaults) - {"params"})
        if unknown:
            known = ", ".join(self.defaults)
            raise TypeError(f"unknown option {', '.join(unknown)}; there are {known}")
        taken = set(map(id, self._params()))
        for param in params:
            self._check(param, taken)
        added = Group(params, {k: group.get(k, v) for k, v in self.defaults.items()})
        self.param_groups.append(added)
        for param in params:
            self.state[param] = self.new_state(param, added)

    def _check(self, param: Any, taken: set[int]) -> None:
        if not isinstance(param, Tensor):
            raise DTypeError(f"a parameter must be a tensor, found {type(param).__name__}")
        if not param.is_leaf:
            raise DTypeError("a parameter must be a leaf, found the result of an operation")
        if id(param) in taken:
            raise TreadleError(f"a parameter of shape {param.shape} is in two places")
        taken.add(id(param))

    def _params(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for param in self._params():
            clear_grad(param, set_to_none)

    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        try:
            with no_grad():
                for group in self.param_groups:
                    self._step(group)
        except BaseException as error:
            leaving(error)
            raise

    def _step(self, group: Group) -> None:
        ready = [p for p in group["params"] if p.grad is not None]
        self._count(group, ready)
        for param in ready:
            grad = param.grad
            assert grad is not None
            self.update(param, grad, group, self.state[param])

    def _count(self, group: Group, ready: list[Tensor]) -> None:
        """Add one to the step counts of `ready`.

        Parameters that have always been updated together share one count, so that a step computes
        its bias corrections once. One that is left out now gets a count of its own.
        """
        updated = set(map(id, ready))
        counts = {
            id(count): count
            for param in ready
            if (count := self.state[param].get("step")) is not None
        }
        for param in group["params"]:
            state = self.state[param]
            if id(param) not in updated and id(state.get("step")) in counts:
                state["step"] = state["step"] + 0.0  # a tensor of its own
        for count in counts.values():
            count.copy_(count + 1.0)

    def new_state(self, param: Tensor, group: Group) -> State:
        """The state of a parameter that has not been updated yet."""
        raise NotImplementedError

    def update(self, param: Tensor, grad: Tensor, group: Group, state: State) -> None:
        """One step of one parameter, in place, in no-grad mode."""
        raise NotImplementedError

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for n, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {n}: {len(group['params'])} parameters")
            lines += [f"    {k}: {_shown(v)}" for k, v in group.items() if k != "params"]
        return "\n".join([*lines, ")"])


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    if isinstance(value, Tensor) and not value.is_traced:
        return repr(value.item())
    return repr(value)


def checked(name: str, value: float, low: float = 0.0, below: float = float("inf")) -> float:
    """`value` where low <= value < below, else ArgumentError naming it; DTypeError where it is no
    number."""
    if number_of(value) is None or isinstance(value, bool):
        found = f"{type(value).__name__} {value!r:.60}"
        raise located(DTypeError(f"{name} must be a Python number, found {found}"))
    if not low <= value < below:
        upper = "" if below == float("inf") else f" and below {below}"
        raise located(ArgumentError(f"{name} must be at least {low}{upper}, found {value}"))
    return value
