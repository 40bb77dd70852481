"""Who is answered: the token, the hosts, the origins, and what every answer says to a browser."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from curate.decisions import read_decisions
from curate.errors import WorkdirError
from curate.review.access import HEADERS
from curate.review.server import Server
from curate.review.session import Session
from tests.review.large_run import LargeRun
from tests.review.running import Running

ADDRESSES = ("", "review.js", "review.css", "icon.png", "api/run", "api/page?queue=groups", "api/decisions")


@pytest.mark.parametrize("path", [*ADDRESSES, "nothing", "../api/run", "api/nothing", "picture/0", "thumbnail/1"])
def test_every_answer_binds_the_browser(running: Running, session: Session, path: str) -> None:
    answer = running.ask(path)
    for name, value in HEADERS.items():
        if name not in ("Content-Security-Policy", "Cache-Control"):
            assert answer.headers[name] == value
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith(
        "default-src 'none'; sandbox" if answer.headers["Content-Type"].startswith("image/j") else "default-src 'self'"
    )
    assert "unsafe" not in policy
    assert "Server" not in answer.headers
    assert running.server.token.encode() not in answer.body


@pytest.mark.parametrize("path", ADDRESSES)
def test_only_who_knows_the_token_is_answered(running: Running, session: Session, path: str) -> None:
    assert running.ask(path).status == 200
    for token in ("", "x", running.server.token[:-1], running.server.token + "x", "%C3%A9"):
        answer = running.ask(path, token=token)
        assert (answer.status, answer.body) == (404, b"nothing here")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:127.0.0.1", "127.0.0.2", "[::1]:80"]
)
def test_other_hosts_are_refused(running: Running, session: Session, host: str) -> None:
    for path in ADDRESSES:
        assert running.ask(path, Host=host).status == 403
    assert running.post("api/undo", {}, Host=host, Origin=f"http://{host}").status == 403


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1:8123", "localhost"])
def test_a_forwarded_port_is_answered(running: Running, session: Session, host: str) -> None:
    assert running.ask("api/run", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Origin": "http://127.0.0.1:1"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
    ],
)
def test_decisions_come_from_the_page_alone(
    running: Running, session: Session, large_run: LargeRun, headers: dict[str, str]
) -> None:
    body = {"decision": "keep", "image": str(large_run.ids[1])}
    given = {name: value.replace("PORT", str(running.port)) for name, value in headers.items()}
    assert running.post("api/decide", body, **given).status == 403
    without = running.ask("api/decide", method="POST", body=body, Content_Type="application/json")
    assert without.status == 403
    assert running.ask("api/decide?decision=keep&image=1").status == 404
    assert not Path(session.marks.path).exists()


def test_decisions_are_written_and_taken_back(running: Running, session: Session, large_run: LargeRun) -> None:
    image = str(large_run.ids[1])
    found = json.loads(running.post("api/decide", {"decision": "keep", "image": image, "other": None}).body)
    assert [mark["decision"] for mark in found["marks"][image]] == ["keep"]
    assert [one.decision for one in read_decisions(session.marks.path)] == ["keep"]
    (row,) = json.loads(running.ask("api/decisions").body)
    assert json.loads(running.post("api/forget", {"about": row["about"], "shown": [image]}).body)["marks"] == {
        image: []
    }
    assert json.loads(running.post("api/undo", {"shown": [image]}).body)["decisions"] == 1
    assert json.loads(running.post("api/undo", {"shown": []}).body)["decisions"] == 0


def test_refusals_and_damaged_files_are_said_in_words(running: Running, session: Session, large_run: LargeRun) -> None:
    refused = running.post("api/decide", {"decision": "drop", "image": str(large_run.heldout[0])})
    assert (refused.status, "heldout images stay" in json.loads(refused.body)["error"]) == (409, True)
    Path(session.marks.path).write_text("image,decision\nx,burn\n")
    for answer in (running.ask("api/page?queue=groups"), running.post("api/undo", {})):
        assert (answer.status, "burn" in json.loads(answer.body)["error"]) == (409, True)


@pytest.mark.parametrize(
    "body",
    [[], "x", 7, None, {}, {"decision": "keep"}, {"decision": "keep", "image": "x"}, {"image": 1e400}, {"shown": 3}],
)
def test_what_is_no_request_of_the_page_is_refused(running: Running, session: Session, body: Any) -> None:
    assert running.post("api/decide", body).status == 400
    assert not Path(session.marks.path).exists()


@pytest.mark.parametrize(
    "path",
    [
        "api/page?queue=nothing", "api/page?queue=groups&page=-1", "api/page?queue=groups&page=x",
        "picture/../../etc/passwd", "picture/-1", "picture/99999999999999999999999", "picture/%2e%2e",
        "review.py", "server.py", "page.html/../server.py",
    ],
)  # fmt: skip
def test_no_address_holds_a_path(running: Running, session: Session, path: str) -> None:
    assert running.ask(path).status in (400, 404)


def test_pictures_are_pictures_or_a_reason(running: Running, session: Session, large_run: LargeRun) -> None:
    for row, kind in ((0, "image/jpeg"), (1, "image/png"), (2, "image/webp"), (3, "image/png")):
        answer = running.ask(f"picture/{large_run.ids[row]}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    for row in range(large_run.num_grouped, large_run.num_grouped + 2):
        for size in ("picture", "thumbnail"):
            answer = running.ask(f"{size}/{large_run.ids[row]}")
            assert (answer.status, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
            assert b"<svg" not in answer.body


def test_nothing_is_logged_but_faults_without_the_token(
    running: Running, session: Session, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.ask("api/run")
    running.ask("nothing")
    assert caplog.records == []
    monkeypatch.setattr(session, "summary", lambda: 1 / 0)
    assert running.ask("api/run").status == 500
    assert [record.getMessage() for record in caplog.records] == ["a request of the page failed"]
    assert running.server.token not in caplog.text


def test_it_listens_on_this_machine_alone_and_says_when_a_port_is_taken(running: Running, session: Session) -> None:
    async def listen() -> None:
        Server(session).listen(running.port)

    assert running.address.startswith(f"http://127.0.0.1:{running.port}/")
    assert len(running.server.token) == 32
    with pytest.raises(WorkdirError, match=f"--port {running.port}: cannot listen there"):
        asyncio.run(listen())
