"""Profiles: what they measure, that they change nothing, and the files that they write."""

import json
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.codegen.stamps import first_events
from treadle.codegen.target import named
from treadle.ir.graph import Function, Loc
from treadle.ir.work import Work
from treadle.runtime import knobs
from treadle.runtime.driver import compile_stages
from treadle.runtime.machine import Bandwidth, Machine
from treadle.runtime.profile_report import Event, KernelTime, Profile
from treadle.tracer.backend import CompileOptions

MACHINE = Machine(
    "a CPU", "host", 2, 100e9, 200e9, 40e9, 40e9,
    (Bandwidth(1 << 16, 100e9, 200e9, 100e9, 200e9), Bandwidth(1 << 26, 30e9, 40e9, 30e9, 40e9)),
)  # fmt: skip


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.runtime.profile.measured_machine", lambda: MACHINE)


class Trainer:
    """A small network with everything that a step changes."""

    def __init__(self) -> None:
        treadle.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        self.optimizer = treadle.optim.Adam(self.model.parameters(), lr=1e-2)
        self.x = treadle.tensor(np.random.default_rng(0).standard_normal((8, 16), np.float32))
        self.y = treadle.tensor(np.arange(8) % 4)

    @treadle.jit
    def step(self, x: treadle.Tensor, y: treadle.Tensor) -> treadle.Tensor:
        loss = treadle.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[np.ndarray]:
        values = [p.numpy().copy() for p in self.model.parameters()]
        for p in self.model.parameters():
            values += [np.asarray(v).copy() for v in self.optimizer.state[p].values()]
        return values


def test_a_profile_has_a_row_for_each_kernel_with_the_users_lines() -> None:
    trainer = Trainer()
    profile = trainer.step.profile(trainer.x, trainer.y, repeat=3)
    spec = Trainer.step.compiled(trainer, trainer.x, trainer.y)
    plan = spec.executable.stage("plan")
    assert [r.kernel for r in profile.rows] == [
        line.split(":")[0] for line in plan.splitlines() if line.startswith("k")
    ]
    assert all(r.seconds > 0 for r in profile.rows if r.work.flops > 1000)
    assert sum(r.seconds for r in profile.rows) <= profile.seconds
    ours = Path(__file__).name
    assert all(Path(loc.file).name == ours for r in profile.rows for loc in r.lines)
    text = str(profile)
    for piece in ("@step", "the least of 3", "GFLOP/s", "GB/s", "of limit", ours, "(between)"):
        assert piece in text


def test_profiling_a_train_step_changes_no_state() -> None:
    profiled, plain = Trainer(), Trainer()
    for trainer in (profiled, plain):
        trainer.step(trainer.x, trainer.y)
    before = profiled.state()
    kept = [id(p.cell.buffer) for p in profiled.model.parameters()]
    profiled.step.profile(profiled.x, profiled.y, repeat=4)
    assert all(np.array_equal(a, b) for a, b in zip(before, profiled.state(), strict=True))
    assert kept == [id(p.cell.buffer) for p in profiled.model.parameters()]
    for trainer in (profiled, plain):
        trainer.step(trainer.x, trainer.y)
    assert all(map(np.array_equal, profiled.state(), plain.state()))


def test_a_function_that_was_never_called_is_not_called_by_a_profile() -> None:
    seen: list[int] = []
    total = treadle.tensor([1.0, 2.0])

    @treadle.jit
    def count(x: treadle.Tensor) -> None:
        global_state = total
        global_state += x
        treadle.debug_print("total {}", total)
        seen.append(1)

    count.profile(treadle.tensor([1.0, 1.0]), repeat=2)
    assert total.numpy().tolist() == [1.0, 2.0]
    assert not seen


def test_profiled_runs_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    @treadle.jit
    def shown(x: treadle.Tensor) -> treadle.Tensor:
        treadle.debug_print("x {}", x)
        return x + 1

    shown.profile(treadle.tensor([1.0]), repeat=2)
    assert capsys.readouterr().out == ""


def test_types_stand_in_for_tensors_and_results_of_gradients_are_profiled() -> None:
    w = treadle.tensor(np.ones((6, 3), np.float32), requires_grad=True)
    f = treadle.jit(lambda x: treadle.sum(treadle.tanh(x @ w)))
    profile = f.profile(treadle.TensorType(treadle.float32, (5, 6)), repeat=2)
    assert any(r.work.flops >= 2 * 5 * 6 * 3 for r in profile.rows)


def test_a_fault_in_a_profiled_run_is_raised_with_all_state_as_before() -> None:
    table = treadle.tensor(np.zeros((4, 2), np.float32))

    @treadle.jit
    def pick(i: treadle.Tensor) -> treadle.Tensor:
        table[0] = 1.0
        return table[i]

    with pytest.raises(treadle.IndexFault, match="9"):
        pick.profile(treadle.tensor([0, 9]), repeat=2)
    assert not table.numpy().any()


def test_a_profile_inside_of_a_trace_and_a_repeat_of_zero_are_refused() -> None:
    inner = treadle.jit(lambda x: x + 1)

    @treadle.jit
    def outer(x: treadle.Tensor) -> treadle.Tensor:
        inner.profile(x)
        return x

    with pytest.raises(treadle.TraceError, match="profiled inside"):
        outer(treadle.tensor([1.0]))
    with pytest.raises(ValueError, match="at least 1, found 0"):
        inner.profile(treadle.tensor([1.0]), repeat=0)


def test_code_that_is_not_profiled_reads_no_clock() -> None:
    f = treadle.jit(lambda x: treadle.softmax(x @ x, axis=1))
    x = treadle.tensor(np.ones((300, 300), np.float32))
    f(x)
    f.profile(x, repeat=1)
    text = f.ir("llvm")
    assert "counter" not in text
    assert "_timed" not in text
    assert "treadle_clock" not in text


@pytest.mark.parametrize("name", ["sse2", "avx2", "avx512"])
def test_every_family_that_runs_here_can_be_profiled(name: str) -> None:
    if not named(name).runs_here():
        pytest.skip(f"this machine has no {name} instructions")
    knobs.write("TREADLE_TARGET", name)
    try:
        f = treadle.jit(lambda x: treadle.exp(x) @ x)
        profile = f.profile(treadle.tensor(np.ones((64, 64), np.float32)), repeat=2)
    finally:
        knobs.write("TREADLE_TARGET", None)
    assert profile.target.startswith(name)
    assert all(r.seconds > 0 for r in profile.rows)


@pytest.mark.parametrize(("name", "clock"), [("neon", "cntvct"), ("avx2", "rdtsc")])
def test_the_clock_is_one_that_user_code_may_read(name: str, clock: str) -> None:
    traced = treadle.jit(lambda x: treadle.exp(x)).trace(treadle.TensorType(treadle.float32, (9,)))
    text = compile_stages(traced, CompileOptions(profile=True), named(name)).text("asm")
    assert clock in text.lower()
    assert "pmccntr" not in text.lower()


# --- the timeline ----------------------------------------------------------------------------


def test_the_trace_holds_every_tile_once_inside_of_its_kernel(tmp_path: Path) -> None:
    f = treadle.jit(lambda x: treadle.exp(x) + 1, threads=2)
    profile = f.profile(treadle.TensorType(treadle.float32, (1000, 1000)), repeat=3)
    (row,) = profile.rows
    assert row.tiles > 1
    path = tmp_path / "trace.json"
    profile.to_chrome_trace(path)
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    timed = [e for e in events if e["ph"] == "X"]
    (kernel,) = [e for e in timed if e["cat"] == "kernel" and e["name"] == row.kernel]
    tiles = [e for e in timed if e["cat"] == "tile"]
    assert Counter(e["args"]["tile"] for e in tiles) == Counter(range(row.tiles))
    assert {e["tid"] for e in tiles} <= {1, 2}
    for tile in tiles:
        assert kernel["ts"] <= tile["ts"]
        assert tile["ts"] + tile["dur"] <= kernel["ts"] + kernel["dur"] + 1e-6
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert names[0] == "kernels"
    assert {e["tid"] for e in timed} <= set(names)
    assert kernel["args"]["bytes"] == 8_000_000


def test_events_are_numbered_kernel_by_kernel() -> None:
    traced = treadle.jit(lambda x: treadle.sum(treadle.exp(x) @ x, axis=0)).trace(
        treadle.TensorType(treadle.float32, (500, 500))
    )
    plan = compile_stages(traced, CompileOptions(profile=True), named("sse2")).plan
    first = first_events(plan)
    sizes = [b - a for a, b in pairwise(first)]
    assert first[0] == 1
    assert sizes == [1 + (k.tiles if k.tiles > 1 else 0) for k in plan.kernels]


# --- the report ------------------------------------------------------------------------------

ROW = KernelTime("k0_f", "map", (Loc("/a/b.py", 3),), 1e-3, Work(10**8, 10**6, 10**6, 4), 4)
PROFILE = Profile(
    "f", "host", 2, 5, 2e-3, (ROW,), (Event("step", None, 0, 0.0, 2e-3),), MACHINE,
    Function("f", (), (), ()),
)  # fmt: skip


def test_the_share_is_the_longer_of_compute_and_memory_over_the_time() -> None:
    assert PROFILE.limit(ROW) == (pytest.approx(5e-4), "FMA")
    assert PROFILE.share(ROW) == pytest.approx(0.5)
    moving = replace(ROW, work=Work(10, 10**6, 10**6, 4))
    assert PROFILE.limit(moving) == (pytest.approx(2e6 / 200e9), "memory")
    assert PROFILE.elsewhere == pytest.approx(1e-3)


def test_a_table_names_lines_rates_and_shares() -> None:
    text = str(PROFILE)
    assert "@f: 2.000 ms a step, the least of 5, 25% of the limit; 2 threads, host" in text
    (line,) = [x for x in text.splitlines() if x.startswith("k0_f")]
    assert line.split() == ["k0_f", "1000.0", "50%", "100.0", "2.0", "50%", "FMA", "4", "b.py:3"]
    assert replace(ROW, tiles=1, parallel=True).tiles_text == "shared"
    assert replace(ROW, tiles=1).tiles_text == "1"


def test_a_step_without_kernels_has_a_profile_too() -> None:
    f = treadle.jit(lambda x: treadle.reshape(x, (4,)))
    profile = f.profile(treadle.tensor([[1.0, 2.0], [3.0, 4.0]]), repeat=1)
    assert profile.rows == ()
    assert "(between)" in str(profile)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_roofline_picture_is_drawn(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    before = sys.modules["matplotlib"].get_backend() if "matplotlib.pyplot" in sys.modules else ""
    idle = replace(ROW, kernel="k1_copy", work=Work(0, 10, 10, 4))
    path = tmp_path / f"roofline.{suffix}"
    replace(PROFILE, rows=(ROW, idle)).roofline(path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    if before:
        assert sys.modules["matplotlib"].get_backend() == before
    if suffix == "svg":
        assert data.count(b"<path") > 5


def test_without_matplotlib_a_picture_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"treadle\[plot\]"):
        PROFILE.roofline(tmp_path / "r.png")
