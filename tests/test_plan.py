"""Plans for TPUs: figures from compiled programs, and their description.

The TPU compiler itself is not tested: it takes minutes, and libtpu has 200 MB.
"""

import dataclasses
import importlib.util
import json
import resource
import types

import jax
import jax.numpy as jnp
import pytest
from absl.testing import flagsaver
from jax import lax
from jax.sharding import PartitionSpec as P

import benchmark
from an_jax import parallel
from an_jax.benchmark import plan
from an_jax.benchmark.chips import GIB
from an_jax.benchmark.collectives import Exchange, count_collectives, exposed_seconds
from an_jax.benchmark.plan import Plan, StepCost, describe, make_plan
from an_jax.errors import InputError
from configs import imagenet

COST = StepCost(GIB, 3 * GIB, flops=1.97e12, bytes_moved=8.19e10)
PLAN = Plan("v5e:4x4", 16, 4, 128, 36000, 4 * GIB, COST, {}, 60.0)


def test_collectives_of_a_compiled_program():
    """Eight devices exchange sums of 1000 and 24 float32 numbers, and gather 80."""
    mesh = parallel.make_mesh()

    def exchange(x):
        total = lax.psum((jnp.sum(x) * jnp.ones(1000), jnp.sum(x) * jnp.ones(24)), parallel.AXES)
        gathered = lax.all_gather(x, parallel.AXES, tiled=True)
        return total, lax.psum(jnp.sum(gathered), parallel.AXES)

    shared = jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=P(parallel.AXES), out_specs=P()))
    text = shared.lower(jnp.ones((16, 5))).compile().as_text()
    collectives = count_collectives(text)
    gathered = 16 * 5 * 4
    assert collectives["all-gather"] == Exchange(1, gathered, 1, gathered, gathered * 7 / 8)
    assert collectives["all-reduce"].num_bytes >= 4 * (1000 + 24 + 1)


def test_collectives_as_tpu_programs_write_them():
    """The chip waits for the synchronous all-reduce, and for the gather without work beside it."""
    hlo = """
      %ar = (f32[64]{0:T(128)}, f32[3,3,8]{2,1,0}) all-reduce(%a, %b), replica_groups={{0,1},{2,3}}
      %s = bf16[256,2]{1,0} all-reduce-start(%c), channel_id=2
      %f = (f32[8]{0}, f32[8]{0:S(1)}) fusion(%ar), kind=kLoop, calls=%computation
      %d = bf16[256,2]{1,0} all-reduce-done(%s)
      %g = (f32[8]{0}, f32[64]{0}) all-gather-start(%e), replica_groups=[1,4]<=[4]
      %t = f32[8]{0} get-tuple-element(%f), index=0
      %h = f32[64]{0} all-gather-done(%g)
      ROOT %x = f32[] add(%y, %z), metadata={op_name="all-reduce(no)"}
    """
    reduced = 4 * (64 + 72)
    assert count_collectives(hlo) == {
        "all-gather": Exchange(1, 4 * 64, 1, 4 * 64, 4 * 64 * 3 / 4),
        "all-reduce": Exchange(2, reduced + 2 * 512, 1, reduced, reduced),
    }


def test_waiting_for_other_chips():
    """A v5e sends and receives 400 GB/s together: sending 200 MB takes 1 ms at least."""
    exchange = {"all-reduce": Exchange(9, 300_000_000, 2, 100_000_000, 200_000_000)}
    assert exposed_seconds(exchange, PLAN.chip) == pytest.approx(1e-3)
    text = describe(dataclasses.replace(PLAN, collectives=exchange))
    assert "at least 101.0 ms a step" in text
    assert "1.0 ms of it wait for other chips" in text
    assert "all-reduce: 9 of 300.0 MB together; the chip waits for 2 of 100.0 MB" in text


def test_roofline_is_the_longer_of_computing_and_moving_data():
    """On a v5e, 1.97 TFLOP take 10 ms; 81.9 GB take 100 ms."""
    assert COST.roofline_seconds(PLAN.chip) == pytest.approx(0.1)
    assert "at least 100.0 ms a step, at most 1280 img/s a chip; 0.0 ms" in describe(PLAN)
    assert "fits: 4.00 of 16 GiB of memory a chip (25 %)" in describe(PLAN)


def test_description_of_the_recipe():
    """16 chips at 0.1 s a step of 2048 images; each of 4 hosts reads for 4 chips."""
    assert (
        "the recipe: 36000 steps in at least 1 hours, 16.0 chip-hours; at that rate each host "
        "(4 of them) reads 5120 img/s"
    ) in describe(PLAN)


def test_description_of_a_step_that_does_not_fit():
    large = Plan("v5e:2x2", 4, 1, 512, None, 20 * GIB, None, {}, 60.0)
    assert "DOES NOT FIT: 20.00 of 16 GiB" in describe(large)
    assert "choose a smaller batch_size or more chips" in describe(large)


@pytest.fixture
def plan_for(monkeypatch):
    """Plans with a program for the CPU in place of the training step on TPUs."""

    def make(lowered):
        monkeypatch.setattr(plan, "tpu_devices", lambda topology: jax.devices()[:2])
        monkeypatch.setattr(plan, "lower_step", lambda config, devices: lowered)
        return make_plan(imagenet.get_config(), "v5e:2x2")

    return make


def test_a_plan_holds_the_compilers_figures(plan_for):
    size = 256
    made = plan_for(jax.jit(lambda x: x @ x, donate_argnums=0).lower(jnp.ones((size, size))))
    assert (made.topology, made.num_chips) == ("v5e:2x2", 2)
    assert made.batch_per_chip == imagenet.get_config().batch_size // 2
    assert (made.num_hosts, made.num_steps) == (1, 120 * 626)
    assert made.cost.argument_bytes == 4 * size**2  # the result takes the argument's place
    assert made.hbm_bytes_per_chip == made.cost.argument_bytes + made.cost.temporary_bytes
    num_micro_batches = 4  # of 256 images; the compiler counts a loop once
    assert made.cost.flops == pytest.approx(num_micro_batches * 2 * size**3, rel=0.01)
    assert made.cost.bytes_moved >= 2 * 4 * size**2
    assert made.collectives == {}


def fail_to_compile(message):
    def compile_program():
        raise jax.errors.JaxRuntimeError(message)

    return types.SimpleNamespace(compile=compile_program)


@pytest.mark.parametrize(("used", "needed"), [("20.50G", 20.5 * GIB), ("512.00M", 2**29)])
def test_a_plan_that_does_not_fit_has_the_compilers_estimate(plan_for, used, needed):
    error = f"RESOURCE_EXHAUSTED: XLA:TPU compile ... Used {used} of 15.75G hbm. Exceeded ..."
    made = plan_for(fail_to_compile(error))
    assert (made.hbm_bytes_per_chip, made.cost) == (needed, None)
    figures = made.figures()
    assert (figures["fits"], figures["hbm_bytes_per_chip"]) == (False, needed)
    assert figures["argument_bytes"] is None


def test_other_errors_of_the_compiler_are_raised(plan_for):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        plan_for(fail_to_compile("INTERNAL: a bug"))


def test_a_missing_compiler_is_reported(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: pip install libtpu==0\.0\.42"):
        make_plan(imagenet.get_config(), "v5e:4x4")


def test_the_compiler_needs_a_large_stack_for_v6e(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (8 * 2**20, resource.RLIM_INFINITY))
    with pytest.raises(InputError, match="for v6e: run `ulimit -s unlimited` first"):
        make_plan(imagenet.get_config(), "v6e:4x4")


@pytest.mark.parametrize("topology", ["v1:2x2", "4x4", ""])
def test_unknown_generations_are_refused(topology):
    with pytest.raises(InputError, match=f"unknown topology {topology!r}: .* such as v5e:4x4"):
        make_plan(imagenet.get_config(), topology)


def test_the_command_writes_json(monkeypatch, tmp_path, capsys):
    calls = []

    def make(config, topology):
        calls.append((config.model, topology))
        return PLAN

    monkeypatch.setattr(plan, "make_plan", make)
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.setenv(name, "")
    if not benchmark.FLAGS.is_parsed():
        benchmark.FLAGS.mark_as_parsed()
    file = str(tmp_path / "plan.json")
    with flagsaver.flagsaver(config=imagenet.get_config(), plan="v5e:4x4", json=file):
        assert benchmark.main(["benchmark.py"]) == 0
    assert calls == [("resnet_50_an_bn2", "v5e:4x4")]
    assert "nothing has been run on a TPU" in capsys.readouterr().out
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written == {
        "topology": "v5e:4x4",
        "num_chips": 16,
        "num_hosts": 4,
        "batch_per_chip": 128,
        "num_steps": 36000,
        "fits": True,
        "hbm_bytes_per_chip": 4 * GIB,
        "argument_bytes": GIB,
        "temporary_bytes": 3 * GIB,
        "flops_per_step_per_chip": 1.97e12,
        "bytes_per_step_per_chip": 8.19e10,
        "collectives": {},
        "exposed_seconds": 0.0,
        "compile_seconds": 60.0,
    }
