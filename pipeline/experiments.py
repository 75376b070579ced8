"""DVC experiments one after another in a copy of the project, and what is known of those that are finished."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import atomic_path
from pipeline.project_copy import FOLDER, Copy, environment, git, restore, take_over


def require_git(root: Path) -> None:
    """Refuse a folder without dvc.yaml, or outside a git repository with a commit: DVC keeps experiments in git."""
    if not (root / "dvc.yaml").is_file():
        raise UserError(f"{root} holds no dvc.yaml: run this in the project's folder")
    if shutil.which("git") is None:
        raise UserError("git is not on this machine, and DVC keeps experiments in a git repository: install git")
    if git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False).returncode:
        raise UserError(
            f"{root} is not in a git repository with a commit, and DVC keeps experiments in one: "
            "run `git init`, `git add .` and `git commit -m start` there, then `make setup` again"
        )


@contextmanager
def alone(root: Path) -> Iterator[int]:
    """Hold the lock of the project's experiments; yield its file descriptor, which what is started here inherits.

    So the lock outlasts a killed owner as long as an experiment of its own is at work.

    Raises
    ------
    UserError
        If it is held.
    """
    import fcntl

    path = root / FOLDER.with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another ablation of {root} is still at work (one that was killed ends after the experiment it had "
                "begun): wait for it, or end its processes, then run this again"
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


def reproduce(root: Path, stage: str, lock: int) -> None:
    """Bring a stage and all before it up to date in the project itself (`dvc repro`)."""
    if _dvc(root, "repro", stage, env=environment(root), lock=lock):
        raise UserError(f"`dvc repro {stage}` failed; its message stands above, mend that and run this again")


def run(copy: Copy, name: str, changes: Sequence[str], stage: str, lock: int) -> None:
    """Run one experiment in the copy; if it succeeds, move it to the project.

    Parameters
    ----------
    copy : Copy
        Where.
    name : str
        The experiment's.
    changes : sequence of str
        Parameters, as `loss.name=focal`.
    stage : str
        The last stage to run.
    lock : int
        See `alone`.
    """
    restore(copy)
    sets = [word for change in changes for word in ("--set-param", change)]
    if not _dvc(copy.folder, "exp", "run", "--name", name, *sets, stage, env=environment(copy.folder, copy), lock=lock):
        take_over(copy, name)


def finished(root: Path) -> dict[str, str]:
    """Return the experiments of the project's repository: name to commit."""
    lines = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps/").stdout.splitlines()
    return {ref.rpartition("/")[2]: commit for ref, commit in (line.split() for line in lines) if "/exec/" not in ref}


def fetch_files(root: Path, name: str, commit: str, paths: Sequence[str], out: Path) -> None:
    """Copy files of a finished experiment from git and DVC's cache into the folder `out`.

    Raises
    ------
    UserError
        If the cache no longer has one of them.
    """
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(root), rev=commit)
    for path in paths:
        try:
            with atomic_path(out / Path(path).name) as temporary:
                files.get_file(path, str(temporary))
        except FileNotFoundError:
            raise UserError(
                f"experiment {name} has lost {path} (`dvc gc` removes it from the cache): "
                f"run `dvc exp remove {name}`, then this again"
            ) from None


def _dvc(folder: Path, *words: str, env: dict[str, str], lock: int) -> int:
    """Run DVC, its output shown; return its exit status. On Ctrl-C it is given the time to end what it does."""
    with subprocess.Popen([sys.executable, "-m", "dvc", *words], cwd=folder, env=env, pass_fds=(lock,)) as process:
        return process.wait()
