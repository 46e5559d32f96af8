"""The training loop: epochs of steps, each followed by an evaluation and a checkpoint."""

import time
from collections import deque
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx
from tqdm import tqdm

from an_jax import functional, parallel, zoo
from an_jax.checkpoint import ModelCard
from an_jax.data.image_sets import IMAGE_SETS, open_image_set
from an_jax.data.pipeline import Augmentation, steps_per_epoch, train_batches
from an_jax.data.train_sets import get_train_set
from an_jax.errors import InputError
from an_jax.evaluation.evaluator import Evaluator
from an_jax.evaluation.metrics import top_k_accuracy
from an_jax.evaluation.predictions import ALL
from an_jax.progress import progress_bar
from an_jax.training import workdir as run_directory
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.curves import plot_curves
from an_jax.training.optimizer import cosine_schedule, sgd
from an_jax.training.step import init_state, make_train_step


def train(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Trains from scratch, or goes on where an earlier call of the same configuration stopped.

    Args:
        config: see configs/digits.py for the fields.
        workdir: receives config.json, model.json, metrics.jsonl, curves.png, checkpoints/.

    Raises:
        InputError: unknown names, another run in the directory, a loss that is no number.
    """
    workdir = workdir.absolute()
    mesh = parallel.make_mesh()
    check_config(config, mesh.size)
    train_set = get_train_set(config.dataset)
    num_classes = IMAGE_SETS[train_set.test_set].num_classes
    preprocessing = zoo.get_architecture(config.model).preprocessing
    card = ModelCard(config.model, num_classes, preprocessing, {"trained_on": config.dataset})
    source, test_source = train_set.open(), open_image_set(train_set.test_set, None, False)
    run_directory.open_workdir(workdir, config, card)

    dtype = jnp.dtype(config.dtype)
    rngs = nnx.Rngs(config.seed)
    model = zoo.create_model(config.model, num_classes=card.num_classes, dtype=dtype, rngs=rngs)
    split = functional.split(model)
    steps = steps_per_epoch(len(source), config.batch_size)
    peak = config.learning_rate * config.batch_size / 256
    schedule = cosine_schedule(peak, steps, config.num_epochs, config.warmup_epochs)
    optimizer = sgd(schedule, config.momentum, config.weight_decay)
    train_step = make_train_step(split.definition, optimizer, mesh, preprocessing, config.seed)
    evaluate = Evaluator(split.definition, num_classes, preprocessing, config.eval_batch_size, mesh)

    with TrainCheckpoints(workdir) as checkpoints:
        state = parallel.replicate(init_state(split, optimizer), mesh)
        state = checkpoints.restore_last(state)
        done = int(state.step)
        run_directory.drop_metrics_after(workdir, done)
        print(
            f"{config.model}: {functional.count(split.params) / 1e6:.3f} M parameters, "
            f"{len(source)} images of {config.dataset}, {config.num_epochs} epochs of {steps} "
            f"steps on {mesh.size} device(s)" + (f"; going on after step {done}" if done else "")
        )
        progress = progress_bar(
            config.num_epochs * steps * config.batch_size,
            workdir.name,
            initial=done * config.batch_size,
        )
        for epoch in range(done // steps, config.num_epochs):
            start, first_step = time.perf_counter(), int(state.step) - epoch * steps
            batches = train_batches(
                source,
                config.batch_size,
                slice(0, config.batch_size),
                preprocessing,
                Augmentation(tuple(config.crop_scale), config.horizontal_flip),
                seed=config.seed,
                epoch=epoch,
                first_step=first_step,
            )
            state, loss, top1 = run_epoch(train_step, state, batches, mesh, progress, epoch)
            rate = (steps - first_step) * config.batch_size / (time.perf_counter() - start)
            predictions = evaluate(
                state.params,
                state.batch_stats,
                test_source,
                title=train_set.test_set,
                nested=True,
            )
            test_top1, test_top5 = (
                top_k_accuracy(predictions.classes[ALL], predictions.labels, k) for k in (1, 5)
            )
            metrics = {
                "epoch": epoch + 1,
                "step": int(state.step),
                "loss": loss,
                "train_top1": top1,
                "test_top1": test_top1,
                "test_top5": test_top5,
                "learning_rate": float(schedule(state.step - 1)),
                "images_per_second": round(rate, 1),
            }
            # Before the checkpoint: a line too many is dropped on resuming, a missing one is lost.
            run_directory.append_metrics(workdir, metrics)
            checkpoints.save(state, test_top1)
            minutes = (config.num_epochs - epoch - 1) * (time.perf_counter() - start) / 60
            tqdm.write(
                f"epoch {epoch + 1:3d}/{config.num_epochs}  loss {loss:.4f}  "
                f"train top-1 {100 * top1:.1f} %  test top-1 {100 * test_top1:.1f} %  "
                f"{rate:.0f} img/s  {minutes:.1f} min left"
            )
        progress.close()
    plot_curves([workdir], workdir / "curves.png")


def check_config(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Raises InputError on numbers that no training can have."""
    if config.dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype must be float32 or bfloat16, not {config.dtype}")
    if not 0 <= config.warmup_epochs < config.num_epochs:
        raise InputError("num_epochs must be above warmup_epochs, and these at least 0")
    if config.batch_size % num_devices or config.batch_size < 2 * num_devices:
        raise InputError(
            f"batch_size {config.batch_size} does not divide among {num_devices} device(s) "
            "with at least 2 images for each"
        )


def run_epoch(step, state, batches, mesh, progress: tqdm, epoch: int):
    """Runs the steps of an epoch, two ahead of the host.

    Returns:
        The new state, the mean loss and the mean top-1 accuracy of the steps.

    Raises:
        InputError: the loss is NaN or infinite.
    """
    collected, running = [], deque()

    def collect():
        metrics, images = running.popleft()
        loss, top1 = (float(value) for value in metrics)
        if not np.isfinite(loss):
            raise InputError(
                f"the loss is {loss} in epoch {epoch + 1}: lower the learning rate; "
                "the checkpoint before is kept"
            )
        collected.append((loss, top1))
        progress.set_postfix(epoch=epoch + 1, loss=f"{loss:.3f}", refresh=False)
        progress.update(images)

    for batch in batches:
        images, labels = parallel.shard_batch((batch["image"], batch["label"]), mesh)
        state, metrics = step(state, images, labels)
        running.append((metrics, len(labels)))
        if len(running) > 2:
            collect()
    while running:
        collect()
    loss, top1 = np.mean(collected, axis=0)
    return state, float(loss), float(top1)
