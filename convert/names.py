"""Translates the tensor names of AOGNet-V2 (the older release), torchvision and timm.

The tensors are those of the newer release. Only the names differ. No rule changes a name of the
newer release.
"""

import re
from collections.abc import Callable, Collection

from an_jax.errors import InputError
from an_jax.models.mobilenet_v2 import STAGES

_Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_HEAD = f"layer{len(STAGES)}.{STAGES[-1].depth}"  # MobileNetV2's last convolution
# New names of MobileNetV2's numbered features.
_FEATURES = [
    "stem",
    *(f"layer{s}.{i}" for s, stage in enumerate(STAGES, start=1) for i in range(stage.depth)),
    _HEAD,
]
# timm's names in MobileNetV2's blocks. The first block has no expansion.
_FIRST_BLOCK = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
_OTHER_BLOCKS = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1"}
_OTHER_BLOCKS |= {"conv_pwl": "2", "bn3": "3"}


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


def _rename_block(match: re.Match[str]) -> str:
    names = _FIRST_BLOCK if match[1] == "0" else _OTHER_BLOCKS
    return f"layer{int(match[1]) + 1}.{match[2]}.conv.{names.get(match[3], match[3])}."


# (pattern, replacement), applied in this order.
_RULES: tuple[_Rule, ...] = (
    (r"\battention_weights\.", "attn_weights."),
    # MobileNetV2, also torchvision's
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
# Key that tells a naming -> its further rules.
_FURTHER_RULES: dict[str, tuple[_Rule, ...]] = {
    # a ResNet with three convolutions in its stem
    "conv1.0.weight": ((r"^conv1\.(\d)\.", r"stem.\1."), (r"^bn1\.", "stem.7.")),
    # timm's MobileNetV2
    "conv_stem.weight": (
        (r"^conv_stem\.", "stem.0."),
        (r"^bn1\.", "stem.1."),
        (r"^blocks\.(\d)\.(\d)\.(\w+)\.", _rename_block),
        (r"^conv_head\.", f"{_HEAD}.0."),
        (r"^bn2\.", f"{_HEAD}.1."),
        (r"^classifier\.", "classifier.1."),
    ),
    # DenseNet in torchvision and timm; torchvision's files have norm.1 for norm1
    "features.conv0.weight": (
        (r"^features\.conv0\.", "stem.conv1.conv."),
        (r"^features\.norm0\.", "stem.conv1.bn."),
        (r"^features\.denseblock(\d)\.(denselayer\d+)\.norm\.?([12])\.", r"layer\1.0.\2.bn\3."),
        (r"^features\.denseblock(\d)\.(denselayer\d+)\.conv\.?([12])\.", r"layer\1.0.\2.conv\3."),
        (r"^features\.transition(\d)\.norm\.", r"layer\1.1.bn."),
        (r"^features\.transition(\d)\.conv\.", r"layer\1.1.conv."),
        (r"^features\.norm5\.", "layer4.1."),
    ),
}
# The path of a norm such as layer1.0.bn2.
_NORM = re.compile(r"(?P<parents>(?:.*?\.)?)bn(?P<number>\d)\.")


def current_names(keys: Collection[str]) -> dict[str, str]:
    """Maps each tensor name to its name in the newer release. Newer names stay as they are.

    Raises:
        InputError: two names map to the same one, or the names tell of a network that has the
            shapes of one here, but computes something else.
    """
    if {"conv1.0.weight", "layer1.0.downsample.2.weight"} <= set(keys):
        raise InputError(
            "these are the names of timm's resnet50d or resnet101d, which cannot be converted: "
            "they pool the stem's output with 3x3 windows, resnetv1d_50_bn and resnetv1d_101_bn "
            "with 2x2"
        )
    further = (rules for key, rules in _FURTHER_RULES.items() if key in keys)
    rules = sum(further, start=_RULES)
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


def describe_naming(keys: Collection[str]) -> str:
    """Says whose names these are, given that `current_names` changes some."""
    if "conv_stem.weight" in keys:
        return "timm's names"
    is_attentive = any(key.endswith(".weight_") for key in keys)
    if not is_attentive and any(key.startswith("features.") for key in keys):
        return "torchvision's names"
    return "AOGNet-V2's names"
