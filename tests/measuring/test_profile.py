"""`fastdraw profile`: figures that agree with one another, files that can be read again, one line for each mistake."""

from __future__ import annotations

import json

import pytest
import torch
from commands import mistake
from kernel_calls import needs_library

import fastdraw
from fastdraw import reference
from fastdraw.cli import main
from fastdraw.kernels import cpu
from fastdraw.profile import ceilings, compare, measure, shapes, table, trace
from fastdraw.profile.cost import Cost
from fastdraw.profile.shapes import Glimpses
from fastdraw.profile.timing import Variant

QUICK = ["--seconds", "0.001", "--device", "cpu"]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_figures_files_and_comparison(tmp_path, capsys):
    files = {name: tmp_path / name for name in ("new.json", "roof.png", "trace.json", "old.json")}
    shape = ["--shape", "2x1x12x10", "--size", "3"]
    written = ["--json", str(files["new.json"]), "--plot", str(files["roof.png"]), "--trace", str(files["trace.json"])]
    assert main(["profile", "read", "write", *shape, *QUICK, *written]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    assert "approximate" in shown
    report = json.loads(files["new.json"].read_text())
    assert report["machine"]["torch"] == torch.__version__
    assert [case["operator"] for case in report["cases"]] == ["read", "write"]
    for case in report["cases"]:
        assert case["shape"] == "2x1x12x10,N=3,window=0.5"
        assert case["rows"][0]["name"].startswith("fastdraw")
        rates = [case[name] for name in ("torch_product_per_second", "multiply_adds_per_second")]
        assert case["operations_per_second"] == max(rate for rate in rates if rate is not None)
        for row in case["rows"]:
            assert row["low"] <= row["median"] <= row["high"]
            assert row["bytes_per_second"] == pytest.approx(case["bytes"] / row["median"])
            assert row["operations_per_second"] == pytest.approx(case["operations"] / row["median"])
            assert row["images_per_second"] == pytest.approx(2 / row["median"])
            assert row["share"] == pytest.approx(case["floor"] / row["median"])
            assert row["launches"] > 0
            assert row["peak_bytes"] > 0
            assert row["approximate"] or not row["difference"] or row["difference"] < 1e-4
    assert files["roof.png"].read_bytes().startswith(b"\x89PNG")
    events = json.loads(files["trace.json"].read_text())["traceEvents"]
    names = {event["name"] for event in events if event.get("ph") == "X"}
    labels = [f"{c['operator']} {c['shape']}: {row['name']}" for c in report["cases"] for row in c["rows"]]
    assert names >= set(labels)
    starts = {name: min(e["ts"] for e in events if e.get("name") == name) for name in labels}
    assert sorted(starts, key=starts.__getitem__) == labels

    # Against a run in which fastdraw was a thousand times quicker; then against this very run.
    for row in report["cases"][0]["rows"]:
        factor = 1e-3 if row["name"].startswith("fastdraw") else 1e3
        row.update({key: row[key] * factor for key in ("low", "median", "high")})
    files["old.json"].write_text(json.dumps(report))
    again = ["profile", "read", *shape, *QUICK, "--peers", "reference", "--compare", str(files["old.json"])]
    assert main(again) == 0
    text = capsys.readouterr().out
    assert "SLOWER: 1 of fastdraw's 1 cases." in text
    assert "FASTER" in text
    assert main([*again, "--fail-slower"]) == 1
    capsys.readouterr()
    new = json.loads(files["new.json"].read_text())
    assert {change.verdict for change in compare.changes(new, new)} == {""}


@needs_library
def test_peak_of_all_threads_is_no_less_than_that_of_one():
    one, all_threads = ceilings.peak_rate("float32", 1), ceilings.peak_rate("float32", 2)
    assert 0 < one <= all_threads < 1e15


def test_without_the_library_torchs_product_is_the_ceiling(monkeypatch):
    ceilings.peak_rate.cache_clear()
    monkeypatch.setattr(cpu, "unavailable", lambda: "not built")
    try:
        roof = measure.roof(Cost(1, "", 1, "", 0), "cpu", "float32")
    finally:
        ceilings.peak_rate.cache_clear()
    assert roof["operations_per_second"] == roof["torch_product_per_second"] == ceilings.product_rate("cpu", "float32")
    assert roof["multiply_adds_per_second"] is roof["multiply_adds_of_a_thread"] is None
    assert table.products_text(roof).endswith("FLOP/s, torch's best")


@pytest.mark.parametrize(
    ("operator", "said", "shape"),
    [
        ("lstm", "--shape 3x4x5", "3x4x5"),
        (
            "draw",
            "--shape 2x1x8x8 --glimpses 2 --hidden-size 6 --latent-size 3 --write-size 3",
            "2x1x8x8,T=2,h=6,Z=3,read=2,write=3",
        ),
        (
            "read",
            "--shape 2x1x8x9 --size 2 --window 0.25 --windows 2 --params-only",
            "2x1x8x9,N=2,window=0.25,K=2,grad=params",
        ),
    ],
)
def test_shapes_are_measured_as_they_were_said(operator, said, shape, tmp_path, capsys):
    path = tmp_path / "report.json"
    assert main(["profile", operator, *said.split(), *QUICK, "--json", str(path)]) == 0
    capsys.readouterr()
    (case,) = json.loads(path.read_text())["cases"]
    assert case["shape"] == shape
    for row in case["rows"]:
        assert row["seconds_per_glimpse"] == pytest.approx(row["median"] / case["glimpses"])
        # All compute the same, from the same weights.
        assert row["approximate"] or not row["difference"] or row["difference"] < 1e-4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample"], "operators: expected"),
        (["read", "--shape", "1x2x3"], "shape: expected BxCxHxW"),
        (["read", "--shape", "1x1x8x8,N=3"], "shape: expected BxCxHxW"),
        (["read", "--shape", "1x1x8x8", "--size", "0"], "size: expected at least 1, got 0"),
        (["read", "--shape", "1x1x8x8", "--size", "x"], "--size"),
        (["read", "--shape", "1x1x8x8", "--window", "nan"], "window: expected a number above 0"),
        (["write", "--shape", "1x1x8x8", "--params-only"], "params-only: expected read to be measured, got 'write'"),
        (["read", "--size", "3"], "size: expected --shape with it"),
        (["draw", "--shape", "1x1x8x8", "--glimpses", "0"], "glimpses: expected"),
        (["lstm", "--shape", "1x0x8"], "shape: expected BxIxh (batch, inputs, hidden units) for lstm"),
        (["--dtype", "int8"], "dtype: expected"),
        (["--device", "tpu"], "device: expected"),
        (["--backend", "cuda"], "backend: expected"),
        (["--device", "cpu", "--backend", "triton"], "backend: expected one that runs here"),
        (["--peers", "keras"], "peers: expected"),
        (["--seconds", "0"], "seconds: expected"),
        (["--json", "report.txt"], "json: expected a name that ends in .json"),
        (["--fail-slower"], "fail-slower: expected"),
        (["--compare", "no-such-file.json"], "no-such-file.json"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, capsys):
    assert said in mistake(capsys, "profile", *arguments)


ROW = {"name": "fastdraw", "low": 1e-3, "median": 2e-3, "high": 3e-3}
CASE = {"operator": "read", "shape": "2x1x12x10,N=3,window=0.5", "dtype": "float32", "device": "cpu", "rows": [ROW]}
REPORT = {"fastdraw profile": 1, "when": "today", "machine": {"cpu": "old"}, "cases": [CASE]}


def foreign() -> list[object]:
    """Reports that are none, each wrong in one place."""
    found: list[object] = [None, 7, "text", [], {}, [REPORT], {**REPORT, "fastdraw profile": 2}, {"cases": []}]
    found += [
        {**REPORT, name: value}
        for name in ("when", "machine", "cases")
        for value in (None, 3, {"a": 1} if name != "machine" else [])
    ]
    found += [{**REPORT, "cases": [case]} for case in (None, [], "x", {}, {**CASE, "rows": None}, {**CASE, "rows": {"a": 1}})]
    found += [
        {**REPORT, "cases": [CASE, {**CASE, name: value}]}
        for name in ("operator", "shape", "dtype", "device")
        for value in (None, 1, [])
    ]
    rows: list[object] = [None, [], "x", {}, {"name": "fastdraw"}, {**ROW, "name": 1}, {**ROW, "low": None}]
    for value in ("fast", True, [], {}, -1, 0, 10**400, float("nan"), float("inf"), 1e-300):
        rows += [{**ROW, "median": value}, {**ROW, "high": value}]
    return found + [{**REPORT, "cases": [{**CASE, "rows": [row]}]} for row in rows]


def test_comparing_with_another_file_is_a_mistake_that_is_found_first(tmp_path, capsys, monkeypatch):
    def measured(*args):
        raise AssertionError("measured before everything was checked")

    monkeypatch.setattr("fastdraw.profile.command.roof", measured)
    path = tmp_path / "other.json"
    others = [json.dumps(report).encode() for report in foreign()]
    for content in [b"{", b"", b"\xff\xfe{}", b"[" * 200_000, b'{"a":' * 100_000, *others]:
        path.write_bytes(content)
        words = "compare: expected a file that `fastdraw profile --json` wrote"
        assert words in mistake(capsys, "profile", "--compare", str(path)), content[:200]
    assert main(["profile", "--compare", str(tmp_path)]) == 2
    for report in (
        REPORT,
        {**REPORT, "cases": []},
        {**REPORT, "cases": [{**CASE, "rows": [{**ROW, "median": None, "low": None}]}]},
    ):
        path.write_text(json.dumps(report))
        assert compare.load(str(path)) == report


def test_text_of_another_file_is_neither_markup_nor_commands(tmp_path, capsys):
    evil = "[/nothing][red]\x1b]0;owned\x07\x1b[2J\u202e"
    path = tmp_path / "old[bold].json"
    rows = [{**ROW, "name": evil}, ROW]
    path.write_text(
        json.dumps({**REPORT, "when": evil, "machine": {"cpu": evil, "cores": [evil]}, "cases": [{**CASE, "rows": rows}]})
    )
    assert (
        main(["profile", "read", "--shape", "2x1x12x10", "--size", "3", *QUICK, "--peers", "none", "--compare", str(path)])
        == 0
    )
    out = capsys.readouterr().out
    assert "old[bold].json" in out
    assert r"[/nothing][red]\x1b]0;owned\x07" in "".join(out.split("\n"))
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


@pytest.mark.parametrize(
    "shape",
    [Glimpses("read", 2, 1, 40, 30, 4, 0.2), Glimpses("read", 1, 1, 20, 20, 5, 1.0, 2), Glimpses("read", 2, 1, 9, 9, 1, 0.3)],
    ids=lambda shape: shape.text,
)
def test_support_is_where_the_filters_are(shape):
    """Counted from the dense filterbanks in float64: weights above what float32 can hold beside the largest."""
    seen, params = shape.support(), shape.params().flatten(0, -2)
    bank = reference.filterbank(params, shape.size, (shape.height, shape.width))
    y, x = (m / m.amax(-1, keepdim=True) >= torch.exp(torch.tensor(-20.0, dtype=m.dtype)) for m in (bank.y, bank.x))
    assert seen.pixels == pytest.approx(int((y.any(1).sum(1) * x.any(1).sum(1)).sum()), rel=0.1)
    assert seen.second == pytest.approx(int(shape.size * x.sum()), rel=0.1)
    assert seen.first > 0


def test_standard_shapes_have_a_cost():
    assert [shape.cost(4).bytes > 0 for shape in shapes.chosen([], [], {})] == [True] * 10


def test_calls_are_counted_innermost():
    weight, x = torch.randn(3, 2), torch.randn(4, 2)
    # A product is one call, with the views around it and the addmm inside; a sum and its square are two.
    traced = trace.trace(Variant("step", lambda _: [torch.nn.functional.linear(x, weight).sum() ** 2]), "step", "cpu")
    assert traced.launches == 3
    assert traced.peak_bytes >= 4 * 4 * 3
    changes = [(1, 100), (2, 50), (3, -100), (4, 20)]
    memory = [{"name": "[memory]", "ts": ts, "args": {"Device Type": 0, "Bytes": b}} for ts, b in changes]
    assert trace.peak_bytes(memory, "cpu") == 150
    params = torch.randn(4, 5, requires_grad=True)
    traced = trace.trace(
        Variant("read", lambda _: [fastdraw.read(torch.rand(4, 1, 9, 9), params, 3)], "native"), "read", "cpu"
    )
    assert any(event["name"].startswith(trace.CPP) for event in traced.events)
