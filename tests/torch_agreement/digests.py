"""A few numbers for every case of a large grid, so that all of it is checked without PyTorch.

The values of all cases would take megabytes. Of each array is stored what a fixed random direction
makes of it: a sum with weights, NaN and infinities counted as numbers of their own. Beside them
stands the fingerprint of the case's operands. `records/digests.npz` has one row of numbers for each
subject; write it anew, with PyTorch installed, after changing cases:

    python tests/torch_agreement/digests.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from agreement import (
    RECORDS,
    Array,
    Case,
    Subject,
    fingerprint,
    run_theirs,
    subjects,
    torch_or_reason,
)

NAMES = (
    "activations", "convolution", "facade", "layers", "losses", "normalization", "padding",
    "pooling", "resize",
)  # fmt: skip
PATH = RECORDS / "digests.npz"


def digested() -> list[Subject]:
    return [s for s in subjects() if s.name in NAMES]


def _direction(size: int) -> Array:
    return np.random.default_rng(size).standard_normal(size)


def _finite(x: Array) -> Array:
    return np.nan_to_num(x.astype(np.float64).ravel(), nan=3.25, posinf=5.5, neginf=-7.75)


def digest(values: Mapping[str, Array]) -> Array:
    """One number for each of a case's arrays, by name."""
    return np.array([_finite(x) @ _direction(x.size) for _, x in sorted(values.items())])


def bounds(values: Mapping[str, Array], case: Case) -> Array:
    """How far these numbers may be off, where each element may be by the case's tolerance."""
    found = []
    for _, x in sorted(values.items()):
        largest = float(np.max(np.abs(_finite(x)), initial=1.0))
        found.append(case.tolerance * largest * float(np.abs(_direction(x.size)).sum()))
    return np.array(found)


def write_digests(torch: Any) -> None:
    rows = {}
    for subject in digested():
        parts = [
            np.append(fingerprint(case).astype(np.float64), digest(run_theirs(case, torch)))
            for case in subject.cases
        ]
        rows[subject.name] = np.concatenate(parts)
        rows[f"{subject.name}.counts"] = np.array([len(part) for part in parts])
    np.savez_compressed(PATH, allow_pickle=False, **rows)


def read_digests(subject: Subject) -> dict[str, tuple[float, Array]]:
    """Of each case's name the fingerprint of its operands and the numbers."""
    with np.load(PATH) as stored:
        row, counts = stored[subject.name], stored[f"{subject.name}.counts"]
    parts = np.split(row, np.cumsum(counts)[:-1])
    names = [case.name for case in subject.cases]
    return {name: (part[0], part[1:]) for name, part in zip(names, parts, strict=True)}


if __name__ == "__main__":
    live, reason = torch_or_reason()
    if live is None:
        raise SystemExit(reason)
    write_digests(live)
    print(f"{PATH.name}: {PATH.stat().st_size} bytes")
