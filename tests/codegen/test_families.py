"""Every op of the table as assembly of each family, whether or not this machine can run it.

What runs here is compared with references by the tests beside; these hold the text: vectors and
fused multiply-adds of the family, registers of no other one, no call into a library.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Final

import numpy as np
import pytest
from native_call import emitted_for, function_of, lowered
from test_compiled_ops import OPS

from treadle.codegen.pool import Parking, emit_pool
from treadle.codegen.target import NAMES, Target, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.op import get_op
from treadle.ir.ops.attention_kernels import AttentionKernelAttrs
from treadle.ir.types import TensorType, float32
from treadle.runtime.native import assembly

# The registers of a family, and those that a plainer one does not have. NEON names its vectors
# v0.4s and the like; sN and dN are its scalars.
_OWN: Final = {
    "sse2": r"%xmm\d",
    "avx2": r"%ymm\d",
    "avx512": r"%zmm\d",
    "neon": r"\bv\d+\.(4s|2d)\b",
}
_FOREIGN: Final = {
    "sse2": r"%[yz]mm|^\s+v[a-z]+(ps|pd|ss|sd)\b",
    "avx2": r"%zmm|%k[1-7]\b|%xmm(1[6-9]|[23]\d)",
    "avx512": r"\bv\d+\.(4s|2d)\b",
    "neon": r"%[a-z]",
}
_CALL: Final = re.compile(r'^\s+(?:callq?|jmpq?|bl?)\s+"?([\w.$]+)', re.MULTILINE)
_LABEL: Final = re.compile(r'^"?([^"\s#:]+)"?:', re.MULTILINE)


def foreign_calls(text: str) -> set[str]:
    """Functions that are called or jumped to and not defined in the same text."""
    defined = set(_LABEL.findall(text))
    return {c for c in _CALL.findall(text) if c not in defined and not c.startswith((".L", "LBB"))}


def made_of(text: str, name: str) -> str:
    """The first line that another family's registers or instructions are in, or nothing."""
    found = re.search(_FOREIGN[name], text, re.MULTILINE)
    if found is None:
        return ""
    return text[text.rfind("\n", 0, found.start()) + 1 : text.find("\n", found.end())]


def text_of(fn: Function, target: Target) -> str:
    return assembly(emitted_for(lowered(fn), target)[2].ir, target)


@cache
def texts(name: str) -> dict[str, str]:
    """Assembly of the largest sample of each op."""
    found = {}
    for op in OPS:
        samples = list(op.samples(np.random.default_rng(2)))
        sample = max(samples, key=lambda s: sum(a.size for a in s.args), default=None)
        if sample is not None:
            found[op.name] = text_of(function_of(op, sample.attrs, sample.args), named(name))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_op_is_made_of_its_familys_instructions(name: str) -> None:
    wide = re.compile(_OWN[name])
    for op, text in texts(name).items():
        assert made_of(text, name) == "", op
    assert wide.search(texts(name)["add"])
    assert wide.search(texts(name)["exp"])


@pytest.mark.parametrize("name", NAMES)
def test_no_op_calls_a_library(name: str) -> None:
    """memcpy is what LLVM makes of copying a whole array."""
    called = {op: foreign_calls(text) - {"memcpy"} for op, text in texts(name).items()}
    assert {op: names for op, names in called.items() if names} == {}


def test_the_checks_notice_a_foreign_register_and_a_library_call() -> None:
    ours = texts("avx2")["exp"]
    assert made_of(ours, "avx512") == ""
    assert "%ymm" in made_of(ours, "sse2")
    assert made_of(texts("avx512")["exp"], "avx2")
    assert made_of(ours, "neon")
    assert foreign_calls("f:\n  callq expf@PLT\n  jmp .LBB0_1\n  callq f\n") == {"expf"}
    assert foreign_calls("f:\n  bl _expf\n  b LBB0_1\n") == {"_expf"}


def contraction() -> Function:
    b = Builder("f")
    x, y = (b.param(TensorType(float32, (64, 64)), n) for n in "xy")
    return b.finish([Result(b.call("relu", b.call("matmul", x, y)), "z")])


def split_reduction() -> Function:
    b = Builder("f")
    x = b.param(TensorType(float32, (1 << 20,)), "x")
    return b.finish([Result(b.sum(b.mul(x, x), (0,)), "total")])


def attention(backward: bool) -> Function:
    attrs = AttentionKernelAttrs(0.5, True)
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal((2, 40, 16)).astype(np.float32) for _ in range(3)]
    if not backward:
        return function_of(get_op("attention_forward"), attrs, operands)
    left = get_op("attention_forward").run_ref(attrs, operands)
    return function_of(get_op("attention_backward"), attrs, [*operands, *left, left[0]])


KERNELS: Final = {
    "a contraction": contraction,
    "a reduction in parts": split_reduction,
    "attention": lambda: attention(backward=False),
    "attention, backward": lambda: attention(backward=True),
}
# A multiply-add of whole vectors; SSE2 multiplies and adds.
_MULTIPLY_ADD: Final = {
    "sse2": r"mulps\s.*%xmm",
    "avx2": r"vfn?madd\w+ps\s.*%ymm",
    "avx512": r"vfn?madd\w+ps\s.*%zmm",
    "neon": r"\bfml[as]\s+v\d+\.4s",
}
_MULTIPLY: Final = {
    "sse2": r"mulps\s.*%xmm",
    "avx2": r"vmulps\s.*%ymm",
    "avx512": r"vmulps\s.*%zmm",
    "neon": r"\bfmul\s+v\d+\.4s",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_multiply_and_add_whole_vectors(kernel: str, name: str) -> None:
    text = text_of(KERNELS[kernel](), named(name))
    assert made_of(text, name) == ""
    assert foreign_calls(text) <= {"memcpy", "memset"}
    # Elementwise products that are summed are never contracted.
    wanted = _MULTIPLY if kernel == "a reduction in parts" else _MULTIPLY_ADD
    assert re.search(wanted[name], text)


@pytest.mark.parametrize(
    ("system", "parking", "calls"),
    [
        ("aarch64-unknown-linux-gnu", "futex", {"syscall", "clock_gettime", "pthread_create"}),
        ("arm64-apple-darwin", "condition", {"_pthread_cond_wait", "_pthread_create"}),
        ("aarch64-unknown-linux-gnu", "condition", {"pthread_cond_wait", "pthread_create"}),
    ],
)
def test_the_pool_of_an_arm_system_needs_its_c_library_alone(
    system: str, parking: Parking, calls: set[str]
) -> None:
    target = replace(named("neon"), triple=system)
    text = assembly(emit_pool(target, parking), target)
    assert made_of(text, "neon") == ""
    assert "yield" in text
    assert re.search(r"\bldaxr|\bstlxr|\bcas", text)
    used = foreign_calls(text)
    assert calls <= used
    known = r"_?(pthread_\w+|sched_\w+|syscall|clock_gettime|sigfillset|memset|bzero)"
    assert all(re.fullmatch(known, name) for name in used), used
