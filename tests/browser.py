"""A real browser without a network, for pages that must not need one."""

import base64
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


def programs() -> tuple[str, str]:
    """The browser and its driver. In CI a missing one is a failure; elsewhere the tests that need it are skipped."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    missing = "chromium" if not browser else "chromedriver"
    message = f"{missing} is not installed (Debian: apt-get install chromium chromium-driver)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def offline(width: int = 1280, height: int = 900, dark: bool = False):
    """A driver whose network is off, with a window of CSS pixels and a colour scheme."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, driver = programs()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        found = webdriver.Chrome(options=options, service=Service(driver))
        try:
            found.set_page_load_timeout(240)
            found.execute_cdp_cmd("Network.enable", {})
            network = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
            found.execute_cdp_cmd("Network.emulateNetworkConditions", network)
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            yield found
        finally:
            found.quit()


def open_report(driver, path: Path, seconds: float = 240) -> dict[str, str]:
    """Opens the page and waits until every figure is drawn or has failed: figure -> "yes" or "failed"."""
    driver.get(path.resolve().as_uri())
    script = (
        "return Object.fromEntries([...document.querySelectorAll('figure')].map(f => [f.id, f.dataset.drawn || '']))"
    )
    end = time.monotonic() + seconds
    while not all((drawn := driver.execute_script(script)).values()) and time.monotonic() < end:
        time.sleep(0.2)
    return drawn


def requests(driver, path: Path) -> list[str]:
    """Addresses that the page has asked for, itself first; those inside itself, and the browser's own start page, apart."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls = [one["request"]["url"] for one in sent if one["documentURL"] == path.resolve().as_uri()]
    return [url for url in urls if not url.startswith(("data:", "blob:", "about:"))]


def screenshot(driver, path: Path) -> None:
    """The whole page, however long, as .png."""
    height = driver.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": driver.execute_script("return innerWidth"), "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))
