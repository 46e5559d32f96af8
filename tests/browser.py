"""A headless Chromium that opens pages from disk. Debian's packages: chromium, chromium-driver."""

import contextlib
import json
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)


class Page:
    """A page in the browser.

    Attributes:
        driver: selenium's driver.
    """

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, size=(1280, 900)):
        """Opens a file in a window of this size, and drops what was logged before."""
        self.driver.set_window_size(*size)
        self.driver.get(path.as_uri())
        return self

    @contextlib.contextmanager
    def watching(self, path):
        """Opens a file; at the end nothing was logged, and nothing but the file requested."""
        self.open(path)
        self.errors(), self.requests()
        self.driver.refresh()
        yield self
        assert self.errors() == []
        assert self.requests() == [path.as_uri()]

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector):
        """Returns the texts of the elements, as they are in the document."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return self.run(script, selector)

    def choose(self, selector, value):
        """Chooses a value of a <select>."""
        self.find(f"{selector} option[value='{value}']").click()

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def errors(self):
        """Returns what the console has logged since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Returns the addresses requested since the last call, without those of the page's data."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        urls = [
            m["params"]["request"]["url"]
            for m in messages
            if m["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]


@contextlib.contextmanager
def open_browser(directory):
    """Starts the browser with a new profile in the directory."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.fail("these tests need chromium and chromedriver (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for option in (*OPTIONS, f"--user-data-dir={directory}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(paths[1]))
    try:
        yield Page(driver)
    finally:
        driver.quit()
