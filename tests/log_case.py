"""Answers as `pipeline.predicting` gives them, made up, and a real PostgreSQL."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.gate import Verdict
from pipeline.predicting import Answer

FINDINGS = ("Effusion", "Mass", "Nodule")
MODEL = "0123456789ab"
STATISTICS = ("mean", "sharpness", "film_width", "film_mean")


def manifest(version: str = f"{MODEL}-int8", findings: tuple[str, ...] = FINDINGS) -> Any:
    """Return what the log needs to know of a manifest."""
    return SimpleNamespace(version=version, findings=findings)


def answers(n: int, rng: np.random.Generator, shift: float = 0.0, slower: float = 1.0, films: int = 3) -> list[Answer]:
    """Return answers for the films of patients with `films` each, who are alike; `shift` moves all in deviations."""
    people = rng.standard_normal((-(-n // films), 24)).repeat(films, axis=0)[:n]
    values = np.sqrt(0.5) * (people + rng.standard_normal((n, 24))) + shift
    return [answer_of(row, rng, slower) for row in values]


def answer_of(row: np.ndarray, rng: np.random.Generator, slower: float = 1.0) -> Answer:
    """Return one answer from 24 numbers: three outputs, three statistics, a sketch."""
    raw = (1 / (1 + np.exp(-row[:3] + 0.5))).astype(np.float32)
    statistics = {"mean": 100 + 10 * row[3], "sharpness": row[4], "film_width": 256.0, "film_mean": 90 + 9 * row[5]}
    timings = {step: float(slower * rng.lognormal(1, 0.2)) for step in ("decode", "model")}
    called = (raw >= 0.5).astype(np.int8)
    sketch = row[8:24].astype(np.float32)
    return Answer("n", raw, raw.astype(np.float64), called, Verdict(True), (), timings, statistics, sketch)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Start a PostgreSQL of its own on a unix socket, yield its URL, and stop it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = found[-1].parent if found else None
    if programs is None and (path := shutil.which("initdb")):
        programs = Path(path).parent
    if programs is None:
        pytest.skip("needs PostgreSQL's programs (initdb, postgres)")
    before: list[str] = []
    if os.geteuid() == 0:  # initdb refuses root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        before = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        os.chown(folder, user.pw_uid, user.pw_gid)
    data, port = folder / "data", "54329"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([*before, programs / "initdb", "-D", data, "-A", "trust", "-U", "cxr", "-N"], **quiet)
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c port={port} -c fsync=off"
    control = [*before, programs / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-o", options, "-l", folder / "server.log", "start"], **quiet)
    try:
        yield f"postgresql://cxr:unused@/postgres?host={folder}&port={port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
