"""The least traffic of small networks, counted by hand in maps."""

import sys

import jax
import jax.numpy as jnp

from an_jax.nn.convolution import convolve
from benchmarks import floor

X = jax.ShapeDtypeStruct((floor.BATCH, 4, 4, 16), jnp.bfloat16)
KERNEL = jax.ShapeDtypeStruct((1, 1, 16, 16), jnp.bfloat16)
MAP = 4 * 4 * 16 * 2  # bytes an image


def normalize(y):
    mean, square = jnp.mean(y, axis=(0, 1, 2)), jnp.mean(jnp.square(y), axis=(0, 1, 2))
    return (y - mean) * jax.lax.rsqrt(square - jnp.square(mean) + 1e-5)


def conv(x, kernel):
    return convolve(x, kernel, 1, 0, 1)


def block(x, kernels):
    """x -> a -> normalized and rectified -> b."""
    return conv(jax.nn.relu(normalize(conv(x, kernels[0]))), kernels[1])


def residual(x, kernels):
    """Two blocks whose inputs are sums: s = a + x is read by the convolution and by the sum."""
    s = conv(x, kernels[0]) + x
    return conv(s, kernels[1]) + s


def loss(network):
    return lambda x, kernels: jnp.sum(jnp.square(network(x, kernels)))


def maps(function):
    return floor.least_traffic(floor.data_flow(function, X, [KERNEL, KERNEL])) / MAP


def test_inference_of_a_block():
    """The first convolution reads x and writes a; the second reads a; the loss is fused."""
    assert maps(loss(block)) == 3


def test_training_of_a_block():
    """Forward: x read, a written, a read, b written.

    Backward, with db a function of b: the kernel gradient reads a and b; the input gradient reads
    b, writes da, and reads a for the sums that normalization needs. Then the first kernel's
    gradient reads x, a and da.
    """
    assert maps(lambda x, k: jax.grad(loss(block), argnums=1)(x, k)) == 4 + 2 + 3 + 3


def test_a_sum_of_maps_is_stored_once():
    """The first convolution reads x, and writes s instead of its output; the second reads s."""
    assert maps(loss(residual)) == 3


def test_a_slice_is_read_in_part():
    assert maps(lambda x, k: loss(conv)(x[..., :4], k[0][..., :4, :])) == 0.25


def test_a_convolution_reads_its_whole_input():
    assert maps(lambda x, k: loss(conv)(x, k[0][..., :4])) == 1


def test_table(monkeypatch, capsys):
    """A row for each batch; the larger batch moves fewer parameters an image."""
    monkeypatch.setattr(sys, "argv", ["floor.py", "resnet_20_bn", "--batch", "1", "2"])
    monkeypatch.setattr(floor, "BYTES_PER_PARAMETER", {"eval": 4})
    assert floor.main() == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [["| resnet_20_bn", "eval", batch] for batch in "12"]
    small, large = (float(row[3].rstrip(" |")) for row in rows)
    assert 0 < large < small


def test_unknown_model(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["floor.py", "resnet_5"])
    assert floor.main() == 1
    assert "resnet_5" in capsys.readouterr().err
