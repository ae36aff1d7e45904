"""Loading data: order, resuming, workers, and readers that name a file that is amiss."""

from __future__ import annotations

import gzip
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.data import (
    CharTokens,
    ConcatDataset,
    DataError,
    DataLoader,
    Dataset,
    ImageFolder,
    Subset,
    TensorDataset,
    TokenWindows,
    WorkerError,
    default_collate,
    mnist,
    random_split,
    read_csv,
    read_idx,
    read_image,
    read_npy,
    read_text,
    sample_generator,
    transforms,
)


class Numbers(Dataset):
    """Sample i is (i, a draw of its own generator)."""

    def __init__(self, count: int = 10) -> None:
        self.count = count

    def __getitem__(self, index: int) -> Any:
        return np.float32(index), sample_generator().random()

    def __len__(self) -> int:
        return self.count


class Failing(Numbers):
    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise ValueError("no such picture")
        return super().__getitem__(index)


class Dying(Numbers):
    def __getitem__(self, index: int) -> Any:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Hanging(Numbers):
    def __getitem__(self, index: int) -> Any:
        if index == 5:
            time.sleep(60)
        return super().__getitem__(index)


HOWS: dict[str, dict[str, Any]] = {
    "inline": {},
    "thread": {"prefetch_factor": 2},
    "one-worker": {"num_workers": 1},
    "workers": {"num_workers": 3, "prefetch_factor": 1},
}


def batches(loader: DataLoader) -> list[list[np.ndarray[Any, Any]]]:
    return [[np.asarray(part) for part in batch] for batch in loader]


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_batches_do_not_depend_on_who_fetches_them(how: dict[str, Any]) -> None:
    plain = DataLoader(Numbers(), 4, shuffle=True, seed=3)
    loader = DataLoader(Numbers(), 4, shuffle=True, seed=3, **how)
    for _ in range(2):
        wanted, found = batches(plain), batches(loader)
        assert len(wanted) == len(found) == len(loader) == 3
        for want, have in zip(wanted, found, strict=True):
            for x, y in zip(want, have, strict=True):
                np.testing.assert_array_equal(x, y)


def test_each_epoch_has_an_order_of_its_own_and_every_sample_once() -> None:
    loader = DataLoader(Numbers(50), 8, shuffle=True, seed=0)
    orders = [np.concatenate([b[0] for b in batches(loader)]) for _ in range(2)]
    assert not np.array_equal(*orders)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))


def test_the_order_follows_manual_seed_where_there_is_no_seed() -> None:
    orders = []
    for seed in (1, 1, 2):
        treadle.manual_seed(seed)
        loader = DataLoader(Numbers(50), 50, shuffle=True)
        orders.append(batches(loader)[0][0])
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_a_loader_goes_on_where_another_stood(how: dict[str, Any]) -> None:
    whole = DataLoader(Numbers(), 3, shuffle=True, seed=7)
    wanted = [b for _ in range(2) for b in batches(whole)]
    first = DataLoader(Numbers(), 3, shuffle=True, seed=7, **how)
    iterator = iter(first)
    found = [[np.asarray(p) for p in next(iterator)] for _ in range(2)]
    second = DataLoader(Numbers(), 3, shuffle=True, seed=1, **how)
    second.load_state_dict(first.state_dict())
    iterator.close()  # type: ignore[attr-defined]  # a generator
    found += [b for _ in range(2) for b in batches(second)]
    assert len(found) == len(wanted) == 8
    for want, have in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(want[0], have[0])
        np.testing.assert_array_equal(want[1], have[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_sampler_gives_the_batches(workers: int) -> None:
    groups = [[5, 1], [0], [2, 3, 4]]
    points = TensorDataset(np.arange(6))
    loader = DataLoader(points, batch_sampler=groups, num_workers=workers)
    assert len(loader) == 3
    for _ in range(2):
        assert [x.tolist() for (x,) in loader] == groups
    next(iter(loader))
    resumed = DataLoader(points, batch_sampler=groups, num_workers=workers)
    resumed.load_state_dict(loader.state_dict())
    assert [x.tolist() for (x,) in resumed] == groups[1:]
    for wrong in ({"batch_size": 2}, {"shuffle": True}, {"sampler": [1]}, {"drop_last": True}):
        with pytest.raises(treadle.ArgumentError, match="a batch_sampler says all"):
            DataLoader(points, batch_sampler=groups, **wrong)


def test_an_epoch_that_is_left_early_is_over() -> None:
    loader = DataLoader(Numbers(), 4)
    next(iter(loader))
    assert batches(loader)[0][0].tolist() == [0, 1, 2, 3]
    assert loader.epoch == 2


def test_the_last_smaller_batch_can_be_dropped_and_a_sampler_gives_the_order() -> None:
    assert [len(b[0]) for b in batches(DataLoader(Numbers(), 4))] == [4, 4, 2]
    loader = DataLoader(Numbers(), 4, drop_last=True)
    assert len(loader) == 2 and [len(b[0]) for b in batches(loader)] == [4, 4]
    picked = DataLoader(Numbers(), 2, sampler=[7, 1, 7])
    assert [b[0].tolist() for b in batches(picked)] == [[7, 1], [7]]
    assert batches(DataLoader(Numbers(0), 4)) == []


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_an_error_of_the_dataset_names_the_sample(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no such picture") as caught:
        batches(DataLoader(Failing(), 2, **how))
    assert any("sample 5 of Failing" in note for note in caught.value.__notes__)


def test_a_worker_that_dies_is_an_error_and_leaves_no_process() -> None:
    with pytest.raises(WorkerError, match=r"worker \d .* ended by signal 9"):
        batches(DataLoader(Dying(), 2, num_workers=2))
    with pytest.raises(WorkerError, match=r"no batch within 0.5 seconds"):
        batches(DataLoader(Hanging(), 2, num_workers=2, timeout=0.5))


class OddError(Exception):
    """Pickled well, but not to be made again from its one argument."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")


def test_an_error_that_cannot_be_sent_is_told_all_the_same() -> None:
    class Odd(Numbers):
        def __getitem__(self, index: int) -> Any:
            raise OddError("no sample", "home")

    with pytest.raises(WorkerError, match="OddError: no sample at home") as caught:
        list(DataLoader(Odd(), 5, num_workers=1))
    assert "in worker 0" in "".join(caught.value.__notes__)


_LARGE_BATCHES = """
import numpy as np
from treadle.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(np.zeros((800_000, 2))), 200_000, num_workers=1)
print(sum(len(x) for (x,) in loader))
"""


def test_batches_of_many_samples_do_not_fill_the_pipes_both_ways() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _LARGE_BATCHES], capture_output=True, text=True, timeout=100
    )
    assert found.stdout == "800000\n", found.stderr


_OWN_SIGTERM = """
import signal, time
from treadle.data import DataLoader, WorkerError
class Hanging:
    def __len__(self): return 4
    def __getitem__(self, index):
        while True: time.sleep(1)
signal.signal(signal.SIGTERM, lambda *_: None)
try:
    list(DataLoader(Hanging(), 2, num_workers=2, timeout=0.5))
except WorkerError as error:
    print(error)
"""


def test_workers_that_hang_end_though_the_program_handles_sigterm() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _OWN_SIGTERM], capture_output=True, text=True, timeout=100
    )
    assert found.stdout == "worker 0 gave no batch within 0.5 seconds\n", found.stderr


_INTERRUPTED = """
import os, signal, threading, time
from treadle.data import DataLoader
class Slow:
    def __len__(self): return 400
    def __getitem__(self, index):
        time.sleep(0.05)
        return index
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits none
threading.Timer(1.0, lambda: os.killpg(0, signal.SIGINT)).start()
try:
    for _ in DataLoader(Slow(), 2, num_workers=2): pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_raised_once_and_workers_print_nothing() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=100,
        start_new_session=True,
    )  # fmt: skip
    seen = (found.returncode, found.stdout, found.stderr)
    assert seen == (0, "interrupted\n", "")


def test_a_loop_that_is_left_leaves_no_thread_and_no_process() -> None:
    before = threading.active_count()
    for how in ({"prefetch_factor": 1}, {"num_workers": 2}):
        iterator = iter(DataLoader(Numbers(100), 2, **how))  # type: ignore[arg-type]
        next(iterator)
        iterator.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys, treadle.data as d\n"
        "class S(d.Dataset):\n"
        "    def __len__(self): return 1000\n"
        "    def __getitem__(self, i): return os.getpid()\n"
        "batch = iter(d.DataLoader(S(), 1, num_workers=2))\n"
        "print(*{int(next(batch)[0]) for _ in range(4)}, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


Point = namedtuple("Point", "x y")


def test_containers_of_samples_become_containers_of_batches() -> None:
    samples = [{"p": Point(i, [i, float(i)]), "name": str(i)} for i in range(3)]
    batch = default_collate(samples)
    assert batch["name"] == ["0", "1", "2"]
    assert isinstance(batch["p"], Point)
    assert batch["p"].x.dtype == treadle.int64
    assert batch["p"].y[1].dtype == treadle.float64
    with pytest.raises(treadle.ShapeError, match="different shapes"):
        default_collate([np.zeros(2), np.zeros(3)])


def test_datasets_are_split_joined_and_indexed() -> None:
    data = TensorDataset(np.arange(10), treadle.tensor(np.arange(10.0)))
    parts = random_split(data, [7, 3], seed=0)
    seen = [int(data[i][0]) for part in parts for i in part.indices]
    assert sorted(seen) == list(range(10)) and [len(p) for p in parts] == [7, 3]
    assert [len(p) for p in random_split(data, [0.5, 0.25, 0.25], seed=0)] == [6, 2, 2]
    joined = ConcatDataset([Subset(data, [3, 4]), data])
    assert len(joined) == 12 and joined[1][0] == 4 and joined[2][0] == 0 and joined[-1][0] == 9
    with pytest.raises(treadle.ShapeError, match="share their first size"):
        TensorDataset(np.zeros(3), np.zeros(4))
    with pytest.raises(treadle.ArgumentError, match="10 samples cannot be split"):
        random_split(data, [5, 4])
    with pytest.raises(treadle.ArgumentError, match="index 10 is out of range"):
        Subset(data, [10])


def test_mistakes_of_a_loader_are_named() -> None:
    data = Numbers()
    with pytest.raises(treadle.ArgumentError, match="batch_size must be an int that is at least 1"):
        DataLoader(data, 0)
    with pytest.raises(treadle.ArgumentError, match="not both"):
        DataLoader(data, shuffle=True, sampler=[1])
    with pytest.raises(treadle.ArgumentError, match="__getitem__ and __len__, found int"):
        DataLoader(3)
    with pytest.raises(treadle.ArgumentError, match="timeout must be at least 0 seconds, found -1"):
        DataLoader(data, timeout=-1)
    with pytest.raises(treadle.ShapeError, match="bring them to one, or give the loader a coll"):
        batches(DataLoader([np.zeros(2), np.zeros(3)], 2))
    with pytest.raises(treadle.DTypeError, match="samples of type NoneType make no batch"):
        batches(DataLoader([None, None], 2))
    with pytest.raises(treadle.ArgumentError, match="lacks epoch"):
        DataLoader(data).load_state_dict({"seed": 0, "batch": 0})


# --- files -----------------------------------------------------------------------------------


def idx(array: np.ndarray[Any, Any], code: int) -> bytes:
    big = array.astype(array.dtype.newbyteorder(">"))
    header = struct.pack(f">HBB{array.ndim}i", 0, code, array.ndim, *array.shape)
    return header + big.tobytes()


def test_idx_files_are_read_with_their_dtype_and_shape(tmp_path: Path) -> None:
    for code, dtype in ((8, np.uint8), (12, np.int32), (13, np.float32), (14, np.float64)):
        array = np.arange(24).reshape(2, 3, 4).astype(dtype)
        plain, packed = tmp_path / f"a{code}", tmp_path / f"a{code}.gz"
        plain.write_bytes(idx(array, code))
        packed.write_bytes(gzip.compress(idx(array, code)))
        for path in (plain, packed):
            found = read_idx(path)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, array)


def test_a_damaged_idx_file_is_named(tmp_path: Path) -> None:
    whole = idx(np.zeros((2, 3), np.uint8), 8)
    for name, content, message in (
        ("short", whole[:-1], "is damaged: an array"),
        ("header", whole[:6], "ends inside its header"),
        ("other", b"PK\x03\x04" + whole, "is no IDX file"),
        ("empty", b"", "is no IDX file"),
        ("cut.gz", gzip.compress(whole)[:-9], "is damaged"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            read_idx(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="none"):
        read_idx(tmp_path / "none")


def test_mnist_files_make_a_dataset(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images, 8))
    labels = gzip.compress(idx(np.array([3, 4], np.uint8), 8))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(labels)
    image, label = mnist(tmp_path, "test")[1]
    assert label == 4 and image.shape == (1, 28, 28) and image.dtype == np.float32
    np.testing.assert_allclose(image[0], images[1] / 255, rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        mnist(tmp_path)


def test_csv_columns_are_picked_and_wrong_cells_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n1,2,3\n\n4,5,6\n")
    np.testing.assert_array_equal(read_csv(path), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(read_csv(path, ["c", 0]), [[3, 1], [6, 4]])
    with pytest.raises(treadle.ArgumentError, match="no column 'd'; it has a, b, c"):
        read_csv(path, ["d"])
    with pytest.raises(DataError, match=r"line 1, column 1: expected a number, found 'a'"):
        read_csv(path, header=False)
    path.write_text("\n")
    with pytest.raises(DataError, match=r"t\.csv is empty"):
        read_csv(path)
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"line 3: expected 2 columns, found 1"):
        read_csv(path)


def test_npy_files_are_read_and_damaged_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6.0))
    np.testing.assert_array_equal(read_npy(path), np.arange(6.0))
    np.testing.assert_array_equal(read_npy(path, mapped=True), np.arange(6.0))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"a\.npy is damaged"):
        read_npy(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy"):
        read_npy(path)


def test_text_becomes_tokens_and_windows(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("hello", encoding="utf-8")
    text = read_text(path)
    tokens = CharTokens(text)
    assert len(tokens) == 4 and tokens.decode(tokens.encode(text)) == text
    windows = TokenWindows(tokens.encode(text), 2, stride=1)
    assert len(windows) == 3
    assert [tokens.decode(part) for part in windows[1]] == ["el", "ll"]
    _, y = next(iter(DataLoader(windows, 3)))
    assert [tokens.decode(row) for row in np.asarray(y)] == ["el", "ll", "lo"]
    assert len(TokenWindows(np.arange(2), 2)) == 0
    with pytest.raises(treadle.ArgumentError, match="'z' has no token"):
        tokens.encode("z")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"t\.txt is not UTF-8"):
        read_text(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[Path]:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    rng = np.random.default_rng(0)
    for name, shape in (("cat", (8, 6, 3)), ("dog", (5, 9, 3))):
        (tmp_path / name).mkdir()
        for n in range(3):
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            pillow.fromarray(pixels).save(tmp_path / name / f"{n}.png")
    yield tmp_path


def test_folders_name_the_classes_of_their_images(pictures: Path) -> None:
    folder = ImageFolder(pictures)
    assert folder.classes == ["cat", "dog"] and len(folder) == 6
    image, label = folder[4]
    assert label == 1 and image.shape == (3, 5, 9) and image.dtype == np.uint8
    change = transforms.Compose(
        [
            transforms.Resize(8),
            transforms.RandomCrop(6, padding=1),
            transforms.RandomHorizontalFlip(),
            transforms.ToFloat(),
            transforms.Normalize([0.5, 0.5, 0.5], [0.25, 0.25, 0.25]),
        ]
    )
    wanted = None
    for workers in (0, 2):
        loader = DataLoader(ImageFolder(pictures, change), 6, seed=0, num_workers=workers)
        x, y = (np.asarray(part) for part in next(iter(loader)))
        assert x.shape == (6, 3, 6, 6) and x.dtype == np.float32
        assert y.tolist() == [0, 0, 0, 1, 1, 1]
        if wanted is not None:
            np.testing.assert_array_equal(x, wanted)
        wanted = x


def test_names_of_files_can_hold_the_classes(pictures: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, name in enumerate(("cat.0.png", "cat.12.png", "dog_3.png")):
        (pictures / "cat" / f"{n}.png").rename(flat / name)
    folder = ImageFolder(flat, mode="L")
    assert folder.classes == ["cat", "dog"] and [y for _, y in folder.samples] == [0, 0, 1]
    assert folder[0][0].shape == (1, 8, 6)


def test_a_picture_that_cannot_be_read_is_named(pictures: Path) -> None:
    bad = pictures / "cat" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image"):
        read_image(bad)
    for how in ({}, {"num_workers": 2}, {"prefetch_factor": 1}):
        with pytest.raises(DataError, match=r"1\.png cannot be .*truncated\nwhile") as caught:
            batches(DataLoader(ImageFolder(pictures, transforms.Resize((4, 4))), 2, **how))
        assert any("of ImageFolder was read" in note for note in caught.value.__notes__)
    with pytest.raises(FileNotFoundError, match="no folder"):
        ImageFolder(pictures / "none")
    (pictures / "empty").mkdir()
    with pytest.raises(DataError, match="no images below"):
        ImageFolder(pictures / "empty")


def test_transforms_do_what_they_say() -> None:
    image = np.arange(2 * 4 * 6).reshape(2, 4, 6).astype(np.uint8)
    np.testing.assert_array_equal(transforms.CenterCrop(2)(image), image[:, 1:3, 2:4])
    flipped = transforms.RandomHorizontalFlip(1.0)(image)
    np.testing.assert_array_equal(flipped, image[:, :, ::-1])
    scaled = transforms.Normalize(0.5, 0.25)(transforms.ToFloat()(image))
    np.testing.assert_allclose(scaled, (image / 255 - 0.5) / 0.25, rtol=1e-5)
    with pytest.raises(treadle.ShapeError, match="does not fit into an image"):
        transforms.CenterCrop(5)(image)
    with pytest.raises(treadle.ShapeError, match="3 numbers for an image of 2 channels"):
        transforms.Normalize([1, 2, 3], 1.0)(image)
