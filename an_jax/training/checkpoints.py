"""Training checkpoints: the last ones, from which a run resumes, and the best, which it is for."""

import contextlib
import shutil

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from an_jax import parallel
from an_jax.checkpoint import BEST, RANKINGS, STEPS, WEIGHTS
from an_jax.errors import InputError
from an_jax.training.step import TrainState

OPTIMIZER = "optimizer"


class TrainCheckpoints:
    """The checkpoints of a working directory, written in the background.

    checkpoints/<step>/ holds all that a run goes on from, weights and optimizer state as separate
    items; best/<step>/ the weights of the epoch with the best accuracy, by each of the `RANKINGS`.
    A context manager: on leaving, also by an exception, what was saved is wholly on disk.

    Args:
        workdir: absolute path of the run.
        keep: how many of the last checkpoints are kept.
    """

    def __init__(self, workdir: epath.Path, keep: int):
        self._last = ocp.CheckpointManager(
            workdir / STEPS,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
            item_names=(WEIGHTS, OPTIMIZER),
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
        """Saves the state, in the background.

        Raises:
            InputError: this or the one before cannot be written.
        """
        weights, optimizer = _items(state)
        args = {
            WEIGHTS: ocp.args.StandardSave(weights),
            OPTIMIZER: ocp.args.StandardSave(optimizer),
        }
        with self._explaining():
            self._check_room(_items(state))
            self._last.save(step, args=ocp.args.Composite(**args))

    def save_best(self, step: int, state: TrainState, metrics: dict[str, float]) -> None:
        """Saves the weights, wholly, as those of the best epoch so far.

        Raises:
            InputError: they cannot be written.
        """
        weights, _ = _items(state)
        args = ocp.args.Composite(**{WEIGHTS: ocp.args.StandardSave(weights)})
        with self._explaining():
            self._check_room(weights)
            self._last.wait_until_finished()  # the best is never ahead of what a run goes on from
            if step not in self._best.all_steps():
                self._best.save(step, args=args, metrics=metrics, force=True)
            self._best.wait_until_finished()

    def wait(self) -> None:
        """Returns when everything is on disk. Raises InputError if it cannot be written."""
        with self._explaining():
            self._last.wait_until_finished()

    @property
    def last_step(self) -> int | None:
        """The step of the last checkpoint; None if there is none."""
        return self._last.latest_step()

    def restore_last(self, state: TrainState) -> TrainState:
        """The last state saved, placed like the given one; the given one if there is none.

        Raises:
            InputError: the files are damaged.
        """
        step = self.last_step
        if step is None:
            return state
        weights, optimizer = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), _items(state)
        )
        args = {
            WEIGHTS: ocp.args.StandardRestore(weights),
            OPTIMIZER: ocp.args.StandardRestore(optimizer),
        }
        try:
            restored = self._last.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax and tensorstore raise many types for damaged files
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self._last.directory / str(step)} cannot be read: {reason}; "
                "remove it to go on from an earlier step"
            ) from error
        return TrainState(**restored[WEIGHTS], **restored[OPTIMIZER])

    def last_whole(self) -> str:
        """What to call the last checkpoint that is wholly on disk, once that being written is."""
        with contextlib.suppress(Exception):  # this one is not
            self._last.wait_until_finished()
        steps = ocp.utils.checkpoint_steps(self._last.directory)
        return f"the last good checkpoint is step {max(steps)}" if steps else "none is saved yet"

    def _check_room(self, arrays) -> None:
        """Raises InputError if the disk is too full for them: sooner than in the middle."""
        if not str(self._last.directory).startswith("/"):
            return  # gs:// has no end
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))

        def check():
            free = shutil.disk_usage(self._last.directory).free
            if free < 1.1 * needed:
                raise OSError(f"{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")

        parallel.on_main_process(check)

    @contextlib.contextmanager
    def _explaining(self):
        try:
            yield
        except Exception as error:  # a full disk comes as any of many types
            # What the system said comes last, after a page about who wrote what.
            reason = " ".join(str(error).split()).split(" [")[0].rpartition(": ")[2]
            raise InputError(
                f"cannot write to {self._last.directory.parent}: {reason}; "
                f"{self.last_whole()}: make room and start again to go on from it"
            ) from error

    def __enter__(self) -> "TrainCheckpoints":
        return self

    def __exit__(self, kind, exception, traceback) -> None:
        try:
            with self._explaining():
                self._last.close()
                self._best.close()
        except InputError:
            if exception is None:  # else it is the first error that counts
                raise


def _items(state: TrainState) -> tuple[dict, dict]:
    """What goes into the items WEIGHTS and OPTIMIZER."""
    weights = {"params": state.params, "batch_stats": state.batch_stats}
    return weights, {"step": state.step, "opt_state": state.opt_state}
