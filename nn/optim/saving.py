"""An optimiser's state as plain dictionaries, in PyTorch's layout, and back.

    {"state": {0: {"step": .., "exp_avg": ..}, 1: ..},
     "param_groups": [{"lr": 0.001, .., "params": [0, 1]}]}

Parameters are numbered in the order of their groups. Tensors share their storage with the
optimiser's, as a module's `state_dict` does; the numbers of a group are Python floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import shape_text
from treadle.nn.optim.group import Group, State, number
from treadle.tracer.create import tensor
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor


def state_dict(groups: list[Group], states: Mapping[Tensor, State]) -> dict[str, Any]:
    """The state of an optimiser with these groups."""
    numbers = {param: n for n, param in enumerate(p for g in groups for p in g["params"])}
    state = {
        n: {k: _detached(v) for k, v in states[p].items()} for p, n in numbers.items() if states[p]
    }
    listed = [
        {k: [numbers[p] for p in v] if k == "params" else _plain(v) for k, v in group.items()}
        for group in groups
    ]
    return {"state": state, "param_groups": listed}


def load_state_dict(
    groups: list[Group], states: dict[Tensor, State], saved: Mapping[str, Any]
) -> None:
    """Copy `saved` into the groups and states, in place, once `matched` has checked it."""
    found = matched(groups, states, saved)
    with no_grad():
        for group, listed in zip(groups, saved["param_groups"], strict=True):
            for name in group:
                if name != "params":
                    group[name] = listed[name]
        for group in groups:
            _load_counts(group, states, found)
        for param, values in found.items():
            _load_state(states[param], values)


def matched(
    groups: list[Group], states: Mapping[Tensor, State], saved: Mapping[str, Any]
) -> dict[Tensor, Mapping[str, Any]]:
    """What `saved` holds for each parameter.

    Raises ArgumentError where the groups differ in number, length or options or a parameter's state
    has other keys, ShapeError for a tensor of another shape.
    """
    _check_groups(groups, saved)
    params = [p for g in groups for p in g["params"]]
    order = [n for g in saved["param_groups"] for n in g["params"]]
    found: dict[Tensor, Mapping[str, Any]] = {}
    for param, n in zip(params, order, strict=True):
        found[param] = saved["state"].get(n, saved["state"].get(str(n), {}))
        _check_state(n, states[param], found[param])
    return found


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _plain(value: Any) -> Any:
    """Numbers as Python floats."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, Tensor) else value


def _check_groups(groups: list[Group], saved: Mapping[str, Any]) -> None:
    missing = [k for k in ("state", "param_groups") if k not in saved]
    if missing:
        raise ArgumentError(
            f"an optimiser's state_dict has state and param_groups; lacks {missing}"
        )
    theirs = saved["param_groups"]
    sizes = [[len(g["params"]) for g in listed] for listed in (groups, theirs)]
    if sizes[0] != sizes[1]:
        raise ArgumentError(
            f"the optimiser has groups of {sizes[0]} parameters, the state_dict of {sizes[1]}"
        )
    for n, (own, other) in enumerate(zip(groups, theirs, strict=True)):
        lacking = [k for k in own if k not in other]
        if lacking:
            raise ArgumentError(f"group {n} of the state_dict lacks {', '.join(lacking)}")


def _check_state(n: int, own: State, other: Mapping[str, Any]) -> None:
    lacking = [k for k, v in own.items() if v is not None and k not in other]
    if lacking and other:
        raise ArgumentError(f"the state of parameter {n} lacks {', '.join(lacking)}")
    for key, value in own.items():
        if not isinstance(value, Tensor) or other.get(key) is None:
            continue
        shape = tuple(np.shape(other[key]))
        if shape != value.shape:
            raise ShapeError(
                f"{key} of parameter {n} has shape {shape_text(value.shape)}, "
                f"the state_dict brings {shape_text(shape)}"
            )


def _load_counts(
    group: Group, states: dict[Tensor, State], found: Mapping[Tensor, Mapping[str, Any]]
) -> None:
    """Parameters whose step counts are equal share one again."""
    counts: dict[float, Tensor] = {}
    for param in group["params"]:
        if "step" not in states[param]:
            continue
        value = float(found[param].get("step", 0.0))
        if value not in counts:
            counts[value] = number(value)
        states[param]["step"] = counts[value]


def _load_state(own: State, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key == "step":
            continue
        old = own.get(key)
        if isinstance(old, Tensor) and value is not None:
            old.copy_(value)
        elif isinstance(value, (Tensor, np.ndarray)):
            own[key] = tensor(value)
        else:
            own[key] = value
