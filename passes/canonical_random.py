"""Canonical forms of draws of random numbers; part of `canonicalize`.

    %2: i64[] = add(%draws, 1)
    %3: f32[8] = random_uniform(%seed, %2)      ->  %3: f32[8] = random_uniform(%seed, %draws, offset=1)

So every draw of a function depends on the number that its generator enters with, and not on the
sums that count the draws before it: its operands are there from the start.
"""  # noqa: E501  the example is one line of IR each

from __future__ import annotations

from dataclasses import replace
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.graph import Instr, Value
from treadle.passes.patterns import number
from treadle.passes.rewrite import RuleSet, made_by

RULES = RuleSet()


@RULES.rule("random_bits", "random_uniform", "random_normal")
def known_offset(b: Builder, i: Instr) -> Value | None:
    """draw number d + c = draw number d, offset c; modulo 2^64"""
    seed, draw = i.args
    inner = made_by(draw, "add")
    if inner is None:
        return None
    more = number(inner.args[1])
    if more is None or inner.args[0].type.rank:
        return None
    attrs: Any = i.attrs
    return b.emit(i.op, (seed, inner.args[0]), replace(attrs, offset=attrs.offset + int(more)))[0]
