"""The fields of a training configuration; configs/ say what differs from the defaults here."""

import ml_collections

from an_jax import zoo
from an_jax.errors import InputError


def default_config() -> ml_collections.ConfigDict:
    """The papers' recipe for ImageNet; every field there is."""
    config = ml_collections.ConfigDict()
    config.model = ""  # a name of the zoo
    config.init_from = ""  # checkpoint to start from; the head only if its classes are as many

    config.dataset = "imagenet"  # or "folder", "digits"
    config.data_dir = ""  # where its images lie; may be gs://
    config.image_size = 224  # pixels
    config.crop_scale = (0.08, 1.0)  # share of the area a random crop takes
    config.horizontal_flip = True
    config.mixup = 0.0  # alpha of the Beta distribution; 0: none
    config.label_smoothing = 0.0

    config.batch_size = 2048  # of all devices together
    config.num_epochs = 120
    config.warmup_epochs = 5
    config.learning_rate = 0.1  # for 256 images, scaled linearly with batch_size
    config.momentum = 0.9
    config.weight_decay = 1e-4  # of all parameters
    config.dtype = "bfloat16"  # of the computation; parameters and statistics are float32
    config.bn_group_size = 1  # devices that share normalization statistics
    config.seed = 23

    config.eval_batch_size = 2048
    config.log_steps = 50  # a line of steps.jsonl each so many steps
    config.checkpoint_steps = 1000  # a checkpoint each so many steps, and after each epoch
    config.keep_checkpoints = 2  # the last ones; the best are kept besides
    config.profile_steps = 0  # how many steps to profile, after the first ten of this start
    return config


def check_config(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Raises InputError on what no training can have."""
    zoo.get_architecture(config.model)
    if config.dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype must be float32 or bfloat16, not {config.dtype}")
    if not 0 <= config.warmup_epochs < config.num_epochs:
        raise InputError("num_epochs must be above warmup_epochs, and these at least 0")
    if config.bn_group_size < 1 or num_devices % config.bn_group_size:
        raise InputError(
            f"bn_group_size {config.bn_group_size} does not divide the {num_devices} device(s)"
        )
    if config.batch_size % num_devices or config.batch_size < 2 * num_devices:
        raise InputError(
            f"batch_size {config.batch_size} does not divide among {num_devices} device(s) "
            "with at least 2 images for each"
        )
    if not 0 <= config.label_smoothing < 1 or config.mixup < 0:
        raise InputError("label_smoothing must be in [0, 1), and mixup at least 0")
    if len(config.crop_scale) != 2 or not 0 < config.crop_scale[0] <= config.crop_scale[1] <= 1:
        raise InputError("crop_scale must be two rising numbers above 0 and up to 1")
    if config.seed < 0:
        raise InputError(f"seed must be at least 0, not {config.seed}")
    for field in ("image_size", "eval_batch_size", "log_steps", "checkpoint_steps"):
        if config[field] < 1:
            raise InputError(f"{field} must be at least 1, not {config[field]}")
    if config.keep_checkpoints < 1 or config.profile_steps < 0:
        raise InputError("keep_checkpoints must be at least 1, and profile_steps at least 0")
