"""The pass manager: levels, failures that can be saved, observers, and passes of a user's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from treadle.ir.builder import Builder
from treadle.ir.errors import GradientError, VerifyError
from treadle.ir.graph import Function, Level, Loc, Result
from treadle.ir.parser import parse_function
from treadle.ir.types import TensorType, float32, int64
from treadle.passes import autodiff, cse, dce, expand, stabilize
from treadle.passes.manager import (
    Pass,
    PassContext,
    Record,
    level_of,
    run_pass,
    run_pipeline,
)
from treadle.passes.pipeline import (
    PIPELINE,
    find_pass,
    pipeline,
    register_pass,
    unregister_pass,
)

SOFTMAX = """\
func @f(%0: f32[4, 8] "x") {
  %1: f32[4, 8] = exp(%0)  ; user.py:1
  %2: f32[4, 1] = sum(%1, axes=(1,), keepdims=True)  ; user.py:2
  %3: f32[4, 8] = div(%1, %2)  ; user.py:3
  return %3 "out"
}"""


def test_the_passes_stand_in_the_order_of_the_documentation() -> None:
    names = [p.name for p in PIPELINE]
    assert names == [
        "early_cse", "outline", "stabilize", "attention", "early_loops", "lookups",
        "early_pools", "autodiff", "claim", "pools", "convolution", "expand", "canonicalize",
        "fold", "cse", "dce", "loops", "prints", "fuse",
    ]  # fmt: skip


def test_a_pass_that_changes_nothing_returns_what_it_got() -> None:
    fn = parse_function('func @f(%0: f32[8] "x") {\n  %1: f32[8] = sin(%0)\n  return %1 "y"\n}')
    for pass_ in PIPELINE:
        if pass_.ensures < Level.KERNELS:
            assert run_pass(pass_, fn) is fn


def test_observers_see_every_pass_with_its_notes_and_time() -> None:
    record = Record()
    fn = parse_function(SOFTMAX)
    done = run_pipeline(fn, [stabilize.PASS, dce.PASS], [record])
    assert [s.pass_.name for s in record.steps] == ["stabilize", "dce"]
    first, second = record.steps
    assert first.before is fn
    assert first.after is second.before
    assert second.after is done
    assert [str(n) for n in first.notes] == [
        "user.py:3: softmax_of_quotient: exp(x) / sum(exp(x)) = softmax(x)"
    ]
    assert all(s.milliseconds > 0 for s in record.steps)


def test_reasons_are_kept_apart_from_rules() -> None:
    ctx = PassContext("p")
    ctx.fired("rule", Loc("u.py", 1))
    ctx.reason("not fused", Loc("u.py", 2), "a matmul lies between")
    assert [n.name for n in ctx.rules] == ["rule"]
    assert [str(n) for n in ctx.reasons] == ["u.py:2: not fused: a matmul lies between"]


@pytest.mark.parametrize("mode", ["levels", "all"])
def test_programs_are_verified_before_the_first_pass(mode: str) -> None:
    b = Builder("f")
    x = b.param(TensorType(float32, (4,)), "x")
    other = Builder("g").param(TensorType(float32, (4,)), "y")
    fn = b.finish([Result(b.add(x, other), "out")])
    with pytest.raises(VerifyError, match="not defined before it is used"):
        run_pipeline(fn, [dce.PASS], verify=mode)  # type: ignore[arg-type]


def _break(fn: Function, ctx: PassContext) -> Function:
    """A wrong pass: its result is not defined."""
    return Function(fn.name, fn.params, (), fn.results)


def test_a_broken_pass_is_named_with_the_program_to_save_as_a_test() -> None:
    wrong = Pass("wrong", _break, requires=Level.TRACED, ensures=Level.TRACED)
    fn = parse_function(SOFTMAX)
    with pytest.raises(VerifyError) as caught:
        run_pipeline(fn, [stabilize.PASS, wrong], verify="all")
    message = str(caught.value)
    assert message.startswith("pass 'wrong' broke an invariant of level TRACED")
    assert "result 'out' is not defined in this function" in message
    saved = message[message.index("; save as f.ir") :]
    assert "treadle opt --passes wrong f.ir" in saved
    assert parse_function(saved).instrs[0].op.name == "softmax"


def test_a_change_of_level_is_always_verified() -> None:
    lazy = Pass("lazy", lambda fn, ctx: fn, requires=Level.TRACED, ensures=Level.CORE)
    composite = parse_function(
        'func @f(%0: f32[8] "x") {\n  %1: f32[8] = silu(%0)\n  return %1 "y"\n}'
    )
    with pytest.raises(VerifyError, match="silu: must be gone at level CORE"):
        run_pipeline(composite, [lazy], verify="levels")


def test_a_pass_that_raises_carries_the_program() -> None:
    def crash(fn: Function, ctx: PassContext) -> Function:
        raise ZeroDivisionError("oh")

    wrong = Pass("crash", crash, requires=Level.TRACED, ensures=Level.TRACED)
    with pytest.raises(ZeroDivisionError) as caught:
        run_pipeline(parse_function(SOFTMAX), [wrong])
    (note,) = caught.value.__notes__
    assert parse_function(note).name == "f"


def test_a_pass_that_needs_a_later_level_is_refused_with_what_to_do() -> None:
    low = Pass("low", lambda fn, ctx: fn, requires=Level.CORE, ensures=Level.CORE)
    composite = run_pipeline(parse_function(SOFTMAX), [stabilize.PASS])
    with pytest.raises(VerifyError, match="'low' takes programs at level CORE, found TRACED"):
        run_pipeline(composite, [low])
    assert run_pipeline(composite, [expand.PASS, low]).instrs


def test_a_program_without_composites_is_core_already() -> None:
    low = Pass("low", lambda fn, ctx: fn, requires=Level.CORE, ensures=Level.CORE)
    fn = parse_function(SOFTMAX)
    assert level_of(fn) is Level.CORE
    assert run_pipeline(fn, [low]) is fn


@pytest.fixture
def _registry() -> Iterator[None]:
    yield
    unregister_pass("census")
    unregister_pass("after_census")


def _census(fn: Function, ctx: PassContext) -> Function:
    for instr in fn.instrs:
        ctx.reason("seen", instr.loc, instr.op.name)
    return fn


@pytest.mark.usefixtures("_registry")
def test_a_registered_pass_runs_behind_the_one_it_names() -> None:
    census = Pass("census", _census, requires=Level.TRACED, ensures=Level.TRACED)
    register_pass(census, after="stabilize")
    register_pass(Pass("after_census", _census, Level.TRACED, Level.TRACED), after="census")
    names = [p.name for p in pipeline()]
    at = names.index("stabilize")
    assert names[at : at + 3] == ["stabilize", "census", "after_census"]
    assert find_pass("census") is census
    record = Record()
    before_fusion = [p for p in pipeline() if p.ensures < Level.KERNELS]
    run_pipeline(parse_function(SOFTMAX), before_fusion, [record], verify="all")
    (step,) = [s for s in record.steps if s.pass_ is census]
    assert [n.text for n in step.notes] == ["softmax"]
    register_pass(census, after="dce")
    assert [p.name for p in pipeline()].index("census") > names.index("dce") - 2
    unregister_pass("census")
    assert pipeline() == PIPELINE


@pytest.mark.usefixtures("_registry")
def test_a_pass_cannot_take_the_place_of_another() -> None:
    own = Pass("cse", _census, requires=Level.TRACED, ensures=Level.TRACED)
    with pytest.raises(ValueError, match="'cse' is one of Treadle's own"):
        register_pass(own, after="dce")
    census = Pass("census", _census, requires=Level.TRACED, ensures=Level.TRACED)
    with pytest.raises(KeyError, match="did you mean stabilize"):
        register_pass(census, after="stabilise")
    assert pipeline() == PIPELINE


# --- what autodiff refuses ----------------------------------------------------------------------


def test_a_derivative_by_an_integer_names_the_line() -> None:
    b = Builder("f", Loc("user.py", 7))
    n = b.call("variable", b.param(TensorType(int64, (3,)), "n"))
    with pytest.raises(GradientError, match=r"i64\[3\] at user.py:7: only floats"):
        autodiff.differentiate(b, [], [], [n], b.loc)


def test_a_derivative_by_something_else_than_a_variable_is_refused() -> None:
    b = Builder("f")
    x = b.param(TensorType(float32, (3,)), "x")
    with pytest.raises(GradientError, match="expected a result of `variable`"):
        autodiff.differentiate(b, [x], [x], [x], None)


def test_cse_keeps_the_line_of_the_first() -> None:
    text = SOFTMAX.replace("%2: f32[4, 1] = sum(%1", "%9: f32[4, 8] = exp(%0)  ; user.py:9\n"
                           "  %2: f32[4, 1] = sum(%9")  # fmt: skip
    done = run_pass(cse.EARLY, parse_function(text))
    assert [str(i.loc) for i in done.instrs] == ["user.py:1", "user.py:2", "user.py:3"]
