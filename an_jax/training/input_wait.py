"""The share of its time that the step loop waits for input, on every host."""

import time
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from an_jax import parallel

T = TypeVar("T")


class Shares(NamedTuple):
    """Shares of time from 0 to 1, float32 [] on every device: the hosts' mean and the largest."""

    mean: jax.Array
    worst: jax.Array


class InputWait:
    """Measures how long the step loop of this process waits for its batches.

    Args:
        mesh: the devices of all processes.
    """

    def __init__(self, mesh: jax.sharding.Mesh):
        self._mesh = mesh
        self._waited = 0.0
        self._began: float | None = None
        self._summarize = jax.jit(
            lambda shares: Shares(jnp.mean(shares), jnp.max(shares)),
            out_shardings=parallel.replicated(mesh),
        )

    def measure(self, batches: Iterator[T]) -> Iterator[T]:
        """Yields the batches, and adds up the time until each is there."""
        while True:
            began = time.perf_counter()
            if self._began is None:
                self._began = began
            batch = next(batches, None)
            self._waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def take(self) -> Shares:
        """Returns the shares since the last call, without waiting for them.

        Every process calls this after the same step.
        """
        now = time.perf_counter()
        elapsed = 0.0 if self._began is None else now - self._began
        share = self._waited / elapsed if elapsed else 0.0
        self._waited, self._began = 0.0, now
        rows = np.full(len(self._mesh.local_devices), share, np.float32)
        return self._summarize(parallel.shard_batch(rows, self._mesh))

    def pause(self) -> None:
        """Does not count the time until the next batch is asked for."""
        self._waited, self._began = 0.0, None
