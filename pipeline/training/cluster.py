"""Where a training runs: on the devices of this machine, or as one of several workers that train together.

tf.distribute does the work (Abadi et al. 2016, "TensorFlow: a system for large-scale machine learning", section 4.4,
synchronous replication): every replica has all weights, takes a part of each batch, and the gradients are summed.
What TF_CONFIG says is read without TensorFlow.
"""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.params import TrainParams
from pipeline.progress import note, set_quiet
from pipeline.training.meeting import meet

if TYPE_CHECKING:
    import tensorflow as tf

_JOBS = ("chief", "worker")  # in the order in which TensorFlow counts them
_EXAMPLE = (
    'for the first of two workers: {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/@]+):\d{1,5}")
_START_SECONDS = 300.0
_LOST = re.compile(r"collective ops is aborted|heartbeat|coordination|connection reset|failed to connect|socket closed")
_TASK = re.compile(r"/job:(chief|worker)/(?:replica:0/)?task:(\d+)")


@dataclass(frozen=True)
class Task:
    """One of the processes of a cluster.

    Attributes
    ----------
    worker : int
        Which it is, from 0; 0 is the chief.
    addresses : tuple of str
        HOST:PORT of every worker.
    """

    worker: int
    addresses: tuple[str, ...]

    @property
    def chief(self) -> bool:
        """Say whether this process writes what the training writes."""
        return self.worker == 0


@dataclass(frozen=True)
class Place:
    """What trains.

    Attributes
    ----------
    strategy : tf.distribute.Strategy
        Network and optimizer are made in its scope.
    worker, workers : int
        Which of how many processes this is, from 0.
    replicas : int
        Devices of all workers together; each takes an equal part of a batch.
    """

    strategy: "tf.distribute.Strategy"
    worker: int
    workers: int
    replicas: int

    @property
    def chief(self) -> bool:
        """Say whether this process writes what the training writes."""
        return self.worker == 0


def task_of(params: TrainParams) -> Task:
    """Return which worker this process is; needs no TensorFlow.

    Parameters
    ----------
    params : TrainParams
        `cluster` none is a cluster of one. Otherwise the environment variable TF_CONFIG says it, also in a worker of
        Ray Train, which sets it.

    Raises
    ------
    UserError
        If TF_CONFIG is missing, malformed, or names another kind of task than chief and worker.
    """
    return Task(0, ("",)) if params.cluster == "none" else _parsed(os.environ.get("TF_CONFIG", ""))


def place_of(params: TrainParams, same: Mapping[str, str] | None = None, wait: float = _START_SECONDS) -> Place:
    """Return the devices to train on; in a cluster wait until every worker is there.

    A worker that is not the chief says who it is, and from then on, as under `-q`, warnings and errors only.

    Call it before anything of TensorFlow has touched a device: collective operations must be set up first.

    Parameters
    ----------
    params : TrainParams
        `cluster` none: MirroredStrategy over all GPUs, or over the logical CPU devices if somebody configured several,
        or the processor. tf_config and ray: MultiWorkerMirroredStrategy; a cluster of one is as none.
    same : mapping of str to str, optional
        Name to a short value, such as a checksum, of what must not differ between workers.
    wait : float
        Seconds until a worker that does not start is an error.

    Raises
    ------
    UserError
        As `task_of`; if a worker does not start in time, or workers differ in GPUs or in `same`.
    """
    import tensorflow as tf

    task = task_of(params)
    if len(task.addresses) == 1:
        strategy = tf.distribute.MirroredStrategy(_devices())
        return Place(strategy, 0, 1, strategy.num_replicas_in_sync)
    gpus = str(len(tf.config.list_physical_devices("GPU")))
    note(f"worker {task.worker} of {len(task.addresses)}, from 0: " + _part(task))
    if not task.chief:
        set_quiet(True)
    meet(task.worker, task.addresses, {"GPUs": gpus, **(same or {})}, wait)
    with _sigterm_kept(), one_line_if_lost():
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return Place(strategy, task.worker, len(task.addresses), strategy.num_replicas_in_sync)


def lost_worker(error: BaseException) -> UserError | None:
    """Return what says in one line that another worker has ended, or None if the error is about something else.

    TensorFlow's coordination service hears from every worker about each second; some ten seconds after the last sign
    of one it aborts the collective operations of the others with UnavailableError, at once if a connection breaks.

    Parameters
    ----------
    error : BaseException
        What `fit` raised.
    """
    import tensorflow as tf

    # Not OpError itself: a full disk or a NaN check is an error of the operations too.
    names = "Unavailable", "Aborted", "Cancelled", "Internal", "DeadlineExceeded", "FailedPrecondition"
    kinds = tuple(getattr(tf.errors, f"{name}Error") for name in names)
    text = str(error)
    if not isinstance(error, kinds) or not _LOST.search(text.lower()):
        return None
    return UserError(
        f"{_named(text)} was lost: every worker ends; look at its log, then start all workers again: they go on from "
        "the last checkpoint"
    )


@contextmanager
def one_line_if_lost() -> Iterator[None]:
    """Turn what TensorFlow raises in the block when another worker is lost into `lost_worker`'s line."""
    try:
        yield
    except Exception as error:
        if (lost := lost_worker(error)) is not None:
            raise lost from error
        raise


def _parsed(text: str) -> Task:
    """Return the task that TF_CONFIG describes."""
    if not text:
        raise _wrong("is not set")
    try:
        config = json.loads(text)
        jobs, kind, index = dict(config["cluster"]), str(config["task"]["type"]), int(config["task"]["index"])
        if not all(isinstance(addresses, list) for addresses in jobs.values()):
            raise TypeError("a list of addresses is needed for each type of task")
    except (ValueError, TypeError, KeyError) as error:
        raise _wrong(f"cannot be read ({type(error).__name__}: {error})") from None
    if others := [job for job in [*jobs, kind] if job not in _JOBS]:
        raise _wrong(f"names a task of type {others[0]!r}; chief and worker are allowed")
    if len(jobs.get("chief", [])) > 1:
        raise _wrong(f"names {len(jobs['chief'])} chiefs; one is allowed")
    addresses = tuple(str(address) for job in _JOBS for address in jobs.get(job, []))
    if bad := [address for address in addresses if not _ADDRESS.fullmatch(address)]:
        raise _wrong(f"holds the address {bad[0]!r}; HOST:PORT is needed")
    if len(set(addresses)) < len(addresses):
        raise _wrong("gives two workers the same address")
    if not 0 <= index < len(jobs.get(kind, [])):
        raise _wrong(f"says index {index} of {kind}, and the cluster has {len(jobs.get(kind, []))} of them, from 0")
    return Task(index + (len(jobs.get("chief", [])) if kind == "worker" else 0), addresses)


def _wrong(what: str) -> UserError:
    return UserError(f"train.cluster: TF_CONFIG {what}; it looks like this {_EXAMPLE} (docs/cluster.md)")


def _devices() -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    processors = tf.config.list_logical_devices("CPU")
    several = gpus or (processors if len(processors) > 1 else [])
    return [device.name for device in several] or ["/cpu:0"]


def _part(task: Task) -> str:
    return "this one writes" if task.chief else f"trains silently; worker 0 ({task.addresses[0]}) writes and reports"


def _named(text: str) -> str:
    """Return which worker TensorFlow's words are about; it names it last."""
    if not (found := _TASK.findall(text)):
        return "a worker"
    job, index = found[-1]
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        address = f" ({config['cluster'][job][int(index)]})"
        ahead = len(config["cluster"].get("chief", [])) if job == "worker" else 0
    except (ValueError, KeyError, IndexError):
        return f"{job} {index}"
    return f"worker {int(index) + ahead}{address}"


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep SIGTERM as it was: TensorFlow's cluster takes it for itself, and a scheduler could not end the worker."""
    before: Any = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
