"""What the facade lacks is told of with the nearest that exists, and the page on PyTorch names
nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treadle.torch as torch
import treadle.torch.nn.functional as F  # noqa: N812  as programs write it
from treadle.torch import nn, optim
from treadle.torch.utils.data import DataLoader, TensorDataset

PAGE = Path(__file__).resolve().parents[2] / "docs" / "from-pytorch.md"
SAME = PAGE.read_text(encoding="utf-8").partition("## The same")[2].partition("## What differs")[0]
NAMES = sorted(set(re.findall(r"`((?:torch|nn|F|x)\.[\w.]+)`", SAME)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_on_the_page_exists(name: str) -> None:
    found: Any = {"torch": torch, "nn": nn, "F": F, "x": torch.Tensor}[name.split(".")[0]]
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    assert found is not None


def test_the_page_names_many() -> None:
    assert len(NAMES) > 130


x = torch.ones(3, 4)
MISSING: list[tuple[Callable[[], Any], str]] = [
    (lambda: torch.sofmax, "treadle.torch has no 'sofmax' .* nearest that it has: softmax"),
    (lambda: torch.float16, "there are float32 and float64"),
    (lambda: torch.distributed, "Treadle computes in one process"),
    (lambda: torch.wholly_unlike_anything, "docs/from-pytorch.md lists what it has"),
    (lambda: x.unsqeeze(0), "a Tensor of treadle.torch has no 'unsqeeze' .* unsqueeze"),
    (lambda: x.register_hook, "treadle.watch"),
    (lambda: nn.Liner, "torch.nn has no 'Liner' .*: Linear"),
    (lambda: nn.Conv3d, "Conv1d and Conv2d"),
    (lambda: F.rlu, "torch.nn.functional has no 'rlu' .*: relu"),
    (lambda: nn.init.xavier, "xavier_"),
    (lambda: nn.utils.clip_grad_norm, "clip_grad_norm_"),
    (lambda: optim.Adamw, "torch.optim has no 'Adamw' .*: AdamW"),
    (lambda: optim.lr_scheduler.StepLr, "StepLR"),
    (lambda: torch.utils.data.IterableDataset, "Dataset, with __len__ and __getitem__"),
    (lambda: torch.utils.checkpoint, "treadle.remat"),
    (lambda: torch.linalg.svd, "use NumPy"),
    (lambda: torch.special.erv, "erf"),
    (lambda: torch.cuda.Stream, "nothing computes"),
    (lambda: torch.autograd.gradient, "grad"),
    (lambda: nn.Linear(2, 3).wieght, "'Linear' object has no attribute 'wieght'.*: weight"),
]


@pytest.mark.parametrize(("lacking", "says"), MISSING, ids=[m for _, m in MISSING])
def test_a_missing_name_is_told_of_with_the_nearest(lacking: Callable[[], Any], says: str) -> None:
    with pytest.raises(AttributeError, match=says):
        lacking()


KEYWORDS: list[tuple[Callable[[], Any], str]] = [
    (lambda: torch.sum(x, dims=1), "sum.. of treadle.torch takes no keyword 'dims'; .*: dim "),
    (lambda: x.mean(keepdmis=True), "'keepdmis'; the nearest that it takes: keepdim"),
    (lambda: torch.zeros(2, dtyp=torch.float64), "'dtyp'; the nearest that it takes: dtype"),
    (lambda: F.cross_entropy(x, x, labelsmoothing=0.1), "label_smoothing"),
    (lambda: F.relu(x, inplce=True), "takes no keyword 'inplce'"),
    (lambda: nn.Linear(2, 3, bais=False), "Linear.. of treadle.torch .*: bias"),
    (
        lambda: nn.MSELoss(size_average=False),
        "'size_average'; the nearest that it takes: reduction",
    ),
    (lambda: nn.ReLU(slope=1), "takes no keyword 'slope'"),
    (lambda: optim.SGD([x], lr=0.1, momentun=0.9), "momentum"),
    (lambda: DataLoader(TensorDataset(x), batchsize=2), "batch_size"),
]


@pytest.mark.parametrize(("wrong", "says"), KEYWORDS, ids=[m for _, m in KEYWORDS])
def test_an_unknown_keyword_is_told_of_with_the_nearest(
    wrong: Callable[[], Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        wrong()


def test_a_type_error_of_other_kind_stays_what_it_is() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'other'"):
        torch.maximum(x)
    assert not hasattr(x, "__array_struct__") and not hasattr(nn.Linear(1, 1), "absent")


DEVICES: list[Callable[[], Any]] = [
    lambda: x.cuda(),
    lambda: x.to("cuda:0"),
    lambda: torch.device("mps"),
    lambda: torch.zeros(2, device="cuda"),
    lambda: nn.Linear(2, 3).cuda(),
    lambda: nn.Linear(2, 3, device="cuda"),
    lambda: nn.Linear(2, 3).to("cuda"),
]


@pytest.mark.parametrize("wanted", DEVICES, ids=range(len(DEVICES)))
def test_a_device_that_is_not_there_is_refused(wanted: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="Treadle computes on the CPU"):
        wanted()


def test_programs_that_choose_a_device_get_the_cpu() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert device == torch.device("cpu") and str(device) == device.type == "cpu"
    assert x.to(device) is x and x.cpu() is x and x.device == device
    assert nn.Linear(2, 3).to(device, torch.float64).weight.dtype == torch.float64
