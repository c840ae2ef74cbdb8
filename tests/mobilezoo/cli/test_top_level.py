"""Options of `mobilezoo` itself: its version, and completion in a shell."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

import mobilezoo
from mobilezoo.cli.main import main


def complete(words: str) -> list[str]:
    """What a shell offers for the last word of a command line."""
    asked = {"_MOBILEZOO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    run = [sys.executable, "-m", "mobilezoo"]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env={**os.environ, **asked})
    return done.stdout.split()


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert not done.value.code
    assert capsys.readouterr().out == f"mobilezoo {mobilezoo.__version__}\n"
    assert version("mobilezoo") == mobilezoo.__version__


def test_a_shell_completes_commands() -> None:
    assert complete("mobilezoo pro") == ["profile"]
    assert complete("mobilezoo search fr") == ["front"]


def test_a_shell_completes_names_of_configs() -> None:
    assert complete("mobilezoo train cas") == ["cas_vit"]
    assert complete("mobilezoo profile --device cortex_a7") == ["cortex_a72", "cortex_a76"]


def test_the_completion_script_is_for_the_installed_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    with pytest.raises(SystemExit) as done:
        main(["--show-completion", "bash"])
    assert not done.value.code
    assert capsys.readouterr().out.rstrip().endswith("-F _mobilezoo_completion mobilezoo")
