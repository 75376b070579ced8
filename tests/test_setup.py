"""What happens before Python works: one line that says what to do, and targets that exist."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("python3", "python3.11", "python3.12", "python3.13")


@pytest.fixture
def project(tmp_path):
    """A copy of what `make setup` needs, in a folder with a space and Chinese characters."""
    folder = tmp_path / "my 项目"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "uv.lock", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    (folder / ".dvc").mkdir()
    return folder


def setup(folder, tmp_path, script, **env):
    """Run scripts/setup with every Python on PATH replaced by a script; return status and last line."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name in NAMES:
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "scripts/setup"],
        cwd=folder,
        env={"PATH": f"{tools}:/usr/bin:/bin", "PYTHON": "python3", "UV_VERSION": "0", "EXTRAS": "", **env},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.strip().splitlines()


def test_too_old_a_python_is_one_line(project, tmp_path):
    status, said = setup(project, tmp_path, 'case "$1" in --version) echo Python 3.9.18;; *) exit 1;; esac')
    assert status == 1
    assert said == [
        (
            "setup: Python 3.11, 3.12 or 3.13 is needed, found Python 3.9.18: install one and run make again "
            "(or make PYTHON=/path/to/python3.12)"
        )
    ]


def test_a_missing_venv_module_is_one_line_and_leaves_nothing(project, tmp_path):
    # Debian's Python without python3-venv: the command fails after it has made half a folder.
    script = '[ "$1" = -m ] && { mkdir -p .venv/bin; echo ensurepip is not available; exit 1; }; exit 0'
    status, said = setup(project, tmp_path, script)
    assert status == 1
    assert len(said) == 1
    assert "apt install python3-venv" in said[0]
    assert not (project / ".venv").exists()


def test_no_network_is_one_line(project, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        status, said = setup(
            project,
            tmp_path,
            f'exec "{sys.executable}" "$@"',
            PIP_INDEX_URL=index,
            PIP_RETRIES="0",
            PIP_CONFIG_FILE="/dev/null",
        )
    assert status == 1
    assert len(said) == 1
    assert "uv 0 could not be installed: is a Python package index within reach" in said[0]
    assert not (project / ".venv" / ".synced").exists()


def test_bare_make_lists_every_target_with_what_it_does():
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())
    listed = dict(re.findall(r"^  ([a-z]+) +(\S.*)$", said, re.M))
    assert set(listed) == phony
    assert {"setup", "train", "test", "lint", "repro", "report", "ui", "clean"} <= set(listed)


def test_presets_that_make_names_are_those_there_are():
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = re.search(r"^presets: (.*)$", said, re.M)[1].split()
    assert named == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


def test_uv_is_the_same_in_the_makefile_and_in_the_lock():
    version = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.M)[1]
    assert f'name = "uv"\nversion = "{version}"' in (ROOT / "uv.lock").read_text()


def test_without_git_dvc_is_told_and_the_user_too_once(project):
    def call():
        script = [str(project / "scripts/dvc-without-git")]
        return subprocess.run(script, cwd=project, capture_output=True, text=True, check=True).stdout

    assert "no git repository here: dvc params diff, dvc metrics diff" in call()
    assert "no_scm = true" in (project / ".dvc/config.local").read_text()
    assert call() == ""


def test_with_git_again_dvc_uses_it(project):
    (project / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    (project / ".venv").symlink_to(Path(sys.executable).parents[1])
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run([str(project / "scripts/dvc-without-git")], cwd=project, check=True, env=dict(os.environ))
    assert "no_scm" not in (project / ".dvc/config.local").read_text()
