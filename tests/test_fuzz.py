"""A part of benchmarks/fuzz.py, small enough for every day; and that the harness notices what it looks for."""

import subprocess
import sys
from pathlib import Path

import pytest


def fuzz(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "benchmarks" / "fuzz.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=repository)


def test_broken_files_end_in_a_result_or_in_one_line(repository: Path) -> None:
    done = fuzz(repository, "--files", "300", "--seed", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    table = {line.rsplit(maxsplit=5)[0]: line.split()[-5:] for line in done.stdout.splitlines()[1:-1]}
    read = sum(int(row[0]) for row in table.values())
    refused = sum(int(row[1]) for row in table.values())
    assert read + refused == 300
    assert min(read, refused) > 50  # neither all broken beyond reading nor all unharmed
    assert {"archive", "dicom", "image", "manifest"} < table.keys()


def test_the_harness_notices_crashes_hangs_tracebacks_and_memory(repository: Path) -> None:
    done = fuzz(repository, "--planted", "--files", "4", "--limit", "20")
    assert done.returncode == 1
    assert "KeyError" in done.stdout
    for fault in ("crash, status -6", "hang, status -9"):
        assert fault in done.stdout
    peak = int(done.stdout.split("peak resident memory ")[1].split()[0])
    assert peak > 2048


@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_case_can_be_seen_again(repository: Path, seed: str) -> None:
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        from fuzz import case
        from fuzz_cases import make_seeds
    finally:
        sys.path.pop(0)
    seeds = make_seeds()
    assert seeds == make_seeds()
    for number in (0, 7):
        assert case(number, int(seed), seeds) == case(number, int(seed), make_seeds())
    assert case(0, int(seed), seeds)[1] != case(1, int(seed), seeds)[1]
