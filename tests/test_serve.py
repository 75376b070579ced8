"""The server over HTTP: what it answers, what it refuses, what it never tells, and how it stops."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom.data
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from serving_case import FINDINGS, MANIFEST, DarkGate, Live, live, png

from pipeline.errors import UserError
from pipeline.params import ServeParams
from pipeline.serve import bound, check_reach, quieten
from pipeline.serving.door import read_token
from pipeline.serving.openapi import ANSWER

TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(gate=DarkGate(), maps=True) as found:
        yield found


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Check an error against RFC 9457 and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["type"] == f"/problems/{kind}"
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    return found


def test_numbers_are_the_model_s(server: Live) -> None:
    answer = server.post(png(153))  # 153 / 255 = 0.6
    assert answer.status_code == 200
    (film,) = answer.json()["films"]
    assert film["status"] == "ok"
    raw, calibrated, called = ([row[key] for row in film["findings"]] for key in ("raw", "probability", "called"))
    np.testing.assert_allclose(raw, [0.6, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(calibrated, raw, rtol=0)
    assert called == [True, False, None]  # thresholds 0.5, 0.75 and none
    assert [row["finding"] for row in film["findings"]] == list(FINDINGS)
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == film["id"].removesuffix("-0")


def test_several_films_keep_their_order_and_one_bad_one_spoils_nothing(server: Live) -> None:
    answer = server.post(png(204), b"no film", png(102))
    first, bad, last = answer.json()["films"]
    assert answer.status_code == 200
    assert first["findings"][0]["raw"] == pytest.approx(0.8, abs=1e-6)
    assert last["findings"][0]["raw"] == pytest.approx(0.4, abs=1e-6)
    assert (bad["status"], bad["findings"]) == ("failed", None)
    assert bad["error"].startswith("neither a PNG")
    assert [film["id"][-2:] for film in (first, bad, last)] == ["-0", "-1", "-2"]


def test_films_that_cannot_be_read_are_a_problem_with_the_reason(server: Live) -> None:
    found = problem(server.post(b"no film"), 422, "unreadable")
    assert found["detail"] == "neither a PNG nor a JPEG file, nor TIFF, nor DICOM"
    found = problem(server.post(b"no film", png(100)[:60]), 422, "unreadable")
    assert len(found["films"]) == 2
    problem(server.post(b""), 422, "unreadable")


def test_the_gate_withholds_numbers_unless_they_are_asked_for(server: Live) -> None:
    (film,) = server.post(png(3)).json()["films"]
    assert (film["status"], film["findings"], film["gate"]["accepted"]) == ("flagged", None, False)
    assert film["gate"]["reasons"] == [{"code": "no-film", "sentence": "does not look like a chest film"}]
    (film,) = server.post(png(3), path="/v1/predict?flagged=true").json()["films"]
    assert film["status"] == "flagged"
    assert film["findings"][0]["raw"] == pytest.approx(3 / 255, abs=1e-6)


def test_a_fault_of_ours_is_told_without_its_words(server: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = problem(server.post(png(13)), 500, "internal")
        wait_until(lambda: " fault " in caplog.text)
    assert "DOE" not in json.dumps(found) + caplog.text
    assert "RuntimeError at serving_case.py" in caplog.text
    assert server.post(png(100)).status_code == 200


def test_a_fault_takes_none_of_its_batch_with_it() -> None:
    with live(threads=1) as found:
        found.engine.go.clear()
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(found.post, png(100))
            assert found.engine.calls.acquire(timeout=30)
            others = [pool.submit(found.post, png(level)) for level in (13, 50, 60, 70)]
            wait_until(lambda: found.service.films.waiting == 4)
            found.engine.go.set()
            statuses = [answer.result().status_code for answer in (first, *others)]
        assert statuses == [200, 500, 200, 200, 200]
        assert max(found.engine.sizes) == 4


def test_dicom_is_read_and_its_header_goes_nowhere(server: Live, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(str(pydicom.data.get_testdata_file("CT_small.dcm")))
    with caplog.at_level(logging.DEBUG):
        answer = server.post(path.read_bytes())
        shown = server.post(path.read_bytes(), path="/v1/display")
    assert answer.status_code == 200
    assert shown.headers["x-film-size"] == "128x128"
    header = pydicom.dcmread(path)
    for value in (str(header.PatientName), header.PatientID, header.StudyInstanceUID):
        assert value not in answer.text + caplog.text + str(answer.headers)
        assert value.encode() not in shown.content


def test_names_of_files_and_addresses_reach_no_log(capfd: pytest.CaptureFixture[str]) -> None:
    kept = {name: logging.getLogger(name).level for name in ("uvicorn", "asyncio", "cxr.serve")}
    root = list(logging.getLogger().handlers)
    quieten()
    try:
        with live() as found:
            files = {"files": ("DOE^JANE.png", png(100))}
            assert httpx.post(f"{found.url}/v1/predict?patient=DOE", files=files).status_code == 200
            assert found.get("/DOE^JANE").status_code == 404
            httpx.request("DOEJANE", found.url)
            answer = found.post(b"DOE^JANE")
    finally:
        for handler in logging.getLogger().handlers:
            handler.stream.close()  # type: ignore[attr-defined]
        logging.getLogger().handlers[:] = root
        for name, level in kept.items():
            logging.getLogger(name).setLevel(level)
    log = capfd.readouterr().err
    assert "DOE" not in log
    assert f"{answer.headers['x-request-id']} POST /v1/predict 422" in log
    assert "unmatched 404" in log


def test_the_display_is_the_decoded_film(server: Live) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    answer = server.post(buffer.getvalue(), path="/v1/display")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), pixels)
    problem(server.post(b"no film", path="/v1/display"), 422, "unreadable")
    problem(server.post(png(1), png(2), path="/v1/display"), 400, "malformed")


def test_a_large_film_is_shown_small() -> None:
    with live() as found:
        answer = found.post(png(90, (1000, 3000)), path="/v1/display")
    assert Image.open(io.BytesIO(answer.content)).size == (2048, 683)
    assert answer.headers["x-film-size"] == "3000x1000"


def test_maps_come_or_it_is_said_why_not(server: Live) -> None:
    assert server.post(png(100), path="/v1/explain").json()["maps"]["Effusion"] == [[0, 0.25], [0.5, 1]]
    assert server.get("/v1/model").json()["explain"] == {"available": True, "reason": None}
    with live() as found:
        assert (
            problem(found.post(png(100), path="/v1/explain"), 503, "unavailable")["detail"] == "there is no Keras model"
        )
        assert found.get("/v1/model").json()["explain"]["available"] is False


def test_pixels_are_bounded_before_they_are_decoded() -> None:
    with live(max_megapixels=1) as found:
        assert found.post(png(100, (1000, 1000))).status_code == 200
        detail = problem(found.post(png(100, (1000, 1001))), 422, "unreadable")["detail"]
        assert detail == "1001x1000 is more than the allowed 1000000 pixels"
        problem(found.post(png(100, (1000, 1001)), path="/v1/display"), 422, "unreadable")


def test_uploads_are_bounded() -> None:
    with live(max_upload_mb=1, max_files=2, max_memory_mb=1) as found:
        problem(found.post(bytes(2 << 20)), 413, "too-large")
        problem(found.post(png(1), png(2), png(3)), 413, "too-large")
        assert found.post(png(100)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/display", "/v1/explain"])
def test_what_is_no_form_is_refused(server: Live, path: str) -> None:
    problem(httpx.post(server.url + path, content=png(100)), 415, "media-type")
    problem(httpx.post(server.url + path, data={"files": "x"}), 415, "media-type")
    problem(httpx.post(server.url + path, files={"other": b"x"}), 400, "malformed")
    problem(httpx.get(server.url + path), 405, "method")


def test_the_queue_is_bounded_and_says_when_to_come_again() -> None:
    with live(threads=1, queue=2, batch=1, max_files=2) as found:
        found.engine.go.clear()
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(found.post, png(100))
            assert found.engine.calls.acquire(timeout=30)
            waiting = pool.submit(found.post, png(110), png(120))
            wait_until(lambda: found.service.films.waiting == 2)
            refused = found.post(png(130))
            problem(refused, 429, "busy")
            assert int(refused.headers["retry-after"]) >= 1
            problem(found.get("/readyz"), 503, "unavailable")
            assert found.get("/healthz").status_code == 200
            found.engine.go.set()
            assert [first.result().status_code, waiting.result().status_code] == [200, 200]
        assert found.get("/readyz").json()["status"] == "ready"


def test_a_late_answer_is_a_problem_and_its_film_is_forgotten() -> None:
    with live(threads=1, answer_s=0.2, batch=1) as found:
        found.engine.go.clear()
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(found.post, [png(100), png(110)]))
        for answer in answers:
            problem(answer, 503, "late")
        assert found.service.films.waiting == 0
        found.engine.go.set()
        assert found.post(png(100)).status_code == 200
        assert found.engine.sizes.count(1) == len(found.engine.sizes) == 2  # the film that waited was never asked about


def test_what_was_accepted_is_answered_when_the_server_stops() -> None:
    with live(threads=1, batch=2) as found, ThreadPoolExecutor(8) as pool:
        found.engine.go.clear()
        answers = [pool.submit(found.post, png(100))]
        assert found.engine.calls.acquire(timeout=30)  # or the first two might go together
        answers += [pool.submit(found.post, png(101 + k)) for k in range(5)]
        wait_until(lambda: found.service.films.waiting == 5)
        found.server.should_exit = True
        wait_until(lambda: not found.server.servers[0].is_serving())
        with pytest.raises(httpx.TransportError):
            found.post(png(100))
        found.engine.go.set()
        assert [answer.result().status_code for answer in answers] == [200] * 6
        found.thread.join(60)
        assert not found.thread.is_alive()


def test_batches_grow_only_when_there_is_more_to_do_than_hands() -> None:
    with live(threads=2, batch=4) as found:
        found.post(png(100))
        assert found.engine.sizes == [1]
        found.engine.go.clear()
        with ThreadPoolExecutor(16) as pool:
            first = []
            for busy in (2, 3):  # one after the other, or they might go together
                first.append(pool.submit(found.post, png(90)))
                wait_until(lambda busy=busy: len(found.engine.sizes) == busy)
            others = [pool.submit(found.post, png(level)) for level in range(100, 110)]
            wait_until(lambda: found.service.films.waiting == 10)
            found.engine.go.set()
            assert all(answer.result().status_code == 200 for answer in (*first, *others))
        assert max(found.engine.sizes) == 4


def test_a_token_is_asked_for_but_where_there_is_nothing_to_hide() -> None:
    with live(token=TOKEN) as found:
        for path in ("/", "/healthz", "/readyz", "/model-card"):
            assert found.get(path).status_code == 200
        for path in ("/v1/model", "/metrics", "/openapi.json", "/nothing"):
            assert found.get(path).status_code == 401
        answer = found.post(png(100))
        problem(answer, 401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"
        for wrong in ("x", TOKEN[:-1], TOKEN + "0", "é" * 20):
            headers = {"Authorization": f"Bearer {wrong}".encode()}
            assert found.post(png(100), headers=headers).status_code == 401
        assert found.post(png(100), headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert found.get("/v1/model", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


def test_other_sites_pages_and_names_are_refused(server: Live) -> None:
    problem(server.post(png(100), headers={"Origin": "https://elsewhere.example"}), 403, "foreign")
    problem(server.post(png(100), headers={"Sec-Fetch-Site": "cross-site"}), 403, "foreign")
    problem(server.get("/v1/model", headers={"Host": "rebound.example"}), 421, "host")
    assert server.post(png(100), headers={"Origin": server.url}).status_code == 200
    assert server.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link
    with live(hosts=["films.hospital.example"]) as found:
        assert found.get("/v1/model", headers={"Host": "films.hospital.example:8000"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/model-card", "/v1/model", "/nothing", "/healthz"])
def test_every_answer_is_closed_to_other_sites_and_named(server: Live, path: str) -> None:
    headers = server.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert len(headers["x-request-id"]) == 16
    assert headers["cache-control"] == ("no-cache" if path in ("/", "/model-card") else "no-store")
    assert "server" not in headers


def test_the_page_loads_what_it_names_and_the_browser_may_keep_it(server: Live) -> None:
    page = server.get("/")
    names = {part.split('"')[0] for part in page.text.split('"assets/')[1:]}
    assert {name.rpartition(".")[2] for name in names} == {"css", "js", "svg"}
    for name in names:
        asset = server.get(f"/assets/{name}")
        assert "immutable" in asset.headers["cache-control"]
        assert server.get(f"/assets/{name}", headers={"If-None-Match": asset.headers["etag"]}).status_code == 304
    assert server.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
    assert "Simulated &lt;films&gt; &amp; more" in page.text
    problem(server.get("/assets/../page.html"), 404, "not-found")


def test_the_model_card_is_escaped_and_this_model_s(tmp_path: Path) -> None:
    row = {"finding": "Mass", "auc": None, "ci_low": None, "ci_high": None, "n_positive": 0, "n_negative": 4}
    card = {
        "name": "<script>alert(1)</script>",
        "sections": {"Intended use": ["a & b <b>"]},
        "confidence": 0.95,
        "results": [row],
        "identity": {"model_sha256": MANIFEST.model_sha256},
    }
    (tmp_path / "model_card.json").write_text(json.dumps(card), encoding="utf-8")
    with live(card=tmp_path / "model_card.json") as found:
        text = found.get("/model-card").text
    assert "&lt;script&gt;alert(1)" in text
    assert "<b>" not in text
    assert "undefined" in text
    card["identity"] = {"model_sha256": "0" * 64}
    (tmp_path / "model_card.json").write_text(json.dumps(card), encoding="utf-8")
    with live(card=tmp_path / "model_card.json") as found:
        assert "another model" in found.get("/model-card").text


def test_openapi_describes_what_is_answered(server: Live) -> None:
    document = server.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/predict", "/v1/display", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/metrics"
    }  # fmt: skip
    given = document["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    assert given["examples"]["a film"]["value"] == ANSWER
    real = server.post(png(100)).json()
    assert keys(real) == keys(ANSWER)
    for status, answer in document["paths"]["/v1/predict"]["post"]["responses"].items():
        if status != "200":
            assert answer["content"]["application/problem+json"]["example"]["status"] == int(status)


def keys(value: Any) -> Any:
    """Return the shape of an answer: names, and those of the first item of each list; scores and steps are free."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items() if key not in ("scores", "milliseconds", "reasons")}
    return [keys(value[0])] if isinstance(value, list) and value else None


def test_metrics_count_what_happened() -> None:
    with live(gate=DarkGate()) as found:
        found.post(png(100), png(3))
        found.post(b"no film")
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(found.get("/metrics").text)
            for sample in family.samples
        }
    assert samples["cxr_requests_total", "/v1/predict", "200", "POST"] == 1
    assert samples["cxr_requests_total", "/v1/predict", "422", "POST"] == 1
    assert [samples["cxr_films_total", name] for name in ("ok", "flagged", "failed")] == [1, 1, 1]
    assert samples["cxr_gate_reasons_total", "no-film"] == 1
    assert samples["cxr_queue_films",] == 0
    assert samples["cxr_upload_bytes",] == 0
    for step in ("decode", "prepare", "gate", "model"):
        assert samples["cxr_step_seconds_count", step] == 2
    assert samples["cxr_step_seconds_count", "read"] == 2
    assert samples["cxr_step_seconds_count", "queue"] == 3


def test_answers_are_noted_under_the_request() -> None:
    noted: list[tuple[str, list[Any]]] = []

    class Log:
        def append(self, answers: Any, request_id: str = "", *, timings: Any = None) -> None:
            noted.append((request_id, list(answers)))
            assert timings["queue"] >= 0

    with live(gate=DarkGate(), log=Log()) as found:
        answer = found.post(png(3), png(100))
    ((request, answers),) = noted
    assert request == answer.headers["x-request-id"]
    assert [each.name for each in answers] == [f"{request}-0", f"{request}-1"]
    assert answers[0].raw is None  # withheld from the client, withheld here
    assert answers[1].raw is not None


def test_other_machines_need_a_token_or_a_clear_word(capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.3.2.1"):
        check_reach(ServeParams(host=host), "")
    for host in ("0.0.0.0", "::", "10.0.0.7", "films.hospital.example"):
        with pytest.raises(UserError, match="no token"):
            check_reach(ServeParams(host=host), "")
        check_reach(ServeParams(host=host), TOKEN)
    check_reach(ServeParams(host="0.0.0.0", anywhere=True), "")
    assert "without a token" in capsys.readouterr().err


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CXR_SERVE_TOKEN", "CXR_SERVE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert read_token() == ""
    monkeypatch.setenv("CXR_SERVE_TOKEN", TOKEN)
    assert read_token() == TOKEN
    (tmp_path / "token").write_text(TOKEN + "x\n")
    assert read_token(tmp_path / "token") == TOKEN + "x"
    monkeypatch.setenv("CXR_SERVE_TOKEN_FILE", str(tmp_path / "token"))
    assert read_token() == TOKEN + "x"
    for bad in ("", "short", "with a blank in between"):
        (tmp_path / "token").write_text(bad)
        with pytest.raises(UserError, match="16 or more"):
            read_token()
    with pytest.raises(UserError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_an_address_that_is_taken_is_one_line() -> None:
    with bound(ServeParams(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port} cannot be listened on"):
            bound(ServeParams(port=port))
    with pytest.raises(UserError, match="cannot be listened on"):
        bound(ServeParams(host="no-such-name.invalid"))


@pytest.mark.parametrize(
    "changes",
    [{"batch": 9, "queue": 8, "max_files": 1}, {"max_files": 65}, {"max_upload_mb": 600}, {"idle_s": 61.0},
     {"port": 70000}, {"host": ""}, {"threads": -1}, {"log": "postgresql://me:secret@db/log"},
     {"hosts": ["a b"]}, {"point": "best"}],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        ServeParams(**changes)


def wait_until(condition: Any) -> None:
    """Wait for another thread; the suite's limit on a test ends what never comes."""
    while not condition():
        threading.Event().wait(0.005)
