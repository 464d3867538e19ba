"""The page to scrub through the glimpses in a browser: what is shown when keys are pressed, and on a phone."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import N, T
from PIL import Image

from fastdraw.view import Record


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    chromium, driver = next(filter(None, programs), None), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1280,800",
    ]:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


def opened(
    browser: Any, page: Path, width: int = 1280, height: int = 800, scheme: str = "light", mobile: bool = False
) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": mobile})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get(page.as_uri())
    ready(browser)


def ready(browser: Any) -> None:
    """Every picture decoded, and drawn."""
    browser.execute_async_script(
        """const done = arguments[0];
        Promise.all([...decoded.values()].map((image) => image.decode()))
            .then(() => { show(); requestAnimationFrame(() => done()); });"""
    )


def pixels(browser: Any, selector: str) -> np.ndarray:
    """uint8 [height, width, 3] of a canvas on the page."""
    url = browser.execute_script("return document.querySelector(arguments[0]).toDataURL()", selector)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).copy()


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def count(browser: Any) -> str:
    return browser.execute_script("return document.getElementById('count').textContent")


DRAWN, READ, THUMB = (
    ".panel[data-kind=write] > canvas",
    ".panel[data-kind=read] > canvas",
    "#thumbs button:nth-child(2) canvas",
)


def test_browser_shows_the_finished_images_first(browser: Any, page: Path, records: tuple[Record, Record]) -> None:
    opened(browser, page)
    assert browser.title == "DRAW: a test"
    assert count(browser) == f"{T} / {T}"
    press(browser, "w")
    shown = pixels(browser, DRAWN)
    frames = records[0].frames
    assert frames is not None
    step = shown.shape[1] / 16
    middles = shown[(np.arange(12)[:, None] * step + step / 2).astype(int), (np.arange(16) * step + step / 2).astype(int)]
    np.testing.assert_allclose(middles[..., 0], frames[-1, 0, 0].numpy() * 255, atol=1)
    assert (shown[..., 0] == shown[..., 2]).all()


def test_browser_draws_windows_where_they_stand(browser: Any, page: Path, records: tuple[Record, Record]) -> None:
    opened(browser, page)
    for selector, windows, size, channel in ((DRAWN, records[0].write_windows, 2, 0), (READ, records[0].read_windows, 3, 2)):
        assert windows is not None
        checked = 0
        for t in range(T):
            browser.execute_script("go(arguments[0])", t)
            shown = pixels(browser, selector).astype(int)
            scale = shown.shape[1] / 16
            x, y, delta = (float(field[t, 0]) for field in windows[:3])
            # A middle of the rectangle's left side, where it is within the image.
            left, half = x - (size - 1) / 2 * delta, (size - 1) / 2 * delta
            top, bottom = max(y - half, 0.0), min(y + half, 11.0)
            if 0 < left < 15 and bottom - top > 1:
                column, row = round((left + 0.5) * scale), round(((top + bottom) / 2 + 0.5) * scale)
                near = shown[row, column - 2 : column + 3]
                assert (near[:, channel] - near[:, 2 - channel]).max() > 150
                checked += 1
        assert checked


def test_browser_keys_move_through_the_glimpses(browser: Any, page: Path) -> None:
    opened(browser, page)
    seen = {}
    for key, expected in (("\ue011", 1), ("\ue014", 2), ("\ue014", 3), ("\ue012", 2), ("\ue010", T), ("\ue014", T)):
        press(browser, key)
        assert count(browser) == f"{expected} / {T}"
        now = tuple(pixels(browser, one).tobytes() for one in (DRAWN, READ, THUMB, ".patches canvas"))
        # The same glimpse looks the same again, and another one differs in canvas, windows, small pictures and patches.
        assert seen.setdefault(expected, now) == now
        assert all(a != b for t, other in seen.items() if t != expected for a, b in zip(now, other, strict=True))
    assert len(seen) == 4


def test_browser_slider_and_curve_move_through_the_glimpses(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    opened(browser, page)
    slider, plot = browser.find_element("id", "slider"), browser.find_element("id", "plot")
    before = pixels(browser, DRAWN)
    ActionChains(browser).move_to_element_with_offset(slider, -slider.size["width"] // 2 + 4, 0).click().perform()
    assert count(browser) == f"1 / {T}"
    assert (pixels(browser, DRAWN) != before).any()
    # The slider has the focus: it moves by keys of its own, one glimpse each.
    press(browser, "\ue014")
    assert count(browser) == f"2 / {T}"
    assert slider.get_attribute("aria-valuetext").startswith(f"glimpse 2 of {T}, KL ")
    path = browser.execute_script("return document.getElementById('cursor').getAttribute('d')")
    ActionChains(browser).move_to_element_with_offset(plot, plot.size["width"] // 2 - 2, 0).click().perform()
    assert count(browser) == f"{T} / {T}"
    assert browser.execute_script("return document.getElementById('cursor').getAttribute('d')") != path


def test_browser_plays_and_pauses(browser: Any, page: Path) -> None:
    opened(browser, page)
    play = browser.find_element("id", "play")
    press(browser, " ")
    assert play.accessible_name == "Pause"
    # Play begins anew at the end; it goes on by itself.
    browser.execute_async_script(
        """const done = arguments[0], wait = () => (state.t > 0 && state.t < last() ? done() : setTimeout(wait, 20));
        wait();"""
    )
    press(browser, " ")
    assert play.accessible_name == "Play"
    stands = count(browser)
    browser.execute_async_script("setTimeout(arguments[0], 700)")
    assert count(browser) == stands
    play.click()
    # The button has the focus, and one press of a key is one press of it.
    press(browser, " ")
    assert play.accessible_name == "Play"


def test_browser_chooses_images_and_groups(browser: Any, page: Path, records: tuple[Record, Record]) -> None:
    opened(browser, page)
    thumbs = browser.find_elements("css selector", "#thumbs button")
    assert [one.accessible_name for one in thumbs] == [f"image {i + 1}" for i in range(N)]
    first = pixels(browser, READ)
    thumbs[2].click()
    assert thumbs[2].get_attribute("aria-pressed") == "true"
    second = pixels(browser, READ)
    assert (first != second).any()
    press(browser, "\ue013", "\ue013")
    assert (pixels(browser, READ) == first).all()
    # With the focus on an image, space chooses it, and plays once it is chosen.
    browser.execute_script("arguments[0].focus()", thumbs[3])
    press(browser, " ")
    assert thumbs[3].get_attribute("aria-pressed") == "true"
    assert browser.find_element("id", "play").accessible_name == "Play"
    press(browser, " ")
    assert browser.find_element("id", "play").accessible_name == "Pause"
    samples = browser.find_elements("css selector", "#groups button")[1]
    samples.click()
    ready(browser)
    assert not browser.find_elements("css selector", READ)
    assert f"Class {N - 1}" in browser.find_element("id", "note").text
    assert "Change" in browser.find_element("id", "reading").text


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 568), (844, 390)])
def test_browser_on_a_phone(browser: Any, page: Path, width: int, height: int) -> None:
    opened(browser, page, width, height, "dark", mobile=True)
    for group in browser.find_elements("css selector", "#groups button"):
        group.click()
        ready(browser)
        # A page too wide makes a phone's window wider: the screen's own width counts.
        assert browser.execute_script("return Math.max(document.documentElement.scrollWidth, innerWidth)") <= width
        # Within reach at once, wherever the page is scrolled to, and large enough for a thumb.
        for name in ("play", "slider"):
            box = browser.execute_script("return document.getElementById(arguments[0]).getBoundingClientRect().toJSON()", name)
            assert 0 <= box["top"] < box["bottom"] <= height
            assert box["height"] >= 44
    assert pixels(browser, DRAWN).shape[1] >= 2 * 100


def test_browser_finds_a_name_for_every_control(browser: Any, page: Path) -> None:
    opened(browser, page)
    controls = browser.find_elements("css selector", "button, input")
    assert len(controls) == 2 + N + 3
    assert all(one.accessible_name for one in controls)
    # All are reached by the tab key, and show that they are.
    for _ in controls:
        press(browser, "\ue004")
        outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert "glimpse" in browser.find_element("css selector", DRAWN).get_attribute("aria-label")


def test_browser_has_nothing_to_complain_of(browser: Any, page: Path) -> None:
    """After all that was done above, and on a page of its own."""
    opened(browser, page)
    press(browser, "\ue012", "\ue013", "w", "w")
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert all(name.startswith("data:") for name in loaded)
