"""The lines that a run logs about its steps."""

import numpy as np
import pytest
from tqdm import tqdm

from an_jax.training import watch
from an_jax.training.input_wait import Shares
from an_jax.training.step import Metrics


class Log:
    def __init__(self):
        self.lines = []

    def add_steps(self, line):
        self.lines.append(line)

    def write(self):
        pass


class InputWait:
    """A wait that grows by a tenth with each line."""

    share = 0.0

    def take(self):
        self.share += 0.1
        return Shares(np.float32(self.share), np.float32(2 * self.share))

    def pause(self):
        pass


def test_validation_does_not_count_as_the_steps_time(monkeypatch):
    """Steps of 4 images take a second each; between the second and the third an hour passes."""
    clock = [0.0]

    def perf_counter():
        clock[0] += 1
        return clock[0]

    monkeypatch.setattr(watch.time, "perf_counter", perf_counter)
    log = Log()
    steps = watch.StepWatch(
        log=log,
        progress=tqdm(disable=True),
        schedule=lambda step: 0.1,
        batch_size=4,
        log_steps=2,
        input_wait=InputWait(),
        describe_last_checkpoint=str,
    )
    for step in (1, 2, 3, 4):
        steps.add(1, step, Metrics(*np.float32([step, 0.5, 10 * step, 0.1])))
        if step == 2:
            steps.drain()
            clock[0] = 3600.0
    steps.drain()
    assert [line["step"] for line in log.lines] == [2, 4]
    assert [line["loss"] for line in log.lines] == [1.5, 3.5]
    assert [line["top1"] for line in log.lines] == [0.5, 0.5]
    assert [line["gradient_norm"] for line in log.lines] == [15.0, 35.0]
    assert [line["update_norm"] for line in log.lines] == pytest.approx([0.1, 0.1])
    assert [line["images_per_second"] for line in log.lines] == [4.0, 4.0]
    assert [line["input_wait"] for line in log.lines] == [0.1, 0.2]
    assert [line["input_wait_worst"] for line in log.lines] == [0.2, 0.4]
