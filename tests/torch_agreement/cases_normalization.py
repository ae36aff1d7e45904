"""Normalisation: batch_norm in training and evaluation, group, instance, layer and RMS norm."""

from __future__ import annotations

from typing import Any

from agreement import Case, Draw, normal, uniform

from treadle.nn import functional

SHAPES = ((5, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 3))


def _batch_norm(
    shape: tuple[int, ...], training: bool, tracked: bool, affine: bool, momentum: float, eps: float
) -> Case:
    channels = shape[1]
    draws: list[Draw] = [normal(*shape)]
    if affine:
        draws += [normal(channels), normal(channels)]
    if tracked:
        draws += [normal(channels), uniform(0.5, 2, channels)]

    def on(f: Any) -> Any:
        def run(x: Any, *rest: Any) -> Any:
            weight, bias = rest[:2] if affine else (None, None)
            mean, var = rest[-2:] if tracked else (None, None)
            return f(x, mean, var, weight, bias, training, momentum, eps)

        return run

    def theirs(torch: Any, *xs: Any) -> Any:
        return on(torch.nn.functional.batch_norm)(*xs)

    state = (len(draws) - 2, len(draws) - 1) if tracked else ()
    name = f"batch_norm-{len(shape)}d-{training}-{tracked}-{affine}-{momentum}-{eps}"
    return Case(name, on(functional.batch_norm), theirs, tuple(draws), twice=True, state=state)


def _batch_norms() -> list[Case]:
    cases = []
    for shape in SHAPES:
        for affine in (True, False):
            cases.append(_batch_norm(shape, True, True, affine, 0.1, 1e-5))
            cases.append(_batch_norm(shape, True, False, affine, 0.1, 1e-3))
            cases.append(_batch_norm(shape, False, True, affine, 0.1, 1e-5))
        cases.append(_batch_norm(shape, True, True, True, 0.7, 0.1))
    return cases


def _group_norm(shape: tuple[int, ...], groups: int, affine: bool) -> Case:
    draws = (normal(*shape), *((normal(shape[1]), normal(shape[1])) if affine else ()))
    return Case(
        f"group_norm-{shape}-{groups}-{affine}",
        lambda x, *wb: functional.group_norm(x, groups, *wb),
        lambda t, x, *wb: t.nn.functional.group_norm(x, groups, *wb),
        draws,
        twice=True,
    )


def _instance_norm(shape: tuple[int, ...]) -> Case:
    return Case(
        f"instance_norm-{shape}",
        lambda x, w, b: functional.instance_norm(x, None, None, w, b, True, 0.1, 1e-3),
        lambda t, x, w, b: t.nn.functional.instance_norm(x, None, None, w, b, True, 0.1, 1e-3),
        (normal(*shape), normal(shape[1]), normal(shape[1])),
        twice=True,
    )


def _instance_norm_with_statistics(by_input: bool) -> Case:
    def on(f: Any) -> Any:
        return lambda x, mean, var: f(x, mean, var, None, None, by_input, 0.3)

    return Case(
        f"instance_norm-statistics-{by_input}",
        on(functional.instance_norm),
        lambda t, *xs: on(t.nn.functional.instance_norm)(*xs),
        (normal(3, 2, 4, 5), normal(2), uniform(0.5, 2, 2)),
        state=(1, 2),
    )


def _over_last(name: str, shape: tuple[int, ...], axes: int, operands: int) -> Case:
    last = shape[-axes:]
    ours = getattr(functional, name)
    return Case(
        f"{name}-{shape}-{axes}-{operands}",
        lambda x, *wb: ours(x, last, *wb),
        lambda t, x, *wb: getattr(t.nn.functional, name)(x, last, *wb),
        (normal(*shape), *(normal(*last) for _ in range(operands))),
        twice=True,
    )


RECORDED = 20

CASES = [
    *_batch_norms(),
    *(_group_norm((2, 6, 4), g, a) for g in (1, 2, 3, 6) for a in (True, False)),
    _group_norm((3, 4), 2, True),
    _group_norm((2, 4, 3, 3), 2, True),
    *(_instance_norm(s) for s in SHAPES[1:]),
    *(_over_last("layer_norm", (2, 3, 4), n, o) for n in (1, 2, 3) for o in (0, 1, 2)),
    *(_over_last("rms_norm", (2, 3, 4), n, o) for n in (1, 2, 3) for o in (0, 1)),
]
