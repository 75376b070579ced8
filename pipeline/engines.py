"""Work spread over a cluster, dask's or Ray's, whose workers see the same folders as this process.

Both libraries give the work of a dead worker to another. They are extras: `make setup EXTRAS=dask` or `EXTRAS=ray`.
"""

import importlib
import logging
import os
import re
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from typing import Any, TypeVar

from pipeline.errors import UserError
from pipeline.parallel import available_cores, use_one_thread
from pipeline.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")

_Answers = Generator[tuple[bool, Any], None, None]

_ATTEMPTS = 3  # how often an item's worker may die before the item is held to be the cause
_AHEAD = 2  # items a core that are sent in advance
_CONNECT_SECONDS = 10
# distributed.client and .comm; ray.exceptions
_LOST = {"CommClosedError", "FutureCancelledError", "FutureLostError", "CancelledError"}
_LOST |= {"LocalRayletDiedError", "NodeDiedError", "RaySystemError", "ObjectLostError", "OwnerDiedError"}


def run_on_cluster(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    what: str,
    engine: str,
    address: str = "",
    workers: int | None = None,
    unit: str = "shards",
) -> Iterator[Result]:
    """Apply `function` to every item on a cluster.

    Parameters
    ----------
    function : callable
        A module-level function (or a partial of one) that the workers can import.
    items : sequence
        The work; `str(item)` names one in messages.
    what : str
        For the progress line.
    engine : {'dask', 'ray'}
        Whose cluster.
    address : str
        Of its scheduler; empty starts a cluster of this machine's processes, and ends it.
    workers : int or None
        Processes of that cluster; None takes the cores of the machine.
    unit : str
        What is counted.

    Yields
    ------
    Result
        In the order in which they are done.

    Raises
    ------
    UserError
        If the package is missing, the cluster cannot be reached or is lost, the workers lack this program, or an item
        has ended several workers; also what `function` raises.
    """
    run = {"dask": _on_dask, "ray": _on_ray}[engine]
    if not items:
        return
    answers = run(function, items, address, min(workers or available_cores(), len(items)))
    with closing(answers):
        for done, value in track(answers, len(items), what, unit):
            if not done:
                raise UserError(value)
            yield value


def _attempt(function: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    """Run on a worker. A user's mistake goes back as words, which both libraries leave as they are."""
    use_one_thread()
    try:
        return True, function(item)
    except UserError as error:
        return False, str(error)


def _on_dask(function: Callable[[Any], Any], items: Sequence[Any], address: str, workers: int) -> _Answers:
    distributed = _load("distributed", "dask")
    with ExitStack() as stack:
        client = _dask_client(distributed, stack, address, workers)
        unsent = iter(items)
        waiting: dict[Any, Any] = {}

        def submit(count: int) -> list[Any]:
            new = {client.submit(_attempt, function, item, pure=False): item for item in islice(unsent, count)}
            waiting.update(new)
            return list(new)

        first = submit(_AHEAD * max(workers, sum(client.ncores().values())))
        finished = distributed.as_completed(first, loop=client.loop)
        for future in finished:
            try:
                yield future.result()
            except Exception as error:
                raise _explained("dask", error, waiting[future]) from error
            del waiting[future]
            finished.update(submit(1))


def _dask_client(distributed: Any, stack: ExitStack, address: str, workers: int) -> Any:
    import dask

    if address:
        _reach("dask", address)
        return stack.enter_context(distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False))
    stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": _ATTEMPTS - 1}))
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    return stack.enter_context(distributed.Client(stack.enter_context(cluster), set_as_default=False))


def _on_ray(function: Callable[[Any], Any], items: Sequence[Any], address: str, workers: int) -> _Answers:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to its makers
    ray = _load("ray", "ray")
    try:
        _start_ray(ray, address, workers)
        task = ray.remote(_attempt).options(max_retries=_ATTEMPTS - 1)
        unsent = iter(items)
        ahead = _AHEAD * int(ray.cluster_resources().get("CPU", workers))
        waiting = {task.remote(function, item): item for item in islice(unsent, ahead)}
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                raise _explained("ray", error, waiting[done]) from error
            del waiting[done]
            waiting |= {task.remote(function, item): item for item in islice(unsent, 1)}
    finally:
        ray.shutdown()


def _start_ray(ray: Any, address: str, workers: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        memory = 100 << 20  # for results, which are a few bytes each
        ray.init("local", num_cpus=workers, include_dashboard=False, object_store_memory=memory, **quiet)
        return
    _reach("ray", address)
    try:
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"ray: no cluster at {address} ({error}): check preprocess.address") from None


def _reach(engine: str, address: str) -> None:
    """Open a connection, because both libraries wait for minutes where nobody answers."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if engine == "ray" and address == "auto":
        return
    if not host or not port.isdecimal():
        raise UserError(f"preprocess.address is {address!r}; HOST:PORT of the {engine} scheduler is needed")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"{engine}: nobody answers at {address} ({error}): check preprocess.address") from None


def _explained(engine: str, error: Exception, item: Any) -> Exception:
    """Return what says in one line why the cluster has no result; a fault in the function itself stays as it is."""
    kind = type(error).__name__
    if lacks := re.search(r"No module named '[\w.]+'", f"{error} {error.__cause__}"):
        return UserError(f"{engine}: install this program on the workers; one says: {lacks.group()}")
    if kind in {"KilledWorker", "WorkerCrashedError", "OutOfMemoryError"}:
        # dask also counts what only waited on a worker that died, so on a busy cluster it may name a neighbour.
        whose = f"{item}, or one that waited on the same workers," if engine == "dask" else str(item)
        why = f"{whose} ended several workers, perhaps for lack of memory"
    elif kind in _LOST:
        why = f"the cluster was lost at {item} ({kind})"
    else:
        return error
    return UserError(f"{engine}: {why}; see the workers' logs, and run it again: what is finished is kept")


def _load(module: str, engine: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        missing = f"preprocess.engine is {engine}, which is not installed: run `make setup EXTRAS={engine}`"
        raise UserError(missing) from None
