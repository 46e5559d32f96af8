"""Shared by all tests: eight CPU devices, and a record of the errors that parity tests measure."""

import os
import shutil
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# Compiled programs are shared by all tests, by the commands that they start, and by later runs.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".cache" / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# TensorFlow reads these when it is imported. It repeats failed requests to buckets ten times.
os.environ["GCS_RETRY_CONFIG_INIT_DELAY_TIME_US"] = "1000"  # 1 s otherwise
os.environ["GCS_RETRY_CONFIG_MAX_DELAY_TIME_US"] = "10000"  # 32 s otherwise

import jax
import numpy as np
import pytest
from etils import epath

from an_jax.training import build, loop
from tests import fake_archives, fake_gcs
from tests.digits_runs import config
from tests.processes import once, shared_by_workers
from tests.small_model import random_split, save, softmax_of


@pytest.fixture
def record_error(record_property):
    """Returns a function that stores an error in the report (`--junit-xml`) and passes it on."""

    def record(error, name="error"):
        record_property(name, f"{error:.1e}")
        return error

    return record


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A browser for tests marked `browser`."""
    from tests.browser import open_browser  # needs selenium

    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        page.driver.get("about:blank")  # ends the requests of the browser's own first page
        yield page


@pytest.fixture
def float64():
    """Enables float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def clear_caches():
    """Drops compiled programs after the test: those of all models would fill the memory."""
    yield
    jax.clear_caches()


@pytest.fixture
def unset():
    """Nothing of what commands set in jax is set; what was, is set again afterwards."""
    names = ("jax_compilation_cache_dir", "jax_default_matmul_precision")
    before = {name: getattr(jax.config, name) for name in names}
    for name in names:
        jax.config.update(name, None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def one_torch_thread():
    """Sets PyTorch to one thread: several slow one another down on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """A data directory with a few images of every ImageNet test set."""
    directory = shared_by_workers(tmp_path_factory, "archives")
    once(directory, lambda: fake_archives.make_all(directory))
    return directory


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory):
    """A model whose predictions vary and favour the classes of `archives`."""
    directory = shared_by_workers(tmp_path_factory, "checkpoints")

    def make():
        images = [fake_archives.picture(i) for i in range(20)]
        mean = np.log(softmax_of(save(directory / "plain"), images)).mean(axis=0)
        bias = random_split().params["fc.bias"] - np.float32(mean)
        bias[np.unique(fake_archives.VAL_LABELS)] += 10
        save(directory / "small", **{"fc.bias": bias})

    once(directory, make)
    return directory / "small"


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A training run of two epochs of six steps. A step that copies data unasked is an error."""
    directory = shared_by_workers(tmp_path_factory, "runs")
    make_step = build.make_train_step

    def make_guarded(*args, **options):
        return jax.transfer_guard("disallow")(make_step(*args, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "make_train_step", make_guarded)
        once(directory, lambda: loop.train(config(), directory / "digits"))
    return epath.Path(directory / "digits")


@pytest.fixture
def finished_copy(finished, tmp_path):
    """A copy of the finished run, to start again: a shared one is locked by another worker."""
    return epath.Path(shutil.copytree(finished, tmp_path / finished.name))


@pytest.fixture(scope="session")
def gcs(tmp_path_factory):
    """A GCS server: its port, and the environment in which gs:// leads there."""
    with fake_gcs.serve(tmp_path_factory.mktemp("gcs")) as (port, environment):
        yield port, environment


@pytest.fixture
def bucket(gcs, monkeypatch):
    """An empty bucket, for this process and for the commands that it starts."""
    port, environment = gcs
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = fake_gcs.Bucket(port)
    yield bucket
    bucket.heal()
