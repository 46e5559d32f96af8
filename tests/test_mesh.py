"""Meshes of TPUs: every group of devices is connected, and every device has one place."""

import dataclasses

import numpy as np
import pytest

from an_jax import parallel
from an_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh needs to know of a TPU device of the TPU compiler, which knows no slices."""

    id: int
    device_kind: str
    coords: tuple[int, int, int]
    platform: str = "tpu"
    core_on_chip: int = 0

    @property
    def process_index(self):
        return self.id // 4


@dataclasses.dataclass(frozen=True)
class SliceDevice(Device):
    """A real TPU device."""

    slice_index: int = 0


def tpu_devices(kind, shape):
    """The devices of a topology, x fastest."""
    coords = [(x, y, z) for z, y, x in np.ndindex(shape[::-1])]
    return [Device(i, kind, c) for i, c in enumerate(coords)]


@pytest.fixture
def two_slices():
    devices = tpu_devices("TPU v6 lite", (4, 4, 1))
    return [
        SliceDevice(**vars(device) | {"id": 16 * i + device.id, "slice_index": i})
        for i in range(2)
        for device in devices
    ]


def is_connected(group):
    """Whether links between neighbors lead from one device of a group to all others."""
    remaining = {device.coords for device in group}
    frontier = {group[0].coords}
    while frontier:
        remaining -= frontier
        frontier = {
            c for c in remaining if any(np.abs(np.subtract(c, f)).sum() == 1 for f in frontier)
        }
    return not remaining


def assert_is_mesh(mesh, devices, group_size):
    assert mesh.devices.shape == (len(devices) // group_size, group_size)
    assert sorted(device.id for device in mesh.devices.flat) == list(range(len(devices)))
    assert all(is_connected(group) for group in mesh.devices)


@pytest.mark.parametrize(
    ("kind", "shape", "group_sizes"),
    [
        ("TPU v5 lite", (16, 16, 1), (1, 2, 4, 8, 16, 32)),
        ("TPU v6 lite", (4, 4, 1), (1, 2, 4, 8, 16)),
        ("TPU v6 lite", (16, 16, 1), (1, 2, 4, 8, 16, 32)),
        ("TPU v4", (2, 2, 4), (1, 2, 4, 8, 16)),
        ("TPU v4", (4, 4, 4), (1, 2, 4, 8, 16, 32)),
        ("TPU v4", (4, 4, 8), (1, 2, 4, 8, 16, 32)),
        ("TPU v5", (4, 4, 4), (1, 2, 4, 8, 16, 32)),
    ],
)
def test_groups_are_neighbors(kind, shape, group_sizes):
    devices = tpu_devices(kind, shape)
    for group_size in group_sizes:
        assert_is_mesh(parallel.make_mesh(group_size, devices), devices, group_size)


def test_no_group_spans_two_slices(two_slices):
    for group_size in (1, 2, 16):
        mesh = parallel.make_mesh(group_size, two_slices)
        assert_is_mesh(mesh, two_slices, group_size)
        for group in mesh.devices:
            assert len({device.slice_index for device in group}) == 1
    with pytest.raises(InputError, match="a TPU slice has 16 devices"):
        parallel.make_mesh(32, two_slices)


def test_rows_of_processes_whose_devices_lie_apart():
    """Every position of the mesh gets a row of the process that owns its device."""
    devices = tpu_devices("TPU v6 lite", (4, 4, 1))
    mesh = parallel.make_mesh(8, devices)
    owners = np.array([device.process_index for device in mesh.devices.flat])
    assert not np.all(np.diff(owners) >= 0)
    order = parallel.process_order(mesh, 32)
    assert sorted(order) == list(range(32))
    for process, positions in enumerate(np.split(order, 4)):
        assert set(owners[positions // 2]) == {process}
        assert np.all(np.diff(positions) > 0)  # in the order of the mesh
