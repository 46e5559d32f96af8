"""Tensor names of AOGNet-V2, the older release of the same models.

The tensors are the same, in the same order; only their names differ, and these rules translate
them. No rule touches a name of the newer release.
"""

import re

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


def _transition(match):
    stage, block = map(int, match.groups())
    return f"layer{stage + 1}.{2 * block}.transition."


def _node(match):
    stage, block, node = map(int, match.groups())
    prefix = f"layer{stage + 1}.{2 * block + 1}.stage_{stage + 1}_block_{block + 1}"
    return f"{prefix}_node_{node}_op."


def _extra_norm(match):
    stage, block = map(int, match.groups())
    return f"layer{stage + 1}.{2 * block + 1}.extra_norm_ac."


def _conv_or_norm(match):
    return "conv" if match[1] == "0" else "bn"


def _numbered_conv_or_norm(match):
    return f"{'conv' if match[2] == '0' else 'bn'}{match[1]}"


# Applied one after the other; stages and blocks were counted from 0 and are from 1.
_RULES = (
    (r"attention_weights", "attn_weights"),
    # MobileNetV2
    (r"^features\.(\d+)\.", _features),
    # AOGNet, from the outside in
    (r"^stem\.(\d)\.conv_norm\.", r"stem.conv1.\1."),
    (r"^stage\d\.stage_(\d)_block_(\d)_transition\.", _transition),
    (r"^stage\d\.stage_\d_block_\d\.stage_(\d)_block_(\d)_node_(\d+)_op\.", _node),
    (r"^stage\d\.stage_(\d)_block_(\d)\.extra_norm_ac\.", _extra_norm),
    (r"conv_norm(?:_ac)?_(\d)(?:\.conv_norm)+\.([01])(?=\.)", _numbered_conv_or_norm),
    (r"shortcut(?=\.)", "downsample"),
    (r"(?:conv_norm\.)+([01])(?=\.)", _conv_or_norm),
)
# ResNet with three convolutions in its stem
_DEEP_STEM_RULES = ((r"^conv1\.(\d)\.", r"stem.\1."), (r"^bn1\.", "stem.7."))


def current_names(tensors: dict) -> dict:
    """The same tensors under the names of the newer release.

    Raises:
        InputError: two names become one.
    """
    rules = _RULES + (_DEEP_STEM_RULES if "conv1.0.weight" in tensors else ())
    names = {}
    for old in tensors:
        name = old
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        names[old] = name
    # Attentive norms had the names of plain ones; they are told by their mixture of weights.
    attentive = {n.removesuffix("weight_") for n in names.values() if n.endswith(".weight_")}
    renamed, origin = {}, {}
    for old, name in names.items():
        name = re.sub(r"\bbn(\d)\.", lambda m: _norm_name(m, attentive), name)
        if name in renamed:
            raise InputError(f"{origin[name]!r} and {old!r} are both names of {name!r}")
        renamed[name], origin[name] = tensors[old], old
    return renamed


def _norm_name(match, attentive):
    is_attentive = match.string[: match.end()] in attentive
    return f"AttnBN2d{match[1]}." if is_attentive else match[0]
