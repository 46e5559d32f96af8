"""The papers' advanced recipe: 200 epochs with label smoothing and mixup; see docs/recipes.md.

python train.py --config=configs/imagenet_200e_ls_mixup.py:aognet_12m_an --config.data_dir=DATA \
  --workdir=RUN
"""

import ml_collections

from configs import imagenet


def get_config(model: str = "resnet_50_an_bn2") -> ml_collections.ConfigDict:
    """Returns the recipe for a model, one of `an_jax.list_models()`."""
    config = imagenet.get_config(model)
    config.num_epochs = 200
    config.label_smoothing = 0.1
    config.mixup = 0.2
    return config
