"""Checkpoints: a killed run goes on bitwise, and a file that does not fit changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.data import DataLoader, Dataset, sample_generator
from treadle.nn.weights_file import CheckpointError
from treadle.optim import lr_scheduler

numpy_files = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")


class Noisy(Dataset):
    """Rows with noise that is drawn anew for each epoch."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.rows = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        x, y = (part[index] for part in self.rows)
        return x + sample_generator().normal(size=4).astype(np.float32) / 4, y


class Run:
    """A network with dropout and running statistics, momentum, a schedule, a shuffled loader that
    may have workers and adds noise."""

    def __init__(self, seed: int = 0, width: int = 8, workers: int = 0) -> None:
        treadle.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 3)
        )
        self.optimizer: treadle.optim.Optimizer = treadle.optim.Adam(
            self.model.parameters(), lr=0.05
        )
        if workers:
            norm = nn.BatchNorm1d(3)
            self.model.append(norm)
            self.optimizer = treadle.optim.SGD(
                self.model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
            )
        self.scheduler = lr_scheduler.CosineAnnealingLR(self.optimizer, 50)
        self.loader = DataLoader(Noisy(), 8, shuffle=True, drop_last=True, num_workers=workers)
        model, optimizer = self.model, self.optimizer

        @treadle.jit
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        self.step = step
        self.batches = (batch for _ in range(10**6) for batch in self.loader)

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.step(*next(self.batches))
            self.scheduler.step()

    def parts(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("model", "optimizer", "scheduler", "loader")}

    def weights(self) -> dict[str, Any]:
        return {k: np.array(v.numpy()) for k, v in self.model.state_dict().items()}


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_a_resumed_run_is_bitwise_the_one_that_went_on(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    run = Run()
    run.go(8)
    treadle.save_checkpoint(path, **run.parts(), extra={"best": 0.5})
    draw = treadle.rand(3).numpy()
    run.go(9)
    resumed = Run(seed=9)
    assert treadle.load_checkpoint(path, **resumed.parts()) == {"best": 0.5}
    np.testing.assert_array_equal(treadle.rand(3).numpy(), draw)
    resumed.go(9)
    assert_same(run.weights(), resumed.weights())
    assert run.scheduler.get_last_lr() == resumed.scheduler.get_last_lr()
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_checkpoint import Run
import treadle
run, done = Run(seed=int(sys.argv[1]), workers=2), 0
if Path({path!r}).exists():
    done = treadle.load_checkpoint({path!r}, **run.parts())["steps"]
for step in range(done + 1, {steps} + 1):
    sys.stdin.readline()
    run.go(1)
    treadle.save_checkpoint({path!r}, **run.parts(), extra={{"steps": step}})
    print(step, flush=True)
"""


def test_a_run_killed_again_and_again_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    """Momentum, a schedule, dropout masks, running statistics, the order of samples and the noise
    that workers add: everything goes on where the last whole checkpoint stood."""
    path, steps, rng = tmp_path / "run.safetensors", 40, np.random.default_rng()
    script = KILLED.format(here=str(Path(__file__).parent), path=str(path), steps=steps)
    seen = 0
    for attempt in range(4):
        command = [sys.executable, "-c", script, str(attempt)]
        count = int(rng.integers(4, 10)) if attempt < 3 else steps  # that it may take
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n" * count)
            process.stdin.flush()
            if attempt < 3:
                for _ in range(count - 2):
                    seen = int(process.stdout.readline())
                time.sleep(rng.uniform(0, 0.02))
                process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == (-signal.SIGKILL if attempt < 3 else 0)
        stored = treadle.load_checkpoint(path, **Run(workers=2).parts())["steps"]
        assert stored >= seen
    assert stored == steps
    whole, wanted = Run(workers=2), []
    for more in (steps, 3):
        whole.go(more)
        wanted.append((whole.weights(), whole.scheduler.get_last_lr()))
    killed = Run(seed=9, workers=2)
    treadle.load_checkpoint(path, **killed.parts())
    for more, (weights, rate) in zip((0, 3), wanted, strict=True):
        killed.go(more)
        assert_same(weights, killed.weights())
        assert killed.scheduler.get_last_lr() == rate
    for left in tmp_path.iterdir():  # what was being written when the process died
        assert left == path or left.name.startswith(f".{path.name}.")


def test_the_file_is_plain_safetensors_with_the_model_under_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    run = Run()
    treadle.save_checkpoint(path, model=run.model)
    assert set(numpy_files.load_file(path)) == {
        f"model.{k}" for k in ("0.weight", "0.bias", "3.weight", "3.bias")
    }


def test_an_average_of_the_weights_goes_on_where_it_stood(tmp_path: Path) -> None:
    path, run, other = tmp_path / "a.safetensors", Run(), Run(seed=4)
    averages = [treadle.optim.ExponentialMovingAverage(r.model.parameters(), 0.9)
                for r in (run, other)]  # fmt: skip
    run.go(3)
    averages[0].update()
    treadle.save_checkpoint(path, **run.parts(), average=averages[0])
    treadle.load_checkpoint(path, **other.parts(), average=averages[1])
    for one, two in zip(*(a.averages for a in averages), strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    wider = treadle.optim.ExponentialMovingAverage(Run(width=9).model.parameters())
    before = other.weights()
    with pytest.raises(treadle.ArgumentError, match="the averages have shapes"):
        treadle.load_checkpoint(path, model=other.model, average=wider)
    treadle.save_checkpoint(path, model=run.model)
    with pytest.raises(CheckpointError, match="has no average; it has model"):
        treadle.load_checkpoint(path, model=other.model, average=averages[1])
    assert_same(before, other.weights())


def test_plain_weights_load_into_the_same_architecture(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    rng = np.random.default_rng(0)
    weights = {
        "0.weight": rng.normal(size=(8, 4)).astype(np.float32),
        "0.bias": rng.normal(size=8).astype(np.float16),
        "3.weight": rng.normal(size=(3, 8)),
        "3.bias": np.zeros(3, np.float32),
    }
    numpy_files.save_file(weights, path)
    run = Run()
    treadle.load_checkpoint(path, model=run.model)
    for key, found in run.weights().items():
        np.testing.assert_array_equal(found, weights[key].astype(np.float32))
    with pytest.raises(CheckpointError, match="holds weights only; asked for optimizer"):
        treadle.load_checkpoint(path, model=run.model, optimizer=run.optimizer)


def test_bfloat16_weights_are_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    data = (np.array([1.0, -2.5, 3.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    header = {"weight": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data.tobytes())
    layer = nn.Linear(3, 1, bias=False)
    treadle.load_checkpoint(path, model=layer)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), [[1.0, -2.5, 3.0]])


def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    treadle.save_checkpoint(path, **Run(width=9).parts())
    run = Run()
    run.go(2)
    before, rate = run.weights(), run.scheduler.get_last_lr()
    position = run.loader.state_dict()
    with pytest.raises(treadle.ShapeError, match=r"0\.weight has shape"):
        treadle.load_checkpoint(path, **run.parts())
    treadle.save_checkpoint(path, model=Run().model)
    with pytest.raises(CheckpointError, match="has no optimizer; it has model"):
        treadle.load_checkpoint(path, model=run.model, optimizer=run.optimizer)
    treadle.save_checkpoint(path, **Run().parts())
    sgd = treadle.optim.SGD(run.model.parameters())
    with pytest.raises(treadle.ArgumentError, match="lacks momentum"):
        treadle.load_checkpoint(path, model=run.model, optimizer=sgd)
    plateau = lr_scheduler.ReduceLROnPlateau(run.optimizer)
    with pytest.raises(CheckpointError, match=r"the scheduler in .* lacks best"):
        treadle.load_checkpoint(path, model=run.model, scheduler=plateau)
    with pytest.raises(KeyError, match="missing"):
        treadle.load_checkpoint(path, model=nn.Linear(4, 8))
    for size in (0, 5, 60, 400):
        other.write_bytes(path.read_bytes()[:size])
        with pytest.raises(CheckpointError, match=r"b\.safetensors is damaged"):
            treadle.load_checkpoint(other, **run.parts())
    with pytest.raises(FileNotFoundError, match="none"):
        treadle.load_checkpoint(tmp_path / "none", model=run.model)
    assert_same(before, run.weights())
    assert run.scheduler.get_last_lr() == rate and run.loader.state_dict() == position


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    run = Run()
    treadle.save_checkpoint(path, model=run.model)
    content = path.read_bytes()
    with pytest.raises(TypeError):
        treadle.save_checkpoint(path, model=run.model, extra={"x": object()})
    assert path.read_bytes() == content
    with pytest.raises(
        FileNotFoundError, match=r"there is no folder .*none to write a\.safetensors"
    ):
        treadle.save_checkpoint(tmp_path / "none" / "a.safetensors", model=run.model)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_byte_that_is_damaged_anywhere_is_noticed_before_anything_is_changed(
    tmp_path: Path,
) -> None:
    path, run = tmp_path / "run.safetensors", Run()
    run.go(2)
    treadle.save_checkpoint(path, **run.parts(), extra={"epoch": 1})
    good = path.read_bytes()
    other = Run(seed=1)

    def state() -> list[Any]:
        drawn = treadle.random.default_generator.get_state().tolist()
        return [other.weights(), repr(other.optimizer.state_dict()), drawn]

    before = state()
    rng = np.random.default_rng(0)
    name = good.index(b'"checksum"')  # a file whose note has another name is right in all else
    places = [n for n in rng.permutation(len(good)) if not name <= n < name + 10]
    for at in places[:400]:
        damaged = bytearray(good)
        damaged[at] ^= 1 << rng.integers(0, 3)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"run\.safetensors"):
            treadle.load_checkpoint(path, **other.parts())
    np.testing.assert_equal(state(), before)
