"""The page of training curves in a browser."""

import pytest
from etils import epath

from an_jax.training.curves import main
from tests.test_curves import HOSTILE, make_run, step_line

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser, tmp_path):
    """The page of two runs; nothing is logged, and nothing but the file requested."""
    steps = [step_line(s, gradient_norm=1.0, learning_rate=0.1) for s in range(1, 151)]
    runs = [
        make_run(epath.Path(tmp_path / "first"), steps, seed=0),
        make_run(epath.Path(tmp_path / HOSTILE), steps, seed=1),
    ]
    path = tmp_path / "curves.html"
    assert main([*map(str, runs), "--output", str(path)]) == 0
    browser.errors(), browser.requests()
    yield browser.open(path)
    assert browser.errors() == []
    assert set(browser.requests()) == {path.as_uri()}
    assert browser.find_all("img") == []


def lengths(page):
    """The number of points of each line of the first chart."""
    paths = page.run(
        "return [...document.querySelector('.plot').querySelectorAll('path')]"
        ".map(e => e.getAttribute('d'))"
    )
    return [path.count("M") + path.count("L") for path in paths]


def test_runs_and_axes(page):
    assert page.texts("#runs thead th")[1:] == ["first", HOSTILE]
    titles = page.texts("figcaption")
    assert titles[:3] == ["Training loss", "Top-1 accuracy", "Learning rate"]
    assert lengths(page) == [3, 3]  # epochs
    page.choose("#curves", "step")
    assert lengths(page) == [150, 150]
    page.find("[aria-label='Runs in all charts'] button").click()
    assert lengths(page) == [150]


def test_a_narrow_window(page):
    page.driver.set_window_size(390, 844)
    page.driver.refresh()
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
