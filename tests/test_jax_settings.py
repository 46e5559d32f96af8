"""The settings of the commands, which leave the user's own alone."""

import atexit
import gc

import jax
import pytest

import evaluate
from an_jax import jax_settings
from an_jax.jax_settings import enable_compilation_cache, set_matmul_precision


def test_evaluate_first_sets_the_garbage_collector(monkeypatch):
    given, at_exit = gc.get_threshold(), []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    set_rarely = jax_settings.collect_garbage_rarely

    def set_and_stop():
        set_rarely()
        raise StopIteration

    monkeypatch.setattr(jax_settings, "collect_garbage_rarely", set_and_stop)
    try:
        with pytest.raises(StopIteration):
            evaluate.start()
        assert gc.get_threshold() == (50_000, *given[1:])
        assert at_exit == [gc.freeze]
    finally:
        gc.set_threshold(*given)


@pytest.mark.parametrize(
    ("output", "cache"),
    [
        ("results", "{cwd}/compilation_cache"),
        ("gs://b/runs/r50", "gs://b/runs/compilation_cache"),
        ("gs://b", "gs://b/compilation_cache"),
    ],
)
def test_compiled_programs_are_kept_beside_the_output(unset, tmp_path, monkeypatch, output, cache):
    monkeypatch.chdir(tmp_path)
    enable_compilation_cache(output)
    assert jax.config.jax_compilation_cache_dir == cache.format(cwd=tmp_path)


@pytest.mark.parametrize("given", ["/elsewhere", ""])
def test_the_users_cache_is_kept(unset, given):
    """An empty path disables the cache. jax.config also reads the environment."""
    jax.config.update("jax_compilation_cache_dir", given)
    enable_compilation_cache("results")
    assert jax.config.jax_compilation_cache_dir == given


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "highest"), ("bfloat16", None)])
def test_precision_of_matrix_products(unset, dtype, precision):
    set_matmul_precision(dtype)
    assert jax.config.jax_default_matmul_precision == precision
