"""A function in a fresh Python process: what libraries keep in memory, and their state, end with it."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from pipeline.errors import UserError
from pipeline.progress import is_quiet, set_quiet

Send = Callable[..., None]
# Not fork: the parent may hold TensorFlow's threads, which a forked child cannot use.
_SPAWN = multiprocessing.get_context("spawn")


def call_in_own_process(function: Callable[..., Any], *arguments: Any, receive: Callable[..., None]) -> Any:
    """Call a function in a process of its own and wait for it; the process ends with this one, even if it is killed.

    Parameters
    ----------
    function : callable
        A module-level function. Its first argument is `send`; what it sends is given to `receive` here.
    *arguments
        The others; they are pickled on their way.
    receive : callable
        Called in this process with what was sent, in the same order.

    Returns
    -------
    object
        What the function returned. What it raised is raised here.

    Raises
    ------
    UserError
        If the process ended before it answered; says how.
    """
    ours, theirs = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_serve, args=(theirs, is_quiet(), function, arguments), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen here
    try:
        while True:
            kind, value = ours.recv()
            if kind == "sent":
                receive(*value)
            elif kind == "done":
                return value
            else:
                raise value
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
        raise UserError(f"a process died at its work ({how}); free memory if that ran out, then run again") from None
    finally:
        process.kill()
        process.join()
        ours.close()


def _serve(pipe: Connection, quiet: bool, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the owner ends this one
    threading.Thread(target=_end_with_owner, daemon=True).start()
    set_quiet(quiet)

    def send(*value: Any) -> None:
        pipe.send(("sent", value))

    try:
        pipe.send(("done", function(send, *arguments)))
    except Exception as error:  # raised again by the owner
        if not isinstance(error, UserError):
            error.add_note("in a process of its own:\n" + traceback.format_exc())
        pipe.send(("raised", error))


def _end_with_owner() -> None:
    """Wait until the owner is no more, then end at once: it must not write where the owner's successor writes."""
    owner = multiprocessing.parent_process()
    assert owner is not None  # this runs in a child only
    wait([owner.sentinel])
    os._exit(1)
