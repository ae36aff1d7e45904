"""A look at the data: classes, ranges, what is not finite, duplicates, order."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.types import shape_text
from treadle.nn.recipe.report import Finding
from treadle.nn.recipe.samples import Samples

Array = npt.NDArray[Any]

_FAR = 20.0  # a mean square beyond this (or below its inverse, squared) asks to be normalised
_MOST_OF_ONE = 0.95  # of all labels
_FEW_CLASSES = 50  # up to which integers are counted one by one in the text
_DUPLICATES = 0.01
_ENOUGH = 20  # samples, to speak of shares
_SMALL = 4  # elements; inputs of so few have equals without any mistake


def look(samples: Samples) -> tuple[str, list[Finding]]:
    """What the samples are like, and what is wrong with them."""
    lines = [_how_many(samples)]
    findings: list[Finding] = []
    for n, x in enumerate(samples.inputs):
        name = "inputs" if len(samples.inputs) == 1 else f"input {n}"
        lines.append(f"{name}: {_about(x)}")
        findings += _of_numbers(name, x)
        findings += _of_scale(name, x)
    lines.append(f"targets: {_about(samples.target)}")
    findings += _of_numbers("targets", samples.target)
    if samples.target.dtype.kind in "iu":
        lines.append(_classes(samples.target))
        findings += _of_classes(samples)
    elif samples.target.size and np.ptp(_finite(samples.target)) == 0:
        findings.append(
            Finding("one-target", "error", f"all targets are {samples.target.flat[0]:.6g}")
        )
    same, told = _duplicates(samples)
    lines.append(told)
    return "\n".join(lines), findings + same


def _how_many(samples: Samples) -> str:
    whole = "" if samples.total in (None, len(samples)) else f" of {samples.total:,}"
    batches = f", in batches of {samples.batch}" if samples.batch else ""
    return f"{len(samples):,}{whole} samples looked at{batches}"


def _about(x: Array) -> str:
    text = f"{x.dtype} {shape_text(x.shape[1:])}"
    if x.size == 0 or x.dtype.kind == "b":
        return text
    text += f", {x.min():.4g} to {x.max():.4g}"
    if x.dtype.kind == "f":
        values = _finite(x)
        text += f", mean {values.mean():.4g}, deviation {values.std():.4g}"
    return text


def _finite(x: Array) -> Array:
    values = x.astype(np.float64).ravel()
    found = values[np.isfinite(values)]
    return found if found.size else np.zeros(1)


def _of_numbers(name: str, x: Array) -> Iterator[Finding]:
    if x.dtype.kind != "f":
        return
    wrong = ~np.isfinite(x)
    if wrong.any():
        rows = np.flatnonzero(wrong.reshape(len(x), -1).any(axis=1))
        yield Finding(
            "not-finite", "error",
            f"{wrong.sum():,} numbers of the {name} are NaN or infinite, in {len(rows):,} samples, "
            f"the first of them sample {rows[0]}",
        )  # fmt: skip


def _of_scale(name: str, x: Array) -> Iterator[Finding]:
    if x.size == 0 or (x.dtype.kind != "f" and x.dtype != np.uint8):
        return
    size = float(np.sqrt(np.mean(_finite(x) ** 2)))
    if size == 0 or np.ptp(_finite(x)) == 0:
        yield Finding("constant-inputs", "error", f"all numbers of the {name} are equal")
    elif not 1 / _FAR**2 < size < _FAR:
        yield Finding(
            "not-normalised", "warning",
            f"the {name} have a root mean square of {size:.3g}; layers are initialised for about 1",
            fix="subtract the mean and divide by the standard deviation of the training data",
        )  # fmt: skip


# --- classes -----------------------------------------------------------------------------------


def _classes(target: Array) -> str:
    found, counts = np.unique(target, return_counts=True)
    if len(found) > _FEW_CLASSES:
        return f"{len(found)} different targets"
    return f"{len(found)} classes: " + ", ".join(
        f"{c} x {n:,}" for c, n in zip(found, counts, strict=True)
    )


def _of_classes(samples: Samples) -> Iterator[Finding]:
    target = samples.target
    found, counts = np.unique(target, return_counts=True)
    share = counts.max() / counts.sum()
    if len(found) == 1 and len(samples) > 1:
        yield Finding("one-class", "error", f"all targets are {found[0]}")
    elif share > _MOST_OF_ONE and len(samples) >= _ENOUGH:
        yield Finding(
            "imbalance", "warning",
            f"{share:.1%} of the targets are {found[counts.argmax()]}: always saying so is as good",
            fix="weigh the classes in the loss, draw rare ones more often, and look at another "
            "measure than accuracy",
        )  # fmt: skip
    if samples.shuffles is False and target.ndim == 1 and _is_sorted_by_class(target, found):
        yield Finding(
            "not-shuffled", "warning",
            "samples of one class follow each other and the loader does not shuffle: a batch sees "
            "one class or two",
            fix="DataLoader(.., shuffle=True)",
        )  # fmt: skip


def _is_sorted_by_class(target: Array, classes: Array) -> bool:
    changes = int(np.count_nonzero(target[1:] != target[:-1]))
    return len(classes) > 1 and len(target) >= 8 * len(classes) and changes < 2 * len(classes)


# --- duplicates --------------------------------------------------------------------------------


def _duplicates(samples: Samples) -> tuple[list[Finding], str]:
    """Inputs that are there twice, and those of them whose targets differ."""
    first: dict[bytes, int] = {}
    again: list[tuple[int, int]] = []
    for n in range(len(samples)):
        key = _digest(x[n] for x in samples.inputs)
        if key in first:
            again.append((first[key], n))
        else:
            first[key] = n
    if not again:
        return [], "no input is there twice"
    told = f"{len(again):,} inputs are there before, the first of them sample {again[0][1]}"
    if sum(x[0].size for x in samples.inputs) <= _SMALL:
        return [], told
    return list(_of_duplicates(samples, again)), told


def _digest(parts: Iterator[Array]) -> bytes:
    found = blake2b(digest_size=16)
    for part in parts:
        found.update(np.ascontiguousarray(part).tobytes())
    return found.digest()


def _of_duplicates(samples: Samples, again: list[tuple[int, int]]) -> Iterator[Finding]:
    torn = [(a, b) for a, b in again if samples.target[a].tobytes() != samples.target[b].tobytes()]
    if torn:
        a, b = torn[0]
        yield Finding(
            "contradicting-targets", "warning",
            f"{len(torn):,} inputs are there twice with different targets, such as samples {a} and "
            f"{b}: no model can fit both",
        )  # fmt: skip
    if len(again) > _DUPLICATES * len(samples):
        a, b = again[0]
        yield Finding(
            "duplicates", "warning",
            f"{len(again):,} of {len(samples):,} inputs are there before, such as sample {b}, "
            f"which is sample {a}: held-out data may hold training data",
            fix="split the data after duplicates are removed",
        )  # fmt: skip
