"""Training: the recipe's numbers, the step on several devices, resuming, what a run leaves."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from an_jax import create_model, functional, load_model, parallel
from an_jax.checkpoint import ModelCard, best_step
from an_jax.errors import InputError
from an_jax.training import curves, loop, optimizer
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.step import init_state, train_step
from an_jax.training.workdir import open_workdir
from configs import digits
from tests.reference import FIXTURES

RECIPE = json.loads((FIXTURES / "recipe.json").read_text())


@pytest.mark.parametrize(
    ("name", "epochs", "steps", "peak"),
    [
        ("lr_cosine_E8_n7_base0.8", 8, 7, 0.8),
        ("lr_cosine_E120_n626_base0.8", 120, 626, 0.8),
        ("lr_cosine_E150_n1252_base0.2", 150, 1252, 0.2),
    ],
)
def test_learning_rate(name, epochs, steps, peak):
    with jax.enable_x64(True):
        schedule = optimizer.cosine_schedule(peak, steps, epochs, warmup_epochs=5)
        rates = schedule(jnp.array(RECIPE[name]["iteration"]))
    np.testing.assert_allclose(rates, RECIPE[name]["lr"], rtol=1e-9)


def test_learning_rate_without_warmup_starts_at_the_peak():
    schedule = optimizer.cosine_schedule(0.4, steps_per_epoch=10, num_epochs=3, warmup_epochs=0)
    assert schedule(0) == pytest.approx(0.4)
    assert schedule(30) == pytest.approx(1e-6, rel=1e-2)


def test_sgd_is_pytorchs():
    golden = RECIPE["sgd_momentum_wd"]
    with jax.enable_x64(True):
        sgd = optimizer.sgd(golden["lr"], golden["momentum"], golden["weight_decay"])
        params = jnp.array(golden["params"][0])
        state = sgd.init(params)
        for gradient, expected in zip(golden["grads"], golden["params"][1:], strict=True):
            updates, state = sgd.update(jnp.array(gradient), state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(params, expected, rtol=1e-12)


def test_eight_devices_are_eight_replicas_with_averaged_gradients():
    """The step on eight devices against replicas computed one after the other, as DDP trains."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(32, 16, 16, 3)), rng.integers(0, 10, 32)
    with jax.enable_x64(True):
        model = create_model(
            "resnet_20_an_bn1", num_classes=10, dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        split = functional.split(model)
        sgd = optimizer.sgd(0.1, 0.9, 1e-4)
        state = init_state(split, sgd)
        mesh = jax.make_mesh((8,), (parallel.AXIS,), axis_types=(AxisType.Auto,))
        step = jax.shard_map(
            functools.partial(train_step, split.definition, sgd, dropout_key=None),
            mesh=mesh,
            in_specs=(P(), P(parallel.AXIS), P(parallel.AXIS)),
            out_specs=P(),
        )
        after, metrics = jax.jit(step)(state, images, labels)

        @jax.jit
        @functools.partial(jax.grad, has_aux=True)
        def replica(params, images, labels):
            logits, stats = functional.apply_train(
                split.definition, params, split.batch_stats, images, None
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), (stats, losses.mean())

        replicas = [
            replica(split.params, *part)
            for part in zip(np.split(images, 8), np.split(labels, 8), strict=True)
        ]
        gradients, (stats, loss) = jax.tree.map(lambda *leaves: sum(leaves) / 8, *replicas)
        updates, _ = sgd.update(gradients, state.opt_state, split.params)
        expected = optax.apply_updates(split.params, updates)
    for path, value in expected.items():
        np.testing.assert_allclose(after.params[path], value, rtol=1e-9, atol=1e-12)
    for path, value in stats.items():
        np.testing.assert_allclose(after.batch_stats[path], value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(metrics.loss, loss)


def config(**changes):
    result = digits.get_config("an")
    result.update({"num_epochs": 2, "warmup_epochs": 1, "batch_size": 240} | changes)
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    loop.train(config(), workdir)
    return workdir


def read_last(workdir):
    """Parameters, statistics and optimizer state of the last checkpoint."""
    optimizer_of_run = optimizer.sgd(lambda step: 0.1, 0.9, 1e-4)
    split = functional.split(create_model("resnet_20_an_bn1", num_classes=10))
    with TrainCheckpoints(workdir) as checkpoints:
        return checkpoints.restore_last(init_state(split, optimizer_of_run))


def test_a_run_leaves_metrics_curves_and_the_best_model(finished):
    epochs = curves.read_metrics(finished)
    assert [(e["epoch"], e["step"]) for e in epochs] == [(1, 6), (2, 12)]
    assert epochs[1]["loss"] < epochs[0]["loss"]
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    best = max(epochs, key=lambda e: (e["test_top1"], e["step"]))["step"]
    assert best_step(finished) == best
    model = load_model(finished)
    assert model(jnp.zeros((1, 16, 16, 3))).shape == (1, 10)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(finished, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_epoch", fail_in_epoch(1, loop.run_epoch, interrupt))
        with pytest.raises(KeyboardInterrupt):
            loop.train(config(), tmp_path / "run")
    assert [e["epoch"] for e in curves.read_metrics(tmp_path / "run")] == [1]
    loop.train(config(), tmp_path / "run")
    assert "going on after step 6" in capsys.readouterr().out
    expected, actual = read_last(finished), read_last(tmp_path / "run")
    assert jax.tree.all(jax.tree.map(np.array_equal, expected, actual))
    assert [e["epoch"] for e in curves.read_metrics(tmp_path / "run")] == [1, 2]


def fail_in_epoch(number, run_epoch, failure):
    def run(step, state, batches, mesh, progress, epoch):
        if epoch == number:
            failure()
        return run_epoch(step, state, batches, mesh, progress, epoch)

    return run


def test_a_finished_run_is_left_alone(finished, monkeypatch):
    metrics = (finished / "metrics.jsonl").read_text()
    monkeypatch.setattr(loop, "run_epoch", fail_in_epoch(0, None, lambda: pytest.fail("trained")))
    loop.train(config(), finished)
    assert (finished / "metrics.jsonl").read_text() == metrics


def test_metrics_of_an_epoch_that_was_not_saved_are_dropped(finished, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "step": 18}\n{"epoch": 4, "st')
    loop.train(config(), workdir)
    assert len(curves.read_metrics(workdir)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e12}, "the loss is (nan|inf)"),
        ({"model": "resnet_20"}, "nearest names are .*resnet_20_bn"),
        ({"dataset": "digit"}, "unknown training set 'digit'"),
        ({"dtype": "float16"}, "dtype must be float32 or bfloat16, not float16"),
        ({"batch_size": 12}, r"12 does not divide among 8 device\(s\)"),
        ({"batch_size": 8}, "with at least 2 images for each"),
        ({"num_epochs": 0}, "num_epochs must be above warmup_epochs"),
    ],
)
def test_a_bad_configuration_stops_with_a_reason(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        loop.train(config(**changes), tmp_path / "run")


def test_another_configuration_is_not_mixed_into_a_run(finished):
    before = (finished / "config.json").read_text()
    with pytest.raises(InputError, match=r"another configuration \(seed 0 -> 1\)"):
        loop.train(config(seed=1), finished)
    assert (finished / "config.json").read_text() == before


def test_a_run_that_saved_nothing_does_not_pin_its_configuration(tmp_path):
    with pytest.raises(InputError, match="the loss is"):
        loop.train(config(learning_rate=1e12), tmp_path / "run")
    card = ModelCard.read(tmp_path / "run")
    open_workdir(tmp_path / "run", config(seed=1), card)
    assert json.loads((tmp_path / "run/config.json").read_text())["seed"] == 1


def test_a_checkpoint_is_no_workdir(tmp_path, finished):
    shutil.copy(finished / "model.json", tmp_path)
    with pytest.raises(InputError, match="holds a checkpoint, not a run"):
        loop.train(config(), tmp_path)


def test_a_damaged_step_is_named(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    last = workdir / "checkpoints/12/optimizer"
    shutil.rmtree(last)
    with pytest.raises(InputError, match=r"checkpoints/12 cannot be read: .*remove it to go on"):
        loop.train(config(), workdir)


def test_an_unwritable_workdir_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        loop.train(config(), tmp_path / "file" / "run")


def test_curves_of_several_runs(finished, tmp_path, capsys):
    picture = tmp_path / "curves.png"
    assert curves.main([str(finished), str(finished), "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert curves.main([str(tmp_path), "--output", str(picture)]) == 1
    assert "is no training run" in capsys.readouterr().err
