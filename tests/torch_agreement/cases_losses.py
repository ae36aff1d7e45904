"""Losses: every reduction, class weights, label smoothing, ignored targets, kinks avoided."""

from __future__ import annotations

from typing import Any

import numpy as np
from agreement import Case, Draw, distinct, fixed, integers, normal, uniform

import treadle

REDUCTIONS = ("none", "mean", "sum")


def _case(name: str, draws: tuple[Draw, ...], label: str = "", **options: Any) -> Case:
    """The function of that name with PyTorch's arguments; the second operand is the target."""
    listed = "-".join([label, *(f"{k}={v}" for k, v in options.items())])
    ours = getattr(treadle.nn.functional, name)
    return Case(
        f"{name}-{listed}",
        lambda *xs: ours(*xs, **options),
        lambda torch, *xs: getattr(torch.nn.functional, name)(*xs, **options),
        draws,
    )


def _classes() -> list[Case]:
    cases = []
    for how in REDUCTIONS:
        for label, draws in (
            ("row", (normal(5), fixed(3))),
            ("rows", (normal(7, 5), integers(0, 5, 7))),
            ("images", (normal(2, 5, 3, 4), integers(0, 5, 2, 3, 4))),
        ):
            cases.append(_case("cross_entropy", draws, label, reduction=how))
            cases.append(_case("nll_loss", draws, label, reduction=how))
        ignored = (normal(6, 4), fixed([0, 2, 3, -100, 2, 1]))
        cases.append(_case("cross_entropy", ignored, "ignored", reduction=how))
        twos = (normal(6, 4), fixed([0, 2, 3, 2, 2, 1]))
        cases.append(_case("nll_loss", twos, "ignored", reduction=how, ignore_index=2))
        for smooth in (0.0, 0.1, 1.0):
            weighted = (*ignored, uniform(0.5, 2.0, 4))
            cases.append(
                _weighted("cross_entropy", weighted, reduction=how, label_smoothing=smooth)
            )
            shares = (normal(6, 4), uniform(0.0, 1.0, 6, 4), uniform(0.5, 2.0, 4))
            cases.append(_weighted("cross_entropy", shares, "shares", reduction=how,
                                   label_smoothing=smooth))  # fmt: skip
            cases.append(
                _case("cross_entropy", ignored, "smooth", reduction=how, label_smoothing=smooth)
            )
        cases.append(_weighted("nll_loss", (*ignored, uniform(0.5, 2.0, 4)), reduction=how))
    return cases


def _weighted(name: str, draws: tuple[Draw, ...], label: str = "", **options: Any) -> Case:
    """The third operand is a weight, for which PyTorch has no gradient."""
    ours = getattr(treadle.nn.functional, name)
    listed = "-".join([label, *(f"{k}={v}" for k, v in options.items())])
    return Case(
        f"{name}-weighted-{listed}",
        lambda x, y, w: ours(x, y, w.detach(), **options),
        lambda torch, x, y, w: getattr(torch.nn.functional, name)(x, y, w.detach(), **options),
        draws,
    )


def _by_weight(name: str, draws: tuple[Draw, ...], how: str) -> Case:
    ours = getattr(treadle.nn.functional, name)
    return Case(
        f"{name}-by-weight-{how}",
        lambda x, y, w: ours(x, y, reduction=how, weight=w.detach()),
        lambda torch, x, y, w: getattr(torch.nn.functional, name)(
            x, y, reduction=how, weight=w.detach()
        ),
        draws,
    )


def _numbers() -> list[Case]:
    pair, rows = (distinct(4, 5), normal(4, 5)), (normal(4, 5), uniform(0.1, 1.0, 4, 5))
    open_ = (uniform(0.05, 0.95, 4, 5), uniform(0.0, 1.0, 4, 5))
    cases = []
    for how in REDUCTIONS:
        cases += [
            _case("mse_loss", pair, reduction=how),
            _case("l1_loss", pair, reduction=how),
            _case("huber_loss", pair, reduction=how, delta=0.7),
            _case("smooth_l1_loss", pair, reduction=how, beta=0.3),
            _case("smooth_l1_loss", pair, reduction=how, beta=0.0),
            _case("binary_cross_entropy", open_, reduction=how),
            _case("binary_cross_entropy_with_logits", rows, reduction=how),
            _case(
                "cosine_embedding_loss",
                (normal(6, 5), normal(6, 5), fixed([1, -1, 1, -1, -1, 1])),
                reduction=how,
                margin=0.2,
            ),
        ]
    large = (fixed(np.array([-800.0, -40.0, 0.0, 40.0, 800.0])), uniform(0.0, 1.0, 5))
    weighted = (*pair, uniform(0.5, 2.0, 4, 5))
    cases += [
        _by_weight(name, weighted, how)
        for name in ("mse_loss", "l1_loss", "huber_loss") for how in REDUCTIONS
    ]  # fmt: skip
    return [
        *cases,
        _case("binary_cross_entropy_with_logits", large, "large"),
        _weighted("binary_cross_entropy", (*open_, uniform(0.5, 2.0, 5))),
        *(_case("kl_div", rows, reduction=how) for how in ("none", "sum", "batchmean")),
        _case("kl_div", (normal(4, 5), normal(4, 5)), reduction="batchmean", log_target=True),
        _case("cosine_similarity", (normal(3, 4, 5), normal(3, 4, 5))),
        _case("cosine_similarity", (normal(3, 4, 5), normal(4, 5)), dim=-1, eps=0.5),
        Case(
            "binary_cross_entropy_with_logits-pos_weight",
            lambda x, y, w, p: treadle.nn.functional.binary_cross_entropy_with_logits(
                x, y, w.detach(), pos_weight=p.detach()
            ),
            lambda torch, x, y, w, p: torch.nn.functional.binary_cross_entropy_with_logits(
                x, y, w.detach(), pos_weight=p.detach()
            ),
            (normal(4, 5), uniform(0.0, 1.0, 4, 5), uniform(0.5, 2.0, 4, 5), uniform(0.5, 2.0, 5)),
        ),
    ]


def _sequences() -> list[Case]:
    """CTC behind log_softmax: PyTorch's gradient is only there the derivative."""
    padded = (normal(9, 4, 5), integers(1, 5, 4, 3))
    single = (normal(6, 4), integers(0, 3, 3))
    repeated = (normal(5, 3, 4), fixed([[1, 1, 2], [3, 3, 3], [1, 2, 1]]))
    forms: list[tuple[str, tuple[Draw, ...], Any, Any, dict[str, Any]]] = [
        ("padded", padded, [9, 8, 5, 7], [3, 1, 2, 3], {}),
        ("in-a-row", (normal(9, 4, 5), integers(1, 5, 7)), [9, 8, 5, 7], [3, 1, 0, 3], {}),
        ("alone", single, 6, 3, {"blank": 3}),
        ("repeated", repeated, [5, 5, 4], [3, 3, 3], {}),
        ("impossible", repeated, [5, 3, 1], [3, 3, 3], {"zero_infinity": True}),
    ]
    return [
        _ctc(f"{label}-{how}", draws, times, sizes, {**options, "reduction": how})
        for label, draws, times, sizes, options in forms
        for how in REDUCTIONS
        if not (label == "alone" and how == "none")
    ]


def _ctc(
    name: str, draws: tuple[Draw, ...], times: Any, sizes: Any, options: dict[str, Any]
) -> Case:
    ours = treadle.nn.functional
    return Case(
        f"ctc_loss-{name}",
        lambda x, y: ours.ctc_loss(ours.log_softmax(x, -1), y, times, sizes, **options),
        lambda torch, x, y: torch.nn.functional.ctc_loss(
            torch.log_softmax(x, -1), y, torch.tensor(times), torch.tensor(sizes), **options
        ),
        draws,
    )


_ENDS = (fixed([0.0, 1.0, 0.0, 1.0, 1e-30, 1e-13, 0.25]), fixed([0, 1, 1, 0.5, 1, 0, 1]))


def _at_the_ends(how: str) -> Case:
    """The gradient of PyTorch's targets is infinite there, where the loss is not."""
    ours = treadle.nn.functional.binary_cross_entropy
    return Case(
        f"binary_cross_entropy-ends-{how}",
        lambda x, y: ours(x, y.detach(), reduction=how),
        lambda torch, x, y: torch.nn.functional.binary_cross_entropy(x, y.detach(), reduction=how),
        _ENDS,
    )


CASES = [*_classes(), *_numbers(), *_sequences(), *(map(_at_the_ends, REDUCTIONS))]
RECORDED = 24  # all of them have their digests
