"""The torch programs of bench/ and examples/, with nothing but their import lines changed, small.

`load(path, facade)` runs a file's source, with `torch` in its import lines as it is or replaced by
`treadle.torch`; `PROGRAMS` says, for each program, how to get from the file to numbers that tell
what it has computed.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from treadle.bench import suites, workload

ROOT = Path(__file__).resolve().parents[2]
Numbers = list[float]


def with_facade(source: str) -> str:
    """The source with only its import lines changed."""
    return "\n".join(map(_line, source.split("\n")))


def _line(line: str) -> str:
    line = re.sub(r"^(\s*)import torch$", r"\1import treadle.torch as torch", line)
    return re.sub(r"^(\s*)from torch(\.[\w.]+)? import ", r"\1from treadle.torch\2 import ", line)


def load(path: str, facade: bool) -> ModuleType:
    """The module of a file, registered nowhere."""
    source = (ROOT / path).read_text(encoding="utf-8")
    module = ModuleType(f"{Path(path).stem}_{'facade' if facade else 'torch'}_program")
    sys.modules[module.__name__] = module  # where its dataclasses look for their names
    assert suites  # has registered its own before another registry is put in
    registry, workload._REGISTRY = workload._REGISTRY, {}
    try:
        exec(compile(with_facade(source) if facade else source, path, "exec"), vars(module))
        module.registry = workload._REGISTRY
    finally:
        workload._REGISTRY = registry
    return module


# --- what a step gives, as numbers -----------------------------------------------------------


def numbers_of(found: Any) -> Numbers:
    """For each tensor of what a step gives, a sum with fixed weights; of a float its value."""
    return [_digest(np.asarray(x.detach().numpy())) for x in _leaves(found)]


def _leaves(found: Any) -> Iterator[Any]:
    if isinstance(found, (tuple, list)):
        for part in found:
            yield from _leaves(part)
    elif found is not None:
        yield found


def _digest(x: Any) -> float:
    weights = np.random.default_rng(x.size).standard_normal(x.size)
    return float(x.astype(np.float64).ravel() @ weights / max(x.size, 1) ** 0.5)


def trained(step: Callable[[], Any], steps: int = 3) -> Numbers:
    """The losses of a train step; a model that it holds begins with weights of the same kind
    everywhere."""
    held = inspect.getclosurevars(step).nonlocals
    named = (held.get(name) for name in ("model", "network", "chosen"))
    for model in (m for m in named if hasattr(m, "state_dict")):
        set_weights(model)
    return [step().item() for _ in range(steps)]


def set_weights(model: Any) -> None:
    rng = np.random.default_rng(7)
    state = model.state_dict()
    fresh = {k: rng.standard_normal(tuple(v.shape)) for k, v in state.items() if "num_b" not in k}
    for k, v in fresh.items():
        fan = float(np.prod(v.shape[1:])) if v.ndim > 1 else 16.0
        fresh[k] = 1 + 0.1 * np.abs(v) if "running_var" in k else v / fan**0.5
    for k, v in state.items():
        if k in fresh:
            v.copy_(v.new_tensor(fresh[k]))


# --- the programs of bench/ ------------------------------------------------------------------

Run = Callable[[bool, bool], Numbers]  # (facade, compiled)
PROGRAMS: dict[str, Run] = {}
RANDOM: dict[str, Callable[[bool], Any]] = {}


def _program(name: str) -> Callable[[Run], Run]:
    def add(run: Run) -> Run:
        PROGRAMS[name] = run
        return run

    return add


def _model(name: str) -> tuple[Any, Any]:
    """A small one of the models that bench/suites/training.py trains."""
    from treadle.bench.suites import mlp, vae

    rng_shapes = {"classifier": mlp.classifier((6, 8, 4, 3), 5), "regressor": mlp.regressor()}
    return rng_shapes.get(name), vae


for _name in ("classifier", "regressor"):

    @_program(f"training-{_name}")
    def _training(facade: bool, compiled: bool, name: str = _name) -> Numbers:
        module = load("bench/suites/training.py", facade)
        return trained(module._torch(_model(name)[0], compiled)())


@_program("training-vae")
def _vae(facade: bool, compiled: bool) -> Numbers:
    module = load("bench/suites/training.py", facade)
    suite = load("bench/suites/vae.py", facade)
    vars(suite).update(_PIXELS=7, _LATENT=3, _BATCH=4)
    sizes = {784: 7, 400: 5, 20: 3}
    shapes = {k: tuple(sizes[s] for s in shape) for k, shape in suite._SHAPES.items()}
    model = module.Model(shapes, suite._data, suite._loss, 0.0)
    return trained(module._torch(model, compiled)())


@_program("training-gpt")
def _gpt(facade: bool, compiled: bool) -> Numbers:
    module = load("bench/suites/training.py", facade)
    suite = load("bench/suites/gpt.py", facade)
    vars(suite).update(_LAYERS=1, _HEADS=2, _WIDTH=8, _HEAD=4, _BATCH=2, _LENGTH=5, _VOCABULARY=7)
    model = module.Model(suite._shapes(), suite._data, suite._loss, 0.0)
    return trained(module._torch(model, compiled)())


@_program("attention")
def _attention(facade: bool, compiled: bool) -> Numbers:
    module = load("bench/suites/attention.py", facade)
    return numbers_of(module._torch((2, 2, 6, 4), compiled)())


@_program("matmul")
def _matmul(facade: bool, compiled: bool) -> Numbers:
    return numbers_of(load("bench/suites/matmul.py", facade)._torch(6, compiled)()())


@_program("call")
def _call(facade: bool, compiled: bool) -> Numbers:
    return numbers_of(load("bench/suites/calls.py", facade)._torch_step(compiled)())


LOOPS = (
    "elementwise-4m", "softmax", "softmax-hand", "layer-norm", "layer-norm-grad", "sum-0", "sum-1",
    "transpose",
)  # fmt: skip
for _name in LOOPS:

    @_program(f"loops-{_name}")
    def _loops(facade: bool, compiled: bool, name: str = _name) -> Numbers:
        module = load("bench/suites/loops.py", facade)
        data = module._data
        vars(module)["_data"] = lambda shape: data(tuple(min(s, 6) for s in shape))
        programs = module.registry[name].programs
        return numbers_of(programs["compile" if compiled else "torch"]()())


PICKING = ("sort", "argsort", "topk", "embedding-grad", "batch-norm-grad")
for _name in PICKING:

    @_program(f"picking-{_name}")
    def _picking(facade: bool, compiled: bool, name: str = _name) -> Numbers:
        module = load("bench/suites/picking.py", facade)
        normal = module._normal
        small = {"_normal": lambda shape, seed=0: normal(tuple(min(s, 12) for s in shape), seed)}
        vars(module).update(TABLE=(12, 6), NUMBERS=8, IMAGES=(3, 4, 5, 5), **small)
        return numbers_of(module.registry[name].programs["torch"]()())


for _kind in ("LSTM", "GRU", "RNN"):

    @_program(f"recurrent-{_kind}")
    def _recurrent(facade: bool, compiled: bool, kind: str = _kind) -> Numbers:
        module = load("bench/suites/recurrent.py", facade)
        vars(module).update(_BATCH=2, _LENGTH=4, _VOCABULARY=7, _EMBEDDING=3, _WIDTH=5, _TOKENS=8)
        return trained(module._torch(kind)())


@_program("convolution")
def _convolution(facade: bool, compiled: bool) -> Numbers:
    module = load("bench/suites/convolution.py", facade)
    vars(module).update(IMAGES=2, SIZE=6)
    return numbers_of(module._conv_torch(4, compiled)()())


NETS = {"LENET": (2, 1, 28, 28), "NORMED": (2, 3, 64, 64), "RESNET": (2, 3, 32, 32)}
for _name, _shape in NETS.items():

    @_program(f"convolution-{_name}")
    def _net(
        facade: bool, compiled: bool, name: str = _name, shape: tuple[int, ...] = _shape
    ) -> Numbers:
        module = load("bench/suites/convolution.py", facade)
        net = dataclasses.replace(getattr(module, name), input=shape)
        return trained(module._step_torch(net, compiled)(), 1)


@_program("convolution-forward")
def _forward(facade: bool, compiled: bool) -> Numbers:
    module = load("bench/suites/convolution.py", facade)
    net = dataclasses.replace(module.LENET, input=NETS["LENET"])
    step = module._forward_torch(net, compiled)()
    chosen = inspect.getclosurevars(step).nonlocals["chosen"]
    set_weights(chosen)
    return numbers_of(step())


# Which can be compiled: the others have no such form in bench/, or take long.
COMPILED = (
    "training-classifier", "training-regressor", "attention", "matmul", "call", "loops-softmax",
    "loops-layer-norm-grad", "convolution", "convolution-forward", "training-gpt",
)  # fmt: skip


def draws(name: str) -> Any:
    """The result of a program that draws at random, with the facade."""
    module = load("bench/suites/draws.py", True)
    vars(module).update(SIZE=50, SHAPE=(20, 30))
    return module.registry[name].programs["torch"]()()


# --- the programs of examples/ ---------------------------------------------------------------


def _example(name: str) -> Callable[[Run], Run]:
    return _program(f"examples-{name}")


def _weights(module: ModuleType, model: Any) -> dict[str, Any]:
    set_weights(model)
    return {k: v.detach().numpy() for k, v in model.state_dict().items()}


def _images(*shape: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    return rng.random(shape, dtype=np.float32), rng.integers(0, 2, shape[0])


def _runs(step: Any, predict: Any, *batch: Any) -> Numbers:
    losses = [step(*batch), step(*batch)]
    return [*losses, _digest(np.asarray(predict(*batch[:1], *batch[2:])))]


@_example("mlp_digits")
def _mlp(facade: bool, compiled: bool) -> Numbers:
    module = load("examples/torch_programs/mlp_digits.py", facade)
    return _runs(*module.program(_weights(module, module.build()), 1e-2), *_images(4, 64))


@_example("resnet")
def _resnet(facade: bool, compiled: bool) -> Numbers:
    module = load("examples/torch_programs/resnet.py", facade)
    weights = _weights(module, module.ResNet18(2))
    step, scores = module.program(weights, 1e-3, 0.9, 1e-4)
    return _runs(step, scores, *_images(2, 3, 32, 32))[:1]


@_example("shakespeare")
def _shakespeare(facade: bool, compiled: bool) -> Numbers:
    module = load("examples/torch_programs/shakespeare.py", facade)
    rows = np.random.default_rng(5).integers(0, 7, (2, 2, 6))
    found: Numbers = []
    for kind, model in (("lstm", module.LSTM(7)), ("gpt", module.GPT(7))):
        weights = _weights(module, model)
        step, scores = module.program(kind, weights, 7, 1e-3, 0.1, 20, 2)
        found += [step(rows[0], rows[1]), step(rows[0], rows[1]), _digest(scores(rows[0]))]
    return found


def draw_example(name: str) -> tuple[Numbers, tuple[int, ...]]:
    """Losses, and the shape of what is predicted, of examples that draw at random."""
    module = load(f"examples/torch_programs/{name}.py", True)
    if name == "lenet":
        x, y = _images(4, 1, 28, 28)
        made = module.program(_weights(module, module.build(64 * 12 * 12)), 1e-3, 5, 0)
    elif name == "cats_dogs":
        x, y = _images(4, 3, 8, 8)
        made = module.program(_weights(module, module.build(2, 8)), 2, 8, 1e-3, 1e-4, 5, 0)
    else:
        x, y = _images(4, 3, 8, 8)
        weights = _weights(module, module.FractalNet((3, 4, 8), 2, 0.8))
        step, predict = module.program(weights, (3, 4, 8), 2, 0.8, 1e-3, 0)
        return [step(x, y, -1), step(x, y, 1)], predict(x, -1).shape
    step, predict = made
    return [step(x, y), step(x, y)], predict(x).shape
