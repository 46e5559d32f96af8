"""Tensor names of AOGNet-V2, the older release of the same models.

The tensors are the same, in the same order; only their names differ, and these rules translate
them. No rule touches a name of the newer release.
"""

import re
from collections.abc import Collection

from an_jax.errors import InputError
from an_jax.models.mobilenet_v2 import STAGES

# Where MobileNetV2's numbered features are now: the stem, every block, the last convolution.
_FEATURES = [
    "stem",
    *(f"layer{s}.{i}" for s, stage in enumerate(STAGES, start=1) for i in range(stage.depth)),
    f"layer{len(STAGES)}.{STAGES[-1].depth}",
]


def _features(match):
    number = int(match[1])
    return f"{_FEATURES[number]}." if number < len(_FEATURES) else match[0]


def _part_of_stage(match):
    stage, block = int(match[1]) + 1, int(match[2]) + 1  # were counted from 0
    if match["transition"]:
        return f"layer{stage}.{2 * block - 2}.transition."
    node = f"stage_{stage}_block_{block}_node_" if match["node"] else ""
    return f"layer{stage}.{2 * block - 1}.{node}"


def _conv_or_norm(match):
    return f"{'conv' if match[2] == '0' else 'bn'}{match[1] or ''}."


# Applied one after the other.
_RULES = (
    (r"\battention_weights\.", "attn_weights."),
    # MobileNetV2
    (r"^features\.(\d+)\.(?=conv\.|[01]\.)", _features),
    # AOGNet, from the outside in
    (r"^stem\.(\d)\.conv_norm\.", r"stem.conv1.\1.conv_norm."),
    (
        r"^stage\d\.stage_(\d)_block_(\d)(?P<transition>_transition)?\."
        r"(?P<node>stage_\d_block_\d_node_)?",
        _part_of_stage,
    ),
    (r"(?<=_op\.)shortcut\.", "downsample."),
    (r"\b(?:conv_norm(?:_ac)?_(\d)\.)?(?:conv_norm\.)+([01])\.", _conv_or_norm),
)
# ResNet with three convolutions in its stem
_DEEP_STEM_RULES = ((r"^conv1\.(\d)\.", r"stem.\1."), (r"^bn1\.", "stem.7."))


def current_names(keys: Collection[str]) -> dict[str, str]:
    """Each name -> that of the newer release, which is the same for its own names.

    Raises:
        InputError: two names become one.
    """
    rules = _RULES + (_DEEP_STEM_RULES if "conv1.0.weight" in keys else ())
    names = {}
    for key in keys:
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        names[key] = name
    # Attentive norms had the names of plain ones; they are told by their mixture of weights.
    attentive = {n.removesuffix("weight_") for n in names.values() if n.endswith(".weight_")}
    origin: dict[str, str] = {}
    for key, name in names.items():
        name = re.sub(r"\bbn(\d)\.", lambda match: _norm_name(match, attentive), name)
        if name in origin:
            raise InputError(f"{origin[name]!r} and {key!r} are both names of {name!r}")
        names[key], origin[name] = name, key
    return names


def _norm_name(match, attentive):
    is_attentive = match.string[: match.end()] in attentive
    return f"AttnBN2d{match[1]}." if is_attentive else match[0]
