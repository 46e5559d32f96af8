"""The papers' recipe: 120 epochs on ImageNet (MobileNetV2: 150); see docs/recipes.md.

python train.py --config=configs/imagenet.py:resnet_50_an_bn2 --config.data_dir=DATA --workdir=RUN
"""

import ml_collections
from absl import flags

from an_jax import zoo
from an_jax.errors import InputError
from an_jax.training.config import default_config

# Published with 128 images, and their own statistics, on each of 8 GPUs; the others with 256.
SMALL_BATCH = ("aognet_40m", "mobilenetv2", "resnet_101", "resnetv1d_101")


def get_config(model: str = "resnet_50_an_bn2") -> ml_collections.ConfigDict:
    """Returns the recipe for a model, one of `an_jax.list_models()`."""
    try:
        architecture = zoo.get_architecture(model)
    except InputError as error:
        raise flags.IllegalFlagValueError(str(error)) from error
    config = default_config()
    config.model = model
    config.image_size = architecture.preprocessing.image_size
    if model.startswith(SMALL_BATCH):
        config.batch_size = 1024
        config.norm_batch_size = 128
    if model.startswith("mobilenetv2"):
        config.num_epochs = 150
        config.learning_rate = 0.05
        config.weight_decay = 4e-5
    return config
