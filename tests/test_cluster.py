"""Several devices or workers train what one trains; a worker that is lost or never comes is one line, not a hang."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray_jobs
from cluster_worker import params_of

from pipeline.errors import UserError
from pipeline.params import TrainParams
from pipeline.training.cluster import Task, task_of
from pipeline.training.meeting import meet
from pipeline.training.ray_train import call_on_ray

HERE = Path(__file__).parent
SLOW = 240  # seconds after which a process is held to hang


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def config(kind: str = "worker", index: object = 0, **cluster: object) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def start(role: str, processed: Path, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    return subprocess.Popen(
        [sys.executable, str(HERE / "cluster_worker.py"), role, str(processed), str(folder)],
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "-1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=SLOW)
    finally:
        process.kill()
    return process.returncode, output


@pytest.fixture(scope="module")
def alone(coded_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on two logical processors, on one, and on one what two workers train together."""
    folder = tmp_path_factory.mktemp("alone")
    assert end(start("mirrored", coded_images, folder)) == (0, "")
    return folder


@pytest.fixture(scope="module")
def workers(coded_images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str]], int]:
    """Train in two processes, then again, and worker 1 is killed; return the folder, how they ended, a port."""
    folder = tmp_path_factory.mktemp("workers")
    ports = free_ports(2)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    each = [config(index=k, worker=addresses) for k in range(2)]
    processes = [start("worker", coded_images, folder, TF_CONFIG=text) for text in each]
    return folder, [end(process) for process in processes], ports[1]


def figures(path: Path, *names: str) -> dict[str, list[float]]:
    history = json.loads(path.with_suffix(".json").read_text())
    return {name: history[name] for name in names}


def assert_same(one: Path, other: Path, tolerance: float) -> None:
    """Compare losses, AUC and all weights, the moving statistics of BatchNormalization among them."""
    for name, values in figures(one, "image_loss", "auc").items():
        np.testing.assert_allclose(figures(other, name)[name], values, rtol=0, atol=tolerance, err_msg=name)
    with np.load(one.with_suffix(".npz")) as first, np.load(other.with_suffix(".npz")) as second:
        assert len(first.files) == len(second.files) == 12
        for name in first.files:
            np.testing.assert_allclose(second[name], first[name], rtol=0, atol=tolerance, err_msg=name)


def test_two_devices_train_what_one_trains(alone: Path) -> None:
    """37 images in batches of 8: the last five are shared out as four and one."""
    assert json.loads((alone / "places.json").read_text()) == {"two": 2, "workers": 1, "chief": True}
    assert_same(alone / "one", alone / "two", 1e-5)
    start_loss, end_loss = figures(alone / "one", "image_loss")["image_loss"]
    assert end_loss < 0.95 * start_loss  # something was learned


def test_two_workers_train_what_one_process_trains(alone: Path, workers: Any) -> None:
    """20 and 17 images in files of their own, in batches of three each: both take seven steps, the last of two."""
    folder = workers[0]
    for k in range(2):
        assert_same(alone / "together", folder / f"worker-{k}" / "fit", 1e-4)


def test_each_worker_knows_its_part(workers: Any) -> None:
    folder = workers[0]
    for k in range(2):
        facts = json.loads((folder / f"worker-{k}" / "facts.json").read_text())
        assert (facts["worker"], facts["chief"], facts["replicas"]) == (k, k == 0, 2)
        assert facts["chiefs"] == [0.25, 7.0]
        assert not facts["sigterm_caught"]
    assert (folder / "model.keras").is_file()  # written by the chief while the other did nothing of the kind


def test_keras_still_needs_what_mended_does(workers: Any) -> None:
    """If this fails, keras issue 20585 is repaired: remove `mended` and this test."""
    for k in range(2):
        facts = json.loads((workers[0] / f"worker-{k}" / "facts.json").read_text())
        assert "PerReplica" in facts["unmended"][0]
        assert "Invalid reduction dimension 0" in facts["unmended"][1]


def test_the_loss_of_a_worker_ends_the_others_with_one_line(workers: Any) -> None:
    _, (chief, killed), port = workers
    assert killed[0] == -9
    assert chief[0] == 1
    *before, last = chief[1].splitlines()
    assert before == ["worker 0 of 2, from 0: this one writes"]
    assert last == (
        f"error: worker 1 (127.0.0.1:{port}) was lost: every worker ends; look at its log, then start all workers "
        "again: they go on from the last checkpoint"
    )


def test_tensorflow_errors_about_something_else_stay_what_they_are() -> None:
    import tensorflow as tf

    from pipeline.training.cluster import lost_worker, one_line_if_lost

    full = tf.errors.ResourceExhaustedError(None, None, "No space left on device")
    missing = tf.errors.UnavailableError(None, None, "the file system is away")
    assert [lost_worker(error) for error in (full, missing, ValueError("heartbeat"))] == [None] * 3
    with pytest.raises(tf.errors.ResourceExhaustedError), one_line_if_lost():
        raise full


TWO = ["10.0.0.1:2222", "[::1]:2223"]


@pytest.mark.parametrize(
    ("text", "worker", "addresses"),
    [
        (config("worker", 1, worker=TWO), 1, tuple(TWO)),
        (config("chief", 0, chief=TWO[:1], worker=TWO[1:]), 0, tuple(TWO)),
        (config("worker", 0, chief=TWO[:1], worker=TWO[1:]), 1, tuple(TWO)),  # as Kubeflow's TFJob sets it
        (config("worker", "0", worker=["node-7.local:1"]), 0, ("node-7.local:1",)),
    ],
)
def test_tf_config_says_which_worker_this_is(
    text: str, worker: int, addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    assert task_of(TrainParams(cluster="tf_config")) == Task(worker, addresses)
    assert task_of(TrainParams(cluster="ray", workers=2)) == Task(worker, addresses)
    assert task_of(TrainParams()).chief


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not set"),
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        ("{}", r"cannot be read \(KeyError: 'cluster'\)"),
        (json.dumps({"cluster": {"worker": TWO}}), r"cannot be read \(KeyError: 'task'\)"),
        (json.dumps({"cluster": [1], "task": {"type": "worker", "index": 0}}), "cannot be read"),
        (config(worker="10.0.0.1:2222"), "a list of addresses is needed"),
        (config("worker", None, worker=TWO), "cannot be read"),
        (config("ps", 0, worker=TWO, ps=["10.0.0.9:1"]), "'ps'; chief and worker are allowed"),
        (config("worker", 0, worker=TWO, evaluator=["10.0.0.9:1"]), "'evaluator'; chief and worker are allowed"),
        (config("evaluator", 0, worker=TWO), "'evaluator'; chief and worker are allowed"),
        (config("chief", 0, chief=TWO), "2 chiefs; one is allowed"),
        (config("worker", 2, worker=TWO), "index 2 of worker, and the cluster has 2 of them"),
        (config("worker", -1, worker=TWO), "index -1 of worker"),
        (config("chief", 0, worker=TWO), "index 0 of chief, and the cluster has 0 of them"),
        (config("worker", 0, worker=["10.0.0.1"]), "'10.0.0.1'; HOST:PORT"),
        (config("worker", 0, worker=["http://host:1"]), "HOST:PORT"),
        (config("worker", 0, worker=[TWO[0], TWO[0]]), "two workers the same address"),
    ],
)
def test_a_wrong_tf_config_is_one_line(text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(
        UserError, match=rf"^train\.cluster: TF_CONFIG .*{words}.*looks like this .*cluster\.md"
    ) as told:
        task_of(TrainParams(cluster="tf_config"))
    assert "\n" not in str(told.value)


def together(*calls: Callable[[], None]) -> list[str]:
    """Run the calls at the same time; return what each said, empty if nothing."""

    def said(call: Callable[[], None]) -> str:
        try:
            call()
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(said, calls))


def meeting(count: int) -> tuple[str, ...]:
    return tuple(f"127.0.0.1:{port}" for port in free_ports(count))


def test_all_workers_meet_and_leave_the_port_free() -> None:
    addresses = meeting(3)
    same = {"GPUs": "0"}
    assert together(*(lambda k=k: meet(k, addresses, same, SLOW) for k in (2, 1, 0))) == ["", "", ""]
    socket.create_server(("", int(addresses[0].rpartition(":")[2]))).close()


def test_workers_that_differ_are_told_so_all_of_them() -> None:
    addresses = meeting(2)
    calls = [lambda k=k: meet(k, addresses, {"GPUs": "0", "parameters": f"{k}abc"}, SLOW) for k in range(2)]
    line = "worker 1 and worker 0 differ in parameters (1abc and 0abc); all must have the same"
    assert together(*calls) == [line, line]


def test_a_worker_that_never_comes_is_named_and_nobody_waits_for_ever() -> None:
    addresses = meeting(3)
    chief, other = together(*(lambda k=k: meet(k, addresses, {}, 0.5) for k in range(2)))
    assert chief.startswith(f"of 3 workers these did not come within 0.5 s: worker 2 ({addresses[2]}): start every")
    assert other.startswith(
        f"worker 1: worker 0 ({addresses[0]}) did not call together all workers within 0.5 s: start"
    )


def test_a_worker_that_left_is_waited_for_again() -> None:
    addresses = meeting(3)
    port = int(addresses[0].rpartition(":")[2])
    knocked = threading.Event()

    def left() -> None:
        with socket.create_server(("", 0)):  # a port scan, then a worker that is killed while it waits
            while not knocked.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", port)) as guest:
                        guest.sendall(b"GET / HTTP/1.1\n")
                    with socket.create_connection(("127.0.0.1", port)) as guest:
                        guest.sendall(b"[1, {}]\n")
                    knocked.set()
                except ConnectionRefusedError:
                    continue

    def late(k: int) -> None:
        knocked.wait()
        meet(k, addresses, {}, SLOW)

    calls = [lambda: meet(0, addresses, {}, SLOW), left, lambda: late(1), lambda: late(2)]
    assert together(*calls) == ["", "", "", ""]


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^worker 0 cannot listen at port {port} of TF_CONFIG \("):
            meet(0, (f"127.0.0.1:{port}", "127.0.0.1:1"), {}, 1)


# Ray Train loads Ray Data, which warns of its own options.
on_a_ray_cluster = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """Start Ray's processes as `ray start --head` does, with two places."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 << 20},
        )
        yield cluster.address
        cluster.shutdown()


def on_ray(address: str, folder: Path, function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Any]]:
    got: list[Any] = []
    params = params_of(6, "ray", workers=2, address=address).train
    value = call_on_ray(function, *arguments, params=params, folder=folder, receive=lambda *sent: got.append(sent))
    return value, got


@on_a_ray_cluster
def test_ray_trains_what_one_process_trains(
    alone: Path, coded_images: Path, ray_cluster: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    history, sent = on_ray(ray_cluster, tmp_path, ray_jobs.train, coded_images, tmp_path)
    assert_same(alone / "together", tmp_path / "ray", 1e-4)
    assert sent == [(loss, epoch) for epoch, loss in enumerate(history["image_loss"])]
    assert {path.name for path in tmp_path.iterdir()} == {"ray.npz", "ray.json"}
    assert capfd.readouterr().err.splitlines() == ["worker 0 of 2, from 0: this one writes"]


@on_a_ray_cluster
def test_a_worker_of_ray_that_is_killed_is_one_line(ray_cluster: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^ray: worker 1 was lost: .*goes on from the last checkpoint$"):
        on_ray(ray_cluster, tmp_path, ray_jobs.die, tmp_path / "never")
    assert not any(tmp_path.iterdir())


@on_a_ray_cluster
def test_a_ray_cluster_that_is_too_small_or_away_is_one_line(ray_cluster: str, tmp_path: Path) -> None:
    for params, words in (
        (TrainParams(cluster="ray", workers=3, address=ray_cluster), "has 2 processor core"),
        (TrainParams(cluster="ray", workers=2, address="127.0.0.1:1"), "nobody answers at 127.0.0.1:1"),
        (TrainParams(cluster="ray", workers=2, address="here"), "HOST:PORT"),
    ):
        with pytest.raises(UserError, match=words):
            call_on_ray(ray_jobs.die, tmp_path, params=params, folder=tmp_path, receive=print)


def test_missing_ray_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    params = TrainParams(cluster="ray", workers=2)
    with pytest.raises(UserError, match=r"^train\.cluster is ray, which is not installed .*make setup EXTRAS=ray`$"):
        call_on_ray(ray_jobs.die, tmp_path, params=params, folder=tmp_path, receive=print)
