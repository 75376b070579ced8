"""Preprocess on real clusters of two processes, one of which is killed: the same bytes as on one core, or one line."""

import dataclasses
import importlib
import socket
import sys
from functools import partial
from pathlib import Path

import jobs
import pytest
from conftest import WriteNih
from preprocess_case import PARAMS, Case, contents, identities, make_case

from pipeline import preprocess as stage
from pipeline.engines import run_on_cluster
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.params_file import parse_params

ENGINES = ["dask", "ray"]


@pytest.fixture(autouse=True)
def _importable_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def case(tmp_path: Path, write_nih: WriteNih) -> Case:
    return make_case(tmp_path / "case", write_nih)


def with_engine(engine: str, address: str = "") -> Params:
    return dataclasses.replace(
        PARAMS, preprocess=dataclasses.replace(PARAMS.preprocess, engine=engine, address=address)
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_is_killed_changes_no_byte(case: Case, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    mark = case.folder / "killed"
    monkeypatch.setattr(stage, "write_one", partial(jobs.write_after_a_death, mark=mark))
    out = case.run(params=with_engine(engine), workers=2)
    assert mark.exists()
    assert contents(out) == contents(case.run("local"))


BLAMED = {
    "ray": r"train-00001\.tfrecord",
    "dask": r"train-0000\d\.tfrecord, or one that waited on the same workers,",  # which it is, dask cannot always tell
}
"""Whom each engine names when train-00001 ends its workers."""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shard_that_kills_every_worker_is_named_and_the_next_run_writes_the_rest(
    case: Case, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The next run is local: what the cluster finished is kept all the same."""
    with monkeypatch.context() as patched:
        patched.setattr(stage, "write_one", jobs.write_or_die)
        with pytest.raises(
            UserError, match=rf"^{engine}: {BLAMED[engine]} ended several workers.*run it again"
        ) as caught:
            case.run(params=with_engine(engine), workers=2)
    assert "\n" not in str(caught.value)
    out = case.folder / "processed"
    assert not (out / "meta.json").exists()
    kept = {name: identity for name, identity in identities(out).items() if (out / name).with_suffix(".json").exists()}
    assert kept
    case.run()
    assert contents(out) == contents(case.run("expected"))
    after = identities(out)
    assert {name: after[name] for name in kept} == kept


def test_a_scheduler_that_runs_already_is_used_and_left_running(case: Case) -> None:
    from distributed import Client, LocalCluster

    (case.raw / "images" / "00000007_000.png").write_bytes(b"no image")
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        params = with_engine("dask", cluster.scheduler_address)
        with pytest.raises(UserError, match=r"00000007_000\.png: neither a PNG.*run `dvc repro` again"):
            case.run(params=params)
        with Client(cluster, set_as_default=False) as client:
            assert client.submit(jobs.square, 3).result() == 9


def test_who_computes_is_no_part_of_the_images(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all shards there, no cluster is started: neither package can be imported here."""
    before = contents(case.run())
    for module in ("distributed", "ray"):
        monkeypatch.setitem(sys.modules, module, None)
    for engine in ENGINES:
        assert contents(case.run(params=with_engine(engine, "127.0.0.1:1"))) == before


@pytest.mark.parametrize(("engine", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, engine: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"^preprocess\.engine is {engine}.*run `make setup EXTRAS={engine}`$"):
        list(run_on_cluster(jobs.square, [1], "squaring", engine))


def test_a_worker_without_the_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers do not share the paths of this process, as those of another machine do not."""
    (tmp_path / "only_here.py").write_text("def nothing(item):\n    return item\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    nothing = importlib.import_module("only_here").nothing
    with pytest.raises(
        UserError, match=r"^ray: install this program on the workers; one says: No module named 'only_here'$"
    ):
        list(run_on_cluster(nothing, [1, 2], "nothing", "ray"))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_address_where_nobody_answers_is_one_line(engine: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^{engine}: nobody answers at {address}.*check preprocess\.address$"):
            list(run_on_cluster(jobs.square, [1], "squaring", engine, address))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("address", ["nonsense", "host:", ":1", "tcp://host", "a:b"])
def test_what_is_no_address_is_refused(engine: str, address: str) -> None:
    with pytest.raises(UserError, match=r"HOST:PORT"):
        list(run_on_cluster(jobs.square, [1], "squaring", engine, address))


def test_a_worker_of_another_version_is_refused(case: Case) -> None:
    """It would write other pixels under the same name."""
    shard = stage.Shard("train-00000.tfrecord", "key", (), ())
    with pytest.raises(UserError, match="another version of this program or of OpenCV"):
        stage.write_one(shard, case.folder, case.raw, PARAMS.preprocess, "0" * 64)
    assert not (case.folder / "train-00000.tfrecord").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "spark"}, "'local', 'dask' or 'ray'"),
        ({"address": "h:1"}, "engine is local; set engine to dask or ray"),
        ({"engine": "dask", "address": "tcp://me:secret@h:1"}, "holds a user name or password"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_params({"preprocess": values}, "params.yaml")
    assert "secret" not in str(caught.value)
