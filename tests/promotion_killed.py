"""Run `cxr` in a copy of a project for each file that it puts in place or removes, killed right before that.

`python promotion_killed.py PROJECT FOLDER ARGUMENT...` prints the copies' paths as JSON: in the n-th the command died
at its n-th change. Processes are forked, so that MLflow is loaded once; they die as by `kill -9`, without cleaning up.
"""

import json
import os
import shutil
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
warnings.simplefilter("ignore")  # a forked process has threads; none is used

from promotion_case import Project, copied  # noqa: E402

from pipeline.cli import main  # noqa: E402

_KILLED = 99


def run_and_die(folder: Path, change: int, arguments: list[str]) -> int:
    """Run `cxr` in `folder`, kill it right before its n-th change, and return its exit status."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.chdir(folder)
    done = 0

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal done
        done += event in ("os.rename", "shutil.copyfile") or (event == "os.remove" and Path(details[0]).exists())
        if done == change:
            os._exit(_KILLED)

    sys.addaudithook(count)
    with Path(os.devnull).open("w") as nothing:
        sys.stdout = sys.stderr = nothing
        status = main(arguments)
    os._exit(status)


def main_of_script(source: Path, folder: Path, arguments: list[str]) -> None:
    """Make copies and let a command die in each, until it lives."""
    copied(Project(source, []), folder / "unharmed")
    os.chdir(folder / "unharmed")
    with redirect_stdout(None):
        main(arguments)  # loads all that the forked processes need
    places: list[str] = []
    status = _KILLED
    while status == _KILLED:
        place = folder / str(len(places) + 1)
        copied(Project(source, []), place)
        places.append(str(place))
        status = run_and_die(place, len(places), arguments)
    shutil.rmtree(places.pop())
    print(json.dumps({"places": places, "status": status}))


if __name__ == "__main__":
    main_of_script(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
