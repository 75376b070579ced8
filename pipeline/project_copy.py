"""A copy of the project to run DVC experiments in, so that a killed one leaves files, parameters and git as they were.

`dvc exp run` puts aside what is not committed and changes params.yaml while it prepares an experiment, and its queue's
copies have neither data/raw, which is not in DVC's cache, nor a dvc.lock that is not committed
(docs/decisions/0005-ablations-in-a-copy.md). The copy here has both: a clone of the repository, the files that differ
from the commit, and links to data/raw; the cache is shared.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import write_text

FOLDER = Path(".dvc/tmp/ablation")
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
        return self.root / FOLDER / "changes"

    @property
    def removed(self) -> Path:
        """A list of the files that the commit has and the project had not."""
        return self.root / FOLDER / "removed"


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
    clone = root / FOLDER / "clone"
    prefix = git(root, "rev-parse", "--show-prefix").stdout.strip()
    copy = Copy(root, clone / prefix, tracking)
    if (clone / ".git").is_dir():
        take_over(copy, "ablation-*")
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    copy.changes.mkdir(parents=True)
    top = git(root, "rev-parse", "--show-toplevel").stdout.strip()
    git(root, "clone", "--quiet", "--no-checkout", "--no-tags", top, str(clone))
    git(clone, "checkout", "--quiet", "--detach", git(root, "rev-parse", "HEAD").stdout.strip())
    for key, default in (("user.name", "cxr ablation"), ("user.email", "cxr@localhost")):  # DVC commits, and needs them
        known = git(root, "config", key, check=False).stdout.strip()
        git(clone, "config", key, known or default)
    _keep_changes(copy)
    restore(copy)
    _share_cache(copy)
    for name in linked:
        _link(root / name, copy.folder / name)
    return copy


def restore(copy: Copy) -> None:
    """Give the copy's tracked files, parameters and dvc.lock the state of the project when the copy was made."""
    git(copy.folder, "reset", "--quiet", "--hard")
    shutil.copytree(copy.changes, copy.folder, dirs_exist_ok=True)
    for name in filter(None, copy.removed.read_text(encoding="utf-8").split("\0")):
        (copy.folder / name).unlink(missing_ok=True)


def take_over(copy: Copy, pattern: str) -> None:
    """Move finished experiments whose names fit a pattern from the copy to the project's repository."""
    found = git(copy.folder, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{pattern}", check=False)
    for ref in found.stdout.split():
        git(copy.root, "fetch", "--quiet", "--no-tags", str(copy.folder), f"+{ref}:{ref}")
        git(copy.folder, "update-ref", "-d", ref)  # else one that is removed there would come back


def environment(project: Path, copy: Copy | None = None) -> dict[str, str]:
    """Return this environment, with the programs beside this Python, the modules of the project or the copy first.

    In a copy, MLflow's runs go where `Copy.tracking` says.
    """
    # Not git's own variables: in a hook they point at another repository.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    ours = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(project), *filter(None, [kept.get("PYTHONPATH")])]),
    }
    return kept | ours | ({"MLFLOW_TRACKING_URI": copy.tracking} if copy else {})


def git(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run git and return what it said; a failure is a `UserError`, unless `check` is false."""
    command, env = ["git", *words], environment(folder)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise UserError(f"`git {' '.join(words[:2])}` failed in {folder}: {done.stderr.strip()[:300]}")
    return done


def _keep_changes(copy: Copy) -> None:
    """Save the project's files that differ from the commit, so that what is edited meanwhile changes no experiment."""
    changed = git(copy.root, "diff", "--name-only", "--no-renames", "--relative", "-z", "HEAD", "--", ".").stdout
    new = git(copy.root, "ls-files", "--others", "--exclude-standard", "-z", "--", *_OURS).stdout
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


def _output(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(words)}` failed in {folder}: {done.stderr.strip()[:300]}")
    return done.stdout.strip()
