"""The installed commands: they know their binaries, find installed configs, and refuse the rest in one line."""

import pathlib
import subprocess
import sys

import pytest

from experiments.launch import commands

ROOT = pathlib.Path(commands.__file__).resolve().parents[2]


def test_every_binary_has_a_command():
    starts = 'if __name__ == "__main__":'
    binaries = {path.stem for path in (ROOT / "experiments").glob("*.py") if starts in path.read_text()}
    assert {name for name in binaries if not name.startswith("measure_")} == {*commands.PIXPRO, *commands.EVONORM}


def test_the_list_says_what_each_is_for(capsys):
    commands.run("tf-evonorm", commands.EVONORM, [])
    text = capsys.readouterr().out
    for name in commands.EVONORM:
        assert f"  {name}" in text
    assert "normalization-activation layers" in text


@pytest.mark.parametrize(
    "given, variant",
    [("--config=demo", ""), ("--config=demo.py:smoke", ":smoke"), ("-config=pixpro_r50_imagenet:400", ":400")],
)
def test_a_config_is_found_by_its_name(given, variant):
    flag, _, path = commands.installed(given).partition("=")
    file, _, after = path.partition(":")
    assert given.startswith(flag) and pathlib.Path(file).exists() and f":{after}" == (variant or ":")


@pytest.mark.parametrize("given", ["--config=mine/demo.py", "--workdir=demo", "--config"])
def test_other_arguments_stay_as_they_are(given):
    assert commands.installed(given) == given


def test_a_file_of_the_users_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.py").touch()
    assert commands.installed("--config=demo.py:smoke") == "--config=demo.py:smoke"


def test_the_names_for_a_misspelt_config_are_listed():
    with pytest.raises(SystemExit, match=r"Received 'pixpro_r18_foto'\. Did you mean pixpro_r18_photos\?"):
        commands.installed("--config=pixpro_r18_foto:smoke")
    with pytest.raises(SystemExit, match=r"There are .*pixpro_r18_photos.*simclr_r50_imagenet"):
        commands.installed("--config=zzz")


def test_the_flag_and_its_value_may_be_two_words(monkeypatch):
    started = []
    monkeypatch.setattr(commands.runpy, "run_module", lambda *_, **__: started.append(list(sys.argv)))
    monkeypatch.setattr(sys, "argv", ["tf-pixpro"])
    commands.run("tf-pixpro", commands.PIXPRO, ["pretrain", "--config", "demo:smoke", "--workdir", "w"])
    (line,) = started
    assert line[0] == "pretrain" and line[1].endswith("demo.py:smoke") and line[2:] == ["--workdir", "w"]


def test_a_missing_package_is_one_line(monkeypatch):
    def without(*_, **__):
        raise ModuleNotFoundError("No module named 'optuna'", name="optuna")

    monkeypatch.setattr(commands.runpy, "run_module", without)
    monkeypatch.setattr(sys, "argv", ["tf-evonorm"])
    with pytest.raises(SystemExit, match=r"extra `experiments` are needed. Received no optuna"):
        commands.run("tf-evonorm", commands.EVONORM, ["search"])


def test_help_shows_the_flags():
    command = [sys.executable, "-m", "experiments.pretrain", "--help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"--{name}:" in answer for name in ("config", "workdir", "mode", "tpu"))


def test_an_unknown_binary_is_one_line():
    with pytest.raises(
        SystemExit, match=r"one of classify, search, synthesize, export, benchmark\. Received 'pretrian'"
    ):
        commands.run("tf-evonorm", commands.EVONORM, ["pretrian"])


def test_flags_reach_the_binary(tmp_path):
    code = "from experiments.launch import commands; commands.pixpro()"
    arguments = ["predict", f"--saved_model={tmp_path}/none", f"--images={tmp_path}", f"--output={tmp_path}/out"]
    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.strip().splitlines()[-1].startswith("predict: ")
