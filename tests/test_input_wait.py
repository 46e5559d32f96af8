"""The share of its time that the step loop waits for input."""

import numpy as np
import pytest

from an_jax import parallel
from an_jax.training import input_wait


def test_shares(monkeypatch):
    """Each batch takes a second and each step three; the hour of a pause does not count."""
    clock = [0.0]
    monkeypatch.setattr(input_wait.time, "perf_counter", lambda: clock[0])

    def make_batches():
        for batch in range(4):
            clock[0] += 1
            yield batch

    wait, shares = input_wait.InputWait(parallel.make_mesh()), []
    for batch in wait.measure(make_batches()):
        clock[0] += 3
        if batch == 1:
            shares.append(wait.take())
            wait.pause()
            clock[0] += 3600
        if batch == 2:
            clock[0] += 1
            shares.append(wait.take())
    shares.append(wait.take())
    assert [float(share.mean) for share in shares] == pytest.approx([1 / 4, 1 / 5, 1 / 4])
    assert [float(share.worst) for share in shares] == pytest.approx([1 / 4, 1 / 5, 1 / 4])


def test_mean_and_worst():
    mesh = parallel.make_mesh()
    rows = parallel.shard_batch(np.float32([0, 0, 0, 0, 0.5, 0.5, 0.5, 1]), mesh)
    shares = input_wait.InputWait(mesh)._summarize(rows)
    assert (float(shares.mean), float(shares.worst)) == (0.3125, 1)
