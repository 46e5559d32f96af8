"""The fields of a training configuration. The files in configs/ change these defaults."""

import re

import ml_collections

from an_jax import zoo
from an_jax.errors import InputError
from an_jax.training.optimizer import OPTIMIZERS


def default_config() -> ml_collections.ConfigDict:
    """Returns the papers' recipe for ImageNet, with every field.

    Runs from before a field was added resume with its default, so the default of a new field must
    not change the training. norm_batch_size is an exception: older runs had it from their devices.
    """
    config = ml_collections.ConfigDict()
    config.model = ""  # one of an_jax.list_models()
    # Checkpoint to fine-tune; its head is used if the number of classes is equal.
    config.init_from = ""

    config.dataset = "imagenet"  # or "folder", "digits"
    config.data_dir = ""  # directory of the images; may be gs://
    config.image_size = 224  # pixels
    config.crop_scale = (0.08, 1.0)  # range of the share of the area that a random crop takes
    config.horizontal_flip = True
    config.randaugment_number = 0  # operations of RandAugment on each image; 0: none
    config.randaugment_magnitude = 9.0  # their strength, 0 to 10
    config.random_erasing = 0.0  # probability that a window of an image becomes random pixels
    config.mixup = 0.0  # alpha of the Beta distribution; 0: no mixup
    config.label_smoothing = 0.0

    config.batch_size = 2048  # global
    config.num_epochs = 120
    config.warmup_epochs = 5
    config.optimizer = "sgd"  # or "adamw", "lamb"
    # For 256 images; scales with batch_size: linearly for SGD, else with its square root.
    config.learning_rate = 0.1
    config.momentum = 0.9  # of SGD
    config.weight_decay = 1e-4
    config.decay_norms_and_biases = True  # False: weight decay on kernels only
    config.clip_norm = 0.0  # largest norm of all gradients together; 0: no clipping
    # Regular expression: parameters and statistics whose names begin with a match do not change.
    config.freeze = ""
    config.ema = 0.0  # decay of the moving averages of the weights, in each step; 0: no averages
    config.dtype = "bfloat16"  # compute dtype; parameters and statistics are float32
    # Images over which normalization takes its statistics, on any number of devices; at most the
    # whole batch.
    config.norm_batch_size = 256
    config.seed = 23

    config.eval_batch_size = 0  # global; 0: batch_size
    config.eval_sets = ""  # test sets of evaluate.py to score too, separated by commas
    config.eval_sets_epochs = 1  # epochs between their scores; the last epoch has them too
    config.log_steps = 50  # steps per line of steps.jsonl
    config.checkpoint_steps = 1000  # steps between checkpoints; each epoch ends with one too
    config.keep_checkpoints = 2  # number of last checkpoints to keep, besides the best
    config.profile_steps = 0  # number of steps to profile, after the first ten
    return config


def eval_batch_size(config: ml_collections.ConfigDict) -> int:
    """Returns the global batch size of the validation."""
    return config.eval_batch_size or config.batch_size


def check_config(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Raises InputError if the configuration is invalid."""
    zoo.get_architecture(config.model)
    if config.dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype must be float32 or bfloat16; it is {config.dtype}")
    if not 0 <= config.warmup_epochs < config.num_epochs:
        raise InputError(
            "warmup_epochs must be at least 0, and num_epochs must be above warmup_epochs; "
            f"they are {config.warmup_epochs} and {config.num_epochs}"
        )
    if config.optimizer not in OPTIMIZERS:
        raise InputError(
            f"optimizer must be one of {', '.join(OPTIMIZERS)}; it is {config.optimizer}"
        )
    if config.clip_norm < 0 or not 0 <= config.ema < 1:
        raise InputError(
            "clip_norm must be at least 0 and ema in [0, 1); "
            f"they are {config.clip_norm} and {config.ema}"
        )
    try:
        re.compile(config.freeze)
    except re.error as error:
        raise InputError(
            f"freeze must be a regular expression; {config.freeze!r} is not: {error}"
        ) from error
    if config.batch_size % num_devices or config.batch_size < 2 * num_devices:
        raise InputError(
            f"batch_size must be a multiple of the number of devices, {num_devices}, with at least "
            f"2 images for each; it is {config.batch_size}"
        )
    _check_norm_batch_size(config.norm_batch_size, config.batch_size)
    if not 0 <= config.label_smoothing < 1 or config.mixup < 0:
        raise InputError(
            "label_smoothing must be in [0, 1) and mixup at least 0; "
            f"they are {config.label_smoothing} and {config.mixup}"
        )
    if len(config.crop_scale) != 2 or not 0 < config.crop_scale[0] <= config.crop_scale[1] <= 1:
        raise InputError(
            f"crop_scale must be two increasing numbers in (0, 1]; it is {config.crop_scale}"
        )
    if config.randaugment_number < 0 or not 0 <= config.randaugment_magnitude <= 10:
        raise InputError(
            "randaugment_number must be at least 0 and randaugment_magnitude in [0, 10]; "
            f"they are {config.randaugment_number} and {config.randaugment_magnitude}"
        )
    if not 0 <= config.random_erasing <= 1:
        raise InputError(f"random_erasing must be in [0, 1]; it is {config.random_erasing}")
    if config.seed < 0:
        raise InputError(f"seed must be at least 0; it is {config.seed}")
    for field in ("image_size", "log_steps", "checkpoint_steps", "eval_sets_epochs"):
        if config[field] < 1:
            raise InputError(f"{field} must be at least 1; it is {config[field]}")
    if config.eval_batch_size < 0:
        raise InputError(f"eval_batch_size must be at least 0; it is {config.eval_batch_size}")
    if config.keep_checkpoints < 1 or config.profile_steps < 0:
        raise InputError(
            "keep_checkpoints must be at least 1 and profile_steps at least 0; "
            f"they are {config.keep_checkpoints} and {config.profile_steps}"
        )


def _check_norm_batch_size(norm_batch_size: int, batch_size: int) -> None:
    """Raises InputError unless the batch divides into groups of norm_batch_size images."""
    if norm_batch_size < batch_size and (norm_batch_size < 2 or batch_size % norm_batch_size):
        choices = [n for n in range(2, batch_size + 1) if batch_size % n == 0]
        nearest = sorted(choices, key=lambda n: abs(n - norm_batch_size))[:2]
        raise InputError(
            f"norm_batch_size must be at least 2 and divide batch_size, {batch_size}; it is "
            f"{norm_batch_size}: choose {' or '.join(map(str, sorted(nearest)))}"
        )
