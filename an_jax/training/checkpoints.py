"""Training checkpoints: the last step, from which a run resumes, and the best, which it is for."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from an_jax.checkpoint import STEPS, WEIGHTS, accuracy
from an_jax.errors import InputError
from an_jax.training.step import TrainState

OPTIMIZER = "optimizer"


class TrainCheckpoints:
    """The checkpoints of a working directory, written in the background.

    A context manager: on leaving, also by an exception, what was saved is wholly on disk.
    Weights and optimizer state are separate items, so that a model loads without the latter.

    Args:
        workdir: absolute path of the run.
    """

    def __init__(self, workdir: Path):
        keep = managers.AnyPreservationPolicy(
            [managers.LatestN(1), managers.BestN(get_metric_fn=accuracy, n=1)]
        )
        options = ocp.CheckpointManagerOptions(
            best_fn=accuracy, best_mode="max", preservation_policy=keep
        )
        self._manager = ocp.CheckpointManager(
            workdir / STEPS, options=options, item_names=(WEIGHTS, OPTIMIZER)
        )

    def save(self, state: TrainState, top1: float) -> None:
        """Saves the state under its step; `top1` decides which is best."""
        weights = {"params": state.params, "batch_stats": state.batch_stats}
        optimizer = {"step": state.step, "opt_state": state.opt_state}
        items = {
            WEIGHTS: ocp.args.StandardSave(weights),
            OPTIMIZER: ocp.args.StandardSave(optimizer),
        }
        args = ocp.args.Composite(**items)
        self._manager.save(int(state.step), args=args, metrics={"top1": top1})

    def restore_last(self, state: TrainState) -> TrainState:
        """The last state saved, placed like the given one; the given one if there is none.

        Raises:
            InputError: the files are damaged.
        """
        step = self._manager.latest_step()
        if step is None:
            return state
        weights = {"params": state.params, "batch_stats": state.batch_stats}
        optimizer = {"step": state.step, "opt_state": state.opt_state}
        targets = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
            {WEIGHTS: weights, OPTIMIZER: optimizer},
        )
        items = {name: ocp.args.StandardRestore(target) for name, target in targets.items()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax and tensorstore raise many types for damaged files
            directory = self._manager.directory / str(step)
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{directory} cannot be read: {reason}; remove it to go on from an earlier step"
            ) from error
        return TrainState(**restored[WEIGHTS], **restored[OPTIMIZER])

    def __enter__(self) -> "TrainCheckpoints":
        return self

    def __exit__(self, *exception) -> None:
        self._manager.close()
