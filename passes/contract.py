"""matmul -> contract: one einsum over contiguous operands, with everything around it absorbed.

    %2: f32[64, 32] = permute(%0, perm=(1, 0))
    %3: f32[64, 10] = matmul(%2, %1)           ->   %3: f32[64, 10] = contract(%0, %1, spec="km,kn->mn")

  - A permute of an operand, and of the result where nothing else uses it, is an order of letters.
  - A batch axis along which an operand was broadcast is a letter that its term lacks.
  - A sum over axes of the result that both operands have (a weight's gradient over a batch), where
    nothing else uses the result, is a letter that the result lacks.
  - Letters that stand side by side wherever they stand become one, through reshapes, which are
    free views: [.., m, k] @ [k, n] is one two-dimensional product, and two batch axes are one.

A letter is named after its role: `b` in both operands and the result, `m` in the left one and the
result, `n` in the right one and the result, `k` summed; further ones of a role get other letters.
"""  # noqa: E501  the example is one line of IR each

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from string import ascii_letters
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value, uses
from treadle.ir.types import Size, size_product
from treadle.passes.copier import Copier
from treadle.passes.manager import PassContext

_OTHERS = "".join(c for c in ascii_letters if c not in "bkmn")
_CHOICES = {
    "b": "b" + _OTHERS,
    "m": "m" + _OTHERS[6:],
    "n": "n" + _OTHERS[12:],
    "k": "k" + _OTHERS[8:],
}  # the letters to try for each role


@dataclass(frozen=True, slots=True)
class Term:
    """An operand and the axis label of each of its dimensions."""

    value: Value
    labels: tuple[str, ...]


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with each matmul as a contraction. Permutes that were absorbed are left behind dead."""
    if not any(i.op.name == "matmul" for i in fn.instrs):
        return fn
    users, outputs = uses(fn), set(fn.outputs)
    absorbed: dict[Instr, Value] = {}
    copier = Copier(fn)
    for instr in fn.instrs:
        if instr in absorbed:
            copier.replace(instr.result, absorbed[instr])
        elif instr.op.name == "matmul":
            with copier.builder.at(instr.loc):
                left, right = _terms(copier.builder, copier.renewed(instr))
                tail = list(_absorbable(instr, left, right, users, outputs))
                new = _contract(copier.builder, instr, left, right, tail)
            copier.replace(instr.result, new)
            absorbed.update((link, new) for link in tail)
            ctx.fired("contract", instr.loc, "".join(f" and {t.op.name}" for t in tail)[5:])
        else:
            copier.keep(instr)
    return copier.finish()


def _absorbable(
    instr: Instr,
    left: Term,
    right: Term,
    users: Mapping[Value, Sequence[Instr]],
    outputs: set[Value],
) -> Iterator[Instr]:
    """The chain of permutes, then at most one sum over batch axes, that alone uses the result."""
    labels = _labels(instr)
    in_both = set(left.labels) & set(right.labels)
    in_none = set(labels) - set(left.labels) - set(right.labels)  # they have size 1
    shared = in_both | in_none
    value = instr.result
    while value not in outputs and len(users.get(value, ())) == 1:
        (user,) = users[value]
        attrs: Any = user.attrs
        if user.op.name == "permute":
            labels = tuple(labels[p] for p in attrs.perm)
        elif user.op.name == "sum" and {labels[a] for a in attrs.axes} <= shared:
            yield user
            return
        else:
            return
        yield user
        value = user.result


def _labels(matmul: Instr) -> tuple[str, ...]:
    """One label for each axis of the result."""
    return (*_batch(matmul.result.type.rank - 2), "m", "n")


def _batch(rank: int) -> tuple[str, ...]:
    """Labels of batch axes; `rank` of them, counted from the last."""
    return tuple(f"batch{i}" for i in range(rank - 1, -1, -1))


def _contract(b: Builder, matmul: Instr, left: Term, right: Term, tail: Sequence[Instr]) -> Value:
    """The contraction that stands for `matmul` and `tail`, of the type of the last of them."""
    last = tail[-1] if tail else matmul
    present = {*left.labels, *right.labels}  # a batch axis of size 1 is in neither
    out = tuple(label for label in _result_labels(matmul, tail) if label in present)
    sizes: dict[str, Size] = {}
    for term in (left, right):
        sizes.update(zip(term.labels, term.value.type.shape, strict=True))
    runs = _runs((left.labels, right.labels, out))  # equal layers ask the same
    letters = _letters(left.labels, right.labels, out)
    terms = [_merged(b, t, runs, sizes) for t in (left, right)]
    spec = f"{_spelled(left.labels, letters)},{_spelled(right.labels, letters)}"
    value = b.call("contract", *terms, spec=f"{spec}->{_spelled(out, letters)}")
    return b.reshape(value, last.result.type.shape)


def _terms(b: Builder, matmul: Instr) -> tuple[Term, Term]:
    """Both operands; an axis along which both are broadcast stays in the right one."""
    left, right = matmul.args
    batch = right.type.shape[:-2]
    sizes: dict[str, Size] = dict(zip(_batch(len(batch)), batch, strict=True))
    first = _term(b, left, "mk", sizes)
    sizes = dict(zip(first.labels, first.value.type.shape, strict=True))
    return first, _term(b, right, "kn", sizes)


def _term(b: Builder, operand: Value, inner: str, other: Mapping[str, Size]) -> Term:
    """The operand behind its permutes and broadcasts, without its axes of size 1. `other`: the
    batch axes that the other operand has."""
    labels: tuple[str, ...] = (*_batch(operand.type.rank - 2), *inner)
    while operand.producer is not None:
        attrs: Any = operand.producer.attrs
        source = operand.producer.args[0] if operand.producer.args else None
        if source is not None and operand.producer.op.name == "permute":
            base = [""] * len(labels)
            for label, axis in zip(labels, attrs.perm, strict=True):
                base[axis] = label
            labels = tuple(base)
        elif source is not None and _is_batch_broadcast(operand, source, labels, other):
            labels = labels[operand.type.rank - source.type.rank :]
        else:
            break
        operand = source
    kept = [
        i
        for i, label in enumerate(labels)
        if not (label.startswith("batch") and operand.type.shape[i] == 1)
    ]
    shape = [operand.type.shape[i] for i in kept]
    return Term(b.reshape(operand, shape), tuple(labels[i] for i in kept))


def _is_batch_broadcast(
    operand: Value, source: Value, labels: tuple[str, ...], other: Mapping[str, Size]
) -> bool:
    """Is `operand` a broadcast of `source` along batch axes only, whose sizes the other has?"""
    if operand.producer is None or operand.producer.op.name != "broadcast_to":
        return False
    extra = operand.type.rank - source.type.rank
    for i, label in enumerate(labels):
        had = source.type.shape[i - extra] if i >= extra else 1
        size = operand.type.shape[i]
        if had != size and not (label.startswith("batch") and other.get(label) == size):
            return False
        if i < extra and not label.startswith("batch"):
            return False
    return True


def _result_labels(matmul: Instr, tail: Sequence[Instr]) -> tuple[str, ...]:
    labels = _labels(matmul)
    for link in tail:
        attrs: Any = link.attrs
        if link.op.name == "permute":
            labels = tuple(labels[p] for p in attrs.perm)
        else:
            labels = tuple(label for i, label in enumerate(labels) if i not in attrs.axes)
    return labels


# --- letters ---------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _runs(terms: tuple[tuple[str, ...], ...]) -> Mapping[str, tuple[str, ...]]:
    """For each label the run that it belongs to: labels that stand side by side, in one order,
    in every term that has one of them."""
    after: dict[str, set[str | None]] = {}
    before: dict[str, set[str | None]] = {}
    for term in terms:
        for here, there in zip(term, (*term[1:], None), strict=True):
            after.setdefault(here, set()).add(there)
        for here, there in zip(term, (None, *term[:-1]), strict=True):
            before.setdefault(here, set()).add(there)
    runs: dict[str, tuple[str, ...]] = {}
    for label in after:
        (first,) = before[label] if len(before[label]) == 1 else (None,)
        if first is not None and after[first] == {label}:
            continue  # inside a run
        run, here = [label], label
        while len(after[here]) == 1:
            (following,) = after[here]
            if following is None or before[following] != {here}:
                break
            run.append(following)
            here = following
        runs.update((each, tuple(run)) for each in run)
    return runs


@lru_cache(maxsize=256)
def _letters(
    left: tuple[str, ...], right: tuple[str, ...], out: tuple[str, ...]
) -> Mapping[str, str]:
    """A letter for the first label of each run, named after the run's role."""
    runs = _runs((left, right, out))
    letters: dict[str, str] = {}
    for label in (*out, *left, *right):
        head = runs[label][0]
        if head in letters:
            continue
        if head not in out:
            role = "k"
        elif head in left and head in right:
            role = "b"
        else:
            role = "m" if head in left else "n"
        taken = letters.values()
        letters[head] = next(c for c in _CHOICES[role] if c not in taken)
    return letters


def _merged(
    b: Builder, term: Term, runs: Mapping[str, tuple[str, ...]], sizes: Mapping[str, Size]
) -> Value:
    heads = [label for label in term.labels if runs[label][0] == label]
    return b.reshape(term.value, [size_product(sizes[x] for x in runs[h]) for h in heads])


def _spelled(labels: Sequence[str], letters: Mapping[str, str]) -> str:
    """The letters of a term; labels inside a run are silent."""
    return "".join(letters[label] for label in labels if label in letters)
