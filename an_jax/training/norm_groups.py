"""Groups of images that share normalization statistics and mixup, on any number of devices."""

import math
from typing import NamedTuple

import numpy as np


class NormGroups(NamedTuple):
    """How the devices divide a batch into groups that share normalization statistics.

    Group n holds the rows n * num_images to (n + 1) * num_images - 1 of the batch. It lies on
    `num_devices` devices, each of which has an equal part of it, a micro-batch.

    Attributes:
        num_images: images in a group.
        num_devices: devices that compute a group together.
        num_micro_batches: groups that a device takes part in, one after the other.
    """

    num_images: int
    num_devices: int
    num_micro_batches: int

    def rows(self, batch_size: int) -> np.ndarray:
        """Returns, for each position in an array that is split over the mesh, its row of the batch.

        The order differs from 0, 1, 2, ... only if groups of several devices compute several
        micro-batches.
        """
        micro_batch = self.num_images // self.num_devices
        shape = (-1, self.num_micro_batches, self.num_devices, micro_batch)
        return np.arange(batch_size).reshape(shape).swapaxes(1, 2).ravel()

    def describe(self) -> str:
        """Says over how many images statistics are taken, and how."""
        text = f"statistics over {self.num_images} images"
        if self.num_devices > 1:
            text += f" on {self.num_devices} devices"
        if self.num_micro_batches > 1:
            text += f", {self.num_micro_batches} micro-batches a device"
        return text


def make_norm_groups(batch_size: int, norm_batch_size: int, num_devices: int) -> NormGroups:
    """Divides a batch into groups.

    Args:
        batch_size: images in the batch; a multiple of num_devices and of the images in a group.
        norm_batch_size: images in a group; the whole batch is one group if it is smaller.
        num_devices: all devices.
    """
    num_images = min(norm_batch_size, batch_size)
    per_device = batch_size // num_devices
    micro_batch = math.gcd(num_images, per_device)
    return NormGroups(num_images, num_images // micro_batch, per_device // micro_batch)
