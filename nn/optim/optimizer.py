"""`Optimizer`: parameter groups, their numbers, and the state of each parameter.

The numbers of a group (learning rate, momentum, step count) are tensors of rank 0 that behave like
Python floats, so that a jitted step reads them at run time: changing one never recompiles. Whether
a number is zero decides which terms a step has at all; that is a plain flag, and changing it
compiles another step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from treadle.ir.errors import ArgumentError, DTypeError, TreadleError
from treadle.ir.types import DType
from treadle.nn.module import clear_grad
from treadle.nn.optim import saving
from treadle.nn.optim.group import Group, State, number
from treadle.tracer.errors import located, located_errors
from treadle.tracer.modes import no_grad
from treadle.tracer.promote import number_of
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import leaving, open_constructor


def _listed(params: Any) -> list[Any]:
    if isinstance(params, Tensor):
        return [params]
    if not isinstance(params, Iterable) or isinstance(params, (str, bytes)):
        raise DTypeError(
            f"an optimiser takes parameters, or dictionaries that hold them under 'params'; found "
            f"{type(params).__name__} {params!r:.60}"
        )
    return list(params)


class Optimizer:
    """Base of all optimisers; a subclass defines `new_state` and `update`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        open_constructor(cls)

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, State] = {}
        self._shared: dict[tuple[int, int, DType], tuple[Tensor, ...]] = {}
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
        finally:
            self._shared.clear()

    def shared(
        self, group: Group, state: State, like: Tensor, make: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """The numbers that `make` computes from those of `group` and the step count in `state`, in
        the dtype of `like`: once a step for all parameters that have these in common."""
        key = id(group), id(state.get("step")), like.dtype
        if key not in self._shared:
            self._shared[key] = tuple(x.astype(like.dtype) for x in make())
        return self._shared[key]

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

    def state_dict(self) -> dict[str, Any]:
        """The state in PyTorch's layout: see `treadle.nn.optim.saving`."""
        return saving.state_dict(self.param_groups, self.state)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy a saved state into this optimiser, in place, once all of it has been checked.

        Raises ArgumentError or ShapeError where it does not fit; nothing is changed then.
        """
        with located_errors():
            saving.load_state_dict(self.param_groups, self.state, state_dict)

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises as `load_state_dict` would, and changes nothing."""
        with located_errors():
            saving.matched(self.param_groups, self.state, state_dict)

    def shared_count(self, group: Group) -> Tensor:
        """The step count that the parameters of `group` share, 0 where there is none yet."""
        others = (self.state[p] for p in group["params"] if p in self.state)
        first = next(others, None)
        return number(0.0) if first is None else first["step"]

    def decayed(self, param: Tensor, grad: Tensor, group: Group) -> Tensor:
        """The direction of ascent that a step takes as its gradient: `grad`, turned round where
        the group maximizes, plus weight_decay times the parameter."""
        step = -grad if group["maximize"] else grad
        return step + group["weight_decay"] * param if group.nonzero["weight_decay"] else step

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
