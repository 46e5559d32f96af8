"""What the commands say about devices, and whose log messages they hide."""

import logging

import absl.logging
import pytest

from an_jax import devices
from an_jax.training import loop
from an_jax.training.messages import silence_failed_saves
from evaluate import main
from tests.digits_runs import config


def test_the_first_line_names_devices_and_processes(finished, capsys):
    loop.train(config(), finished)
    first = capsys.readouterr().out.splitlines()[0]
    assert " steps of 240 images on 8 devices (cpu), 1 process; resuming after" in first


def test_an_unused_accelerator_is_reported(tmp_path, unset, monkeypatch, capsys):
    """Nothing is said without device files, or if the user chose the CPU."""
    kinds = {str(tmp_path / "nvidia[0-9]*"): "an NVIDIA GPU"}
    monkeypatch.setattr(devices, "DEVICE_FILES", kinds)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)

    def errors():
        arguments = ["--checkpoint", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")]
        assert main([*arguments, "--datasets", "digits"]) == 1
        return capsys.readouterr().err

    (tmp_path / "nvidiactl").touch()
    assert errors().startswith("error: ")
    (tmp_path / "nvidia0").touch()
    assert "nvidia0 shows that this machine has an NVIDIA GPU, but jax uses the CPU" in errors()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert errors().startswith("error: ")


@pytest.fixture
def log_levels():
    """Restores the levels of the loggers."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio", "")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_only_the_loggers_of_failed_saves_are_silenced(log_levels, caplog):
    """jax's warning that it falls back to the CPU is printed."""
    silence_failed_saves()
    logging.getLogger("jax._src.xla_bridge").warning("Falling back to cpu")
    absl.logging.error("a traceback of orbax")
    assert caplog.messages == ["Falling back to cpu"]
