"""The examples run, in a namespace of their own."""

import re
import runpy

import jax

from tests.processes import ROOT


def test_train_digits(capsys):
    with jax.default_device(jax.devices()[0]):
        runpy.run_path(str(ROOT / "examples/train_digits.py"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert float(re.search(r"accuracy ([\d.]+) %", lines[-1])[1]) > 90
