"""A function in a process of its own: its answer, its errors, its death and that of its owner."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.own_process import call_in_own_process
from pipeline.progress import is_quiet, set_quiet


def send_and_return(send, value):
    send(value, 1)
    send(value + 1, 2)
    return os.getpid(), is_quiet()


def fail(_send, error):
    raise error


def die(_send, number):
    os.kill(os.getpid(), number)


def stay(_send):
    print("at work", flush=True)
    threading.Event().wait()


def test_what_is_sent_arrives_in_order_and_the_answer_comes_from_another_process():
    received = []
    set_quiet(True)
    pid, quiet = call_in_own_process(send_and_return, 5, receive=lambda *values: received.append(values))
    assert received == [(5, 1), (6, 2)]
    assert pid != os.getpid()
    assert quiet
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("error", [UserError("lower the rate"), ValueError("a bug")])
def test_what_it_raises_is_raised_here(error):
    with pytest.raises(type(error), match=str(error)) as caught:
        call_in_own_process(fail, error, receive=print)
    assert any("in fail" in note for note in getattr(caught.value, "__notes__", [])) == (type(error) is ValueError)


def test_a_process_that_dies_is_one_sentence():
    with pytest.raises(UserError, match=r"a process died at its work \(SIGKILL\)"):
        call_in_own_process(die, signal.SIGKILL, receive=print)


def test_it_ends_when_its_owner_is_killed():
    code = (
        "import sys\nsys.path.insert(0, sys.argv[1])\nfrom test_own_process import stay\n"
        "from pipeline.own_process import call_in_own_process\n"
        "if __name__ == '__main__': call_in_own_process(stay, receive=print)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "at work\n"
        owner.kill()
        # The end of the stream comes when nobody can write to it any more, the child included.
        assert owner.communicate(timeout=60) == ("", None)
