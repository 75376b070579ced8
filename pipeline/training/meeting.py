"""All workers of a cluster meet at the chief's address before TensorFlow starts, which would wait for an hour.

The chief listens at its own address, which TensorFlow takes over afterwards. Every other worker says who it is and what
must be the same everywhere; when all are there, the chief answers each, and all go on.
"""

import json
import select
import socket
import time
from collections.abc import Mapping

from pipeline.errors import UserError

_RETRY_SECONDS = 0.2
_PATIENCE = 5.0  # for a line of a worker that has connected
_WELCOME = "go on"
_LONGEST = 65536


def meet(worker: int, addresses: tuple[str, ...], same: Mapping[str, str], wait: float) -> None:
    """Return when every worker has come, in all of them.

    Parameters
    ----------
    worker : int
        Which one this is, from 0.
    addresses : tuple of str
        HOST:PORT of each.
    same : mapping of str to str
        What must be equal in all workers.
    wait : float
        Seconds until an absent worker is an error.

    Raises
    ------
    UserError
        If a worker does not come in time, the address of the chief is taken, or workers differ.
    """
    until = time.monotonic() + wait
    if worker:
        _join(worker, addresses, same, until, wait)
    else:
        _gather(addresses, same, until, wait)


def _gather(addresses: tuple[str, ...], same: Mapping[str, str], until: float, wait: float) -> None:
    """Do the chief's part."""
    port = int(addresses[0].rpartition(":")[2])
    here: dict[int, socket.socket] = {}
    complaint = ""
    try:
        with _listen(port) as door:
            while len(here) < len(addresses) - 1 and not complaint:
                door.settimeout(max(until - time.monotonic(), 0.001))
                try:
                    guest, _ = door.accept()
                except TimeoutError:
                    raise UserError(_absent(addresses, set(here), wait)) from None
                guest.settimeout(_PATIENCE)
                if (hello := _read(guest)) is None or not 0 < hello[0] < len(addresses):
                    guest.close()  # somebody else's knock, such as a port scan's
                    continue
                if (before := here.pop(hello[0], None)) is not None:
                    before.close()  # it gave up, or was started again
                here[hello[0]] = guest
                complaint = _difference(hello[0], hello[1], same)
                for gone in select.select(list(here.values()), [], [], 0)[0]:  # nothing more is said: it has left
                    here = {number: other for number, other in here.items() if other is not gone}
                    gone.close()
        for guest in here.values():
            _say(guest, complaint or _WELCOME)
    finally:
        for guest in here.values():
            guest.close()
    if complaint:
        raise UserError(complaint)


def _join(worker: int, addresses: tuple[str, ...], same: Mapping[str, str], until: float, wait: float) -> None:
    """Do the part of every other worker."""
    host, _, port = addresses[0].rpartition(":")
    while (left := until - time.monotonic()) > 0:
        answer = ""
        try:
            with socket.create_connection((host.strip("[]"), int(port)), min(left, _PATIENCE)) as guest:
                _say(guest, json.dumps([worker, dict(same)]))
                guest.settimeout(max(until - time.monotonic(), 0.001))
                answer = _line(guest)
        except OSError:  # nobody is there yet, or it left without an answer
            pass
        if answer == _WELCOME:
            return
        if answer.startswith("worker "):
            raise UserError(answer)
        time.sleep(_RETRY_SECONDS)
    raise UserError(
        f"worker {worker}: worker 0 ({addresses[0]}) did not call together all workers within {wait:g} s: start every "
        "worker of TF_CONFIG, and let them reach each other's ports"
    )


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"worker 0 cannot listen at port {port} of TF_CONFIG ({error}): give it a free one, or end what has it"
        ) from None


def _absent(addresses: tuple[str, ...], here: set[int], wait: float) -> str:
    missing = [f"{worker} ({address})" for worker, address in enumerate(addresses) if worker and worker not in here]
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return (
        f"of {len(addresses)} workers these did not come within {wait:g} s: worker {shown}: start every worker of "
        "TF_CONFIG, and let them reach each other's ports"
    )


def _difference(worker: int, theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            return (
                f"worker {worker} and worker 0 differ in {name} ({theirs.get(name)} and {ours.get(name)}); all "
                "must have the same"
            )
    return ""


def _read(guest: socket.socket) -> tuple[int, dict[str, str]] | None:
    """Return the number and the properties that a worker tells, or None if it is none."""
    try:
        worker, same = json.loads(_line(guest))
        return int(worker), {str(name): str(value) for name, value in same.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _say(guest: socket.socket, line: str) -> None:
    guest.sendall(line.encode() + b"\n")


def _line(guest: socket.socket) -> str:
    """Return what comes before the first end of a line; empty if the other side leaves before."""
    with guest.makefile("rb") as stream:
        line = stream.readline(_LONGEST)
    return line[:-1].decode() if line.endswith(b"\n") else ""
