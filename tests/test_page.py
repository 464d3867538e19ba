"""The page to scrub through the glimpses: what it holds, and what a browser shows of it when keys are pressed."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdraw import reference
from fastdraw.view import Group, Record, record, save_page

T, N = 6, 4


def model_with_windows(**sizes: Any) -> reference.DRAW:
    """Windows that move and patches that show, without training."""
    torch.manual_seed(3)
    model = reference.DRAW((1, 12, 16), glimpses=T, hidden_size=8, latent_size=4, **{"read_size": 3, "write_size": 2, **sizes})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention" in name:
                parameter.copy_(0.7 * torch.randn(parameter.shape))
            if name == "patch.weight":
                parameter.mul_(60)
    return model


@pytest.fixture(scope="module")
def records() -> tuple[Record, Record]:
    model = model_with_windows()
    x = torch.rand(N, 1, 12, 16)
    return record(model, x, torch.randn(T, N, 4)), record(model, None, torch.randn(T, N, 4))


@pytest.fixture(scope="module")
def page(records: tuple[Record, Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    read, drawn = records
    path = tmp_path_factory.mktemp("page") / "page.html"
    groups = [
        Group("Reconstructions", "Drawn again.", read, 2, 3, read.kl, "KL", "nats"),
        Group(
            "Samples", "Drawn from noise.", drawn, 2, None, drawn.moved, "Change", "%", notes=[f"Class {i}" for i in range(N)]
        ),
    ]
    save_page(groups, path, "DRAW: a test", "a fact")
    return path


def held(page: Path) -> Any:
    """What the page's script is given."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def cells(sheet: dict[str, Any]) -> np.ndarray:
    """uint8 [T, h, w, 3] out of a data URL."""
    data = base64.b64decode(sheet["src"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    height, width, columns = sheet["height"], sheet["width"], sheet["columns"]
    places = [divmod(t, columns) for t in range(sheet["cells"])]
    return np.stack([pixels[r * height : (r + 1) * height, c * width : (c + 1) * width] for r, c in places])


def test_the_page_loads_nothing(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text
    # The only addresses are a name in the SVG standard, and pictures that the page itself holds.
    assert set(re.findall(r"https?://[^\"'\s]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert all(address.startswith("data:") for address in re.findall(r"(?:src|href)=\"([^\"]*)\"", text))
    assert not re.findall(r"@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket", text)


def test_the_page_holds_every_glimpse_to_the_bit(page: Path, records: tuple[Record, Record]) -> None:
    for group, r in zip(held(page)["groups"], records, strict=True):
        assert (group["steps"], group["size"], len(group["items"])) == (T, [12, 16], N)
        assert r.frames is not None
        for i, item in enumerate(group["items"]):
            shown = cells(item["frames"])
            np.testing.assert_array_equal(shown[..., 0], (r.frames[:, i, 0] * 255).round().byte().numpy())
            w = r.write_windows
            assert w is not None
            expected = torch.stack([w.centre_x, w.centre_y, w.delta / 2, w.sigma], -1)[:, i]
            np.testing.assert_allclose(np.array(item["write"]), expected.numpy(), atol=0.0051)


def test_the_page_holds_kl_and_what_was_read(page: Path, records: tuple[Record, Record]) -> None:
    r = records[0]
    assert r.kl is not None
    assert r.read is not None
    assert r.images is not None
    for i, item in enumerate(held(page)["groups"][0]["items"]):
        np.testing.assert_allclose(item["curve"], r.kl[:, i].numpy(), atol=1e-4)
        np.testing.assert_array_equal(cells(item["seen"])[..., 0], (r.read[:, i, 0] * 255).round().byte().numpy())
        np.testing.assert_array_equal(cells(item["image"])[0, ..., 0], (r.images[i, 0] * 255).round().byte().numpy())
    sample = held(page)["groups"][1]["items"][2]
    assert not {"image", "seen", "error", "read"} & set(sample)
    assert sample["note"] == "Class 2"


def test_a_record_agrees_with_the_model() -> None:
    """Adding up what was written gives the canvases; the KL is the model's; no window is left out."""
    model = model_with_windows().double()
    x, e = torch.rand(N, 1, 12, 16).double(), torch.randn(T, N, 4).double()
    r = record(model, x, e)
    out = model(x, e)
    assert r.kl is not None
    assert r.frames is not None
    assert r.written is not None
    assert r.write_windows is not None
    torch.testing.assert_close(r.kl.double(), out.kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(r.frames[-1].double(), torch.sigmoid(out.canvas), rtol=0, atol=1e-5)
    from fastdraw.view.record import window_params

    params = window_params(r.write_windows, 2, (12, 16))
    canvas = model.initial_canvas.detach().expand(N, 1, 12, 16)
    for t in range(T):
        canvas = canvas + reference.write(r.written[t].double(), params[t], (12, 16))
        torch.testing.assert_close(torch.sigmoid(canvas), r.frames[t].double(), rtol=0, atol=1e-5)


def test_params_of_a_window_give_the_window_back() -> None:
    from fastdraw.view.record import window_params

    params = torch.randn(7, 5, dtype=torch.float64)
    params[:, 4] = 0
    for size in (1, 2, 5):
        w = reference.window(params, size, (20, 30))
        again = reference.window(window_params(w, size, (20, 30)), size, (20, 30))
        for one, other in zip(w, again, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sizes", [{"read_size": None}, {"write_size": None}, {"read_size": None, "write_size": None}])
def test_models_without_attention_have_a_page(tmp_path: Path, sizes: dict[str, None]) -> None:
    model = model_with_windows(**sizes)
    r = record(model, torch.rand(2, 1, 12, 16), torch.randn(T, 2, 4))
    save_page([Group("G", "", r, model.config.write_size, model.config.read_size)], tmp_path / "p.html")
    item = held(tmp_path / "p.html")["groups"][0]["items"][0]
    assert ("read" in item) == ("seen" in item) == ("read_size" not in sizes)
    assert ("write" in item) == ("written" in item) == ("write_size" not in sizes)


def test_text_cannot_break_out_of_the_page(tmp_path: Path, records: tuple[Record, Record]) -> None:
    hostile = "</script><script>alert(1)</script>__DATA__/*SCRIPT*/<!--"
    save_page([Group(hostile, hostile, records[1], 2, notes=[hostile] * N)], tmp_path / "p.html", hostile, hostile)
    text, data = (tmp_path / "p.html").read_text(), held(tmp_path / "p.html")
    assert text.count("<script") == text.count("</script>") == 2
    assert {data["title"], data["facts"], data["groups"][0]["name"], data["groups"][0]["items"][1]["note"]} == {hostile}


def test_a_page_of_sixteen_images_and_64_glimpses_is_small(tmp_path: Path) -> None:
    """In colour and all different, of which every image makes 64 x 3 KiB, the nearer it comes to noise the larger."""
    ramp = torch.linspace(0, 1, 32)
    smooth = torch.stack([ramp.expand(32, 32), ramp.expand(32, 32).T, ramp.flip(0).expand(32, 32)])
    frames = (smooth * torch.linspace(0.2, 0.9, 64).view(-1, 1, 1, 1, 1) + 0.05 * torch.rand(64, 16, 3, 32, 32)).clamp(0, 1)
    save_page([Group("G", "", Record(torch.rand(16, 3, 32, 32), frames))], tmp_path / "p.html")
    assert (tmp_path / "p.html").stat().st_size < 5_000_000
    shown = cells(held(tmp_path / "p.html")["groups"][0]["items"][0]["frames"]).astype(float) / 255
    assert np.abs(shown - frames[:, 0].permute(0, 2, 3, 1).numpy()).mean() < 0.03


def test_large_images_are_made_smaller_and_windows_stay(tmp_path: Path) -> None:
    frames = torch.zeros(2, 1, 1, 300, 200)
    frames[:, :, :, :150] = 1
    w = reference.Window(*(torch.full((2, 1), value) for value in (100.0, 50.0, 10.0, 1.0, 1.0)))
    save_page([Group("G", "", Record(None, frames, write_windows=w), write_size=3)], tmp_path / "p.html")
    group = held(tmp_path / "p.html")["groups"][0]
    shown = cells(group["items"][0]["frames"])
    assert shown.shape == (2, 128, 85, 3)
    assert (shown[:, :63] == 255).all()
    assert (shown[:, 65:] == 0).all()
    assert group["size"] == [300, 200]
    assert group["items"][0]["write"] == [[100.0, 50.0, 10.0, 1.0]] * 2


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    w = reference.Window(*(torch.tensor([[1.0], [float("nan")]]) for _ in range(5)))
    save_page([Group("G", "", Record(None, torch.zeros(2, 1, 1, 4, 4), write_windows=w), write_size=3)], tmp_path / "p.html")
    assert held(tmp_path / "p.html")["groups"][0]["items"][0]["write"] == [[1.0, 1.0, 1.0, 1.0], None]
    with pytest.raises(ValueError, match="groups: expected at least one"):
        save_page([], tmp_path / "q.html")


# In a browser -----------------------------------------------------------------------------------------------------------


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
    samples = browser.find_elements("css selector", "#groups button")[1]
    samples.click()
    ready(browser)
    assert not browser.find_elements("css selector", READ)
    assert "Class 0" in browser.find_element("id", "note").text
    assert "Change" in browser.find_element("id", "reading").text


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 568), (844, 390)])
def test_browser_on_a_phone(browser: Any, page: Path, width: int, height: int) -> None:
    opened(browser, page, width, height, "dark", mobile=True)
    for group in browser.find_elements("css selector", "#groups button"):
        group.click()
        ready(browser)
        assert browser.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
        # Within reach at once, wherever the page is scrolled to, and large enough for a thumb.
        for name in ("play", "slider"):
            box = browser.execute_script("return document.getElementById(arguments[0]).getBoundingClientRect().toJSON()", name)
            assert 0 <= box["top"] < box["bottom"] <= height
            assert box["height"] >= 44
    assert pixels(browser, DRAWN).shape[1] >= 2 * 100


def test_browser_follows_the_colour_scheme(browser: Any, page: Path) -> None:
    shades = []
    for scheme in ("light", "dark"):
        opened(browser, page, scheme=scheme)
        shade, ink = browser.execute_script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        shades.append([sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (shade, ink)])
    (light, dark_ink), (dark, light_ink) = shades
    assert light > 600 > 200 > dark
    assert dark_ink < 200 < 600 < light_ink


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
