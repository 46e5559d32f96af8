"""The error browser of report.html."""

import functools
import time
from urllib.parse import quote

import numpy as np
import pytest
from selenium.webdriver.support.ui import WebDriverWait

from an_jax.data.sets.class_index import imagenet_names, imagenet_wnids
from an_jax.report.write import write_report
from tests.made_up_predictions import (
    draw_scores,
    save_predictions,
    save_thumbnails,
    write_results,
)

pytestmark = pytest.mark.browser
BAD = "document.title='bad'"
CLASSES = [f"</script><script>{BAD}</script>", f"<img src=x onerror={BAD}>", "cat", "house cat"]
LABELS = np.arange(230) % 4
NAMES = [f"javascript:{BAD}", '"><b>.jpg', "__proto__", "\u2028a#b?c %/é.jpg"]
NAMES += [f"folder/{i}.jpg" for i in range(4, 230)]
RED = "data:image/gif;base64,R0lGODlhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="
ROWS = "#errors-rows tbody tr"
FILES = f"{ROWS} td:nth-child(2)"
PAGE = 50


@functools.cache
def scores_of(seed):
    return draw_scores(np.random.default_rng(seed), LABELS, 4, 0.5)


@pytest.fixture(scope="module")
def report_path(tmp_path_factory):
    directory = tmp_path_factory.mktemp("out")
    scores = {name: scores_of(i) for i, name in enumerate("abc")}
    results = save_predictions(directory, "mine", NAMES, LABELS, CLASSES, scores)
    other = {"c": scores_of(3), "d": scores_of(4)}
    results += save_predictions(directory, "other", NAMES, LABELS, CLASSES, other)
    save_thumbnails(directory, "mine", str(directory / "my images"), dict.fromkeys(NAMES[:5], RED))
    write_results(directory, results)
    write_report([directory], directory / "report.html")
    return directory / "report.html"


@pytest.fixture
def page(browser, report_path):
    with browser.watching(report_path):
        wait(browser)
        yield browser
    assert browser.driver.title == "out0"


def wait(page):
    """Waits until the predictions of the chosen models have been read."""
    is_read = "return !document.getElementById('errors-count').textContent.includes('reading')"
    WebDriverWait(page.driver, 30, poll_frequency=0.01).until(lambda _: page.run(is_read))


def choose(page, name, value):
    page.choose(f"#errors-{name}", value)
    wait(page)


def fill(page, name, text):
    page.find(f"#errors-{name}").clear()
    page.find(f"#errors-{name}").send_keys(text)


def ordered(is_shown, key):
    """Names of the images where `is_shown`, by decreasing key as the page rounds it."""
    key = np.rint(65535 * np.asarray(key))
    shown = np.flatnonzero(is_shown)
    return [NAMES[i] for i in shown[np.argsort(-key[shown], kind="stable")]]


def check(page, names):
    """The page shows the first of these names, and their number."""
    assert page.texts(FILES) == names[:PAGE]
    assert page.find("#errors-count").text.startswith(f"{len(names)} of 230 images")


def test_most_confident_mistakes_come_first(page):
    predicted, confidence, probability = scores_of(0)
    names = ordered(predicted != LABELS, confidence)
    check(page, names)
    first = NAMES.index(names[0])
    cells = page.texts(f"{ROWS}:first-child td")[2:]
    assert cells == [
        CLASSES[LABELS[first]],
        f"✗ {CLASSES[predicted[first]]} ({100 * confidence[first]:.1f} %)",
        f"{100 * probability[first]:.1f} %",
    ]


@pytest.mark.parametrize("order", ["mistakes", "unsure", "unlikely"])
def test_orders(page, order):
    predicted, confidence, probability = scores_of(0)
    sign = np.where(predicted == LABELS, -1, 1)
    key = {"mistakes": sign * confidence, "unsure": -confidence, "unlikely": -probability}[order]
    choose(page, "filter", "all")
    choose(page, "sort", order)
    check(page, ordered(LABELS >= 0, key))


def test_filters(page):
    predicted, confidence, _ = scores_of(0)
    is_wrong = predicted != LABELS
    choose(page, "filter", "right")
    check(page, ordered(~is_wrong, -confidence))
    choose(page, "filter", "wrong")
    fill(page, "true", "cat")  # a class of this name: not those whose names contain it
    check(page, ordered(is_wrong & (LABELS == 2), confidence))
    fill(page, "true", "CAT")
    check(page, ordered(is_wrong & (LABELS >= 2), confidence))
    fill(page, "predicted", CLASSES[1])
    is_shown = is_wrong & (LABELS >= 2) & (predicted == 1)
    check(page, ordered(is_shown, confidence))
    fill(page, "min", "40")
    fill(page, "max", "60.5")
    is_shown &= (confidence >= 0.4) & (confidence <= 0.605)
    assert is_shown.any()
    check(page, ordered(is_shown, confidence))
    fill(page, "true", "no class")
    check(page, [])


def test_one_model_right_and_another_wrong(page):
    assert not page.find("#errors-filter [value=split]").is_enabled()
    choose(page, "other", "1")
    choose(page, "filter", "split")
    (a, *_), (b, confidence, _) = scores_of(0), scores_of(1)
    check(page, ordered((a == LABELS) & (b != LABELS), confidence))
    marks = page.texts(f"{ROWS} td:nth-child(4) span:first-child")
    assert set(marks) == {"✓"}
    assert set(page.texts(f"{ROWS} td:nth-child(6) span:first-child")) == {"✗"}
    choose(page, "other", "")
    assert page.find("#errors-filter").get_attribute("value") == "wrong"


def test_another_model_and_test_set(page):
    choose(page, "model", "2")
    check(page, ordered(scores_of(2)[0] != LABELS, scores_of(2)[1]))
    choose(page, "set", "1")
    assert page.texts("#errors-model option") == ["c", "d"]
    check(page, ordered(scores_of(3)[0] != LABELS, scores_of(3)[1]))  # still model c
    assert "no thumbnails" in page.find("#errors-note").text


def test_choices_while_data_is_read(page):
    """The last choice counts, also if an earlier one is read more slowly."""
    page.run(
        """const read = readBlob;
        let calls = 0;
        readBlob = async (name) => {
          if (calls++ < 4) await new Promise((resolve) => setTimeout(resolve, 300));
          return read(name);
        };"""
    )
    page.choose("#errors-other", "1")
    page.choose("#errors-filter", "split")
    page.find("#errors-next").click()
    choose(page, "model", "2")
    (c, *_), (b, confidence, _) = scores_of(2), scores_of(1)
    names = ordered((c == LABELS) & (b != LABELS), confidence)
    check(page, names)
    time.sleep(0.4)
    check(page, names)


def test_pages(page):
    """By keyboard; the focus stays on the button at both ends."""
    choose(page, "filter", "all")
    choose(page, "sort", "unlikely")
    names = ordered(LABELS >= 0, -scores_of(0)[2])
    following, previous = page.find("#errors-next"), page.find("#errors-previous")
    assert previous.get_attribute("aria-disabled") == "true"
    for i in (1, 2, 3, 4, 4):
        following.send_keys("\n")
        assert page.texts(FILES) == names[PAGE * i : PAGE * (i + 1)]
    assert page.find("#errors-count").text == "230 of 230 images, 201 to 230"
    assert following.get_attribute("aria-disabled") == "true"
    assert page.driver.switch_to.active_element == following
    previous.send_keys(" ")
    assert page.texts(FILES) == names[150:200]
    choose(page, "filter", "wrong")
    assert ", 1 to " in page.find("#errors-count").text


def test_confusions(page):
    predicted, confidence, _ = scores_of(0)
    pairs = np.unique(np.stack([LABELS, predicted])[:, predicted != LABELS], axis=1).T.tolist()
    counts = {
        pair: np.sum((pair[0] == LABELS) & (predicted == pair[1])) for pair in map(tuple, pairs)
    }
    shown = page.texts("#errors-pairs td.number")
    assert [int(count) for count in shown] == sorted(counts.values(), reverse=True)
    buttons = page.find_all("#errors-pairs button")
    text = buttons[-1].get_property("textContent")
    pair = next(p for p in counts if text == f"{CLASSES[p[0]]} → {CLASSES[p[1]]}")
    fill(page, "min", "100")
    check(page, [])
    buttons[-1].send_keys("\n")
    check(page, ordered((pair[0] == LABELS) & (predicted == pair[1]), confidence))


def test_hostile_names_are_text_and_links_lead_to_files(page, report_path):
    choose(page, "filter", "all")
    links, pictured = {}, []
    for _ in range(5):
        script = "return [...document.querySelectorAll(arguments[0])].map((a) => [a.text, a.href])"
        links |= dict(page.run(script, f"{FILES} a"))
        pictured += page.texts(f"{ROWS}:has(img) td:nth-child(2)")
        page.find("#errors-next").click()
    root = f"{report_path.parent.as_uri()}/my%20images"
    encoded = [quote(name, safe="/'!*()") for name in NAMES]  # as encodeURIComponent does
    assert links == {name: f"{root}/{path}" for name, path in zip(NAMES, encoded, strict=True)}
    assert sorted(pictured) == sorted(NAMES[:5])
    assert page.run("return [...document.images].every((image) => image.src.startsWith('data:'))")
    assert page.find_all("main script, main b") == []


@pytest.mark.parametrize("size", [(1280, 900), (768, 1024), (390, 844)])
def test_nothing_is_wider_than_the_window(page, size):
    page.driver.set_window_size(*size)
    choose(page, "other", "1")
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.slow
@pytest.mark.parametrize("num_models", [1, 27])
def test_50_000_images(browser, tmp_path, num_models):
    """Prints sizes, times and memory."""
    rng = np.random.default_rng(0)
    labels, wnids = np.repeat(np.arange(1000), 50), imagenet_wnids()
    numbers = rng.permutation(50_000) + 1
    names = [
        f"{wnids[label]}/ILSVRC2012_val_{number:08d}.JPEG"
        for label, number in zip(labels, numbers, strict=True)
    ]
    scores = {f"model_{i}": draw_scores(rng, labels, 1000, 0.77) for i in range(num_models)}
    results = save_predictions(tmp_path, "imagenet-1k", names, labels, [*imagenet_names()], scores)
    write_results(tmp_path, results)
    start = time.perf_counter()
    write_report([tmp_path], tmp_path / "report.html")
    print(f"\n{num_models} models: written in {time.perf_counter() - start:.1f} s,", end=" ")
    print(f"{(tmp_path / 'report.html').stat().st_size / 1e6:.1f} MB")

    def timed(what, action):
        start = time.perf_counter()
        action()
        print(f"{what}: {1000 * (time.perf_counter() - start):.0f} ms")

    def open_page():
        browser.open(tmp_path / "report.html")
        wait(browser)

    timed("open", open_page)
    timed("filter", lambda: choose(browser, "filter", "all"))
    timed("order", lambda: choose(browser, "sort", "unlikely"))
    timed("search a class", lambda: fill(browser, "true", "cat"))
    timed("next page", browser.find("#errors-next").click)
    if num_models > 1:
        timed("another model", lambda: choose(browser, "other", "1"))
        timed("A right and B wrong", lambda: choose(browser, "filter", "split"))
    browser.driver.execute_cdp_cmd("Performance.enable", {})
    metrics = browser.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    heap = next(m["value"] for m in metrics if m["name"] == "JSHeapUsedSize")
    print(f"memory of the script: {heap / 1e6:.0f} MB")
    assert len(browser.texts(FILES)) <= PAGE
    assert "of 50000 images" in browser.find("#errors-count").text
    assert browser.errors() == []
