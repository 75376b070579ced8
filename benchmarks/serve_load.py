"""How much of the bare runtime `cxr serve` gives its clients, how evenly, and whether its memory stays flat.

    python benchmarks/serve_load.py models/exported/int8 data/raw/sample/images --requests 10000

In turns, round by round: the films decoded, prepared and answered in a loop by as many threads as the server has, in a
process of its own; then the same films sent by clients over loopback to a server of its own. Both answer the same
number of films a round. Nothing is sent elsewhere, and it ends by itself: after its requests, or after `--limit`
seconds. Run it on a machine that has nothing else to do; the ratio is of the two, taken minutes apart at most.
"""

import argparse
import queue
import socket
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from serve_process import Server, answer, form, request, started

from pipeline.own_process import Send, call_in_own_process
from pipeline.params import ServeParams

_FILMS = 200
MIB = 1 << 20


def bare(_send: Send, model: Path, films: list[bytes], count: int, threads: int) -> float:
    """Return films a second of the predictor alone, in this process; `call_in_own_process` calls it."""
    from pipeline.parallel import use_one_thread
    from pipeline.predict_stream import open_predictors
    from pipeline.predicting import Predictor, Source

    use_one_thread()
    predictors = open_predictors(model, threads, "youden")
    for predictor in predictors:
        predictor([Source("", films[0])])
    left = iter(range(count))
    lock = threading.Lock()

    def work(predictor: Predictor) -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            (found,) = predictor([Source("", films[number % len(films)])], flagged=True)
            assert found.raw is not None, found.error

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, predictors))
    return count / (time.perf_counter() - start)


def load(server: Server, films: list[bytes], count: int, clients: int, end: float) -> tuple[float, list[float], int]:
    """Return films a second, seconds of each request, and how many were not answered with 200."""
    requests = [request(form(film), path="/v1/predict?flagged=true") for film in films]
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        numbers.put(number)
    times: list[float] = []
    errors: list[int] = []

    def client() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.monotonic() < end:
                try:
                    number = numbers.get_nowait()
                except queue.Empty:
                    return
                start = time.perf_counter()
                connection.sendall(requests[number % len(requests)])
                status, _ = answer(connection)
                times.append(time.perf_counter() - start)
                if status != 200:
                    errors.append(status)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(times) / (time.perf_counter() - start), times, len(errors)


def films_of(folder: Path) -> list[bytes]:
    """Return the bytes of the first films of a folder."""
    suffixes = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)[:_FILMS]
    if not paths:
        raise SystemExit(f"{folder} holds no film")
    return [path.read_bytes() for path in paths]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; status 1 if a request was not answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an exported folder")
    parser.add_argument("films", type=Path, help="a folder of films")
    parser.add_argument("--requests", type=int, default=10_000, help="over all rounds (default: 10000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="of the server, and of the bare runtime (default: 1)")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for everything (default: 3600)")
    options = parser.parse_args(argv)
    films, end = films_of(options.films), time.monotonic() + options.limit
    each = options.requests // options.rounds
    size = statistics.mean(len(film) for film in films)
    print(f"{len(films)} films of {size / 1000:.0f} kB; {options.threads} threads, {options.clients} clients")
    ratios, times, errors, memory = [], [], 0, []
    with started(options.model, ServeParams(threads=options.threads)) as server:
        load(server, films, min(500, each), options.clients, end)  # until caches and memory pools are filled
        memory.append(server.memory())
        for number in range(options.rounds):
            alone = call_in_own_process(bare, options.model, films, each, options.threads, receive=print)
            rate, taken, wrong = load(server, films, each, options.clients, end)
            ratios.append(rate / alone)
            times += taken
            errors += wrong
            memory.append(server.memory())
            p50, p99 = percentiles(taken)
            print(
                f"round {number + 1}: bare {alone:.1f} films/s, served {rate:.1f}, ratio {rate / alone:.2f}; "
                f"p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms; {memory[-1] / MIB:.0f} MiB",
                flush=True,
            )
    p50, p99 = percentiles(times)
    print(
        f"{len(times)} requests, {errors} errors; ratio {statistics.median(ratios):.2f} (median of {len(ratios)} "
        f"rounds, {min(ratios):.2f} to {max(ratios):.2f}); p99 is {p99 / p50:.2f} times p50; "
        f"memory {memory[0] / MIB:.0f} MiB after 500 requests, "
        f"{memory[-1] / MIB:.0f} MiB at the end, {max(memory) / MIB:.0f} MiB at most"
    )
    return int(errors > 0 or len(times) < each * options.rounds)


def percentiles(times: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    cuts = statistics.quantiles(times, n=100)
    return cuts[49], cuts[98]


if __name__ == "__main__":
    sys.exit(main())
