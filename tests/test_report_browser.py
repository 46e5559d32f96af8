"""report.html in a browser: the table, the charts, and what the page must not do."""

import json

import pytest

from an_jax.evaluation.results_file import to_json
from an_jax.report.page import build_page
from an_jax.report.write import write_report
from tests.made_up_results import made_up_results

pytestmark = pytest.mark.browser
HEAD = "#results-table thead button"
BODY = "#results-table tbody"


@pytest.fixture(scope="module")
def report_path(tmp_path_factory):
    directory = tmp_path_factory.mktemp("results")
    (directory / "results.json").write_text(to_json(made_up_results()))
    write_report([directory], directory / "report.html")
    return directory / "report.html"


@pytest.fixture
def page(browser, report_path):
    with browser.watching(report_path):
        yield browser


def column(page, index):
    """Returns the cells of a column of the table as numbers; None where a cell is empty."""
    cells = page.texts(f"{BODY} tr > :nth-child({index + 1})")
    return [float(cell) if cell else None for cell in cells]


def top1_column(page):
    return page.texts(HEAD).index("imagenet-1k")


def test_values_are_those_of_results_json(page, report_path):
    page.choose("#results label:nth-of-type(3)", "digits")
    entries = json.loads((report_path.parent / "results.json").read_text())
    keys = {"imagenet-c": "mce", "imagenet-p": "mean_flip_probability"}
    expected = [entry[keys.get(entry["dataset"], "top1")] for entry in entries]
    cells = page.texts(f"{BODY} td button")
    assert len(cells) == 27 * 13
    assert [float(cell) for cell in cells] == expected
    assert cells == [repr(value) for value in expected]  # to the digit


def test_sorting(page):
    index = top1_column(page)
    unsorted = column(page, index)
    for order, is_reversed in (("descending", True), ("ascending", False)):
        page.find(f"#results-table thead th:nth-child({index + 1}) button").click()
        assert column(page, index) == sorted(unsorted, reverse=is_reversed)
        head = page.find(f"#results-table thead th:nth-child({index + 1})")
        assert head.get_attribute("aria-sort") == order
    page.find(HEAD).click()
    names = page.texts(f"{BODY} th")
    assert names == sorted(names)


def test_sorting_with_the_keyboard(page):
    index = top1_column(page)
    for button in page.find_all(HEAD)[: index + 1]:
        page.run("arguments[0].focus()", button)
    page.driver.switch_to.active_element.send_keys("\n")
    assert column(page, index) == sorted(column(page, index), reverse=True)
    page.driver.switch_to.active_element.send_keys(" ")  # the focus has stayed
    assert column(page, index) == sorted(column(page, index))


def test_search(page):
    page.find("#results-search").send_keys("resnet_50 AN")
    names = page.texts(f"{BODY} th")
    assert names == [
        "resnet_50_an_bn2_imagenet",
        "resnet_50_an_bn3_imagenet",
        "resnet_50_an_all_imagenet",
    ]
    assert page.find("#results-count").text == "3 of 27 models"
    marks = page.find_all("#charts > :first-child .plot > svg > path")
    assert len(marks) == 3  # a triangle for each AN model


@pytest.mark.parametrize(
    ("view", "difference"), [("bn", "+1.50"), ("published", "+0.00"), ("interval", None)]
)
def test_differences(page, view, difference):
    page.choose("#results label:nth-of-type(3)", view)
    rows = dict(zip(page.texts(f"{BODY} th"), page.texts(f"{BODY} td:nth-child(5)"), strict=True))
    if difference:
        assert rows["resnet_50_an_bn2_imagenet"] == difference
    else:
        assert rows["resnet_50_bn_imagenet"] == "76.90 [76.53, 77.27]"
    if view == "bn":
        assert rows["resnet_50_bn_imagenet"] == ""


def test_scores_that_are_no_fractions(page, report_path):
    page.choose("#results label:nth-of-type(2)", "nll")
    entries = json.loads((report_path.parent / "results.json").read_text())
    expected = next(entry["nll"] for entry in entries if "nll" in entry)
    assert page.find(f"{BODY} td button").text == f"{expected:.3f}"
    assert page.find("#results-caption").text.startswith("NLL. ")


def test_details(page):
    page.find(f"{BODY} td button").send_keys("\n")
    text = page.find("#results-details").text
    assert "aognet_12m_bn_imagenet on imagenet-1k" in text
    assert "50000 of 50000" in text
    assert "weights digest" in text


def test_charts(page):
    titles = page.texts("figcaption")
    assert titles == [
        "Accuracy against parameters (millions)",
        "AN minus BN",
        "Shifted against clean",
        "Calibration on imagenet-1k",
        "ImageNet-C",
    ]
    picture = page.find(".plot > svg")
    picture.send_keys("\ue014")  # arrow right
    assert "parameters (millions)" in page.find(".readout").text
    page.find(".legend button").click()
    assert page.find(".legend button").get_attribute("aria-pressed") == "false"
    page.find("figure summary").click()
    assert page.find("figure table").is_displayed()


@pytest.mark.parametrize("size", [(1280, 900), (768, 1024), (390, 844)])
def test_nothing_is_wider_than_the_window(page, report_path, size):
    page.driver.set_window_size(*size)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")


def test_hostile_names(browser, tmp_path):
    """Names from data are text: no script runs, and no element is made."""
    name = "</script><script>document.title='bad'</script><img src=x onerror=document.title='bad'>"
    results = [r for r in made_up_results() if r.model == "resnet_50_bn_imagenet"]
    (tmp_path / "results.json").write_text(to_json(results).replace("resnet_50_bn_imagenet", name))
    path = tmp_path / "report.html"
    write_report([tmp_path], path)
    browser.open(path)
    browser.requests()
    assert browser.texts(f"{BODY} th") == [name]
    assert browser.driver.title == tmp_path.name
    assert browser.find_all("img") == []
    assert browser.errors() == []


def test_scripts_of_others_do_not_run(browser, tmp_path):
    """The Content Security Policy refuses what is not the page's own script, and any request."""
    page = build_page("title", {}, [])
    inserted = "<script>document.title='bad'</script><img src='https://example.com/x.png'>"
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", f"{inserted}</body>"))
    browser.open(path)
    assert browser.driver.title == "title"
    assert sum("Content Security Policy" in message for message in browser.errors()) == 2
