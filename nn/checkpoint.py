"""Checkpoints: all that a training run needs to go on, in one file.

    treadle.save_checkpoint("run.safetensors", model=model, optimizer=optimizer, loader=loader)
    treadle.load_checkpoint("run.safetensors", model=model, optimizer=optimizer, loader=loader)

Tensors stand under "model.<key of state_dict>", "optimizer.<parameter>.<name>" and
"average.<parameter>"; numbers, and the
state of the default generator and of the initialisers', are notes in the file's header. A file
without such notes, as PyTorch's users write, is a model's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from treadle.ir.errors import DTypeError, ShapeError
from treadle.nn import init
from treadle.nn.module import Module
from treadle.nn.optim.averaging import ExponentialMovingAverage
from treadle.nn.optim.optimizer import Optimizer
from treadle.nn.weights_file import Array, CheckpointError, read_file, write_file
from treadle.tracer.create import tensor
from treadle.tracer.errors import located_errors
from treadle.tracer.generator import default_generator
from treadle.tracer.tensor import Tensor

_FORMAT = 1
_PARTS = ("model", "optimizer", "scheduler", "loader", "average")


def save_checkpoint(
    path: str | Path,
    model: Module | None = None,
    optimizer: Optimizer | None = None,
    scheduler: Any = None,
    loader: Any = None,
    extra: Mapping[str, Any] | None = None,
    average: ExponentialMovingAverage | None = None,
) -> None:
    """Write what is given, and the state of the random generators, to a safetensors file.

    `scheduler` and `loader` are what has a `state_dict` of numbers; `extra` is anything that JSON
    holds; `average` is an average of the parameters. A process that dies meanwhile leaves the file
    that was there before. Raises OSError where the file cannot be written, TypeError for an `extra`
    that JSON cannot hold.
    """
    arrays: dict[str, Array] = {}
    notes: dict[str, Any] = {"treadle": {"format": _FORMAT}, "random": _random_state()}
    if model is not None:
        arrays |= {f"model.{k}": _values(v) for k, v in model.state_dict().items()}
        notes["model"] = {"keys": list(model.state_dict())}
    if optimizer is not None:
        state = optimizer.state_dict()
        for n, values in state["state"].items():
            found = {k: _values(v) for k, v in values.items() if v is not None}
            arrays |= {f"optimizer.{n}.{k}": v for k, v in found.items()}
        notes["optimizer"] = {"param_groups": state["param_groups"]}
    if average is not None:
        arrays |= {f"average.{n}": _values(a) for n, a in enumerate(average.averages)}
        notes["average"] = {"decay": average.decay.item(), "count": len(average.averages)}
    for name, part in (("scheduler", scheduler), ("loader", loader)):
        if part is not None:
            notes[name] = part.state_dict()
    if extra is not None:
        notes["extra"] = dict(extra)
    with located_errors():
        write_file(Path(path), arrays, notes)


def load_checkpoint(
    path: str | Path,
    model: Module | None = None,
    optimizer: Optimizer | None = None,
    scheduler: Any = None,
    loader: Any = None,
    strict: bool = True,
    average: ExponentialMovingAverage | None = None,
) -> dict[str, Any]:
    """Bring what is given, and the random generators, to where they stood; returns `extra`.

    A file of plain weights (PyTorch's, saved by the safetensors library) loads into a `model`.
    Without `strict`, keys of the model that the file lacks and keys that it has beside are passed
    over.

    Everything is checked before anything is changed. Raises FileNotFoundError; CheckpointError,
    which names the file, where it is damaged or lacks a part that is asked for; KeyError for keys
    of the model that are missing or unknown; ShapeError for a wrong shape; DTypeError for floats
    where integers are; ArgumentError where the optimiser's groups differ.
    """
    path = Path(path)
    with located_errors():
        arrays, notes = read_file(path)
        asked = dict(zip(_PARTS, (model, optimizer, scheduler, loader, average), strict=True))
        if "treadle" not in notes:
            return _load_plain(path, arrays, asked, strict)
        _check_parts(path, notes, asked)
        weights = _below("model", arrays)
        saved = _optimizer_state(arrays, notes) if optimizer is not None else {}
        means = _averages(arrays, notes) if average is not None else {}
        if model is not None:
            _check_weights(path, model, weights, strict)
        if optimizer is not None:
            optimizer.check_state_dict(saved)
        if average is not None:
            average.check_state_dict(means)
        for name, part in (("scheduler", scheduler), ("loader", loader)):
            if part is not None:
                _check_state(path, name, part, notes[name])
        if model is not None:
            model.load_state_dict(weights, strict)
        if optimizer is not None:
            optimizer.load_state_dict(saved)
        if average is not None:
            average.load_state_dict(means)
        for name, part in (("scheduler", scheduler), ("loader", loader)):
            if part is not None:
                part.load_state_dict(notes[name])
        _restore_random(notes["random"])
        return dict(notes.get("extra", {}))


def _values(tensor_: Tensor) -> Array:
    return np.array(tensor_.numpy())


def _below(name: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}


def _optimizer_state(arrays: Mapping[str, Array], notes: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Array]] = {}
    for key, value in _below("optimizer", arrays).items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = [
        {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
        for group in notes["optimizer"]["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def _averages(arrays: Mapping[str, Array], notes: Mapping[str, Any]) -> dict[str, Any]:
    found, note = _below("average", arrays), notes["average"]
    return {"decay": note["decay"], "averages": [found[str(n)] for n in range(note["count"])]}


def _check_parts(path: Path, notes: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    version = notes["treadle"].get("format")
    if version != _FORMAT:
        raise CheckpointError(f"{path} has format {version}; this version reads {_FORMAT}")
    lacking = [name for name, part in asked.items() if part is not None and name not in notes]
    if lacking:
        has = ", ".join(name for name in _PARTS if name in notes) or "nothing"
        raise CheckpointError(f"{path} has no {' and no '.join(lacking)}; it has {has}")


def _check_weights(path: Path, model: Module, weights: Mapping[str, Array], strict: bool) -> None:
    """As `Module.load_state_dict` does, before the optimiser's state is looked at."""
    try:
        model.check_state_dict(weights, strict)
    except (KeyError, ShapeError, DTypeError) as error:
        error.add_note(f"while {path} was loaded")
        raise


def _check_state(path: Path, name: str, part: Any, state: Any) -> None:
    """A part of numbers only: the file must hold what the part itself would save."""
    own = part.state_dict()
    lacking = [key for key in own if not isinstance(state, dict) or key not in state]
    sized = [k for k, v in own.items() if isinstance(v, list) and k not in lacking]
    if lacking:
        raise CheckpointError(f"the {name} in {path} lacks {', '.join(lacking)}")
    for key in sized:
        if len(state[key]) != len(own[key]):
            raise CheckpointError(
                f"the {name} in {path} has {len(state[key])} {key}, expected {len(own[key])}"
            )


def _load_plain(
    path: Path, arrays: dict[str, Array], asked: Mapping[str, Any], strict: bool
) -> dict[str, Any]:
    model = asked["model"]
    others = [name for name, part in asked.items() if part is not None and name != "model"]
    if others or model is None:
        wanted = ", ".join(others) or "nothing that weights load into"
        raise CheckpointError(f"{path} holds weights only; asked for {wanted}: give a model")
    _check_weights(path, model, arrays, strict)
    model.load_state_dict(arrays, strict)
    return {}


# --- random state ----------------------------------------------------------------------------


def _random_state() -> dict[str, Any]:
    return {
        "generator": default_generator.get_state().numpy().tolist(),
        "initialisers": init.generator_state(),
    }


def _restore_random(state: Mapping[str, Any]) -> None:
    default_generator.set_state(tensor(np.array(state["generator"], np.int64)))
    init.set_generator_state(state["initialisers"])
