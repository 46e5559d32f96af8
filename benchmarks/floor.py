"""Derives the least bytes that models move per image on an accelerator, from their data flow.

    python -m benchmarks.floor resnet_50_bn resnet_50_an_bn2

Rules, in bfloat16, for a chip whose own memory holds no map of a whole batch:

- A map is an array with images and pixels. Convolutions, pooling and their gradients are kernels:
  each reads every map it needs once. A map is written once, if another kernel or pass reads it.
- Elementwise operations and reductions cost nothing where they can be fused: into the kernel that
  makes their newest input, or elementwise operations into every kernel that reads their result,
  which then computes it anew. A kernel that computes with further maps reads each of them once.
- What depends on a sum over a map, such as a normalized value, cannot be fused into the kernel that
  makes the map.
- A sum of maps is stored, or computed by each kernel that reads it, whichever moves less.
- Inference reads each parameter (float32). Training reads it in both passes; the update, fused into
  the kernel that makes the gradient, reads and writes it and its momentum.

Small arrays such as statistics and attention are not counted. A compiler fuses less than that, but
moves less where it keeps small maps on the chip or fuses two convolutions.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend import core

from an_jax import functional, zoo
from an_jax.data.images.normalization import normalize_images
from an_jax.errors import exit_status

BATCH = 8  # traced; no kernel has this many rows, so that a map is known by its shape
BYTES_PER_PARAMETER = {"train": 24, "eval": 4}
KERNELS = ("an_jax_convolution", "reduce_window", "select_and_")
Sources = dict["Value", float]  # map in memory -> bytes of it that are read


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """An array of a program that depends on the images.

    Attributes:
        number: position in the program.
        operation: of JAX, that makes it.
        inputs: what the operation takes.
        size: number of values an image.
        num_bytes: bytes an image of a map; 0 of another array.
    """

    number: int
    operation: str
    inputs: tuple["Value", ...]
    size: float
    num_bytes: float

    @property
    def is_kernel(self) -> bool:
        """Whether the operation is a kernel of its own; the images count as one."""
        return self.operation.startswith(KERNELS) or not self.inputs

    @property
    def is_reduction(self) -> bool:
        """Whether a sum over a map makes it."""
        return not self.num_bytes and any(value.num_bytes for value in self.inputs)


def data_flow(function: Callable, images: Any, *others: Any) -> list[Value]:
    """Returns what function(images, *others) computes from the images, in order."""
    values: list[Value] = []

    def add(operation: str, inputs: Iterable[Value], aval: Any) -> Value:
        is_map = aval.ndim == 4 and aval.shape[0] == BATCH and aval.shape[1] * aval.shape[2] > 1
        num_bytes = aval.size * aval.dtype.itemsize / BATCH if is_map else 0
        values.append(Value(len(values), operation, tuple(inputs), aval.size / BATCH, num_bytes))
        return values[-1]

    def walk(jaxpr: Any, inputs: list[Value | None]) -> list[Value | None]:
        known = dict(zip(jaxpr.invars, inputs, strict=True))

        def find(variables: Iterable[Any]) -> list[Value | None]:
            return [None if isinstance(v, core.Literal) else known.get(v) for v in variables]

        for equation in jaxpr.eqns:
            operands, parameters = find(equation.invars), equation.params
            inner = parameters.get("jaxpr") or parameters.get("call_jaxpr")
            if equation.primitive.name == "cond":  # the last branch is that of accelerators
                inner, operands = parameters["branches"][-1], operands[1:]
            present = [value for value in operands if value is not None]
            if not present:
                continue
            if inner is not None:
                outputs = walk(getattr(inner, "jaxpr", inner), operands)
            else:
                outputs = [add(equation.primitive.name, present, v.aval) for v in equation.outvars]
            known.update(zip(equation.outvars, outputs, strict=True))
        return find(jaxpr.outvars)

    jaxpr = jax.make_jaxpr(function)(images, *others).jaxpr
    image_values = add("images", (), jaxpr.invars[0].aval)
    walk(jaxpr, [image_values] + [None] * (len(jaxpr.invars) - 1))
    return values


def join(value: Value, sources: dict[Value, Sources]) -> Sources:
    """Returns what must be read to compute a value: of a map that is sliced, only the slice."""
    total: Sources = {}
    for operand in value.inputs:
        is_slice = value.num_bytes and not value.is_kernel and value.size < operand.size
        share = value.size / operand.size if is_slice else 1.0
        for source, num_bytes in sources[operand].items():
            before, more = total.get(source, 0.0), num_bytes * share
            adds = value.operation == "concatenate"
            total[source] = min(source.num_bytes, before + more) if adds else max(before, more)
    return total


def traffic(values: list[Value], stored: set[Value]) -> float:
    """Returns the bytes moved an image if these elementwise results are stored."""
    sources: dict[Value, Sources] = {}
    home: dict[Value, int] = {}  # number of the kernel or pass that makes a map
    barrier: dict[Value, int] = {}  # number of the last kernel or pass whose sums are needed
    reads: dict[int, Sources] = {}
    passes: dict[frozenset[Value], int] = {}
    for value in values:
        needed = join(value, sources)
        barrier[value] = max((barrier[operand] for operand in value.inputs), default=-1)
        sources[value] = needed if value.num_bytes else {}
        if value.is_kernel:
            home[value] = value.number
            sources[value] = {value: value.num_bytes} if value.num_bytes else {}
            reads[value.number] = needed
        elif needed and (value in stored or value.is_reduction):
            newest = max(home[source] for source in needed)
            if newest <= barrier[value]:  # it needs a pass of its own, or one with the same inputs
                newest = passes.get(frozenset(needed), -1)
                if newest <= barrier[value]:
                    newest = passes[frozenset(needed)] = value.number
            kernel = reads.setdefault(newest, {})
            for source, num_bytes in needed.items():
                if home[source] != newest:
                    kernel[source] = max(kernel.get(source, 0.0), num_bytes)
            home[value] = newest
            if value in stored:
                sources[value] = {value: value.num_bytes}
            else:
                barrier[value] = max(barrier[value], newest)
    written = {source for kernel in reads.values() for source in kernel if source.inputs}
    read = sum(num_bytes for kernel in reads.values() for num_bytes in kernel.values())
    return read + sum(source.num_bytes for source in written)


def least_traffic(values: list[Value]) -> float:
    """Returns the bytes moved an image, storing sums of maps where that moves less."""
    sums = sums_of_maps(values)
    stored = set(sums)
    least = traffic(values, stored)
    for value in reversed(sums):
        without = traffic(values, stored - {value})
        if without <= least:
            least, stored = without, stored - {value}
    return least


def sums_of_maps(values: list[Value]) -> list[Value]:
    """Returns the bfloat16 maps that elementwise operations compute from several maps."""
    sums = []
    sources: dict[Value, Sources] = {}
    for value in values:
        needed = join(value, sources) if value.num_bytes else {}
        is_sum = len(needed) > 1 and value.num_bytes == 2 * value.size and not value.is_kernel
        if is_sum:
            sums.append(value)
        sources[value] = {value: value.num_bytes} if value.is_kernel or is_sum else needed
    return sums


def program(model: str, kind: str) -> tuple[list[Value], int]:
    """Returns the data flow of a model and its number of parameters.

    Args:
        model: name of the zoo.
        kind: "train" or "eval".

    Raises:
        InputError: unknown model.
    """
    definition, *arrays = functional.split(zoo.abstract_model(model, dtype=jnp.bfloat16))
    preprocessing = zoo.get_architecture(model).preprocessing

    def evaluate(
        images: jax.Array, params: functional.Arrays, batch_stats: functional.Arrays
    ) -> Any:
        images = normalize_images(images, preprocessing)
        return functional.apply_eval(definition, params, batch_stats, images)

    def loss(params: functional.Arrays, batch_stats: functional.Arrays, images: jax.Array) -> Any:
        images = normalize_images(images, preprocessing)
        logits, batch_stats = functional.apply_train(definition, params, batch_stats, images, None)
        labels = jnp.zeros(BATCH, jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), batch_stats

    def train(images: jax.Array, params: functional.Arrays, batch_stats: functional.Arrays) -> Any:
        return jax.grad(loss, has_aux=True)(params, batch_stats, images)

    size = preprocessing.image_size
    images = jax.ShapeDtypeStruct((BATCH, size, size, 3), jnp.uint8)
    function = {"train": train, "eval": evaluate}[kind]
    return data_flow(function, images, *arrays), functional.count(arrays[0])


def least_gb(model: str, kind: str, batches: Iterable[int]) -> list[float]:
    """Returns the least gigabytes that a model's program moves an image, for each batch size.

    Raises:
        InputError: unknown model.
    """
    values, num_parameters = program(model, kind)
    maps, parameters = least_traffic(values), BYTES_PER_PARAMETER[kind] * num_parameters
    return [(maps + parameters / batch) / 1e9 for batch in batches]


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(description="the least GB a model moves per image")
    parser.add_argument("models", nargs="+", help="names of models")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 256, 512], help="images")
    args = parser.parse_args()
    return exit_status(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Prints a row for each program, model and batch.

    Raises:
        InputError: unknown model.
    """
    print("| model | program | batch | GB an image |\n| --- | --- | ---: | ---: |", flush=True)
    for kind in BYTES_PER_PARAMETER:
        for model in args.models:
            for batch, least in zip(args.batch, least_gb(model, kind, args.batch), strict=True):
                print(f"| {model} | {kind} | {batch} | {least:.4f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
