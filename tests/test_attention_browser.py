"""The section of report.html on what AN attends to, in a browser."""

import json

import pytest

from an_jax.report.attention import read_attention
from an_jax.report.page import build_page
from tests.made_up_attention import write_made_up

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=document.title='bad'>"


@pytest.fixture
def show(browser, tmp_path):
    """Shows the section of analyses; nothing is logged, and nothing but the file requested."""
    path = tmp_path / "page.html"

    def show_analyses(analyses, size=(1280, 900)):
        path.write_text(build_page("title", analyses, ["attention.js"]))
        browser.open(path, size)
        browser.run("showPage([renderAttention(readData())])")
        return browser

    browser.errors(), browser.requests()
    yield show_analyses
    assert browser.errors() == []
    assert set(browser.requests()) == {path.as_uri()}


def test_weights_of_the_files(show, tmp_path):
    path, *_ = write_made_up(tmp_path)
    page = show(read_attention(tmp_path))
    first, last = (layer for layer in json.loads(path.read_text())["layers"][1:])
    cells = page.texts("#attention-weights tbody tr:first-child > *")
    assert cells[:2] == [first["name"], f"{first['in_use']:.1f}"]
    assert cells[3] == f"{first['epsilon_squared']:.2f}"
    assert cells[4:] == [f"{c['mean']:.2f} ±{c['std']:.2f}" for c in first["components"]]
    assert page.texts("#attention-images figcaption")[0] == (
        f"Component 0: mean λ {last['components'][0]['mean']:.2f}"
    )
    assert page.run("return [...document.images].every(i => i.complete && i.naturalWidth === 16)")
    assert len(page.find_all("#attention-images img")) == 5 * 5


def test_the_model_with_bn_is_beside(show, tmp_path):
    write_made_up(tmp_path)
    page = show(read_attention(tmp_path))
    assert page.texts("#attention-controls > label option") == ["an"]
    assert page.texts("#attention .chart figcaption") == [
        "Components in use",
        "Variance of λ explained by class",
        "Effective scale",
        "Effective shift",
    ]
    legend = page.texts("#attention .chart:nth-child(3) .legend button")
    assert legend == ["an", "an \N{MINUS SIGN} std over images", "an + std over images", "bn"]
    assert len(page.find_all("#attention .chart:nth-child(3) path.line")) == 4


def test_sets_and_layers_can_be_chosen(show, tmp_path):
    write_made_up(tmp_path, datasets=("digits", "digits-noise"))
    page = show(read_attention(tmp_path))
    page.choose("#attention-controls", "digits-noise")
    assert "an on digits-noise" in page.find("#attention h3").text
    page.choose("#attention", "layer1.0.norm1")
    assert len(page.find_all("#attention-images img")) == 3 * 5


def test_no_section_without_an(show, tmp_path):
    write_made_up(tmp_path)
    analyses = read_attention(tmp_path)[1:]
    assert show(analyses).find_all("#attention") == []


def test_images_that_were_left_out(show, tmp_path, monkeypatch):
    monkeypatch.setattr("an_jax.report.attention.MAX_BYTES", 0)
    write_made_up(tmp_path)
    page = show(read_attention(tmp_path))
    assert "They are in attention/an/digits.json" in page.find("#attention").text
    assert page.find_all("img") == []


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_nothing_is_wider_than_the_window(show, tmp_path, size):
    write_made_up(tmp_path)
    page = show(read_attention(tmp_path), size)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
    name = page.find("#attention-weights tbody th")
    assert name.size["height"] < 60  # on two lines at most


def test_hostile_names_are_text(show, tmp_path):
    write_made_up(tmp_path, class_names=(HOSTILE, HOSTILE))
    analyses = read_attention(tmp_path)
    analyses[0]["model"] = analyses[0]["layers"][1]["name"] = HOSTILE
    page = show(analyses)
    assert page.driver.title == "title"
    assert page.texts("#attention-controls option")[0] == HOSTILE
    assert page.find_all("img[src='x']") == []
