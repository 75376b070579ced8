"""DVC experiments in a copy of the project, so that a killed one leaves parameters, files and git as they were.

`dvc exp run` puts aside what is not committed and changes params.yaml while it prepares an experiment, and its queue's
copies have neither data/raw, which is not in DVC's cache, nor a dvc.lock that is not committed
(docs/decisions/0005-ablations-in-a-copy.md). The copy here has both: a clone of the repository, the files that differ
from the commit, and links to data/raw; the cache is shared.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import atomic_path, write_text

_FOLDER = Path(".dvc/tmp/ablation")
# What stages read or write and git may not know yet: dvc.lock, the code, and results kept outside the cache.
_OURS = ("dvc.lock", "dvc.yaml", "params.yaml", ".dvc", "configs", "data", "models", "pipeline", "reports")


@dataclass(frozen=True)
class Copy:
    """A copy of the project to run experiments in.

    Attributes
    ----------
    root, folder : Path
        The project, and its copy; absolute.
    tracking : str
        Where MLflow runs go, as an address that means the same in the copy.
    """

    root: Path
    folder: Path
    tracking: str

    @property
    def changes(self) -> Path:
        """The files that differed from the commit when the copy was made."""
        return self.root / _FOLDER / "changes"

    @property
    def removed(self) -> Path:
        """A list of the files that the commit has and the project had not."""
        return self.root / _FOLDER / "removed"


def require_git(root: Path) -> None:
    """Refuse a folder without dvc.yaml, or outside a git repository with a commit: DVC keeps experiments in git."""
    if not (root / "dvc.yaml").is_file():
        raise UserError(f"{root} holds no dvc.yaml: run this in the project's folder")
    if shutil.which("git") is None:
        raise UserError("git is not on this machine, and DVC keeps experiments in a git repository: install git")
    if _git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False).returncode:
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

    path = root / _FOLDER.with_suffix(".lock")
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
    if _dvc(root, "repro", stage, env=_environment(root), lock=lock):
        raise UserError(f"`dvc repro {stage}` failed; its message stands above, mend that and run this again")


def make_copy(root: Path, linked: Sequence[str], tracking: str) -> Copy:
    """Copy the project as it is now; an older copy is removed, after what it finished has been taken over.

    Parameters
    ----------
    root : Path
        The project, absolute.
    linked : sequence of str
        Files and folders in it that neither git nor DVC's cache has; linked file by file where the disk allows, else
        copied.
    tracking : str
        See `Copy`.
    """
    clone = root / _FOLDER / "clone"
    prefix = _git(root, "rev-parse", "--show-prefix").stdout.strip()
    copy = Copy(root, clone / prefix, tracking)
    if (clone / ".git").is_dir():
        take_over(copy, "ablation-*")
    shutil.rmtree(root / _FOLDER, ignore_errors=True)
    copy.changes.mkdir(parents=True)
    top = _git(root, "rev-parse", "--show-toplevel").stdout.strip()
    _git(root, "clone", "--quiet", "--no-checkout", "--no-tags", top, str(clone))
    _git(clone, "checkout", "--quiet", "--detach", _git(root, "rev-parse", "HEAD").stdout.strip())
    for key, default in (("user.name", "cxr ablation"), ("user.email", "cxr@localhost")):  # DVC commits, and needs them
        known = _git(root, "config", key, check=False).stdout.strip()
        _git(clone, "config", key, known or default)
    _keep_changes(copy)
    restore(copy)
    _share_cache(copy)
    for name in linked:
        _link(root / name, copy.folder / name)
    return copy


def restore(copy: Copy) -> None:
    """Give the copy's tracked files, parameters and dvc.lock the state of the project when the copy was made."""
    _git(copy.folder, "reset", "--quiet", "--hard")
    shutil.copytree(copy.changes, copy.folder, dirs_exist_ok=True)
    for name in filter(None, copy.removed.read_text(encoding="utf-8").split("\0")):
        (copy.folder / name).unlink(missing_ok=True)


def run(copy: Copy, name: str, changes: Sequence[str], stage: str, lock: int) -> None:
    """Run one experiment in the copy; if it succeeds, move it to the project.

    Parameters
    ----------
    copy : Copy
        Where.
    name : str
        The experiment's.
    changes : sequence of str
        Parameters, as `train.loss=focal`.
    stage : str
        The last stage to run.
    lock : int
        See `alone`.
    """
    restore(copy)
    sets = [word for change in changes for word in ("--set-param", change)]
    if not _dvc(
        copy.folder, "exp", "run", "--name", name, *sets, stage, env=_environment(copy.folder, copy), lock=lock
    ):
        take_over(copy, name)


def take_over(copy: Copy, pattern: str) -> None:
    """Move finished experiments whose names fit a pattern from the copy to the project's repository."""
    found = _git(copy.folder, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{pattern}", check=False)
    for ref in found.stdout.split():
        _git(copy.root, "fetch", "--quiet", "--no-tags", str(copy.folder), f"+{ref}:{ref}")
        _git(copy.folder, "update-ref", "-d", ref)  # else one that is removed there would come back


def finished(root: Path) -> dict[str, str]:
    """Return the experiments of the project's repository: name to commit."""
    lines = _git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps/").stdout.splitlines()
    return {ref.rpartition("/")[2]: commit for ref, commit in (line.split() for line in lines) if "/exec/" not in ref}


def fetch_files(root: Path, name: str, commit: str, paths: Sequence[str], out: Path) -> None:
    """Copy files of a finished experiment from git and DVC's cache into the folder `out`.

    Raises
    ------
    UserError
        If the cache no longer has one of them.
    """
    from dvc.api import DVCFileSystem  # type: ignore[import-untyped]  # DVC ships no types

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


def _keep_changes(copy: Copy) -> None:
    """Save the project's files that differ from the commit, so that what is edited meanwhile changes no experiment."""
    changed = _git(copy.root, "diff", "--name-only", "--relative", "-z", "HEAD", "--", ".").stdout
    new = _git(copy.root, "ls-files", "--others", "--exclude-standard", "-z", "--", *_OURS).stdout
    removed = []
    for name in filter(None, (changed + new).split("\0")):
        if (copy.root / name).is_file():
            (copy.changes / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(copy.root / name, copy.changes / name)
        else:
            removed.append(name)
    write_text(copy.removed, "\0".join(removed))


def _share_cache(copy: Copy) -> None:
    """Give the copy the project's own settings of DVC, which git ignores, and its cache."""
    local = copy.root / ".dvc" / "config.local"
    if local.is_file():
        shutil.copy2(local, copy.folder / ".dvc" / "config.local")
    cache = (copy.root / _output(copy.root, "cache", "dir")).resolve()
    # Relative, because DVC cannot write a path in other letters than ASCII to its configuration.
    _output(copy.folder, "config", "--local", "cache.dir", os.path.relpath(cache, copy.folder))


def _link(source: Path, target: Path) -> None:
    def link(file: str, to: str) -> None:
        try:
            os.link(file, to)
        except OSError:  # another disk, or one without links
            shutil.copy2(file, to)

    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)
    else:
        link(str(source), str(target))


def _environment(project: Path, copy: Copy | None = None) -> dict[str, str]:
    """Return this environment with the programs of this Python, the project's own modules and, in a copy, its store."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_")
    }  # a hook's point elsewhere
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    ours = {"PATH": path, "PYTHONPATH": str(project)}
    return kept | ours | ({"MLFLOW_TRACKING_URI": copy.tracking} if copy else {})


def _dvc(folder: Path, *words: str, env: dict[str, str], lock: int) -> int:
    """Run DVC, its output shown; return its exit status. On Ctrl-C it is given the time to end what it does."""
    with subprocess.Popen([sys.executable, "-m", "dvc", *words], cwd=folder, env=env, pass_fds=(lock,)) as process:
        return process.wait()


def _output(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(words)}` failed in {folder}: {done.stderr.strip()[:300]}")
    return done.stdout.strip()


def _git(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command, env = ["git", *words], _environment(folder)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise UserError(f"`git {' '.join(words[:2])}` failed in {folder}: {done.stderr.strip()[:300]}")
    return done
