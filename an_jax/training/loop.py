"""The training loop: epochs of steps, each followed by a checkpoint and an evaluation."""

import dataclasses
import os
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx
from tqdm import tqdm

from an_jax import functional, parallel, zoo
from an_jax.checkpoint import RANKINGS, ModelCard
from an_jax.data.sets.train_sets import TrainSet, open_train_set
from an_jax.data.train_pipeline import Augmentation, TrainBatch, steps_per_epoch, train_batches
from an_jax.errors import InputError
from an_jax.files import absolute
from an_jax.progress import progress_bar
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.config import check_config
from an_jax.training.curves import plot_curves
from an_jax.training.fine_tune import initial_weights
from an_jax.training.log import RunLog
from an_jax.training.optimizer import cosine_schedule, sgd
from an_jax.training.preemption import Preempted, Preemption
from an_jax.training.step import init_state, make_train_step
from an_jax.training.validation import Validation
from an_jax.training.watch import StepWatch
from an_jax.training.workdir import CONFIG, open_workdir

PROFILE_AFTER = 10  # steps of a start


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Trains, or goes on where an earlier call of the same configuration stopped.

    To be called by every process. After SIGTERM it saves and returns.

    Args:
        config: of training.config; check_config says what is possible.
        workdir: receives config.json, model.json, metrics.jsonl, steps.jsonl, tensorboard/,
            curves.png, checkpoints/, best/; may be gs://.

    Raises:
        InputError: bad configuration or data, another run in the directory, a directory that
            cannot be written, a loss that is no number.
    """
    check_config(config, jax.device_count())
    train_set = _open_train_set(config)
    preprocessing = dataclasses.replace(
        zoo.get_architecture(config.model).preprocessing, image_size=config.image_size
    )
    source = {"trained_on": config.dataset, "num_images": len(train_set.source)}
    if train_set.classes:
        source["classes"] = list(train_set.classes)
    card = ModelCard(config.model, train_set.num_classes, preprocessing, source)
    workdir = absolute(workdir)
    parallel.on_main_process(lambda: open_workdir(workdir, config, card))
    _check_shared(workdir, config)
    with TrainCheckpoints(workdir, config.keep_checkpoints) as checkpoints:
        Run(config, workdir, card, train_set, checkpoints)()


def _open_train_set(config) -> TrainSet:
    train_set, error = None, None
    try:
        train_set = open_train_set(config.dataset, config.data_dir)
        if len(train_set.source) < jax.process_count():
            raise InputError("there are fewer training images than processes")
    except InputError as found:
        error = found
    parallel.check_agreement(train_set.fingerprint if train_set else "", error)
    return train_set


def _check_shared(workdir, config) -> None:
    """Raises InputError unless all processes have the same configuration and working directory."""
    written, error = "", None
    try:
        written = (workdir / CONFIG).read_text()
    except OSError as found:
        error = InputError(f"{workdir} must be one place for all processes: {found}")
    parallel.check_agreement(config.to_json() + written, error)


class Run:
    """A training run, from its last checkpoint on.

    Args:
        config, workdir: as of `train`.
        card: of the model.
        train_set: its data.
        checkpoints: of the workdir.
    """

    def __init__(self, config, workdir, card: ModelCard, train_set: TrainSet, checkpoints):
        self._config, self._workdir, self._card = config, workdir, card
        self._train_set, self._checkpoints = train_set, checkpoints
        self._mesh = parallel.make_mesh(config.bn_group_size)
        self._steps = steps_per_epoch(len(train_set.source), config.batch_size)

        dtype = jnp.dtype(config.dtype)
        model = zoo.create_model(
            config.model, num_classes=card.num_classes, dtype=dtype, rngs=nnx.Rngs(config.seed)
        )
        split = functional.split(model)
        if config.init_from and checkpoints.last_step is None:
            split = initial_weights(split, config.init_from, config.model)
        peak = config.learning_rate * config.batch_size / 256
        schedule = cosine_schedule(peak, self._steps, config.num_epochs, config.warmup_epochs)
        optimizer = sgd(schedule, config.momentum, config.weight_decay)
        self._train_step = make_train_step(
            split.definition,
            optimizer,
            self._mesh,
            card.preprocessing,
            card.num_classes,
            label_smoothing=config.label_smoothing,
            mixup_alpha=config.mixup,
            seed=config.seed,
        )
        self._validate = Validation(
            split.definition, card, train_set, config.eval_batch_size, self._mesh
        )
        state = parallel.replicate(init_state(split, optimizer), self._mesh)
        self._state = checkpoints.restore_last(state)
        self._step = self._start = int(self._state.step)  # updates made
        self._profiling = False
        self._log = RunLog(workdir, self._step, writes=parallel.is_main_process())
        self._say(
            f"{config.model}: {functional.count(split.params) / 1e6:.3f} M parameters; "
            f"{len(train_set.source)} images of {config.dataset}, {card.num_classes} classes; "
            f"{config.num_epochs} epochs of {self._steps} steps of {config.batch_size} images on "
            f"{self._mesh.size} device(s)"
            + (f"; going on after step {self._step}" if self._step else "")
        )
        progress = progress_bar(
            config.num_epochs * self._steps * config.batch_size,
            workdir.name,
            initial=self._step * config.batch_size,
            hidden=not parallel.is_main_process(),
        )
        self._watch = StepWatch(
            self._log,
            progress,
            schedule,
            config.batch_size,
            config.log_steps,
            checkpoints.last_whole,
        )
        self._progress = progress

    def __call__(self) -> None:
        """Trains to the end, or to SIGTERM."""
        try:
            with Preemption() as preemption, self._progress:
                self._train(preemption)
            self._say(self._summary())
        except Preempted:
            self._checkpoints.wait()
            self._say(f"SIGTERM: saved at step {self._step}; the same command goes on there")
        finally:
            if self._profiling:
                self._stop_profile()

    def _train(self, preemption: Preemption) -> None:
        evaluated = parallel.agree(any(line["step"] == self._step for line in self._log.epochs))
        # An epoch may have been trained and saved, but not evaluated any more.
        first = (self._step - (not evaluated and self._step > 0)) // self._steps
        for epoch in range(first, self._config.num_epochs):
            began = time.perf_counter()
            for batch in self._batches(epoch):
                self._update(epoch, batch)
                is_last = self._step == (epoch + 1) * self._steps
                stop = preemption.requested(self._step)
                if stop or is_last or self._step % self._config.checkpoint_steps == 0:
                    self._watch.drain()
                    self._checkpoints.save(self._step, self._state)
                if stop:
                    raise Preempted
            with preemption.at_once():
                scores = self._validate(self._state.params, self._state.batch_stats)
            self._end_epoch(epoch, scores, began)

    def _batches(self, epoch: int) -> Iterator[TrainBatch]:
        config, first_step = self._config, self._step - epoch * self._steps
        if first_step == self._steps:
            return iter(())
        share = parallel.share_of_process(config.batch_size)
        return train_batches(
            self._train_set.source,
            config.batch_size,
            slice(share.start, share.stop),
            self._card.preprocessing,
            Augmentation(tuple(config.crop_scale), config.horizontal_flip),
            seed=config.seed,
            epoch=epoch,
            first_step=first_step,
        )

    def _update(self, epoch: int, batch: TrainBatch) -> None:
        """One step; the first of a start says when it is compiled."""
        self._watch.skip(batch.skipped)
        arrays = parallel.shard_batch((batch.images, batch.labels), self._mesh)
        is_first, began = self._step == self._start, time.perf_counter()
        if is_first:
            self._say("compiling the training step ...")
        if self._config.profile_steps:
            self._profile()
        self._state, metrics = self._train_step(self._state, *arrays)
        self._step += 1
        self._watch.add(epoch + 1, self._step, metrics)
        if is_first:
            self._say(f"compiled in {time.perf_counter() - began:.1f} s; training")

    def _profile(self) -> None:
        """Starts and stops the profiler of this process; all do so at the same steps."""
        step = self._step - self._start
        if step == PROFILE_AFTER:
            jax.profiler.start_trace(str(self._workdir / "profile"))
            self._profiling = True
        elif step == PROFILE_AFTER + self._config.profile_steps:
            self._watch.drain()
            self._stop_profile()

    def _stop_profile(self) -> None:
        self._profiling = False
        jax.profiler.stop_trace()
        self._say(f"profile written to {self._workdir / 'profile'}")

    def _end_epoch(self, epoch: int, scores: dict[str, float], began: float) -> None:
        """Keeps the weights if they are the best so far; logs and draws."""
        is_best = any(
            score >= max((line.get(name, 0.0) for line in self._log.epochs), default=0.0)
            for name, score in scores.items()
            if name in RANKINGS
        )
        # Kept before it is logged: an epoch in the log is one that needs no more evaluation.
        if parallel.agree(is_best):
            self._checkpoints.save_best(self._step, self._state, scores)
        windows = [line for line in self._log.steps if line["epoch"] == epoch + 1]
        weights = [line["steps"] for line in windows]
        loss, top1 = (
            float(np.average([line[key] for line in windows], weights=weights))
            for key in ("loss", "top1")
        )
        rates = [line["images_per_second"] for line in windows if line["images_per_second"]]
        line = {
            "epoch": epoch + 1,
            "step": self._step,
            "loss": loss,
            "train_top1": top1,
            **scores,
            "learning_rate": windows[-1]["learning_rate"],
            "images_per_second": round(float(np.mean(rates or 0.0)), 1),
            "skipped": parallel.total(self._watch.take_skipped()),
        }
        self._log.add_epoch(line)
        if parallel.is_main_process():
            try:
                plot_curves([self._workdir], self._workdir / "curves.png")
            except OSError as error:  # no reason to end a training
                self._say(f"curves.png cannot be written: {error}")
        left = (self._config.num_epochs - epoch - 1) * (time.perf_counter() - began) / 60
        real = f"  ReaL {100 * line['real_top1']:.1f} %" if "real_top1" in line else ""
        self._say(
            f"epoch {epoch + 1:3d}/{self._config.num_epochs}  loss {line['loss']:.4f}  "
            f"train top-1 {100 * line['train_top1']:.1f} %  "
            f"val top-1 {100 * line['val_top1']:.1f} %{real}  "
            f"{line['images_per_second']:.0f} img/s  {left:.1f} min left"
            + (f"  {line['skipped']} images skipped" if line["skipped"] else "")
        )

    def _summary(self) -> str:
        best = max(self._log.epochs, key=lambda line: (line["val_top1"], line["step"]))
        return (
            f"best val top-1 {100 * best['val_top1']:.1f} % in epoch {best['epoch']}; "
            f"an_jax.load_model({str(self._workdir)!r}) gives that model"
        )

    def _say(self, text: str) -> None:
        if parallel.is_main_process():
            tqdm.write(text)
