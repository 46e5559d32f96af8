"""Translates the tensor names of AOGNet-V2, the older release of the same models.

Both releases have the same tensors in the same order. Only the names differ. No rule changes a name
of the newer release.
"""

import re
from collections.abc import Callable, Collection

from an_jax.errors import InputError
from an_jax.models.mobilenet_v2 import STAGES

_Rule = tuple[str, str | Callable[[re.Match[str]], str]]

# New names of MobileNetV2's numbered features: the stem, each block, the last convolution.
_FEATURES = [
    "stem",
    *(f"layer{s}.{i}" for s, stage in enumerate(STAGES, start=1) for i in range(stage.depth)),
    f"layer{len(STAGES)}.{STAGES[-1].depth}",
]


def _rename_feature(match: re.Match[str]) -> str:
    number = int(match[1])
    return f"{_FEATURES[number]}." if number < len(_FEATURES) else match[0]


def _rename_stage(match: re.Match[str]) -> str:
    stage, block = int(match[1]) + 1, int(match[2]) + 1  # the older release counts from 0
    if match["transition"]:
        return f"layer{stage}.{2 * block - 2}.transition."
    node = f"stage_{stage}_block_{block}_node_" if match["node"] else ""
    return f"layer{stage}.{2 * block - 1}.{node}"


def _rename_conv_norm(match: re.Match[str]) -> str:
    return f"{'conv' if match[2] == '0' else 'bn'}{match[1] or ''}."


# (pattern, replacement), applied in this order.
_RULES: tuple[_Rule, ...] = (
    (r"\battention_weights\.", "attn_weights."),
    # MobileNetV2
    (r"^features\.(\d+)\.(?=conv\.|[01]\.)", _rename_feature),
    # AOGNet, from the outside in
    (r"^stem\.(\d)\.conv_norm\.", r"stem.conv1.\1.conv_norm."),
    (
        r"^stage\d\.stage_(\d)_block_(\d)(?P<transition>_transition)?\."
        r"(?P<node>stage_\d_block_\d_node_)?",
        _rename_stage,
    ),
    (r"(?<=_op\.)shortcut\.", "downsample."),
    (r"\b(?:conv_norm(?:_ac)?_(\d)\.)?(?:conv_norm\.)+([01])\.", _rename_conv_norm),
)
# For a ResNet with three convolutions in its stem.
_DEEP_STEM_RULES: tuple[_Rule, ...] = (
    (r"^conv1\.(\d)\.", r"stem.\1."),
    (r"^bn1\.", "stem.7."),
)
# The path of a norm such as layer1.0.bn2.
_NORM = re.compile(r"(?P<parents>(?:.*?\.)?)bn(?P<number>\d)\.")


def current_names(keys: Collection[str]) -> dict[str, str]:
    """Maps each tensor name to its name in the newer release. Newer names stay as they are.

    Raises:
        InputError: two names map to the same one.
    """
    rules = _RULES + (_DEEP_STEM_RULES if "conv1.0.weight" in keys else ())
    names = {}
    for key in keys:
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        names[key] = name
    # The older release names AttentiveNorms like BatchNorms. Only AttentiveNorms have mixture
    # weights.
    mixtures = {name for name in names.values() if name.endswith(".weight_")}
    origins: dict[str, str] = {}
    for key, name in names.items():
        norm = _NORM.match(name)
        if norm and f"{norm[0]}weight_" in mixtures:
            name = f"{norm['parents']}AttnBN2d{norm['number']}.{name[norm.end() :]}"
        if name in origins:
            raise InputError(f"{origins[name]!r} and {key!r} are both names of {name!r}")
        names[key], origins[name] = name, key
    return names
