"""Plans for TPUs: what is read from compiled programs, and what is said of them.

The TPU compiler itself is no part of the tests: it takes minutes, and libtpu is 200 MB.
"""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from absl.testing import flagsaver
from jax import lax
from jax.sharding import PartitionSpec as P

import benchmark
from an_jax import parallel
from an_jax.benchmark.chips import GIB
from an_jax.benchmark.plan import Plan, count_collectives, describe, make_plan
from an_jax.errors import InputError
from configs import imagenet

PLAN = Plan("v5e:4x4", 16, 128, True, 4 * GIB, GIB, 3 * GIB, 1.97e12, 8.19e10, {}, 60.0)


def test_collectives_of_a_compiled_program():
    """What eight devices exchange here: 1000 and 24 float32 numbers, and as many bfloat16."""
    mesh = parallel.make_mesh()

    def exchange(x):
        total = lax.psum((jnp.sum(x) * jnp.ones(1000), jnp.sum(x) * jnp.ones(24)), parallel.AXES)
        gathered = lax.all_gather(x, parallel.AXES, tiled=True)
        return total, lax.psum(jnp.sum(gathered), parallel.AXES)

    shared = jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=P(parallel.AXES), out_specs=P()))
    text = shared.lower(jnp.ones((16, 5))).compile().as_text()
    found = count_collectives(text)
    assert found["all-gather"] == {"count": 1, "bytes": 16 * 5 * 4}
    assert found["all-reduce"]["bytes"] >= 4 * (1000 + 24 + 1)


def test_collectives_as_tpu_programs_write_them():
    hlo = """
      %ar = (f32[64]{0:T(128)}, f32[3,3,8]{2,1,0}) all-reduce(%a, %b), channel_id=1
      %s = bf16[256,2]{1,0} all-reduce-start(%c), channel_id=2
      %d = bf16[256,2]{1,0} all-reduce-done(%s)
      %g = (f32[8]{0}, f32[64]{0}) all-gather-start(%e), channel_id=3
      %h = f32[64]{0} all-gather-done(%g)
      ROOT %x = f32[] add(%y, %z), metadata={op_name="all-reduce(no)"}
    """
    assert count_collectives(hlo) == {
        "all-gather": {"count": 1, "bytes": 4 * 64},
        "all-reduce": {"count": 2, "bytes": 4 * (64 + 72) + 2 * 512},
    }


def test_roofline_is_the_longer_of_computing_and_moving():
    """On a v5e, 1.97 TFLOP take 10 ms; 81.9 GB take 100 ms."""
    assert PLAN.roofline_seconds == pytest.approx(0.1)
    assert "at least 100.0 ms a step, at most 1280 img/s a chip" in describe(PLAN)
    assert "fits: 4.00 of 16 GiB of memory a chip (25 %)" in describe(PLAN)


def test_what_does_not_fit():
    plan = Plan("v5e:2x2", 4, 512, False, 20 * GIB, None, None, None, None, {}, 60.0)
    assert "DOES NOT FIT: 20.00 of 16 GiB" in describe(plan)
    assert "choose a smaller batch_size or more chips" in describe(plan)


def test_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: pip install libtpu==0\.0\.42"):
        make_plan(imagenet.get_config(), "v5e:4x4")


@pytest.mark.parametrize("topology", ["v1:2x2", "4x4", ""])
def test_no_such_generation(topology):
    with pytest.raises(InputError, match=f"unknown topology {topology!r}: .* such as v5e:4x4"):
        make_plan(imagenet.get_config(), topology)


def test_the_command_writes_json(monkeypatch, tmp_path, capsys):
    asked = []

    def plan(config, topology):
        asked.append((config.model, topology))
        return PLAN

    monkeypatch.setattr("an_jax.benchmark.plan.make_plan", plan)
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.setenv(name, "")
    if not benchmark.FLAGS.is_parsed():
        benchmark.FLAGS.mark_as_parsed()
    file = str(tmp_path / "plan.json")
    with flagsaver.flagsaver(config=imagenet.get_config(), plan="v5e:4x4", json=file):
        assert benchmark.main(["benchmark.py"]) == 0
    assert asked == [("resnet_50_an_bn2", "v5e:4x4")]
    assert "nothing has been run on a TPU" in capsys.readouterr().out
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["hbm_bytes_per_chip"] == 4 * GIB
    assert written.keys() >= {
        "flops_per_step_per_chip",
        "bytes_per_step_per_chip",
        "collectives",
        "batch_per_chip",
        "compile_seconds",
    }
