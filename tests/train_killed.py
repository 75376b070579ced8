"""Run `cxr` and die as by `kill -9`, or wait for a signal, at a chosen moment.

`python train_killed.py die TEXT ARGUMENT...` dies right before a file is renamed to a name that holds TEXT;
`python train_killed.py wait EPOCH:STEP ARGUMENT...` waits for a signal after a step within an epoch, both from 0.
"""

import os
import signal
import sys
from typing import Any

from pipeline.cli import main


def die_before(text: str) -> None:
    """Watch what Python says of its own calls (PEP 578); nothing of the program is changed."""

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "os.rename" and text in str(details[1]):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def wait_after(epoch: int, step: int) -> None:
    """Wait in the callback that Keras calls after a step; it does its work first."""
    from pipeline.quiet import load_tensorflow

    # What a shell starts in the background ignores Ctrl-C, and its children with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    load_tensorflow()
    from pipeline.training.callbacks import StopAtNaN

    work = StopAtNaN.on_train_batch_end

    def work_and_wait(self: StopAtNaN, batch: int, logs: Any = None) -> None:
        work(self, batch, logs)
        if (self._epoch, batch) == (epoch, step):
            print("waiting", flush=True)
            signal.pause()

    StopAtNaN.on_train_batch_end = work_and_wait  # type: ignore[method-assign]


if __name__ == "__main__":
    how, moment, *arguments = sys.argv[1:]
    if how == "wait":
        wait_after(*map(int, moment.split(":")))
    else:
        die_before(moment)
    sys.exit(main(arguments))
