"""Work in several processes: all results, in order, even when items kill their processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import break_at_seven, crash_at, die_once, is_own_process, note_and_square, refuse_seven, square

from pipeline.errors import UserError
from pipeline.parallel import available_cores, run_all


@settings(max_examples=8)
@given(count=st.integers(0, 60), chunk=st.integers(1, 20), workers=st.integers(1, 3))
def test_results_come_in_the_order_of_the_items(count: int, chunk: int, workers: int) -> None:
    assert list(run_all(square, range(count), "squaring", workers, chunk)) == [n * n for n in range(count)]


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV"])
def test_items_that_kill_their_process_get_their_own_result(tmp_path: Path, how: str) -> None:
    """Every other item has its usual result, and was tried twice at most: with its chunk, and alone."""
    bad = {3: how, 17: how, 18: how, 40: how}
    function = partial(crash_at, bad=bad, log=tmp_path / "log")
    crashed = []

    def on_crash(item: int) -> tuple[int, int]:
        crashed.append((item, os.getpid()))
        return item, -1

    found = list(run_all(function, range(41), "trying", 2, 5, on_crash=on_crash))
    assert [item for item, _ in found] == list(range(41))
    assert [item for item, process in found if process == -1] == [3, 17, 18, 40]
    assert crashed == [(item, os.getpid()) for item in (3, 17, 18, 40)]
    tried = [int(line) for line in (tmp_path / "log").read_text(encoding="ascii").split()]
    assert max(tried.count(item) for item in range(41)) == 2
    assert [tried.count(item) for item in range(20, 35)] == [1] * 15  # their chunks hold no bad item


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV"])
@pytest.mark.parametrize("chunk", [1, 5])
def test_without_on_crash_one_line_names_the_item(tmp_path: Path, how: str, chunk: int) -> None:
    function = partial(crash_at, bad={13: how}, log=tmp_path / "log")
    results = run_all(function, range(40), "trying", 2, chunk)
    assert [next(results)[0] for _ in range(13)] == list(range(13))
    with pytest.raises(UserError, match=rf"trying: a process died \({how}\) at 13; remove it"):
        next(results)
    assert multiprocessing.active_children() == []


def test_a_process_that_was_killed_from_outside_costs_no_result(tmp_path: Path) -> None:
    """As the kernel does when memory is short: alone, the same item succeeds."""
    function = partial(die_once, mark=tmp_path / "mark")
    assert list(run_all(function, range(20), "trying", 2, 4, on_crash=lambda _: -1)) == list(range(20))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_out_as_it_was_raised_and_ends_the_processes(workers: int) -> None:
    results = run_all(refuse_seven, range(1000), "trying", workers, 1)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(UserError, match=r"^item 7 is refused$"):
        next(results)
    assert multiprocessing.active_children() == []


def test_an_unforeseen_error_brings_the_worker_s_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(run_all(break_at_seven, range(20), "trying", 2))
    assert "in break_at_seven" in caught.value.__notes__[0]


def test_leaving_early_ends_the_processes() -> None:
    results = run_all(square, range(10_000), "squaring", 2, 1)
    assert next(results) == 0
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert multiprocessing.active_children() == []


def test_work_runs_ahead_of_the_caller_only_by_a_bounded_amount(tmp_path: Path) -> None:
    """Results that wait are memory: 2 workers, chunks of 2, 3 of them ahead for each worker, one in the hand."""
    results = run_all(partial(note_and_square, folder=tmp_path), range(400), "noting", 2, 2)
    for item in range(50):
        assert next(results) == item
        assert len(list(tmp_path.iterdir())) <= item + 1 + 2 * 2 * 3 + 2
    results.close()


@pytest.mark.parametrize(("on_crash", "workers", "own"), [(None, 1, False), (lambda _: False, 1, False)])
def test_one_worker_stays_in_this_process(on_crash: Callable[[int], bool] | None, workers: int, own: bool) -> None:
    assert list(run_all(is_own_process, range(3), "asking", workers, on_crash=on_crash)) == [own] * 3


def test_a_single_item_that_may_crash_has_its_own_process() -> None:
    assert list(run_all(is_own_process, [0], "asking", on_crash=lambda _: False)) == [True]


ON_ONE_CORE = """
import os
from pipeline.parallel import run_all
from jobs import is_own_process

if __name__ == "__main__":
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    print(list(run_all(is_own_process, range(2), "asking", on_crash=lambda _: False)))
    print(list(run_all(is_own_process, range(2), "asking")))
"""


def run_script(folder: Path, text: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    paths = os.pathsep.join(str(path) for path in (Path(__file__).parent, Path(__file__).parents[1]))
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux to lend a process a single core")
def test_a_single_core_has_a_process_of_its_own_for_what_may_crash(tmp_path: Path) -> None:
    with run_script(tmp_path, ON_ONE_CORE) as process:
        out, errors = process.communicate()
    assert (out, errors) == ("[True, True]\n[False, False]\n", "")


WITHOUT_GUARD = """
from pipeline.parallel import run_all
from jobs import square

print(list(run_all(square, range(2), "squaring", 2)))
"""


def test_processes_that_cannot_start_are_not_blamed_on_an_item(tmp_path: Path) -> None:
    with run_script(tmp_path, WITHOUT_GUARD) as process:
        _, errors = process.communicate()
    assert "a worker process ended as it started (exit status 1)" in errors.splitlines()[-1]
    assert process.returncode == 1


OWNER = """
import os
import signal
from pipeline.parallel import run_all
from jobs import work_while_owned

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    list(run_all(work_while_owned, [os.getpid()] * 2, "working", 2, 1))
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_owner(tmp_path: Path, end: signal.Signals) -> None:
    """SIGINT is given to all, as a terminal does; who ends otherwise leaves workers without a pipe to write to."""
    with run_script(tmp_path, OWNER) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        for worker in workers if end == signal.SIGINT else []:
            os.kill(worker, end)
        process.send_signal(end)
        _, errors = process.communicate()  # returns when the last process that holds the pipe has ended
    assert "Traceback" not in errors.replace("Traceback", "", 1)  # the owner's own KeyboardInterrupt, no worker's


def test_cores_are_those_of_this_process() -> None:
    assert available_cores() == len(os.sched_getaffinity(0))
