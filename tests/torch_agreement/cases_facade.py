"""`treadle.torch`: functions and methods with PyTorch's names, keywords and defaults.

A case is a line of PyTorch, run with the facade and with PyTorch. Its operands: x and y are normal,
p is from 0.1 to 0.9, d has distinct elements, all of shape [3, 4]; v and w are vectors of 4; m and
n are batches of matrices, [2, 3, 4] and [2, 4, 3]; i holds integers from 0 to 2, [2, 4], k from -5
to 5, [3, 4].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agreement import Case, distinct, integers, normal, uniform

import treadle.torch
import treadle.torch.nn.functional

_OPERANDS = {
    "x": normal(3, 4),
    "y": normal(3, 4),
    "p": uniform(0.1, 0.9, 3, 4),
    "d": distinct(3, 4),
    "v": normal(4),
    "w": normal(4),
    "m": normal(2, 3, 4),
    "n": normal(2, 4, 3),
    "i": integers(0, 3, 2, 4),
    "k": integers(-5, 6, 3, 4),
}

_POINTWISE = """
torch.abs(x)                         | x.absolute()              | torch.neg(x)
torch.add(x, y)                      | torch.add(x, y, alpha=2)  | x.add(3)
torch.sub(x, other=y, alpha=0.5)     | x.subtract(y)             | torch.rsub(x, y)
x.mul(y)                             | torch.multiply(x, 2)      | x.div(p)
torch.div(x, p, rounding_mode="floor") | torch.div(x, p, rounding_mode="trunc")
torch.div(k, 3)                      | torch.div(k, 3, rounding_mode="trunc")
torch.div(k, 3, rounding_mode="floor") | torch.true_divide(k, 4) | x.detach().floor_divide(0.3)
x.remainder(p)                       | torch.fmod(x, p)          | torch.fmod(k, 3)
k.remainder(3)                       | torch.pow(p, 3)           | p.pow(y)
torch.pow(2.0, x)                    | torch.float_power(p, 2)   | torch.square(x)
torch.addcmul(x, y, p, value=0.5)    | torch.addcdiv(x, y, p)    | x.lerp(y, 0.3)
torch.lerp(x, y, p)                  | torch.hypot(x, y)         | torch.xlogy(x, p)
torch.logaddexp(x, y)                | torch.logaddexp2(x, y)    | torch.clamp(d, -0.5, 0.5)
d.clamp(min=0)                       | d.clip(max=0.2)           | d.clamp_min(0.1)
d.clamp_max(0.1)                     | torch.maximum(x, y)       | torch.minimum(x, y)
torch.fmax(x, y)                     | torch.fmin(x, y)          | torch.where(x > 0, x, y)
x.where(x > 0, y)                    | torch.where(x > 0, x, 0.0) | torch.nan_to_num(k / 0)
torch.nan_to_num(k / 0, posinf=1.0)  | torch.heaviside(k, k)     | torch.threshold(x, 0.1, 5.0)
torch.round(x)                       | torch.round(x, decimals=2) | torch.frac(x)
torch.trunc(x)                       | x.fix()                   | torch.ceil(x)
x.floor()                            | torch.sign(x)             | x.sgn()
torch.signbit(x)                     | torch.signbit(k)          | torch.exp(x)
torch.exp2(x)                        | torch.expm1(x)            | torch.log(p)
torch.log10(p)                       | torch.log2(p)             | torch.log1p(p)
torch.logit(p)                       | torch.logit(x, eps=0.2)   | torch.sqrt(p)
torch.rsqrt(p)                       | torch.reciprocal(p)       | torch.sin(x)
torch.cos(x)                         | torch.tan(p)              | torch.sinh(x)
torch.cosh(x)                        | torch.tanh(x)             | torch.asinh(x)
torch.acosh(p + 1.5)                 | torch.atanh(p)            | torch.sinc(x)
torch.deg2rad(x)                     | torch.rad2deg(x)          | torch.erf(x)
torch.erfc(x)                        | torch.erfinv(p)           | torch.sigmoid(x)
torch.special.expit(x)               | torch.relu(x)             | torch.softmax(x, dim=1)
x.softmax(0)                         | torch.log_softmax(x, -1)  | x.log_softmax(dim=0)
torch.isnan(x / 0)                   | torch.isinf(x / 0)        | torch.isfinite(x / 0)
torch.isposinf(x / 0)                | torch.isneginf(x / 0)     | torch.isclose(x, x + 1e-9)
torch.eq(k, 1)                       | k.ne(1)                   | torch.lt(x, y)
x.le(y)                              | torch.gt(x, y)            | x.ge(0)
torch.logical_and(x > 0, y > 0)      | torch.logical_or(k, k)    | torch.logical_xor(k, x > 0)
torch.logical_not(k)                 | torch.bitwise_and(k, 3)   | k.bitwise_or(4)
torch.bitwise_xor(k, 1)              | torch.bitwise_not(k)      | torch.bitwise_left_shift(k, 2)
torch.bitwise_right_shift(k, 1)      | torch.copysign(p, x)      | torch.absolute(k)
x + y * 2 - p / x                    | 2 - x                     | k // 2
k % 3                                | -x ** 2                   | x @ n[0]
"""

_REDUCTIONS = """
torch.sum(x)                         | x.sum(1)                  | x.sum(dim=(0, 1), keepdim=True)
x.sum(-1, keepdim=True)              | x.sum(axis=0)             | k.sum(dtype=torch.float64)
(x > 0).sum() | x.mean() | torch.mean(x, dim=0, keepdim=True)
torch.prod(x, 1)                     | x.prod()                  | d.amax(dim=1)
d.amin((0, 1), keepdim=True)         | torch.amax(d)             | torch.aminmax(d)
torch.aminmax(d, dim=1)              | torch.max(d)              | torch.max(d, 1)
torch.max(d, dim=0, keepdim=True)    | d.max(-1)                 | torch.max(x, y)
torch.min(d)                         | d.min(1)                  | d.min(dim=0, keepdim=True)
torch.argmax(d)                      | d.argmax(1)               | d.argmax(dim=0, keepdim=True)
d.argmin(1)                          | torch.all(x > 0)          | (x > 0).any(1)
(x > 0).all(dim=0, keepdim=True)     | torch.var(x)              | x.var(1)
x.var(dim=0, unbiased=False) | x.var(False) | x.var(1, correction=2, keepdim=True)
torch.std(x)                         | x.std(0)                  | x.std(dim=1, unbiased=False)
torch.var_mean(x, 1)                 | torch.std_mean(x)         | x.std(correction=0)
torch.logsumexp(x, 1)                | x.logsumexp(dim=0, keepdim=True) | torch.norm(x)
torch.norm(x, p=1, dim=1)            | x.norm(2, 0)              | x.norm(p=float("inf"))
torch.norm(x, dim=1, keepdim=True)   | torch.dist(x, y)          | torch.dist(x, y, 1)
torch.count_nonzero(k)               | torch.count_nonzero(k, dim=0) | torch.nansum(x)
torch.nanmean(x, 1)                  | torch.sort(d)             | d.sort(0, descending=True)
d.sort(dim=1)                        | torch.argsort(d)          | d.argsort(dim=0, descending=True)
torch.msort(d)                       | torch.topk(d, 2)          | d.topk(2, dim=0, largest=False)
torch.kthvalue(d, 2)                 | d.kthvalue(1, dim=0, keepdim=True) | torch.median(d)
torch.median(d, 1)                   | d.median(dim=0, keepdim=True) | torch.quantile(d, 0.4)
torch.quantile(d, 0.25, dim=1)       | torch.quantile(d, 0.5, dim=0, keepdim=True)
torch.cumsum(x, 1)                   | x.cumsum(dim=0)           | torch.cumprod(x, dim=1)
torch.cummax(d, 1)                   | d.cummin(dim=0)           | torch.diff(x)
torch.diff(x, n=2, dim=1) | torch.linalg.norm(x) | torch.linalg.vector_norm(x, ord=3, dim=1)
torch.linalg.matrix_norm(m)          | torch.linalg.vecdot(x, y) | torch.linalg.norm(x, dim=0)
"""

_SHAPES = """
x.view(4, 3)                         | x.view(-1)                | x.view(2, -1, 3)
torch.reshape(x, (2, 6))             | x.reshape(6, 2)           | x.view_as(n[0])
x.reshape_as(n[0])                   | x.flatten()               | torch.flatten(m, start_dim=1)
m.flatten(0, 1)                      | x.ravel()                 | x.unflatten(1, (2, 2))
torch.unflatten(x, 1, (-1, 2))       | x.unsqueeze(0)            | torch.unsqueeze(x, dim=-1)
x.unsqueeze(1).squeeze()             | x.unsqueeze(1).squeeze(1) | x.squeeze(0)
x[None, :, None].squeeze((0, 2))     | x.permute(1, 0)           | torch.permute(m, (2, 0, 1))
m.permute(dims=(2, 0, 1)) | m.transpose(1, 2) | torch.transpose(m, dim0=0, dim1=2)
m.swapaxes(0, 1)                     | x.t()                     | x.T
m.mT                                 | torch.movedim(m, 0, 2)    | m.moveaxis((0, 1), (1, 2))
torch.flip(x, [1])                   | x.flip(0, 1)              | torch.fliplr(x)
torch.flipud(x)                      | torch.rot90(x)            | torch.rot90(x, 2)
torch.rot90(x, -1)                   | torch.rot90(m, 1, (1, 2)) | torch.roll(x, 1)
x.roll(-1, 0)                        | torch.roll(x, (1, 2), (0, 1)) | torch.cat([x, y])
torch.cat((x, y), dim=1)             | torch.concat([x, y], -1)  | torch.stack([x, y])
torch.stack((x, y), dim=1)           | torch.hstack([x, y])      | torch.hstack([v, w])
torch.vstack([v, w]) | torch.column_stack([v, w]) | torch.meshgrid(v, w, indexing="ij")
torch.meshgrid(v, w, indexing="xy")  | x.split(2, dim=1)         | torch.split(x, 2)
torch.split(x, [1, 3], dim=1)        | x.chunk(2, dim=1)         | torch.chunk(x, 2)
torch.tensor_split(x, 3, dim=1)      | torch.tensor_split(x, (1, 2), dim=1) | x.unbind()
torch.unbind(x, dim=1)               | x.select(1, 2)            | x.narrow(1, 1, 2)
torch.narrow(x, 0, -2, 2)            | x.unfold(1, 2, 1)         | torch.diagonal(m, dim1=1, dim2=2)
torch.diag(v)                        | torch.diag(x, 1)          | torch.diag_embed(x)
torch.trace(x)                       | torch.tril(x)             | x.triu(diagonal=1)
torch.tril(m, diagonal=-1)           | v.expand(3, 4)            | v.expand(2, 3, -1)
x[:, :1].expand(-1, 4)               | v.expand_as(x)            | torch.broadcast_to(v, (3, 4))
torch.broadcast_tensors(v, x)        | x.repeat(2, 1)            | v.repeat(2, 3)
x.tile(2)                            | torch.tile(x, (2, 1))     | x.repeat_interleave(2)
torch.repeat_interleave(x, 2, dim=1) | torch.atleast_1d(x.sum()) | torch.atleast_2d(v)
x[0]                                 | x[:, 1:3]                 | x[..., -1]
x[[0, 2]]                            | x[x > 0].sum()            | m[:, None, ::2]
x.clone()                            | x.contiguous()            | x.to(torch.float64)
k.double()                           | k.float().to(torch.float64) | x.long()
x.int()                              | x.bool()                  | k.type_as(x)
x.new_zeros(2, 3)                    | x.new_ones((2, 3))        | x.new_full((2,), 3.0)
x.new_tensor([1, 2])                 | torch.zeros_like(x)       | torch.ones_like(k)
torch.full_like(x, 2) | torch.zeros(2, 3) | torch.ones((2, 3), dtype=torch.int64)
torch.full((2,), 3)                  | torch.full((2,), 0.5)     | torch.arange(5)
torch.arange(1, 7, 2)                | torch.arange(0.0, 1.0, 0.25) | torch.linspace(0, 1, steps=5)
torch.logspace(0, 2, 3, dtype=torch.float64) | torch.eye(3) | torch.eye(2, 3, dtype=torch.int64)
torch.tril_indices(3, 4)             | torch.triu_indices(3, 4, 1) | torch.tensor([[1, 2], [3, 4]])
torch.tensor(2.5)                    | torch.tensor([True, False]) | torch.as_tensor([1.5])
torch.scalar_tensor(3)               | torch.Tensor([1, 2])      | torch.LongTensor([1, 2])
"""

_INDEXING = """
torch.gather(x, 1, i[:, :2]) | x.gather(dim=0, index=i) | torch.take_along_dim(x, i[:1], dim=0)
torch.take(x, i) | torch.index_select(x, 0, i[0]) | x.index_select(dim=1, index=i[0])
x.masked_fill(x > 0, 5.0)            | torch.masked_fill(x, mask=y > 0, value=-float("inf")).exp()
x.scatter(0, i[:1], y[:1]) | torch.scatter(x, 0, i[:1], 1.5) | x.scatter(1, i[:, :1], value=2.0)
x.scatter_add(0, i, y[:2]) | torch.scatter_add(x, 1, i[:, :3], y[:2, :3])
x.index_add(0, i[0, :3], y)
x.index_add(1, i[0], y, alpha=2)     | x.index_copy(0, torch.tensor([2, 0]), y[:2])
x.index_fill(1, torch.tensor([0, 2]), 7.0) | x.index_put((torch.tensor([0, 2]),), v)
torch.searchsorted(v.sort()[0], w)   | torch.searchsorted(v.sort()[0], v, right=True)
torch.bucketize(x, w.sort().values)  | torch.where(k > 0, k, 0)  | x.take_along_dim(i[:1], dim=0)
"""

_PRODUCTS = """
torch.matmul(m, n)                   | m.matmul(n)               | torch.mm(x, y.t())
x.mm(n[0])                           | torch.bmm(m, n)           | m.bmm(mat2=n)
torch.mv(x, v)                       | torch.dot(v, w)           | v.dot(w)
torch.inner(x, y)                    | torch.outer(v, w)         | torch.ger(v, w)
torch.addmm(x[:, :3], x, n[0])       | torch.addmm(x[:, :3], x, n[0], beta=0.5, alpha=2)
torch.addmv(v[:3], x, w)             | torch.addr(x[:, :3].t()[:, :3], v[:3], w[:3])
torch.baddbmm(m[:, :, :3], m, n) | torch.addbmm(x[:, :3], m, n) | torch.einsum("ij,kj->ik", x, y)
torch.einsum("bij,bjk", m, n) | torch.einsum("ii->i", x[:, :3])
torch.tensordot(x, y, dims=([1], [1]))
torch.tensordot(x, n[0], dims=1)     | torch.kron(x, y[:2, :2])  | torch.chain_matmul(x, n[0], y)
torch.linalg.multi_dot([x, n[0], y]) | torch.linalg.matmul(x, n[0])
torch.linalg.cross(x[:, :3], y[:, :3])
torch.vdot(v, w) | torch.linalg.diagonal(m) | torch.cross(x[:, :3], y[:, :3], dim=0)
"""

_COMBINING = """
torch.cdist(x, y)                    | torch.cdist(m, m[:, :2], p=1) | torch.isin(k, i)
torch.isin(k, i, invert=True)        | torch.cartesian_prod(v, w) | torch.combinations(v, 2)
torch.combinations(v, r=2, with_replacement=True) | torch.block_diag(x, y[:2])
torch.block_diag(v, x)
torch.dstack([x, y])                 | torch.dstack([v, w])      | torch.hsplit(x, 2)
torch.vsplit(x, (1, 2))              | torch.hsplit(v, (1,))     | torch.diagflat(x, 1)
torch.cov(x)                         | torch.cov(x, correction=0) | torch.corrcoef(x)
torch.matrix_power(x[:, :3], 3)      | torch.matrix_power(x[:, :3], 0) * x[:, :3]
torch.trapezoid(x)                   | torch.trapezoid(x, dx=0.5, dim=0) | torch.trapezoid(x, v)
torch.vander(v.detach())             | torch.vander(v.detach(), N=3, increasing=True)
torch.ldexp(x, y)
x.select_scatter(v, 0, 1)            | x.slice_scatter(y[:2], 0, 1, 3) | torch.logcumsumexp(x, 1)
torch.split_with_sizes(x, [1, 3], 1) | torch.atleast_3d(x)       | torch.atleast_3d(v)
torch.layer_norm(x, (4,))            | torch.relu_(x.clone())    | torch.selu(x)
"""

_WRITING = """
x.clone().add_(y)                    | x.clone().add_(y, alpha=2) | x.clone().sub_(1)
x.clone().mul_(y)                    | x.clone().div_(p)         | x.clone().pow_(2)
x.clone().clamp_(-0.5, 0.5)          | x.clone().clamp_(min=0)   | x.clone().zero_()
x.clone().fill_(2.0)                 | x.clone().copy_(v)        | x.clone().exp_()
p.clone().sqrt_()                    | p.clone().log_()          | x.clone().neg_()
x.clone().tanh_()                    | x.clone().sigmoid_()      | x.clone().relu_()
x.clone().abs_()                     | x.clone().round_()        | x.clone().addcmul_(y, p, value=2)
x.clone().addcdiv_(y, p) | x.clone().lerp_(y, 0.25) | x.clone().masked_fill_(y > 0, 1.0)
x.clone().scatter_(0, i[:1], y[:1]) | x.clone().scatter_add_(0, i, y[:2])
x.clone().index_add_(0, i[0, :3], y)
x.clone().index_fill_(1, torch.tensor([1]), 3.0) | x.clone().tril_() | x.clone().triu_(1)
x.clone().fill_diagonal_(4.0)        | x.clone().reciprocal_()   | x.clone().floor_()
"""

_FUNCTIONAL = """
F.relu(x)                            | F.relu(x.clone(), inplace=True) | F.softmax(x, dim=1)
F.log_softmax(x, dim=-1)             | F.leaky_relu(x, 0.2)      | F.hardshrink(d)
F.softshrink(d)                      | F.threshold(x, 0.1, 2.0)  | F.pairwise_distance(x, y)
F.one_hot(i, num_classes=4)          | F.one_hot(i, 5)           | F.normalize(x, dim=1)
F.margin_ranking_loss(x, y, torch.sign(p), margin=0.3) | F.triplet_margin_loss(x, y, p)
F.triplet_margin_loss(x, y, p, swap=True, reduction="sum") | F.poisson_nll_loss(x, p)
F.poisson_nll_loss(p, p * 4, log_input=False, full=True) | F.linear(x, y) | F.mse_loss(x, y)
F.cross_entropy(x, i[0, :3])         | F.pad(x, (1, 1))          | F.embedding(i, x)
F.layer_norm(x, (4,)) | F.gelu(x, approximate="tanh") | F.dropout(x, 0.5, training=False)
F.cosine_similarity(x, y, dim=1) | F.sigmoid(x) | F.scaled_dot_product_attention(m, m, m)
"""

_GROUPS = {
    "pointwise": _POINTWISE,
    "reductions": _REDUCTIONS,
    "shapes": _SHAPES,
    "indexing": _INDEXING,
    "products": _PRODUCTS,
    "combining": _COMBINING,
    "writing": _WRITING,
    "functional": _FUNCTIONAL,
}

RECORDED = 20


def _run(code: Any, names: list[str]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The line with the facade, and with PyTorch."""

    def ours(*xs: Any) -> Any:
        given = dict(zip(names, map(treadle.torch.as_tensor, xs), strict=True))
        scope = {"torch": treadle.torch, "F": treadle.torch.nn.functional}
        return _tensors(eval(code, scope, given))

    def theirs(torch: Any, *xs: Any) -> Any:
        scope = {"torch": torch, "F": torch.nn.functional}
        return _tensors(eval(code, scope, dict(zip(names, xs, strict=True))))

    return ours, theirs


def _tensors(found: Any) -> Any:
    """What the line gives; slices of a tuple share storage, which a compiled call keeps."""
    return tuple(found) if isinstance(found, (tuple, list)) else found


def _case(number: int, line: str) -> Case:
    code = compile(line, "facade", "eval")
    names = [n for n in _OPERANDS if n in code.co_names]
    ours, theirs = _run(code, names)
    # The facade is a thin layer: few lines tell that it is one in a trace too. (What x[x > 0] has
    # for a shape only a run can tell.)
    whole = number % 16 == 0 and "x[x > 0]" not in line
    return Case(line, ours, theirs, tuple(_OPERANDS[n] for n in names), whole=whole)


LINES = [
    line.strip()
    for text in _GROUPS.values()
    for row in text.strip().splitlines()
    for line in row.split(" | ")
]
CASES = [_case(number, line) for number, line in enumerate(LINES)]
