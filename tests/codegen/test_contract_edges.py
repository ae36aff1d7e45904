"""Contractions at every edge of their tiles and blocks: within the stated bound, touching nothing
that is not theirs, the same bits for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from native_call import Array, Native, compiled

from treadle.codegen.plan_contract import ContractPlan
from treadle.codegen.target import NAMES, Target, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Result, Value
from treadle.ir.types import DType, TensorType, float32, float64

FAMILIES = [named(n) for n in NAMES if named(n).runs_here()]
BLOCK = {float32: 320, float64: 224}  # of docs/accuracy.md
UNIT = {float32: 2.0**-24, float64: 2.0**-53}

ORIENTATIONS = ("mk,kn->mn", "mk,nk->mn", "km,kn->mn", "km,nk->mn", "mk,kn->nm", "km,nk->nm")
STRIDED = (
    "mbk,kbn->bmn", "bkm,nkb->mbn", "mkb,kbn->nbm", "bmk,nbk->mnb", "kbm,bkn->bmn", "mkb,nkb->mn",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One contraction; `finished`: relu of it plus a row, as its epilogue."""

    spec: str
    m: int
    n: int
    k: int
    b: int = 3
    finished: bool = False

    def shapes(self) -> list[tuple[int, ...]]:
        """Of both operands and the result."""
        sizes = {"m": self.m, "n": self.n, "k": self.k, "b": self.b}
        parts = self.spec.replace("->", ",").split(",")
        return [tuple(sizes[x] for x in part) for part in parts]


def around(*sizes: int) -> list[int]:
    return sorted({s + d for s in sizes for d in (-1, 0, 1)})


def edges(width: int) -> Iterator[Case]:
    """Each size around every tile's, with the others in the middle of things."""
    turn = 0
    for m in (1, 2, *around(4, 6, 8, 14, 28)):
        turn += 1
        yield Case(ORIENTATIONS[turn % 6], m, 2 * width + 3, 130, finished=turn % 3 == 0)
    for n in (1, 2, *around(width, 2 * width, 3 * width, 4 * width)):
        turn += 1
        yield Case(ORIENTATIONS[turn % 6], 29, n, 130, finished=turn % 3 == 0)
    for k in (0, 1, 2, *around(width, 2 * width, 224, 320, 640)):
        turn += 1
        yield Case(ORIENTATIONS[turn % 6], 29, 2 * width + 1, k, finished=turn % 3 == 0)


def others(width: int) -> Iterator[Case]:
    """Empty ones, single rows and columns along a long k, batches whose letters lie anywhere."""
    for m, n in ((0, 5), (5, 0), (1, 1), (1, 70), (70, 1), (3, 70), (70, 3)):
        for spec in ORIENTATIONS[:4]:
            yield Case(spec, m, n, 20 * width + 1)
    for turn, spec in enumerate(STRIDED):
        yield Case(spec, 5, 6, 4)
        yield Case(spec, 29, 2 * width + 1, 67, finished=turn % 2 == 0)


def large(width: int) -> Iterator[Case]:
    """Enough work for threads: some in tiles of one product, some along a batch."""
    for spec in ORIENTATIONS:
        yield Case(spec, 157, 131, 330, finished=spec == "mk,kn->mn")
    yield Case("mk,kn->mn", 16, 1000, 330)
    yield Case("mk,nk->mn", 1000, 20, 330, finished=True)
    yield Case("bmk,bkn->bmn", 61, 67, 65, b=8, finished=True)
    yield Case("mbk,kbn->mbn", 61, 67, 65, b=8)


def program(cases: Sequence[Case], dtype: DType, target: Target) -> Native:
    """All of them in one function: their code is shared, as in a train step."""
    b = Builder("f")
    outs = []
    for n, case in enumerate(cases):
        found = contraction(b, case, dtype, n)
        if case.finished:
            row = b.param(TensorType(dtype, found.type.shape[-1:]), f"{n}r")
            found = b.call("relu", b.add(found, row))
        outs.append(found)
    return compiled(b.finish([Result(v, f"y{n}") for n, v in enumerate(outs)]), target)


def contraction(b: Builder, case: Case, dtype: DType, number: int) -> Value:
    """As a user writes it: operands permuted to a product of matrices, and its result again."""
    left, right, out = case.spec.replace("->", ",").split(",")
    batch = "b" if "b" in left else ""

    def permuted(value: Value, letters: str, wanted: str) -> Value:
        axes = tuple(letters.index(x) for x in wanted)
        return value if letters == wanted else b.call("permute", value, perm=axes)

    shapes = case.shapes()
    x = b.param(TensorType(dtype, shapes[0]), f"{number}x")
    y = b.param(TensorType(dtype, shapes[1]), f"{number}y")
    found = b.matmul(permuted(x, left, f"{batch}mk"), permuted(y, right, f"{batch}kn"))
    if batch and batch not in out:
        return permuted(b.sum(found, 0), "mn", out)
    return permuted(found, f"{batch}mn", out)


def arguments(cases: Sequence[Case], dtype: DType) -> list[list[Array]]:
    rng = np.random.default_rng(7)
    found = []
    for case in cases:
        x, y, z = case.shapes()
        shapes = [x, y, z[-1:]] if case.finished else [x, y]
        found.append([rng.standard_normal(s).astype(dtype.dtype) for s in shapes])
    return found


def excess(case: Case, got: Array, args: Sequence[Array], dtype: DType, fma: bool) -> float:
    """The largest error as a multiple of the bound that docs/accuracy.md states."""
    wide = np.float64 if dtype is float32 else np.longdouble
    x, y = (a.astype(wide) for a in args[:2])
    want = np.einsum(case.spec, x, y)
    sizes = np.einsum(case.spec, np.abs(x), np.abs(y))
    length = case.k * (case.b if "b" not in case.spec.split("->")[1] and "b" in case.spec else 1)
    block = min(BLOCK[dtype], max(case.k, 1))
    count = block + length / block + (0 if fma else 1)
    room = count * UNIT[dtype] * sizes
    if case.finished:
        want = np.maximum(want + args[2].astype(wide), 0)
        room = room + UNIT[dtype] * (np.abs(want) + room)
    error = np.abs(got.astype(wide) - want)
    return float((error / np.where(room > 0, room, 1)).max(initial=0))


def check(cases: Sequence[Case], dtype: DType, target: Target, threads: Sequence[int]) -> None:
    native, args = program(cases, dtype, target), arguments(cases, dtype)
    flat = [a for each in args for a in each]
    first = native.results(*flat, threads=threads[0])
    for case, got, own in zip(cases, first, args, strict=True):
        assert excess(case, got, own, dtype, target.has_fma) <= 1, (case, native.plan)
    for count in threads[1:]:
        for case, x, y in zip(cases, first, native.results(*flat, threads=count), strict=True):
            np.testing.assert_array_equal(x, y, f"{case} on {count} threads")


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_every_tile_edge_keeps_the_stated_bound(target: Target, dtype: DType) -> None:
    check(list(edges(target.lanes(dtype))), dtype, target, (1,))


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_empty_narrow_and_strided_ones_keep_the_stated_bound(target: Target, dtype: DType) -> None:
    check(list(others(target.lanes(dtype))), dtype, target, (1,))


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_three_threads_give_the_bits_of_one(target: Target, dtype: DType) -> None:
    cases = list(large(target.lanes(dtype)))
    check(cases, dtype, target, (1, 3))


def test_the_cases_reach_every_way_to_multiply() -> None:
    """Plain loops, dot products, tiles; operands gathered once, by each tile, or read in place."""
    target = FAMILIES[-1]
    if not target.is_x86:
        pytest.skip("the sizes are chosen for the widest vectors of x86")
    width = target.lanes(float32)
    cases = [*edges(width), *others(width), *large(width)]
    plans = [k.body for k in program(cases, float32, target).plan.kernels]
    found = [p for p in plans if isinstance(p, ContractPlan)]
    assert {p.kind for p in found} == {"zero", "simple", "dots", "packed"}
    blocks = [p.blocks for p in found if p.kind == "packed"]
    assert {(b.own, b.direct) for b in blocks} == {(o, d) for o in (0, 1) for d in (0, 1)}
    assert any(p.spread for p in found)
    assert any(p.tiling.count > 1 for p in found)
