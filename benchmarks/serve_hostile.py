"""Send thousands of hostile uploads to a `cxr serve` of its own, and a good film after every few.

    python benchmarks/serve_hostile.py models/exported/int8 --uploads 5000 --seed 1

Damaged images and DICOM files, bombs (PNG, zip, TIFF headers of thousands of millions of pixels), forms that are none,
wrong lengths, senders that stall, clients that leave. Each has to end in 4xx, or in 200 where the damage left a film
that can be read; anything else (5xx, no answer, a connection that hangs) is a fault: it is listed with the number that
makes it again, and the exit status is 1. Loopback only; it ends by itself.
"""

import argparse
import random
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_cases import Seed, make_seeds, mutate
from serve_process import BOUNDARY, Server, answer, form, request, started

from pipeline.params import ServeParams

HASTY = ServeParams(threads=2, header_s=0.5, idle_s=0.5, upload_s=3.0, max_upload_mb=4, max_megapixels=4)
_WAIT = 120.0  # seconds for an answer; a decoder in a process of its own is given up after 60
_EVERY = 25  # uploads between two good films
MIB = 1 << 20
Case = Callable[[random.Random, list[Seed]], tuple[list[bytes], str]]
"""From random numbers to the pieces to send, and what the client does then: 'listen', 'stall' or 'leave'."""


def damaged(rng: random.Random, seeds: list[Seed]) -> tuple[list[bytes], str]:
    """Return a film that was broken in one to four places."""
    chosen = rng.choice(seeds)
    return [request(form(mutate(chosen, rng.choice(seeds).data, rng)))], "listen"


def bomb(rng: random.Random, _seeds: list[Seed]) -> tuple[list[bytes], str]:
    """Return something small that would become large."""
    side = rng.choice([2_001, 60_000, 2**31 - 1])
    name = rng.choice(["png", "deep png", "zip", "tiff", "text"])
    return [request(form(_bomb(name, side)))], "listen"


def _bomb(name: str, side: int) -> bytes:
    if name in ("png", "deep png"):
        header = struct.pack(">IIBBBBB", side, side, 16 if name != "png" else 8, 6 if name != "png" else 0, 0, 0, 0)
        pixels = zlib.compress(bytes(2 << 20), 9)
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    if name == "zip":
        return b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + bytes(16) + zlib.compress(bytes(4 << 20), 9)
    if name == "tiff":
        tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
                (277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, side)]  # fmt: skip
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"A" * (3 << 20)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def no_form(rng: random.Random, seeds: list[Seed]) -> tuple[list[bytes], str]:
    """Return a body that is no sound form, or headers that are no HTTP."""
    body = bytearray(form(rng.choice(seeds).data[:2000]))
    for _ in range(rng.randint(1, 4)):
        body[rng.randrange(min(len(body), 200))] = rng.randrange(256)
    sent = rng.choice(
        [
            request(bytes(body)),
            request(bytes(body)[: rng.randrange(len(body))]),
            request(b""),
            request(form(*[b"x"] * 40)),
            request(form(b"x")).replace(
                b"multipart/form-data", rng.choice([b"image/png", b"multipart/mixed", b"\xff"])
            ),
            request(form(b"x")).replace(BOUNDARY, b"y" * rng.choice([71, 300]), 1),
            rng.randbytes(rng.randint(1, 300)) + b"\r\n\r\n",
            b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ]
    )
    return [sent], "listen"


def wrong_length(rng: random.Random, seeds: list[Seed]) -> tuple[list[bytes], str]:
    """Return a form with a length that is not its own, or more than is allowed."""
    body = form(rng.choice(seeds).data)
    other = rng.choice([len(body) - rng.randint(1, len(body) - 1), len(body) + 100, 5 * MIB, 2**63, 0])
    if other > len(body):
        return [request(body, other)], "stall" if other < 5 * MIB else "listen"
    return [request(body, other)], "listen"


def slow(rng: random.Random, seeds: list[Seed]) -> tuple[list[bytes], str]:
    """Return the beginning of a request whose rest never comes."""
    whole = request(form(rng.choice(seeds).data[:3000]))
    return [whole[: rng.randrange(len(whole) - 8)]], "stall"


def leaving(rng: random.Random, seeds: list[Seed]) -> tuple[list[bytes], str]:
    """Return a request of which a part is sent, or all, before the client goes."""
    whole = request(form(rng.choice(seeds).data))
    return [whole[: rng.choice([rng.randrange(len(whole)), len(whole)])]], "leave"


CASES: dict[str, tuple[Case, int]] = {
    "damaged film": (damaged, 60),
    "bomb": (bomb, 8),
    "no form": (no_form, 12),
    "wrong length": (wrong_length, 6),
    "stalls": (slow, 4),
    "leaves": (leaving, 10),
}
"""Kind to its maker and how often it is drawn, in a hundred."""


def attack(server: Server, number: int, seed: int, seeds: list[Seed]) -> tuple[str, str]:
    """Send one hostile upload; return its kind and what became of it."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choices(list(CASES), [weight for _, weight in CASES.values()])[0]
    pieces, then = CASES[kind][0](rng, seeds)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=_WAIT) as client:
            for piece in pieces:
                client.sendall(piece)
            if then == "leave":
                return kind, "left"
            status, _ = answer(client)
            return kind, str(status or "no answer")
    except TimeoutError:
        return kind, "hangs"
    except (ConnectionResetError, BrokenPipeError):
        return kind, "reset"


def good(server: Server, film: bytes) -> bool:
    """Say whether a good film is answered."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=_WAIT) as client:
        client.sendall(request(form(film), path="/v1/predict?flagged=true"))
        return answer(client)[0] == 200


def main(argv: Sequence[str] | None = None) -> int:
    """Attack and print; status 1 for any fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an exported folder")
    parser.add_argument("--uploads", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args(argv)
    seeds = [item for item in make_seeds() if item.kind in ("image", "dicom")]
    film = next(item.data for item in seeds if item.name.startswith("gray0.png"))
    counts: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    lock, start = threading.Lock(), time.monotonic()
    with started(options.model, HASTY) as server:
        assert good(server, film)
        before = server.memory()

        def one(number: int) -> None:
            kind, outcome = attack(server, number, options.seed, seeds)
            well = number % _EVERY or good(server, film)
            with lock:
                counts[kind, outcome] += 1
                if outcome not in ("200", "left") and not outcome.startswith("4"):
                    faults.append(f"upload {number}: {kind}: {outcome}")
                if not well:
                    faults.append(f"upload {number}: the good film after it was not answered")

        with ThreadPoolExecutor(options.clients) as pool:
            list(pool.map(one, range(options.uploads)))
        if not good(server, film):
            faults.append("the good film in the end was not answered")
        after, alive = server.memory(), server.process.poll() is None
    outcomes = sorted({outcome for _, outcome in counts})
    print(f"{'kind':<16}" + "".join(f"{outcome:>11}" for outcome in outcomes))
    for kind in CASES:
        print(f"{kind:<16}" + "".join(f"{counts[kind, outcome]:>11}" for outcome in outcomes))
    print(
        f"{sum(counts.values())} uploads, seed {options.seed}, {options.uploads // _EVERY + 2} good films, "
        f"{len(faults)} faults; server {'lives' if alive else 'is dead'}; "
        f"memory {before / MIB:.0f} MiB before, {after / MIB:.0f} MiB after; {time.monotonic() - start:.0f} s"
    )
    for fault in faults[:50]:
        print(fault)
    return int(bool(faults) or not alive)


if __name__ == "__main__":
    sys.exit(main())
