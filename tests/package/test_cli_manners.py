"""How commands behave with closed streams, strange names, missing packages and folders, and what they say to go on."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from commands import python

import fastdraw
from fastdraw import dispatch
from fastdraw.cli import COMMANDS, EXTRA, _app, main
from fastdraw.cli.manners import with_flags
from fastdraw.shell import quoted

ROOT = Path(__file__).parents[2]
TINY = "--data digits --glimpses 2 --hidden-size 8 --latent-size 2 --steps 2 --threads 1 --samples 4".split()  # noqa: SIM905
#: Every folder and file that a command makes, by the option that names it. RUN is a trained run.
MADE = {
    "train": ("--out", [*TINY], "checkpoint.safetensors"),
    "evaluate": ("--json", ["RUN", "--limit", "5"], None),
    "sample": ("--out", ["RUN", "-n", "2"], None),
    "view": ("--out", ["RUN", "--what", "samples", "-n", "2"], "samples.png"),
    "profile": ("--json", ["read", "--shape", "1x1x8x8", "--seconds", "0.001", "--peers", "none"], None),
}


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of bash in which `fastdraw` is this one."""
    line = line.replace("fastdraw ", f"{quoted(sys.executable)} -m fastdraw ", 1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, env=environment, timeout=120)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main(["train", *TINY, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_messages_name_flags(command: str) -> None:
    """Of every option and argument of every command, by the name that a Python function has for it."""
    import typer

    group: Any = typer.main.get_command(_app())
    for parameter in group.commands[command].params:
        name, rest = with_flags(f"{parameter.name}: expected x, got y", group.commands[command]).split(":", 1)
        assert rest == " expected x, got y"
        # An argument whose metavar lists its values goes by its own name.
        own = parameter.metavar if (parameter.metavar or "").isidentifier() else parameter.name
        assert name == own if parameter.param_type_name == "argument" else name in parameter.opts
        assert "_" not in name
        assert parameter.param_type_name == "argument" or len(parameter.help.split()) > 1, name
    assert with_flags("some/file: expected x, got y", group.commands[command]) == "some/file: expected x, got y"


@pytest.mark.parametrize("command", MADE)
def test_folders_are_made_and_home_is_expanded(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--out=~/new/folder/x, which bash hands over as it stands; so are RUN and the folders of the environment."""
    option, args, inside = MADE[command]
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(run, tmp_path / "run")
    name = {"evaluate": "a.json", "profile": "a.json", "sample": "a.png"}.get(command, "a")
    words = [word.replace("RUN", "~/run") for word in args]
    monkeypatch.setenv("FASTDRAW_CACHE", "~/cache")
    assert main([command, *words, f"{option}=~/one/two/{name}"]) == 0
    made = tmp_path / "one" / "two" / name
    assert (made / inside if inside else made).exists()
    assert not list(tmp_path.glob("~*"))


@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "view", "profile"])
def test_nothing_is_made_where_something_is_missing(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option, args, _ = MADE[command]
    name = {"evaluate": "a.json", "profile": "a.json", "sample": "a.png"}.get(command, "a")
    wrong = {
        "train": ["--batch-size", "50000"],
        "evaluate": ["--data", "nowhere.npz"],
        "sample": ["--nearest", "--data", "nowhere.npz"],
        "view": ["--what", "kl", "--data", "nowhere.npz"],
        "profile": ["--backend", "none"],
    }[command]
    words = [word.replace("RUN", str(run)) for word in args]
    target = tmp_path / "one" / "two" / name
    assert main([command, *words, option, str(target), *wrong]) == 2
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    assert main([command, *words, option, str(tmp_path / "file" / name)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("closed", ["| true", ">&- 2>&-"])
def test_a_closed_stdout_does_no_harm(closed: str, tmp_path: Path) -> None:
    """Training goes on, no file gets what was meant for the terminal, and nothing is complained of."""
    done = shell(f"set -o pipefail; fastdraw train {' '.join(TINY)} --log-every 1 --out run {closed}", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {"checkpoint.safetensors", "drawing.gif", "samples.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    done = shell(f"set -o pipefail; fastdraw evaluate run --limit 5 --json - {closed}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_names_that_are_not_utf8(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In every command, and what is said about them is what a shell takes."""
    name = os.fsdecode(b"run \xff '\xe4")
    folder = tmp_path / name
    assert main(["train", *TINY, "--out", str(folder)]) == 0
    assert main(["train", "--resume", "--steps", "3", "--out", str(folder)]) == 0
    assert main(["evaluate", str(folder), "--limit", "5", "--json", str(folder / name)]) == 0
    assert main(["sample", str(folder), "-n", "2", "--out", str(folder / f"{name}.png"), "--npz", "--gif", "--mp4"]) == 0
    assert main(["view", str(folder), "-n", "2"]) == 0
    assert main(["evaluate", str(folder / "none" / name)]) == 2
    assert "run \\udcff '" in "".join(capsys.readouterr())
    echoed = subprocess.run(["bash", "-c", f"printf %s {quoted(folder)}"], capture_output=True).stdout
    assert echoed == os.fsencode(folder)


def test_a_terminal_without_unicode(tmp_path: Path) -> None:
    done = shell(f"fastdraw train {' '.join(TINY)} --out 'run ä'", tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"run \\xe4" in done.stdout


def test_what_is_said_after_an_interruption_goes_on(tmp_path: Path) -> None:
    """The very line, in a shell: in a folder whose name needs quotes, with options that only the checkpoint holds."""
    long = f"{' '.join(TINY)} --steps 300 --batch-size 200 --evaluate-every 1000"
    done = shell(f"fastdraw train {long} --minutes 0.005 --out 'a run'", tmp_path)
    assert done.returncode == 142, done.stderr
    first, again = re.search(rb"stopped at step (\d+); to go on: (.*)\n", done.stdout).groups()  # type: ignore[union-attr]
    done = subprocess.run(["bash", "-c", again], cwd=tmp_path, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"resuming a run" in done.stdout if int(first) else b"training a run" in done.stdout
    assert b"step 300/300" in done.stdout


def test_an_interruption_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also before a command has anything to go on with."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for place in ("evaluation.evaluate_run", "train.train", "view.saving.save_samples", "view.saving.view_run"):
        monkeypatch.setattr(f"fastdraw.{place}", interrupted)
    for place in ("profile.command.run", "backends"):
        monkeypatch.setattr(f"fastdraw.{place}", interrupted)
    for command in COMMANDS:
        args = ["x"] * (command in ("evaluate", "sample", "view"))
        assert main([command, *args]) == 130
        assert capsys.readouterr().err == "fastdraw: error: interrupted\n"


def test_data_in_the_home_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--data=~/images.npy and --data-dir=~/folder, where each command looks for data."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    numpy.save(tmp_path / "images.npy", numpy.random.default_rng(0).integers(0, 256, (20, 28, 28), numpy.uint8))
    folder = ["--data-dir=~"]
    assert main(["train", *TINY[2:], "--data=~/images.npy", *folder, "--batch-size", "4", "--out", "own"]) == 0
    for command in (["evaluate", str(run)], ["sample", str(run), "-n", "2", "--nearest"], ["view", str(run), "--what", "kl"]):
        assert main([*command, "--data=~/images.npy", *folder]) == 0
        capsys.readouterr()
        assert main([*command, "--data=~/images.npy", "--data-dir=~/nowhere"]) == 2
        assert f"got '{tmp_path}/nowhere'" in capsys.readouterr().err


def test_a_run_goes_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its data were named by a path from where it was begun."""
    begun, other = tmp_path / "it's here", tmp_path / "there"
    other.mkdir()
    begun.mkdir()
    numpy.save(begun / "my images.npy", numpy.random.default_rng(0).integers(0, 256, (20, 28, 28), numpy.uint8))
    monkeypatch.chdir(begun)
    where = ["--data", "my images.npy", "--data-dir", ".", "--batch-size", "4"]
    assert main(["train", *TINY[2:], *where, "--out", "run"]) == 0
    monkeypatch.chdir(other)
    assert main(["train", "--out", str(begun / "run"), "--resume", "--steps", "3"]) == 0
    assert not list(other.iterdir())


def test_alone_it_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    assert all(command in out for command in COMMANDS)


def test_info_and_version_need_no_extra() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split()))
from fastdraw.cli import main
print(main(["--version"]), main(["info"]))
"""
    said = python(code, " ".join(EXTRA))
    assert "on cpu: " in said
    assert said.startswith(f"fastdraw {fastdraw.__version__}\n")


#: Without torch: each command's options, by what each shell calls; help; mistakes. Then a command, with all there is.
QUICK = """
import contextlib, io, json, os, sys
from fastdraw_command import main
said, commands, lines = {}, sys.argv[1].split(), sys.argv[2:]
def run(key, args, **environment):
    os.environ.update(environment)
    sys.argv[1:] = args
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = main()
        except SystemExit as stopped:
            code = stopped.code or 0
    for name in environment:
        del os.environ[name]
    said[key] = code, out.getvalue()
for shell in ("bash", "zsh", "fish"):
    for command in ("", *commands):
        words = f"fastdraw {command} " + "--" * bool(command)
        how = {"_FASTDRAW_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "COMP_CWORD": str(1 + bool(command))}
        run(f"{shell} {command}", [], _TYPER_COMPLETE_ARGS=words, _TYPER_COMPLETE_FISH_ACTION="get-args", **how)
for line in lines:
    run(line, line.split())
said["heavy"] = sorted({"torch", "numpy", "triton"} & set(sys.modules))
run("info", ["info"])
run("sample", ["sample", "nowhere"])
said["whole"] = hasattr(sys.modules["fastdraw"], "DRAW")
print(json.dumps(said))
"""


def test_words_help_and_mistakes_need_no_torch() -> None:
    """Shells are offered what the parsers have, and as soon as a command runs, all of fastdraw is there."""
    import typer

    group: Any = typer.main.get_command(_app())
    helped = ["--help", "--version", *(f"{command} --help" for command in COMMANDS)]
    wrong = ["trian", *(f"{command} --bogus" for command in COMMANDS)]
    said = json.loads(python(QUICK, " ".join(COMMANDS), *helped, *wrong))
    assert said["heavy"] == []
    for command in COMMANDS:
        options = {"--help"}.union(*(p.opts + p.secondary_opts for p in group.commands[command].params if p.opts[0][0] == "-"))
        options = {option for option in options if option.startswith("--")}
        for shell, word in (("bash", r"^(\S+)$"), ("zsh", r'"(\S+?)":"'), ("fish", r"^(\S+)\t")):
            assert set(re.findall(word, said[f"{shell} {command}"][1], re.MULTILINE)) == options
            assert re.findall(word, said[f"{shell} "][1], re.MULTILINE) == list(COMMANDS)
    assert {said[line][0] for line in helped} == {0}
    assert {said[line][0] for line in wrong} == {2}
    assert said["info"][0] == 0
    assert "on cpu: native kernels" in said["info"][1]
    assert said["sample"][0] == 2
    assert "nowhere" in said["sample"][1]
    assert said["whole"]


def test_bash_completes(tmp_path: Path) -> None:
    """By the function that --show-completion prints, with the command as it is installed."""
    line = 'eval "$(fastdraw --show-completion bash)"; COMP_WORDS=(fastdraw train --lear); COMP_CWORD=2; '
    line += '_fastdraw_completion fastdraw; echo "${COMPREPLY[@]}"'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout == "--learning-rate\n", done


def test_a_missing_fast_backend_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert dispatch.slower("cpu") is None
    assert main(["train", *TINY, "--out", str(tmp_path / "fast")]) == 0
    assert "slower than need be" not in capsys.readouterr().out
    for backend in ("aten", "reference"):
        with dispatch.backend(backend):
            words = f"slower than need be: the backend {backend} computes on cpu, not native: {backend} was chosen"
            assert dispatch.slower("cpu") == words
            assert main(["train", *TINY, "--out", str(tmp_path / backend)]) == 0
            assert words in capsys.readouterr().out
            assert main(["profile", "read", "--shape", "1x1x8x8", "--seconds", "0.001", "--peers", "none"]) == 0
            assert words in " ".join(capsys.readouterr().out.split())
            assert main(["info"]) == 0
            assert words in capsys.readouterr().out


#: What is run by its name, and may be asked what it does.
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("examples", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if folder == "examples" or "\nif __name__ == " in path.read_text()
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_explain_themselves(
    script: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And do nothing else where that is asked: some took --help for the name of a file to write."""
    if "lightning" in script:
        pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    # Which benchmarks/gpu/sanitize.py sets for its own process.
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "0")
    monkeypatch.setattr(sys, "argv", [str(ROOT / script), "--help"])
    module = script.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
    own = script.startswith("benchmarks")
    start = runpy.run_module if own else runpy.run_path
    with pytest.raises(SystemExit) as stopped:
        start(module if own else str(ROOT / script), run_name="__main__")
    assert stopped.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(rf"python3? ({re.escape(script)}|-m {re.escape(module)})\b", out), out
    assert out.startswith("usage: ")
    assert not list(tmp_path.iterdir())
