"""What the machine can do: measured rates are consistent, and limits follow from them."""

import pytest

from treadle.runtime.machine import Bandwidth, Machine, measure_machine

GIGA = 1e9


@pytest.fixture
def machine() -> Machine:
    near = Bandwidth(1 << 16, 100 * GIGA, 200 * GIGA, 50 * GIGA, 100 * GIGA)
    far = Bandwidth(1 << 26, 30 * GIGA, 40 * GIGA, 25 * GIGA, 30 * GIGA)
    return Machine(
        "a CPU", "host", 2, 100 * GIGA, 180 * GIGA, far.read_all, far.moved_all, (near, far)
    )


def test_every_rate_is_measured_and_larger_data_are_described() -> None:
    found = measure_machine()
    assert found.cores >= 1
    assert found.flops_one_core > 0 < found.flops_all_cores
    assert [b.data for b in found.bandwidths] == sorted(b.data for b in found.bandwidths)
    for b in found.bandwidths:
        assert min(b.read_one, b.read_all, b.moved_one, b.moved_all) > 0
    assert f"{found.flops_one_core / GIGA:.0f} GFLOP/s on one core" in found.describe()


def test_a_machine_reads_back_from_json(machine: Machine) -> None:
    assert Machine.from_json(machine.to_json()) == machine
    without = {k: v for k, v in machine.to_json().items() if k != "bandwidths"}
    assert Machine.from_json(without).bandwidths == ()


def test_the_fma_rate_grows_with_threads_up_to_all_cores_and_halves_for_float64(
    machine: Machine,
) -> None:
    assert machine.flop_rate(1) == 100 * GIGA
    assert machine.flop_rate(2) == 180 * GIGA
    assert machine.flop_rate(64) == 180 * GIGA
    assert machine.flop_rate(1, itemsize=8) == 50 * GIGA


def test_data_in_a_cache_are_limited_by_the_cache_and_large_data_by_memory(
    machine: Machine,
) -> None:
    small, large = 50_000, 1 << 27
    assert machine.move_seconds(small, small, 2) == pytest.approx(2 * small / (100 * GIGA))
    assert machine.move_seconds(small, small, 1) == pytest.approx(2 * small / (50 * GIGA))
    assert machine.move_seconds(large, large, 2) == pytest.approx(2 * large / (30 * GIGA))


def test_what_is_read_only_goes_at_the_rate_of_reading(machine: Machine) -> None:
    large = 1 << 27
    assert machine.move_seconds(large, 0, 2) == pytest.approx(large / (40 * GIGA))
    both = machine.move_seconds(3 * large, large, 2)
    assert both == pytest.approx(2 * large / (30 * GIGA) + 2 * large / (40 * GIGA))
