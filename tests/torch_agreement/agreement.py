"""Agreement with PyTorch in float64: what a case is, how it runs here and there, what is recorded.

A subject is a file `cases_<subject>.py` beside this one. It defines

    CASES: list[Case]        one computation at one configuration each, with names of their own
    RECORDED: int = 40       optional: of how many cases (evenly picked) the values are stored

and a case gives the computation twice, with the arrays that both get:

    Case(
        "stride=2",
        lambda x, w: treadle.nn.functional.conv2d(x, w, stride=2),
        lambda torch, x, w: torch.nn.functional.conv2d(x, w, stride=2),
        (normal(2, 3, 8, 8), normal(4, 3, 3, 3)),
    )

`normal`, `uniform`, `integers` and `distinct` below draw arrays from a generator that the case's
name seeds. Every float64 array is differentiated: compared are all results, the gradients of their
weighted sum, and with `twice=True` the gradients of a weighted sum of those gradients. `state` says
which operands the computation writes in place; their new values are compared as well, and they are
not differentiated.

Each case runs eagerly and jitted, but for one with `whole=False`, which jits itself what should be
(the steps of an optimiser). `test_agreement.py` compares with live PyTorch where it is installed
(`make test-torch` installs it), and always with the values stored in `records/<subject>.npz`. After
adding cases write them anew, with PyTorch installed:

    python tests/torch_agreement/record.py <subject> ...
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle

Array = npt.NDArray[Any]
Draw = Callable[[np.random.Generator], Array]

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "records"
TOLERANCE = 1e-10  # of the largest element, or of 1 where that is smaller


def normal(*shape: int) -> Draw:
    return lambda rng: rng.standard_normal(shape)


def uniform(low: float, high: float, *shape: int) -> Draw:
    return lambda rng: rng.uniform(low, high, shape)


def integers(low: int, high: int, *shape: int) -> Draw:
    """int64 from `low` to before `high`."""
    return lambda rng: rng.integers(low, high, shape)


def distinct(*shape: int) -> Draw:
    """Floats of which no two are near each other: for what has kinks at ties (sort, max)."""

    def draw(rng: np.random.Generator) -> Array:
        size = int(np.prod(shape))
        return (rng.permutation(size).reshape(shape) - size / 2 + 0.25) / 7

    return draw


def fixed(values: Any) -> Draw:
    return lambda rng: np.array(values)


@dataclass(frozen=True)
class Case:
    """One computation at one configuration; see the head of this file."""

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    draws: tuple[Draw, ...]
    twice: bool = False
    state: tuple[int, ...] = ()
    tolerance: float = TOLERANCE
    whole: bool = True  # is also run as one jitted function; else it jits what it wants itself

    def arrays(self) -> list[Array]:
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return [draw(rng) for draw in self.draws]

    def differentiated(self, arrays: Sequence[Array]) -> list[int]:
        return [k for k, a in enumerate(arrays) if a.dtype == np.float64 and k not in self.state]

    def weights(self, shape: Sequence[int], number: int) -> Array:
        """What the result (or gradient) `number` is weighted with in a sum."""
        return np.random.default_rng(number).standard_normal(tuple(shape))


def _listed(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (list, tuple)) else [found]


# --- here ------------------------------------------------------------------------------------


def run_ours(case: Case, jitted: bool) -> dict[str, Array]:
    """The case's values by name: out0.., grad0.., second0.., state<k>."""
    arrays = case.arrays()
    wrt = case.differentiated(arrays)

    def outputs(*xs: Any) -> tuple[Any, list[Any]]:
        outs = _listed(case.ours(*xs))
        floats = [o for o in outs if o.dtype.is_float]
        parts = (treadle.sum(o * case.weights(o.shape, k)) for k, o in enumerate(floats))
        return sum(parts, start=treadle.tensor(0.0, dtype=treadle.float64)), outs

    def first(*xs: Any) -> tuple[Any, tuple[Any, list[Any]]]:
        if not wrt:
            return treadle.tensor(0.0), (outputs(*xs)[1], [])
        (_, outs), grads = treadle.value_and_grad(outputs, argnums=tuple(wrt), has_aux=True)(*xs)
        parts = (treadle.sum(g * case.weights(g.shape, 50 + k)) for k, g in enumerate(grads))
        return sum(parts, start=treadle.tensor(0.0, dtype=treadle.float64)), (outs, list(grads))

    def everything(*xs: Any) -> tuple[list[Any], list[Any], list[Any]]:
        if not case.twice:
            outs, grads = first(*xs)[1]
            return outs, grads, []
        twice = treadle.value_and_grad(first, argnums=tuple(wrt), has_aux=True)
        (_, (outs, grads)), second = twice(*xs)
        return outs, grads, list(second)

    xs = [treadle.tensor(a) for a in arrays]
    run = treadle.jit(everything) if jitted else everything
    outs, grads, second = run(*xs)
    named = {f"out{k}": o for k, o in enumerate(outs)}
    named |= {f"grad{k}": g for k, g in zip(wrt, grads, strict=True)}
    named |= {f"second{k}": g for k, g in zip(wrt, second, strict=False)}
    named |= {f"state{k}": xs[k] for k in case.state}
    return {name: np.asarray(x) for name, x in named.items()}


# --- there -----------------------------------------------------------------------------------


def torch_or_reason() -> tuple[Any, str]:
    """PyTorch, or None and why it is not there."""
    try:
        version("torch")
    except PackageNotFoundError:
        return None, "PyTorch is not installed: make test-torch installs it"
    return importlib.import_module("torch"), ""


def run_theirs(case: Case, torch: Any) -> dict[str, Array]:
    """As `run_ours`, by PyTorch."""
    arrays = case.arrays()
    wrt = case.differentiated(arrays)
    xs = [torch.tensor(a) for a in arrays]
    for k in wrt:
        xs[k].requires_grad_()
    outs = _listed(case.theirs(torch, *xs))
    named = {f"out{k}": o for k, o in enumerate(outs)}
    if wrt:
        leaves = [xs[k] for k in wrt]
        floats = [o for o in outs if o.dtype.is_floating_point]
        grads = _torch_gradients(torch, case, floats, leaves, 0, case.twice)
        named |= {f"grad{k}": g for k, g in zip(wrt, grads, strict=True)}
        if case.twice:
            second = _torch_gradients(torch, case, grads, leaves, 50, False)
            named |= {f"second{k}": g for k, g in zip(wrt, second, strict=True)}
    named |= {f"state{k}": xs[k] for k in case.state}
    return {name: x.detach().numpy(force=True) for name, x in named.items()}


def _torch_gradients(
    torch: Any, case: Case, ys: Sequence[Any], xs: Sequence[Any], start: int, again: bool
) -> list[Any]:
    """Gradients of the weighted sum of `ys`; zeros for what it does not depend on."""
    parts = [(y * torch.tensor(case.weights(y.shape, start + k))).sum() for k, y in enumerate(ys)]
    total = sum(parts)
    if not ys or not total.requires_grad:
        return [torch.zeros_like(x) for x in xs]
    found = torch.autograd.grad(total, xs, create_graph=again, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, xs, strict=True)]


# --- comparing -------------------------------------------------------------------------------


def assert_agree(found: Mapping[str, Array], wanted: Mapping[str, Array], case: Case) -> None:
    assert set(found) == set(wanted)
    for name, want in wanted.items():
        got = found[name]
        assert got.shape == want.shape, f"{case.name}: {name} has shape {got.shape}"
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(got, want, f"{case.name}: {name}")
            continue
        assert got.dtype == want.dtype, f"{case.name}: {name} is {got.dtype}"
        finite = np.abs(want[np.isfinite(want)])
        bound = case.tolerance * max(float(np.max(finite, initial=0.0)), 1.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=f"{case.name}: {name}")


# --- subjects and records --------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """The cases of one file and which of them are recorded."""

    name: str
    cases: tuple[Case, ...]
    recorded: tuple[Case, ...]


def subjects() -> list[Subject]:
    """All subjects, by the files in this folder."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return [_subject(path.stem) for path in sorted(HERE.glob("cases_*.py"))]


def _subject(module_name: str) -> Subject:
    module = importlib.import_module(module_name)
    cases = tuple(module.CASES)
    names = [c.name for c in cases]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise ValueError(f"{module_name} has cases of one name: {sorted(twice)}")
    count = min(getattr(module, "RECORDED", 40), len(cases))
    picked = tuple(cases[i * len(cases) // count] for i in range(count))
    return Subject(module_name.removeprefix("cases_"), cases, picked)


def fingerprint(case: Case) -> Array:
    """Of the case's operands: records made from others are told from wrong results."""
    found = 0
    for a in case.arrays():
        found = zlib.crc32(np.ascontiguousarray(a).tobytes(), found)
    return np.array(found)


def write_records(subject: Subject, torch: Any) -> Path:
    """Store the values of the recorded cases as PyTorch computes them."""
    entries: dict[str, Array] = {}
    for case in subject.recorded:
        entries[f"{case.name}/operands"] = fingerprint(case)
        for name, value in run_theirs(case, torch).items():
            entries[f"{case.name}/{name}"] = value
    path = RECORDS / f"{subject.name}.npz"
    np.savez_compressed(path, allow_pickle=False, **entries)
    return path


def read_records(subject: Subject) -> dict[str, dict[str, Array]]:
    """The stored values of each recorded case."""
    found: dict[str, dict[str, Array]] = {case.name: {} for case in subject.recorded}
    with np.load(RECORDS / f"{subject.name}.npz") as stored:
        for key in stored.files:
            case, _, name = key.rpartition("/")
            found.setdefault(case, {})[name] = stored[key]
    return found
