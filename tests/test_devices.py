"""What the commands say about devices, and whose log messages they hide."""

import logging

import absl.logging
import pytest

from an_jax import devices
from an_jax.training import loop
from an_jax.training.messages import silence_failed_saves
from evaluate import main
from tests.digits_runs import config


def test_the_first_line_names_devices_and_processes(finished_copy, capsys):
    loop.train(config(), finished_copy)
    first = capsys.readouterr().out.splitlines()[0]
    assert " steps of 240 images on 8 devices (cpu), 1 process; statistics over 240 images" in first


@pytest.fixture
def evaluate(tmp_path, unset, monkeypatch, capsys):
    """Runs a command that fails because of its checkpoint; returns what it prints to stderr.

    The machine has no accelerator, and the user has not chosen the CPU.
    """
    monkeypatch.setattr(devices, "DEVICE_FILES", {str(tmp_path / "nvidia[0-9]*"): "an NVIDIA GPU"})
    monkeypatch.setattr(devices, "PCI_DEVICES", str(tmp_path / "*/modalias"))
    for variable in ("JAX_PLATFORMS", "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(variable, raising=False)

    def run():
        arguments = ["--checkpoint", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")]
        assert main([*arguments, "--datasets", "digits"]) == 1
        return capsys.readouterr().err

    return run


def test_an_unused_accelerator_is_reported(evaluate, tmp_path, monkeypatch):
    """Nothing is said without device files, or if the user chose the CPU."""
    (tmp_path / "nvidiactl").touch()
    assert evaluate().startswith("error: ")
    (tmp_path / "nvidia0").touch()
    assert "nvidia0 shows that this machine has an NVIDIA GPU, but jax uses the CPU" in evaluate()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert evaluate().startswith("error: ")


def test_a_tpu_vm_without_device_files_is_recognized(evaluate, tmp_path, monkeypatch):
    for slot, device in (("a", "00000042"), ("b", "00000063")):  # a network card, a TPU v5e
        assert evaluate().startswith("error: ")
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "modalias").write_text(f"pci:v00001AE0d{device}sv00001AE0sd00000000\n")
    assert f"{tmp_path}/b shows that this machine has a TPU, but jax uses the CPU" in evaluate()
    (tmp_path / "b/modalias").unlink()
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    assert "TPU_WORKER_ID is set, which shows that this machine is a TPU VM" in evaluate()


def test_a_host_of_a_pod_does_not_run_alone(evaluate, monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    assert "no checkpoint" in evaluate()
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "10.0.0.1,10.0.0.2")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert evaluate().startswith("error: TPU_WORKER_HOSTNAMES names 2 hosts, but this process runs")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "1")
    assert "no checkpoint" in evaluate()


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
