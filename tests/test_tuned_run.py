"""A training run with the options for fine-tuning."""

import shutil

import numpy as np
import pytest
import torch
from etils import epath
from flax import nnx

from an_jax import create_model, functional, load_model
from an_jax.checkpoint import ModelCard, best_step
from an_jax.data.sets import digits
from an_jax.training import curves, loop
from convert.__main__ import main as convert
from tests.digits_runs import TUNED, assert_same_end, config, read_last
from tests.pictures import decode
from tests.processes import once, shared_by_workers
from tests.small_model import softmax_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    directory = shared_by_workers(tmp_path_factory, "tuned")
    once(directory, lambda: loop.train(config(**TUNED), directory / "run"))
    return epath.Path(directory / "run")


def test_frozen_arrays_stay(tuned):
    split = functional.split(create_model("resnet_20_bn", num_classes=10, rngs=nnx.Rngs(0)))
    state = read_last(tuned, **TUNED)
    for name, value in (split.params | split.batch_stats).items():
        is_same = np.array_equal((state.params | state.batch_stats)[name], value)
        assert is_same == name.startswith(("conv1", "layer1")), name


def test_the_best_weights_are_moving_averages(tuned, tmp_path):
    """They have the accuracy that the log reports, and are those of load_model and convert."""
    step = f"checkpoints/{best_step(tuned)}"
    shutil.copytree(tuned / step, tmp_path / step)
    state = read_last(epath.Path(tmp_path), **TUNED)
    averages = state.ema["params"] | state.ema["batch_stats"]
    split = functional.split(load_model(tuned))
    assert not np.array_equal(state.params["fc.bias"], averages["fc.bias"])
    for name, value in (split.params | split.batch_stats).items():
        np.testing.assert_array_equal(value, averages[name], err_msg=name)
    assert convert([str(tuned), str(tmp_path / "best.pth"), "--to-torch"]) == 0
    bias = torch.load(tmp_path / "best.pth")["fc.bias"]
    np.testing.assert_array_equal(bias, averages["fc.bias"])

    source = digits.open_digits("test")
    images = [decode(content) for content in source.encoded]
    predicted = softmax_of(tuned, images, ModelCard.read(tuned).preprocessing).argmax(axis=1)
    epochs = curves.read_metrics(tuned)
    assert np.mean(predicted == source.labels) == max(line["val_top1"] for line in epochs)
    assert all(line["plain_val_top1"] != line["val_top1"] for line in epochs)


def test_further_test_sets(tuned):
    """The last epoch has scores of the averages, also in the picture and TensorBoard's log."""
    first, last = curves.read_metrics(tuned)
    assert not any("/" in name for name in first)
    assert last["digits/top1"] == last["val_top1"]
    assert 0 < last["digits-noise/top1"] < 1
    assert last["digits-noise/top1"] != last["digits/top1"]
    assert (tuned / "curves.png").exists()
    (file,) = (tuned / "tensorboard").iterdir()
    assert b"digits-noise/top5" in file.read_bytes()


def test_resumed_bit_for_bit(tuned, tmp_path):
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(tuned, workdir)
    shutil.rmtree(workdir / "checkpoints/12")
    loop.train(config(**TUNED), workdir)
    assert_same_end(workdir, tuned, **TUNED)
