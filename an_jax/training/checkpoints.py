"""Training checkpoints: the last ones, from which a run resumes, and the best ones."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from an_jax import parallel
from an_jax.checkpoint import BEST, EMA, RANKINGS, STEPS, WEIGHTS
from an_jax.errors import InputError, one_line
from an_jax.training.messages import how_to_resume
from an_jax.training.step import TrainState

OPTIMIZER = "optimizer"


class TrainCheckpoints:
    """The checkpoints of a working directory, which process 0 writes in the background.

    checkpoints/<step>/ holds the weights, the optimizer state and any moving averages of the
    weights, as separate items. best/<step>/ holds the weights, or their averages if there are any,
    of the epoch with the best accuracy by each of the `RANKINGS`. This is a context manager: on
    leaving, also by an exception, it completes the writes.

    Args:
        workdir: absolute path of the run's working directory.
        keep: number of last checkpoints to keep.
    """

    def __init__(self, workdir: epath.Path, keep: int):
        self._last = ocp.CheckpointManager(
            workdir / STEPS,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
            item_names=(WEIGHTS, OPTIMIZER, EMA),
        )
        best = [
            managers.BestN(get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False)
            for rank in RANKINGS.values()
        ]
        self._best = ocp.CheckpointManager(
            workdir / BEST,
            options=ocp.CheckpointManagerOptions(
                best_fn=RANKINGS["val_top1"],
                preservation_policy=managers.AnyPreservationPolicy(best),
                cleanup_tmp_directories=True,
            ),
            item_names=(WEIGHTS,),
        )

    def save(self, step: int, state: TrainState) -> None:
        """Saves the state in the background.

        Raises:
            InputError: this checkpoint or the previous one cannot be written.
        """
        items = jax.device_get(_items(state))  # orbax would copy device arrays slice by slice
        args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with self._explain_errors():
            self._check_room(items)
            self._last.save(step, args=ocp.args.Composite(**args))

    def save_best(self, step: int, state: TrainState, metrics: dict[str, float]) -> None:
        """Saves the weights as those of the best epoch so far, in the background.

        Raises:
            InputError: they or earlier ones cannot be written.
        """
        items = _items(state)
        weights = jax.device_get(items.get(EMA, items[WEIGHTS]))
        args = ocp.args.Composite(**{WEIGHTS: ocp.args.StandardSave(weights)})
        with self._explain_errors():
            self._check_room(weights)
            # A run that is killed now may resume before its best step, and then reaches it again.
            if step not in self._best.all_steps():
                self._best.save(step, args=args, metrics=metrics, force=True)

    def wait_for_best(self) -> None:
        """Waits until the best weights are written; may be called by another thread.

        Raises:
            InputError: they cannot be written.
        """
        with self._explain_errors():
            self._best.wait_until_finished()

    def wait(self) -> None:
        """Waits until everything is written. Raises InputError if it cannot be."""
        with self._explain_errors():
            self._last.wait_until_finished()

    @property
    def last_step(self) -> int | None:
        """The step of the last checkpoint, or None without one."""
        return self._last.latest_step()

    def restore_last(self, state: TrainState) -> TrainState:
        """Returns the last saved state with the shardings of `state`, or `state` if none is saved.

        Raises:
            InputError: the files are damaged.
        """
        step = self.last_step
        if step is None:
            return state
        items = _items(state)
        # Orbax takes twice as long for jax's arrays as for NumPy's.
        wanted = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), items)
        args = {name: ocp.args.StandardRestore(item) for name, item in wanted.items()}
        try:
            restored = self._last.restore(step, args=ocp.args.Composite(**args))
            arrays = jax.tree.map(_place, items, dict(restored.items()))
        except Exception as error:  # orbax and tensorstore raise many types for damaged files
            reason = one_line(error, limit=300)
            raise InputError(
                f"{self._last.directory / str(step)} cannot be read: {reason}; "
                "remove it to resume from an earlier step"
            ) from error
        return TrainState(**arrays[WEIGHTS], **arrays[OPTIMIZER], ema=arrays.get(EMA))

    def describe_last(self) -> str:
        """Says which checkpoint is the last complete one, after waiting for the current write."""
        with contextlib.suppress(Exception):  # a failed write leaves the one before
            self._last.wait_until_finished()
        try:
            steps = ocp.utils.checkpoint_steps(self._last.directory)
        except Exception:  # storage that has failed once may fail again
            return "the checkpoints cannot be listed"
        if not steps:
            return "no checkpoint is saved yet"
        return f"the last good checkpoint is step {max(steps)}"

    def _check_room(self, arrays: Any) -> None:
        """Raises OSError before anything is written if the disk is too full.

        Raises InputError on all processes but the main one.
        """
        if not str(self._last.directory).startswith("/"):
            return  # a bucket has no limit
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))

        def check() -> None:
            free = shutil.disk_usage(self._last.directory).free
            if free < 1.1 * needed:
                megabytes = f"{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free"
                raise OSError(f"no space left: {megabytes}")

        parallel.on_main_process(check)

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Turns any error of a write into an InputError."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # orbax and tensorstore raise many types for a full disk
            # The system's reason comes last.
            text = one_line(error).split(" [")[0]
            reason = re.sub("^.*(?=HTTP response code)|^.*: ", "", text, count=1)
            raise InputError(
                f"cannot write to {self._last.directory.parent}: {reason}; "
                f"{self.describe_last()}: {how_to_resume(error)}"
            ) from error

    def __enter__(self) -> "TrainCheckpoints":
        return self

    def __exit__(self, kind: object, exception: object, traceback: object) -> None:
        try:
            with self._explain_errors():
                self._last.close()
                self._best.close()
        except InputError:
            if exception is None:  # otherwise the first error counts
                raise


def _place(leaf: jax.Array, array: np.ndarray) -> jax.Array:
    """Puts an array on the devices of `leaf`. Raises ValueError if its shape is another."""
    return jax.make_array_from_process_local_data(leaf.sharding, array, leaf.shape)


def _items(state: TrainState) -> dict[str, dict]:
    """Returns the items of a checkpoint: WEIGHTS, OPTIMIZER and, with averages, EMA."""
    items = {
        WEIGHTS: {"params": state.params, "batch_stats": state.batch_stats},
        OPTIMIZER: {"step": state.step, "opt_state": state.opt_state},
    }
    if state.ema:
        items[EMA] = state.ema
    return items
