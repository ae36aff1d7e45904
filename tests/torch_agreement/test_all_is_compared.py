"""Nothing that is called like PyTorch's has no comparison: layers, losses, functions, optimisers,
schedules, initialisers."""

from __future__ import annotations

import inspect
from typing import Any

import cases_initialisers
import cases_layers
import cases_optimisers
from agreement import subjects

from treadle import nn, optim
from treadle.nn import functional, init

NAMES = {case.name for subject in subjects() for case in subject.cases}
# What has no counterpart there, is drawn (and tested by its distribution), or only holds others.
ALONE = {"Dropout", "Module", "ModuleDict", "ModuleList", "Parameter", "Lion"}


def _classes(module: Any, base: type) -> set[str]:
    found = {n for n in module.__all__ if inspect.isclass(getattr(module, n))}
    return {n for n in found if issubclass(getattr(module, n), base)} - ALONE


def test_every_layer_is_compared() -> None:
    compared = {
        type(module).__name__
        for make, _ in cases_layers.LAYERS.values()
        for module in make(nn).modules()
    }
    losses = {n for n in nn.__all__ if n.endswith("Loss")} | {"CosineSimilarity"}
    lazy = {n for n in nn.__all__ if n.startswith("Lazy")}  # which become the layers themselves
    assert _classes(nn, nn.Module) - losses - lazy - compared == set()


def test_every_loss_is_compared() -> None:
    losses = {n for n in nn.__all__ if n.endswith("Loss")} | {"CosineSimilarity"}
    functions = {getattr(nn, name).function.__name__ for name in losses}
    assert {f for f in functions if not any(n.startswith(f) for n in NAMES)} == set()


def test_every_function_of_networks_is_compared() -> None:
    drawn = {"dropout", "embedding"}  # the latter as a layer
    missing = {
        name
        for name in functional.__all__
        if name not in drawn and not any(n.startswith((name, f"{name}_")) for n in NAMES)
    }
    assert missing == set()


def test_every_optimiser_and_schedule_is_compared() -> None:
    optimisers = {name for name, _ in cases_optimisers.OPTIMISERS}
    assert _classes(optim, optim.Optimizer) - {"Optimizer"} - optimisers == set()
    source = inspect.getsource(cases_optimisers)
    schedules = {n for n in optim.lr_scheduler.__all__ if n != "LRScheduler"}
    assert {n for n in schedules if n not in source} == set()


def test_every_initialiser_is_compared() -> None:
    names = {n for n in vars(init) if n.endswith("_") and not n.startswith("_")}
    source = inspect.getsource(cases_initialisers)
    by_distribution = {"trunc_normal_"}
    assert {n for n in names - by_distribution if n not in source and n[:-8] not in source} == set()
