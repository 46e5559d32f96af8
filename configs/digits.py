"""A small ResNet on scikit-learn's handwritten digits.

python train.py --config=configs/digits.py:an --workdir=runs/digits_an
"""

import ml_collections
from absl import flags

from an_jax.training.config import default_config

MODELS = {"bn": "resnet_20_bn", "an": "resnet_20_an_bn1"}


def get_config(norm: str = "an") -> ml_collections.ConfigDict:
    """Returns the configuration for a norm: "bn" (Batch) or "an" (Attentive Normalization)."""
    if norm not in MODELS:
        raise flags.IllegalFlagValueError(
            f"--config=configs/digits.py:{norm}: the norm must be bn or an"
        )
    config = default_config()
    config.model = MODELS[norm]
    config.dataset = "digits"
    config.image_size = 16
    config.crop_scale = (0.6, 1.0)
    config.horizontal_flip = False  # a mirrored digit is not a digit
    config.batch_size = 64
    config.eval_batch_size = 120
    config.num_epochs = 12
    config.warmup_epochs = 2
    config.learning_rate = 0.4
    config.dtype = "float32"
    config.seed = 0
    return config
