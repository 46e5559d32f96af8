"""The training loop: epochs of steps, each followed by a checkpoint and an evaluation."""

import functools
import json
import os
import time

import jax
import ml_collections
from etils import epath

from an_jax import functional, parallel
from an_jax.checkpoint import ModelCard
from an_jax.data.sets.train_sets import TrainSet, open_train_set
from an_jax.data.train_pipeline import steps_per_epoch
from an_jax.devices import describe_devices
from an_jax.errors import InputError, file_errors, with_advice
from an_jax.files import absolute
from an_jax.out_of_memory import explain_lack_of_memory
from an_jax.progress import progress_bar
from an_jax.training.batches import begin, epoch_batches
from an_jax.training.build import build, make_card
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.config import check_config, eval_batch_size
from an_jax.training.curves import plot_curves, write_curves
from an_jax.training.eval_sets import EvalSets, open_eval_sets
from an_jax.training.input_wait import InputWait
from an_jax.training.lock import RunLock
from an_jax.training.log import RunLog, epoch_metrics, is_best
from an_jax.training.messages import describe_best, describe_epoch, describe_run, say
from an_jax.training.norm_groups import make_norm_groups
from an_jax.training.preemption import Preempted, Preemption
from an_jax.training.profile import Profile
from an_jax.training.watch import StepWatch
from an_jax.training.workdir import CONFIG, open_workdir


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Trains a model, or resumes the run of the same configuration in the working directory.

    Every process calls this. After SIGTERM or Ctrl-C it saves a checkpoint and returns.

    Args:
        config: the configuration; see `training.config`.
        workdir: receives config.json, model.json, metrics.jsonl, steps.jsonl (in a bucket steps/),
            tensorboard/, curves.html, curves.png, checkpoints/, best/, .lock; may be gs://.

    Raises:
        InputError: the configuration or the data are invalid, the directory holds another run or
            cannot be written, or a loss is NaN or infinite.
    """
    check_config(config, jax.device_count())
    train_set = _open_train_set(config)
    card = make_card(config, train_set)
    eval_sets = _open_eval_sets(config, card)
    workdir = absolute(workdir)
    with RunLock(workdir) as lock:
        parallel.on_main_process(lambda: open_workdir(workdir, config, card))
        _check_workdir_is_shared(workdir, config)
        with TrainCheckpoints(workdir, config.keep_checkpoints) as checkpoints:
            _run(config, workdir, card, train_set, eval_sets, checkpoints, lock)


def _open_train_set(config: ml_collections.ConfigDict) -> TrainSet:
    """Raises InputError unless all processes can open the same training set."""
    train_set = open_train_set(config.dataset, config.data_dir)
    if len(train_set.source) < jax.process_count():
        raise InputError("there are fewer training images than processes")
    parallel.check_agreement(train_set.fingerprints)
    return train_set


def _open_eval_sets(config: ml_collections.ConfigDict, card: ModelCard) -> EvalSets:
    """Raises InputError unless all processes can open the same test sets."""
    open_sets = functools.partial(open_eval_sets, config, card)
    eval_sets = parallel.from_main_process(open_sets)
    sources = eval_sets.sources.items()
    parallel.check_agreement({f"images of {name}": s.fingerprint for name, s in sources})
    return eval_sets


def _check_workdir_is_shared(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Raises InputError unless all processes have the same configuration and working directory."""
    with parallel.failing_together():
        try:
            written = (workdir / CONFIG).read_text()
        except file_errors() as error:
            raise InputError(
                f"{workdir} must be the same directory for all processes: {with_advice(error)}"
            ) from error
    fields = json.loads(config.to_json())
    parallel.check_agreement(
        {f"config.{name}": json.dumps(value) for name, value in fields.items()}
        | {str(workdir / CONFIG): written}
    )


def _run(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    card: ModelCard,
    train_set: TrainSet,
    eval_sets: EvalSets,
    checkpoints: TrainCheckpoints,
    lock: RunLock,
) -> None:
    groups = make_norm_groups(config.batch_size, config.norm_batch_size, jax.device_count())
    mesh = parallel.make_mesh(groups.num_devices)
    steps = steps_per_epoch(len(train_set.source), config.batch_size)

    # Training starts
    # 1. from the last checkpoint of the working directory, if it has one;
    # 2. otherwise from the weights of the checkpoint config.init_from, if that is set;
    # 3. otherwise from random weights.
    parallel.check_agreement({"last checkpoint": str(checkpoints.last_step)})
    is_resumed = checkpoints.last_step is not None
    with parallel.failing_together():
        schedule, train_step, state, validate = build(
            config,
            card,
            train_set,
            eval_sets,
            mesh,
            groups.num_micro_batches,
            is_resumed=is_resumed,
        )
    if config.init_from and not is_resumed:
        digest = functional.digest(state.params | state.batch_stats)
        parallel.check_agreement({f"weights of {config.init_from}": digest})
    state = checkpoints.restore_last(state)
    start = step = int(state.step)  # updates made

    with parallel.failing_together():
        log = RunLog(workdir, step, is_writer=parallel.is_main_process())
    say(
        describe_run(
            config,
            card,
            num_params=functional.count(state.params),
            devices=describe_devices(),
            groups=groups,
            steps_per_epoch=steps,
            first_step=step,
        )
    )
    progress = progress_bar(
        config.num_epochs * steps * config.batch_size,
        workdir.name,
        initial=step * config.batch_size,
        hidden=not parallel.is_main_process(),
    )
    input_wait = InputWait(mesh)
    watch = StepWatch(
        log=log,
        progress=progress,
        schedule=schedule,
        batch_size=config.batch_size,
        log_steps=config.log_steps,
        input_wait=input_wait,
        describe_last_checkpoint=checkpoints.describe_last,
    )
    profile = Profile(workdir / "profile", config.profile_steps, watch.drain)

    # The last epoch may have been trained and saved, but not evaluated.
    is_evaluated = parallel.broadcast_flag(
        step == 0 or any(line["step"] == step for line in log.epochs)
    )
    first_epoch = (step if is_evaluated else step - 1) // steps

    def check() -> None:
        """Raises the error of a background thread of this process."""
        lock.check()
        log.check()

    open_epoch = functools.partial(
        epoch_batches, config, card, train_set, groups, mesh, check=check
    )
    preemption = Preemption()
    enough_memory = explain_lack_of_memory("--config.batch_size", config.batch_size)
    try:
        with log, progress, profile, preemption, enough_memory:
            upcoming = None
            for epoch in range(first_epoch, config.num_epochs):
                epoch_began = time.perf_counter()
                batches = upcoming or open_epoch(epoch, step - epoch * steps)
                for batch, error in input_wait.measure(batches):
                    watch.skip(batch.skipped)
                    profile.before_step(step - start)
                    if step == start:
                        say("compiling the training step ...")
                    step_began = time.perf_counter()
                    with jax.profiler.StepTraceAnnotation("train", step_num=step):
                        images, labels = parallel.shard_batch((batch.images, batch.labels), mesh)
                        state, metrics = train_step(state, images, labels)
                    if step == start:
                        say(f"compiled in {time.perf_counter() - step_began:.1f} s; training")
                    step += 1
                    watch.add(epoch + 1, step, metrics, error)

                    is_preempted = preemption.requested(step)
                    is_last = step == (epoch + 1) * steps
                    if is_preempted or is_last or step % config.checkpoint_steps == 0:
                        watch.drain()
                        with parallel.failing_together():
                            log.wait_for_epoch()  # a run that resumes here won't evaluate it again
                        checkpoints.save(step, state)
                    if is_preempted:
                        with parallel.failing_together():
                            log.flush()
                        raise Preempted

                if epoch + 1 < config.num_epochs:  # read while the devices validate
                    upcoming = begin(open_epoch(epoch + 1, 0))
                with (
                    preemption.stopping_at_once(),
                    explain_lack_of_memory("--config.eval_batch_size", eval_batch_size(config)),
                ):
                    scores = validate(state, epoch + 1)
                # Save the weights before logging the epoch: a logged epoch is not evaluated again.
                if parallel.broadcast_flag(is_best(scores, log.epochs)):
                    checkpoints.save_best(step, state, scores)
                    log.submit(checkpoints.wait_for_best)
                lines = [line for line in log.steps if line["epoch"] == epoch + 1]
                skipped = parallel.sum_over_processes(watch.take_skipped())
                log.add_epoch(epoch_metrics(epoch + 1, step, lines, scores, skipped))
                log.submit(lambda: _draw_curves(workdir))
                seconds_left = (time.perf_counter() - epoch_began) * (config.num_epochs - epoch - 1)
                say(describe_epoch(log.epochs[-1], config.num_epochs, seconds_left / 60))
            with parallel.failing_together():
                log.flush()
        say(describe_best(log.epochs, workdir))
    except Preempted:
        checkpoints.wait()
        say(f"{preemption.reason}: saved at step {step}; run the same command again to resume")


def _draw_curves(workdir: epath.Path) -> None:
    """Draws curves.png and curves.html; a failure does not end the training."""
    for name, draw in (("curves.png", plot_curves), ("curves.html", write_curves)):
        try:
            draw([workdir], workdir / name)
        except Exception as error:  # also of matplotlib
            say(f"warning: {name} cannot be written: {with_advice(error)}")
