"""Run `cxr` and die as by `kill -9` right before it renames a file to a name that holds a given text.

`python train_killed.py TEXT ARGUMENT...`
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


if __name__ == "__main__":
    die_before(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
