"""The reference models: synthetic weights and inputs, and golden outputs computed in float64.

Weights, images and labels are functions of (seed, name, shape); see docs/parity.md.
"""

import functools
import gzip
import hashlib
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from an_jax import functional, zoo
from convert.torch_layout import torch_layout

FIXTURES = Path(__file__).parent / "fixtures"


def _names(directory: str) -> list[str]:
    return sorted(
        path.relative_to(FIXTURES / "manifests").as_posix().removesuffix(".json.gz")
        for path in FIXTURES.glob(f"manifests/{directory}*.gz")
    )


MODELS = _names("")
AOGNET_V2 = _names("aognet_v2/")  # the older release, with other names and other weights


@functools.cache
def manifest(name: str) -> dict:
    """{"num_params", "tensors": [{"key", "shape", "kind", "scale"?}]} in state-dict order."""
    return json.loads(gzip.decompress((FIXTURES / f"manifests/{name}.json.gz").read_bytes()))


def golden(name: str) -> dict[str, np.ndarray]:
    """Outputs of the PyTorch model in float64, stored as float32."""
    with np.load(FIXTURES / f"goldens/{name}.npz") as file:
        return {key: file[key].astype(np.float64) for key in file}


def state_dict(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """The synthetic weights of a model, by PyTorch key."""
    return {
        entry["key"]: _tensor(entry["key"], tuple(entry["shape"]), seed, entry.get("scale", 1.0))
        for entry in manifest(name)["tensors"]
    }


def images(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 [n, size, size, 3]."""
    nchw = _rng(f"images/{seed}").standard_normal((n, 3, size, size)).astype(np.float32)
    return np.ascontiguousarray(nchw.transpose(0, 2, 3, 1))


def labels(n: int, num_classes: int = 1000, seed: int = 0) -> np.ndarray:
    """Uniform int64 [n]."""
    return _rng(f"labels/{seed}").integers(0, num_classes, size=n, dtype=np.int64)


@functools.cache
def abstract_split(name: str, dtype=jnp.float32) -> functional.Split:
    """The model as shapes and dtypes, taken apart; tracing an AOGNet takes some seconds."""
    return functional.split(zoo.abstract_model(name, dtype=dtype))


def load(name: str, dtype=jnp.float32, source: dict | None = None) -> functional.Split:
    """The model with its synthetic weights (or those of `source`, by PyTorch key), taken apart."""
    split = abstract_split(name, dtype)
    source = source or state_dict(name)
    arrays = {t.path: t.from_torch(source[t.key]) for t in torch_layout(name, 1000) if t.path}
    kept = jnp.promote_types(dtype, jnp.float32)
    params = {path: jnp.asarray(arrays[path], kept) for path in split.params}
    batch_stats = {path: jnp.asarray(arrays[path], kept) for path in split.batch_stats}
    return functional.Split(split.definition, params, batch_stats)


def param_paths(name: str) -> list[str]:
    """Our paths of the parameters, in state-dict order."""
    kinds = {entry["key"]: entry["kind"] for entry in manifest(name)["tensors"]}
    return [t.path for t in torch_layout(name, 1000) if kinds[t.key] == "param"]


def _rng(tag: str) -> np.random.Generator:
    digest = hashlib.sha256(tag.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:8], "little")))


def _tensor(key: str, shape: tuple[int, ...], seed: int, scale: float) -> np.ndarray:
    rng = _rng(f"{seed}/{key}")
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) == 4:
        values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif key.endswith("weight_"):
        values = 1 + 0.1 * rng.standard_normal(shape)
    elif len(shape) == 2 and not key.endswith("bias_"):
        values = rng.standard_normal(shape) * math.sqrt(1 / shape[1])
    elif key.endswith("running_var"):
        values = scale * rng.uniform(0.5, 1.5, shape)
    elif key.endswith("running_mean"):
        values = math.sqrt(scale) * 0.1 * rng.standard_normal(shape)
    elif key.endswith("weight"):
        values = rng.uniform(0.5, 1.5, shape)
    else:  # biases, the affine mixture's too
        values = 0.1 * rng.standard_normal(shape)
    return values.astype(np.float32)
