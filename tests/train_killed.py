"""Run `cxr` and die as by `kill -9`, or wait for a signal, at a chosen moment.

`python train_killed.py die|wait TEXT ARGUMENT...` stops right before a file is renamed to a name that holds TEXT;
`python train_killed.py step EPOCH:STEP ARGUMENT...` waits for a signal after a step within an epoch, both from 0.
"""

import os
import signal
import sys
from typing import Any

from pipeline.cli import main


def wait() -> None:
    """Say so, and wait for a signal."""
    print("waiting", flush=True)
    signal.pause()


def stop_before(text: str, how: str) -> None:
    """Watch what Python says of its own calls (PEP 578); nothing of the program is changed."""

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "os.rename" and text in str(details[1]):
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            wait()

    sys.addaudithook(watch)


def stop_after(epoch: int, step: int) -> None:
    """Wait in the callback that Keras calls after a step; it does its work first."""
    from pipeline.training.callbacks import StopAtNaN

    begin, end = StopAtNaN.on_epoch_begin, StopAtNaN.on_train_batch_end
    now = [-1]

    def begun(self: StopAtNaN, number: int, logs: Any = None) -> None:
        now[0] = number
        begin(self, number, logs)

    def ended(self: StopAtNaN, batch: int, logs: Any = None) -> None:
        end(self, batch, logs)
        if (now[0], batch) == (epoch, step):
            wait()

    StopAtNaN.on_epoch_begin, StopAtNaN.on_train_batch_end = begun, ended  # type: ignore[method-assign]


if __name__ == "__main__":
    how, moment, *arguments = sys.argv[1:]
    if how == "step":
        from pipeline.quiet import load_tensorflow

        load_tensorflow()
        stop_after(*map(int, moment.split(":")))
    else:
        stop_before(moment, how)
    sys.exit(main(arguments))
