"""The page to scrub through the glimpses: what it holds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import N, T, cells, held, model_with_windows

from fastdraw import reference
from fastdraw.view import Group, Record, record, save_page
from fastdraw.view.record import window_params


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
    params = window_params(r.write_windows, 2, (12, 16))
    canvas = model.initial_canvas.detach().expand(N, 1, 12, 16)
    for t in range(T):
        canvas = canvas + reference.write(r.written[t].double(), params[t], (12, 16))
        torch.testing.assert_close(torch.sigmoid(canvas), r.frames[t].double(), rtol=0, atol=1e-5)


def test_params_of_a_window_give_the_window_back() -> None:
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
