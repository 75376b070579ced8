"""The workers of a training on a Ray cluster: Ray Train starts them and gives each its TF_CONFIG.

Ray is an extra: `make setup EXTRAS=ray`.
"""

import importlib
import io
import logging
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.params import TrainParams
from pipeline.progress import is_quiet, set_quiet
from pipeline.quiet import load_tensorflow

_CONNECT_SECONDS = 10
_RESULTS = 100 << 20  # bytes of the local cluster's store; what passes through it are figures and lines


def call_on_ray(
    function: Callable[..., Any], *arguments: Any, params: TrainParams, folder: Path, receive: Callable[..., None]
) -> Any:
    """Call a function in every worker and wait for all; the counterpart of `pipeline.own_process`.

    Parameters
    ----------
    function : callable
        A module-level function that the workers can import. Its first argument is `send`; what the chief sends is
        given to `receive` here, what the others send is not. In it, `pipeline.training.cluster` finds TF_CONFIG.
    *arguments
        The others; they are pickled on their way.
    params : TrainParams
        `workers` and `address`; empty starts a cluster of this machine's processes, and ends it. A worker takes a GPU
        if the cluster has one for each, else a processor core.
    folder : Path
        Seen by all workers under this path; Ray keeps its records in `folder/.ray` meanwhile.
    receive : callable
        Called in a thread of this process with what was sent, in the same order.

    Returns
    -------
    object
        What the function returned in the chief.

    Raises
    ------
    UserError
        If Ray is not installed, the cluster cannot be reached or has too few places, or a worker was lost; also what
        the function raises.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to its makers
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it says every line twice
    ray, queue = _load("ray"), _load("ray.util.queue")
    records = folder.resolve() / ".ray"
    try:
        _start(ray, params)
        mailbox = queue.Queue(actor_options={"num_cpus": 0})
        config = {"function": function, "arguments": arguments, "mailbox": mailbox}
        config |= {"quiet": is_quiet(), "folder": folder.resolve(), "here": Path.cwd()}
        with _reading(mailbox, receive) as said:
            _run(_trainer(ray, config, params.workers, records), said)
    finally:
        ray.shutdown()
        shutil.rmtree(records, ignore_errors=True)
    if said.get("fault") is not None:
        raise said["fault"]
    return said["done"]


def _trainer(ray: Any, config: dict[str, Any], workers: int, records: Path) -> Any:
    load_tensorflow()  # the next line does it too, and with many words
    train, tensorflow = _load("ray.train"), _load("ray.train.tensorflow")
    gpus = bool(ray.cluster_resources().get("GPU", 0) >= workers)
    return tensorflow.TensorflowTrainer(
        _work,
        train_loop_config=config,
        scaling_config=train.ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=train.RunConfig(
            storage_path=str(records),
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )


def _work(config: dict[str, Any]) -> None:
    """Run in a worker of Ray Train."""
    from ray.train import get_context

    os.environ.pop("TF_USE_LEGACY_KERAS", None)  # Ray sets it; this program is written for Keras 3
    logging.getLogger("tensorflow").setLevel(logging.WARNING)  # Ray lets every library speak
    mailbox, worker = config["mailbox"], get_context().get_world_rank()
    chief = worker == 0
    set_quiet(config["quiet"] or not chief)

    def send(*value: Any) -> None:
        if chief:
            mailbox.put(("sent", value))

    try:
        _enter(config["here"], config["folder"], worker)
        with redirect_stderr(_Forwarded(mailbox)):
            value = config["function"](send, *config["arguments"])
    except UserError as error:
        mailbox.put(("wrong", str(error)))
        raise
    if chief:
        mailbox.put(("done", value))


def _enter(here: Path, folder: Path, worker: int) -> None:
    """Go where the training was started, so that relative paths mean the same."""
    if not folder.is_dir():
        raise UserError(
            f"worker {worker}, on {socket.gethostname()}, does not see {folder}: all machines of the cluster need the "
            "project's folder under the same path"
        )
    if here.is_dir():
        os.chdir(here)


class _Forwarded(io.TextIOBase):
    """What a worker says on stderr, line by line to the process that waits for it."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox, self._rest = mailbox, ""

    def write(self, text: str) -> int:
        """Send the lines that are complete."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._mailbox.put(("line", line))
        return len(text)


@contextmanager
def _reading(mailbox: Any, receive: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Read the mailbox in a thread while the block runs; what it holds for the end stands in the dictionary."""
    said: dict[str, Any] = {}

    def read() -> None:
        while (message := mailbox.get())[0] != "end":
            kind, value = message
            try:
                if kind == "line":
                    print(value, file=sys.stderr, flush=True)
                elif kind == "sent":
                    receive(*value)
                else:
                    said.setdefault(kind, value)
            except Exception as error:  # raised again when the training is over
                said.setdefault("fault", error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield said
    finally:
        mailbox.put(("end", None))
        reader.join()


def _run(trainer: Any, said: dict[str, Any]) -> None:
    """Train; say in one line why that failed, if it is no fault of this program."""
    errors = _load("ray.train.v2.api.exceptions")
    try:
        trainer.fit()
    except SystemExit:  # Ray ends so on Ctrl-C, with status 0
        raise KeyboardInterrupt from None
    except errors.WorkerGroupError as error:
        if "wrong" in said:
            raise UserError(said["wrong"]) from error
        failures = error.worker_failures.items()
        lost = [rank for rank, failure in failures if type(failure).__module__.startswith("ray.")]
        if not lost:  # the function raised it
            raise
        raise UserError(
            f"ray: worker {lost[0]} was lost: look at its log (`ray logs`, or the dashboard), then run it again: it "
            "goes on from the last checkpoint"
        ) from error
    except errors.ControllerError as error:
        raise UserError(f"ray: the training could not be run: {error.controller_failure}") from error


def _start(ray: Any, params: TrainParams) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not params.address:
        ray.init("local", num_cpus=params.workers, include_dashboard=False, object_store_memory=_RESULTS, **quiet)
        return
    _reach(params.address)
    try:
        ray.init(params.address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"ray: no cluster at {params.address} ({error}): check train.address") from None
    if (cores := int(ray.cluster_resources().get("CPU", 0))) < params.workers:
        raise UserError(
            f"train.workers is {params.workers}, and the cluster at {params.address} has {cores} processor core(s); "
            "each worker takes one"
        )


def _reach(address: str) -> None:
    """Open a connection, because Ray waits for minutes where nobody answers."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"train.address is {address!r}; HOST:PORT of a Ray cluster is needed")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"ray: nobody answers at {address} ({error}): check train.address") from None


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"train.cluster is ray, which is not installed ({error}): run `make setup EXTRAS=ray`"
        ) from None
