"""The lines that a run logs about its steps."""

import itertools

import numpy as np
from tqdm import tqdm

from an_jax.training import watch
from an_jax.training.step import Metrics


class Log:
    def __init__(self):
        self.lines = []

    def add_steps(self, line):
        self.lines.append(line)


def test_validation_does_not_count_as_the_steps_time(monkeypatch):
    """Steps of 4 images take a second each; between the second and the third an hour passes."""
    clock = itertools.count()
    monkeypatch.setattr(watch.time, "perf_counter", lambda: float(next(clock)))
    log = Log()
    steps = watch.StepWatch(log, tqdm(disable=True), lambda step: 0.1, 4, 2, str)
    for step in (1, 2, 3, 4):
        steps.add(1, step, Metrics(np.float32(step), np.float32(0.5)))
        if step == 2:
            steps.drain()
            clock = itertools.count(3600)
            monkeypatch.setattr(watch.time, "perf_counter", lambda: float(next(clock)))
    steps.drain()
    assert [line["step"] for line in log.lines] == [2, 4]
    assert [line["loss"] for line in log.lines] == [1.5, 3.5]
    assert [line["images_per_second"] for line in log.lines] == [4.0, 4.0]
