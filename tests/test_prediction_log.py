"""The prediction log: every row whole, in order, without pixels or names; never in a request's way; small for ever."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from log_case import FINDINGS, MODEL, STATISTICS, answers, manifest, postgres

from pipeline.errors import UserError
from pipeline.log_store.opening import open_store, shown, url_of, version_of
from pipeline.log_store.reading import counts_of, models_of, read_rows
from pipeline.log_store.tables import METADATA, MODELS, PREDICTIONS
from pipeline.log_store.trimming import trim
from pipeline.params import LogParams
from pipeline.predicting import Answer
from pipeline.prediction_log import PredictionLog


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Yield the URL of a real PostgreSQL; a socket's path must be short, so not in pytest's folder."""
    with tempfile.TemporaryDirectory(prefix="cxr") as folder, postgres(Path(folder)) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the address of an empty log, in each of the databases."""
    if request.param == "sqlite":
        yield str(tmp_path / "new folder" / "日志.db")
        return
    url = request.getfixturevalue("database")
    yield url
    engine = sa.create_engine(url_of(url))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()


def test_what_is_appended_is_read_back_in_order(address: str) -> None:
    given_answers = answers(40, np.random.default_rng(1))
    with PredictionLog(address, manifest(), LogParams(batch=7)) as log:
        ids = [log.append([one], f"request {k}") for k, one in enumerate(given_answers)]
    assert ids == [[f"request {k}"] for k in range(40)]
    engine = open_store(address, create=False)
    (rows,) = read_rows(engine, MODEL, FINDINGS)
    assert (np.diff(rows.ids) > 0).all()
    assert (np.diff(rows.times) >= 0).all()
    assert rows.probabilities.tolist() == [list(map(float, one.raw)) for one in given_answers]
    assert rows.decisions.tolist() == [one.decisions.tolist() for one in given_answers]
    assert np.array_equal(rows.sketch, np.stack([one.sketch for one in given_answers]))
    for name in STATISTICS:
        assert rows.statistics[name].tolist() == [np.float32(one.statistics[name]) for one in given_answers]
    assert rows.latency["model"].tolist() == [np.float32(one.timings["model"]) for one in given_answers]
    assert counts_of(engine) == {f"{MODEL}-int8": 40}
    engine.dispose()


def test_refused_and_failed_films_are_rows_too(address: str) -> None:
    with PredictionLog(address, manifest()) as log:
        log.append([Answer("secret name.png", error="cannot be read"), *answers(1, np.random.default_rng(2))], "r")
    engine = open_store(address, create=False)
    (rows,) = read_rows(engine, MODEL, FINDINGS)
    assert rows.status.tolist() == [2, 0]
    assert np.isnan(rows.probabilities[0]).all()
    assert rows.decisions[0].tolist() == [-1, -1, -1]
    assert not np.isnan(rows.probabilities[1]).any()
    with engine.connect() as connection:
        text = repr(connection.execute(sa.select(PREDICTIONS)).all()) + repr(
            connection.execute(sa.select(MODELS)).all()
        )
    assert "secret" not in text
    engine.dispose()


def test_several_writers_at_once_lose_nothing(address: str) -> None:
    open_store(address).dispose()
    made = answers(60, np.random.default_rng(3))

    def write(part: int) -> None:
        with PredictionLog(address, manifest(), LogParams(batch=3)) as log:
            for one in made[part::3]:
                log.append([one])

    threads = [threading.Thread(target=write, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = open_store(address, create=False)
    assert sum(len(rows) for rows in read_rows(engine, MODEL, FINDINGS, chunk=17)) == 60
    engine.dispose()


def test_tables_of_version_1_become_those_of_now_and_keep_their_rows(address: str) -> None:
    engine = open_store(address, latest="1")
    assert version_of(engine) == "1"
    row = {"time": 5.0, "request_id": "old", "image": 0, "model": 1, "status": 0, "reasons": ""}
    with engine.begin() as connection:
        names = '{"findings": ["Effusion", "Mass", "Nodule"], "statistics": [], "steps": []}'
        connection.execute(sa.insert(MODELS).values(id=1, version=f"{MODEL}-onnx", names=names))
        connection.execute(sa.insert(PREDICTIONS).values(**row))
    engine.dispose()
    engine = open_store(address)
    assert version_of(engine) == "2"
    (rows,) = read_rows(engine, MODEL, FINDINGS)
    assert rows.times.tolist() == [5.0]
    engine.dispose()


def test_migrations_lead_to_the_tables_that_the_code_knows(address: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = open_store(address)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_tables_of_a_later_version_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    open_store(str(path)).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '99'")
    connection.close()
    with pytest.raises(UserError, match="version 99, and this cxr knows 2: use a later cxr"):
        open_store(str(path))


def test_old_and_superfluous_rows_are_removed_with_their_space(tmp_path: Path) -> None:
    path, params = tmp_path / "log.db", LogParams(keep_rows=100, keep_days=10)
    with PredictionLog(str(path), manifest()) as log:
        log.append(answers(2000, np.random.default_rng(4)))
    before = path.stat().st_size
    engine = open_store(str(path))
    with engine.connect() as connection:
        newest = connection.execute(sa.select(sa.func.max(PREDICTIONS.c.time))).scalar_one()
    assert trim(engine, params, newest) == 1900
    (rows,) = read_rows(engine, MODEL, FINDINGS)
    assert rows.ids.tolist() == list(range(1901, 2001))
    assert path.stat().st_size < before / 2
    assert trim(engine, params, newest + 11 * 86_400) == 100
    assert list(read_rows(engine, MODEL, FINDINGS)) == []
    engine.dispose()


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 6), max_size=12), queue=st.integers(1, 20))
def test_rows_are_written_or_counted_as_dropped(sizes: list[int], queue: int) -> None:
    rng = np.random.default_rng(5)
    with tempfile.TemporaryDirectory() as folder:
        log = PredictionLog(f"{folder}/log.db", manifest(), LogParams(batch=1, queue=queue))
        for size in sizes:
            log.append(answers(size, rng))
        state = log.close()
        with sqlite3.connect(f"{folder}/log.db") as connection:
            (found,) = connection.execute("SELECT count(*) FROM predictions").fetchone()
        connection.close()
    assert state.appended == sum(sizes)
    assert state.written == found
    assert state.written + state.dropped == state.appended


def test_append_neither_waits_nor_raises_while_the_database_is_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.db"
    log = PredictionLog(str(path), manifest(), LogParams(batch=1, queue=10, flush_seconds=0.05))
    writing = threading.Event()
    log._engine.dispose()
    broken = sa.create_engine(f"sqlite:///{tmp_path}/no/such/folder.db")
    sa.event.listen(broken, "do_connect", lambda *_: writing.set())
    log._engine = broken
    for one in answers(25, np.random.default_rng(6)):
        log.append([one])
    assert writing.wait(60)
    state = log.close()
    assert state.appended == 25
    assert state.written == 0
    assert state.dropped == 25
    assert "unable to open database file" in state.error
    assert "answers go on" in capsys.readouterr().err


def test_an_answer_that_cannot_be_packed_is_counted_and_no_more(tmp_path: Path) -> None:
    with PredictionLog(str(tmp_path / "log.db"), manifest()) as log:
        log.append([Answer("n", raw="no array")])  # type: ignore[arg-type] # what a fault elsewhere might give
        assert log.state().dropped == 1


def test_a_killed_process_loses_only_what_it_had_not_flushed(tmp_path: Path) -> None:
    code = (
        "import sys, time, numpy as np\nfrom log_case import answers, manifest\n"
        "from pipeline.prediction_log import PredictionLog\nfrom pipeline.params import LogParams\n"
        f"log = PredictionLog({str(tmp_path / 'log.db')!r}, manifest(), LogParams(batch=10, flush_seconds=3600))\n"
        "log.append(answers(30, np.random.default_rng(7)))\n"
        "while log.state().written < 30: time.sleep(0.01)\n"
        "log.append(answers(4, np.random.default_rng(8)))\nprint('waiting', flush=True)\ntime.sleep(600)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    engine = open_store(str(tmp_path / "log.db"), create=False)
    (rows,) = read_rows(engine, MODEL, FINDINGS)
    assert len(rows) == 30
    engine.dispose()


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("postgresql://me:geheim@/nowhere?host=/no/such/folder", "cannot be used"),
        ("nonsense://me:geheim@host/db", "cannot be opened"),
        ("://geheim", "is no URL"),
        ("", "is empty"),
        ("missing.db", "is missing"),
    ],
)
def test_a_log_that_cannot_be_opened_is_one_line_without_the_password(
    address: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        open_store(address, create=False)
    assert part in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_addresses_are_shown_without_secrets() -> None:
    assert shown("postgresql://me:geheim@host/db?password=geheim") == "postgresql+psycopg://me:***@host/db"
    assert shown("folder/log.db") == "sqlite:///folder/log.db"


def test_rows_of_another_model_are_left_out_and_of_other_findings_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "log.db")
    rng = np.random.default_rng(9)
    with PredictionLog(path, manifest()) as log:
        log.append(answers(3, rng))
    with PredictionLog(path, manifest("ffffffffffff-int8")) as log:
        log.append(answers(2, rng))
    engine = open_store(path)
    assert {names.version for names in models_of(engine).values()} == {f"{MODEL}-int8", "ffffffffffff-int8"}
    assert sum(len(rows) for rows in read_rows(engine, MODEL, FINDINGS)) == 3
    with pytest.raises(UserError, match="are of Effusion, Mass, Nodule, and the reference is of Hernia"):
        list(read_rows(engine, MODEL, ("Hernia",)))
    engine.dispose()
