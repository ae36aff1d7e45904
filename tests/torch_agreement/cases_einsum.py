"""einsum, diagonals and windows."""

from __future__ import annotations

from typing import Any

from agreement import Case, normal

import treadle
from treadle.nn import functional

RECORDED = 24

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2, "f": 3, "i": 3, "j": 4, "k": 5, "l": 2}

SPECS = """
    ij,jk->ik  ij,kj->ik  ji,jk->ik  ij,jk->ki  ij,jk  ij->ji  ij->  ij->i  ij->j  ij
    i,i->  i,i->i  i,j->ij  ij,ij->ij  ij,ij->  ij,j->i  i,ij->j  bij,bjk->bik  bij,bkj->bik
    bij,bkj  bij,jk->bik  ij,bjk->bik  bij,bjk->ik  abcd,abdc->ab  abcd,cd->ab  abcd,dc->ab
    abcd,cdef->abef  abcd,efcd->efab  acbd,cdef->afbe  abc,bd->acd  abc,bd->dca  abcd,bd->ac
    ab,cd->abcd  ab,cd->dbca  a,b,c->abc  ab,bc,cd->ad  ab,bc,cd,da->  ab,ab,ab->b  abc,b,c->a
    ij,jk,kl,l->i  aij,bjk,abk->i  bkij,bkjl->bkil  ,ij->ij  ij,->
""".split()  # noqa: SIM905  a table is read at a glance

SHAPED: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = (
    ("ii->i", ((4, 4),)),
    ("ii->", ((4, 4),)),
    ("ii", ((4, 4),)),
    ("iji->j", ((3, 4, 3),)),
    ("iij->ji", ((3, 3, 4),)),
    ("iijj->ij", ((3, 3, 4, 4),)),
    ("ii,ij->j", ((3, 3), (3, 4))),
    ("iii->i", ((3, 3, 3),)),
    ("...ij,...jk->...ik", ((2, 3, 4), (2, 4, 5))),
    ("...ij,...jk->...ik", ((6, 2, 3, 4), (2, 4, 5))),
    ("...ij,jk->...ik", ((6, 2, 3, 4), (4, 5))),
    ("...i,...i->...", ((3, 1, 4), (2, 4))),
    ("...i->i...", ((2, 3, 4),)),
    ("...ii->...i", ((2, 3, 3),)),
    ("i...j,j->...i", ((2, 3, 4, 5), (5,))),
    ("...,...->...", ((2, 3), (3,))),
    ("...ij,...kj", ((2, 3, 4), (2, 5, 4))),
    ("ij,jk->ik", ((1, 4), (4, 5))),
    ("bij,bjk->bik", ((1, 3, 4), (2, 4, 5))),
    ("bhqd,bhkd->bhqk", ((2, 3, 4, 5), (2, 3, 6, 5))),
    ("bqhd,bkhd->bhqk", ((2, 4, 3, 5), (2, 6, 3, 5))),
    ("bhqk,bkhd->bqhd", ((2, 3, 4, 6), (2, 6, 3, 5))),
)


def _einsum(spec: str, shapes: tuple[tuple[int, ...], ...]) -> Case:
    return Case(
        f"einsum-{spec}-{'-'.join('x'.join(map(str, s)) for s in shapes)}",
        lambda *xs: treadle.einsum(spec, *xs),
        lambda t, *xs: t.einsum(spec, *xs),
        tuple(normal(*shape) for shape in shapes),
        twice=True,
    )


def _of(spec: str) -> Case:
    terms = spec.split("->")[0].split(",")
    return _einsum(spec, tuple(tuple(SIZES[c] for c in term) for term in terms))


def _diagonal(shape: tuple[int, ...], offset: int, axes: tuple[int, int]) -> Case:
    return Case(
        f"diagonal-{shape}-{offset}-{axes}",
        lambda x: treadle.diagonal(x, offset, *axes),
        lambda t, x: t.diagonal(x, offset, *axes),
        (normal(*shape),),
    )


def _diag(shape: tuple[int, ...], k: int) -> Case:
    return Case(
        f"diag-{shape}-{k}", lambda x: treadle.diag(x, k), lambda t, x: t.diag(x, k),
        (normal(*shape),),
    )  # fmt: skip


def _windows(axis: int, size: int, step: int) -> Case:
    return Case(
        f"windows-{axis}-{size}-{step}",
        lambda x: treadle.unfold(x, axis, size, step),
        lambda t, x: x.unfold(axis, size, step),
        (normal(5, 7, 6),),
        twice=True,
    )


def _patches(shape: tuple[int, ...], **options: Any) -> Case:
    name = "-".join(map(str, (*shape, *options.values())))
    return Case(
        f"unfold-{name}",
        lambda x: functional.unfold(x, **options),
        lambda t, x: t.nn.functional.unfold(x, **options),
        (normal(*shape),),
        twice=True,
    )


def _fold(columns: tuple[int, ...], **options: Any) -> Case:
    name = "-".join(map(str, (*columns, *options.values())))
    return Case(
        f"fold-{name}",
        lambda x: functional.fold(x, **options),
        lambda t, x: t.nn.functional.fold(x, **options),
        (normal(*columns),),
        twice=True,
    )


CASES = [
    *(_of(spec) for spec in SPECS),
    *(_einsum(spec, shapes) for spec, shapes in SHAPED),
    *(_diagonal((3, 5), k, (0, 1)) for k in (-3, -2, 0, 1, 4, 6)),
    *(_diagonal((3, 4, 5), 1, axes) for axes in ((0, 1), (1, 0), (-1, 0), (1, 2))),
    *(_diag(shape, k) for shape in ((4,), (3, 4)) for k in (-2, 0, 1)),
    Case("trace", treadle.linalg.trace, lambda t, x: t.trace(x), (normal(4, 5),)),
    *(
        _windows(axis, size, step)
        for axis, size, step in ((0, 2, 1), (1, 3, 2), (2, 6, 4), (1, 1, 3))
    ),
    _patches((2, 3, 6, 7), kernel_size=3),
    _patches((2, 3, 6, 7), kernel_size=(2, 3), stride=2, padding=1),
    _patches((3, 8, 7), kernel_size=2, dilation=(2, 3), padding=(0, 2), stride=(1, 2)),
    _fold((2, 12, 20), output_size=(5, 6), kernel_size=2),
    _fold((2, 18, 9), output_size=(6, 6), kernel_size=3, padding=1, stride=2, dilation=1),
    _fold((8, 6), output_size=(7, 8), kernel_size=(2, 4), dilation=2, stride=(2, 1)),
]
