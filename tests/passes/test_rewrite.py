"""The rule driver: rules compose, are logged, end, and may come from a user's own file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from treadle.ir.builder import Builder
from treadle.ir.errors import VerifyError
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.interpreter import interpret
from treadle.ir.op import get_op
from treadle.ir.parser import parse_function
from treadle.ir.types import TensorType, float32
from treadle.passes import canonicalize
from treadle.passes.manager import PassContext, run_pass
from treadle.passes.rewrite import BUDGET, RuleSet, made_by, rewrite


def program(*ops: str) -> Function:
    b = Builder("f")
    x = b.param(TensorType(float32, (4,)), "x")
    for op in ops:
        x = b.call(op, x)
    return b.finish([Result(x, "y")])


def ops_of(fn: Function) -> list[str]:
    return [i.op.name for i in fn.instrs]


def driven(fn: Function, rules: RuleSet) -> tuple[Function, PassContext]:
    ctx = PassContext()
    return rewrite(fn, lambda i: rules.of(i.op.name), ctx), ctx


@pytest.fixture
def rules() -> RuleSet:
    return RuleSet()


def test_what_a_rule_emits_is_matched_again(rules: RuleSet) -> None:
    @rules.rule("sin")
    def sin_to_cos(b: Builder, i: Instr) -> Value:
        """sin = cos"""
        return b.call("cos", i.args[0])

    @rules.rule("cos")
    def cos_to_tanh(b: Builder, i: Instr) -> Value:
        """cos = tanh"""
        return b.call("tanh", i.args[0])

    done, ctx = driven(program("sin", "neg"), rules)
    assert ops_of(done) == ["tanh", "neg"]
    assert [n.name for n in ctx.rules] == ["sin_to_cos", "cos_to_tanh"]


def test_a_rule_sees_operands_that_are_rewritten_already(rules: RuleSet) -> None:
    @rules.rule("neg")
    def two_negs(b: Builder, i: Instr) -> Value | None:
        """--x = x"""
        inner = made_by(i.args[0], "neg")
        return inner.args[0] if inner else None

    assert ops_of(driven(program(*["neg"] * 7), rules)[0]) == ["neg"]
    assert ops_of(driven(program(*["neg"] * 8), rules)[0]) == []


def test_nothing_fired_means_the_same_function(rules: RuleSet) -> None:
    @rules.rule("sin")
    def never(b: Builder, i: Instr) -> Value | None:
        """sin = sin"""
        return None

    fn = program("sin", "cos")
    assert driven(fn, rules)[0] is fn


def test_instructions_that_no_rule_touches_are_reused(rules: RuleSet) -> None:
    @rules.rule("cos")
    def drop(b: Builder, i: Instr) -> Value:
        """cos x = x"""
        return i.args[0]

    fn = program("sin", "exp", "cos", "neg")
    done, _ = driven(fn, rules)
    assert ops_of(done) == ["sin", "exp", "neg"]
    assert done.instrs[:2] == fn.instrs[:2]


def test_rules_that_undo_each_other_end_with_a_note(rules: RuleSet) -> None:
    @rules.rule("sin")
    def there(b: Builder, i: Instr) -> Value:
        """sin = cos"""
        return b.call("cos", i.args[0])

    @rules.rule("cos")
    def back(b: Builder, i: Instr) -> Value:
        """cos = sin"""
        return b.call("sin", i.args[0])

    done, ctx = driven(program("sin", "neg"), rules)
    assert ops_of(done) in (["sin", "neg"], ["cos", "neg"])
    assert len(ctx.rules) == BUDGET
    (note,) = ctx.reasons
    assert note.kind == "budget"
    assert note.text.startswith("back stopped")


def test_a_rule_that_grows_without_end_is_stopped(rules: RuleSet) -> None:
    @rules.rule("sin")
    def grow(b: Builder, i: Instr) -> Value:
        """sin x = -sin x"""
        return b.neg(b.call("sin", i.args[0]))

    done, ctx = driven(program("sin", "sin"), rules)
    assert ops_of(done).count("neg") == 2 * BUDGET
    assert len(ctx.reasons) == 2


def test_a_replacement_of_another_type_names_the_rule(rules: RuleSet) -> None:
    @rules.rule("sin")
    def wrong(b: Builder, i: Instr) -> Value:
        """sin x = sum sin x"""
        return b.sum(i.args[0])

    with pytest.raises(VerifyError, match="rule 'wrong' replaced sin"):
        driven(program("sin"), rules)


def test_a_rule_must_say_its_identity_and_have_a_name_of_its_own(rules: RuleSet) -> None:
    def silent(b: Builder, i: Instr) -> Value | None:
        return None

    with pytest.raises(ValueError, match="needs a docstring"):
        rules.rule("sin")(silent)
    silent.__doc__ = "sin = sin"
    rules.rule("sin")(silent)
    with pytest.raises(ValueError, match="already"):
        rules.rule("cos")(silent)
    rules.remove("silent")
    assert list(rules) == []


def test_rules_reach_into_regions(rules: RuleSet) -> None:
    @rules.rule("sin")
    def sin_to_cos(b: Builder, i: Instr) -> Value:
        """sin = cos"""
        return b.call("cos", i.args[0])

    fn = parse_function("""\
func @f(%0: f32[8] "x") {
  %1: f32[8] = fused(%0, space=(8,), reduced=()) {
    func @k(%2: f32[8] "a") {
      %3: f32[8] = sin(%2)
      return %3 "r"
    }
  }
  return %1 "y"
}""")
    done, _ = driven(fn, rules)
    assert ops_of(done.instrs[0].regions[0]) == ["cos"]
    assert ops_of(fn.instrs[0].regions[0]) == ["sin"]


@pytest.fixture
def _user_rule() -> Iterator[None]:
    @canonicalize.RULES.rule("sin")
    def sine_is_odd(b: Builder, i: Instr) -> Value | None:
        """sin(-x) = -sin(x)"""
        inner = made_by(i.args[0], "neg")
        return b.neg(b.call("sin", inner.args[0])) if inner else None

    yield
    canonicalize.RULES.remove("sine_is_odd")


@pytest.mark.usefixtures("_user_rule")
def test_a_users_rule_takes_part_in_its_pass() -> None:
    done = run_pass(canonicalize.PASS, program("neg", "sin", "neg"))
    assert ops_of(done) == ["sin"]


def test_every_rule_of_canonicalize_starts_at_known_ops_and_says_its_identity() -> None:
    for rule in canonicalize.RULES:
        assert rule.identity
        for op in rule.ops:
            get_op(op)


def test_x_plus_zero_is_not_x() -> None:
    """The example of a rule that only seems exact: it would turn 0 into -0."""
    b = Builder("f")
    x = b.param(TensorType(float32, (2,)), "x")
    fn = b.finish([Result(b.add(x, 0.0), "y")])
    (y,) = interpret(run_pass(canonicalize.PASS, fn), [np.array([-0.0, 0.0], np.float32)])
    assert not np.signbit(y).any()
