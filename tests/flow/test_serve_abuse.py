"""`coverslip serve` under clients that mean ill, are slow, or are too many; and when it is killed."""

from __future__ import annotations

import io
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import tifffile
from PIL import Image

from browser import LOOKS, chromium, look_at
from servers import Server, coverslip_server

from .conftest import images_of

TOKEN = "a-token-of-the-tests"
MB = 1_000_000


@pytest.fixture(scope="module")
def strict(gel_run: Path) -> Iterator[Server]:
    """One model, a token, and narrow limits."""
    narrow = ("--body", 2, "--uploads", 8, "--images", 8, "--queue", 8, "--pixels", 1, "--upload-seconds", 2, "--connections", 40)
    with coverslip_server(gel_run, "--token", TOKEN, *narrow) as running:
        yield running


def allowed(token: str = TOKEN) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


def multipart(server: Server, content: bytes, name: str = "a.png", length: int | None = None) -> bytes:
    """A whole request to /predict in bytes."""
    body = f'--x\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n--x--\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: localhost:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


def lives(server: Server, gels: Path) -> bool:
    """Whether the server still predicts."""
    return server.send("/predict", images_of(gels)[:2], **allowed()).status_code == 200


# Who asks ----------------------------------------------------------------------------------------------------------------


def test_without_the_right_token_nothing_is_said(strict: Server, gels: Path) -> None:
    document = strict.get("/openapi.json", **allowed()).json()
    asked = [(path, method) for path, item in document["paths"].items() for method in item if path != "/health"] + [
        ("/openapi.json", "get")
    ]
    assert len(asked) == 6
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    for path, method in asked:
        for headers in ({}, {"Authorization": "Bearer another-token"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
            answer = requests.request(method, strict.address + path, headers=headers, timeout=60)
            assert answer.status_code == 401, (path, headers)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert "Authorization: Bearer TOKEN" in answer.json()["detail"]
    assert strict.get("/health").json() == {"status": "ready"}  # and not what is served
    assert strict.get("/health").status_code == strict.get("/").status_code == strict.get("/page/app.js").status_code == 200
    assert lives(strict, gels)


def test_a_server_without_a_token_is_asked_by_its_own_names_only(server: Server) -> None:
    for host in ("localhost", "127.0.0.1:1", "[::1]:80"):
        assert server.get("/models", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "[", ":", "localhost:80:80"):
        assert server.get("/models", headers={"Host": host}).status_code == 400, host


def test_no_file_of_the_disk_can_be_read(server: Server, gel_run: Path, gels: Path) -> None:
    image = images_of(gels)[0].read_bytes()
    ways = [
        "/../../../../etc/passwd", "/page/../../../etc/passwd", "/page/%2e%2e/%2e%2e/etc/passwd", "/page/..%2f..%2f..%2fetc%2fpasswd",
        "/page//etc/passwd", "/page/__init__.py", "/page/style.css/../__init__.py", "/page/%00", "/page/..%5c..%5cpage%5c__init__.py",
        "//etc/passwd", "/etc/passwd", "/%2fetc%2fpasswd", "/page/", "/page", "/model/../../etc/passwd", "/static/../../../etc/passwd",
        f"/{gel_run}/bundle/model.json", f"/page/{gel_run}/bundle/model.json",
    ]  # fmt: skip
    for way in ways:
        answer = server.ask(f"GET {way} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), way
        assert b"root:" not in answer
    assert len(ways) == 18
    for name in ("../../etc/passwd", "/etc/passwd", "file:///etc/passwd", str(gel_run), "..\\..\\windows"):
        answer = server.get("/model", params={"model": name})
        assert answer.status_code == 404
        sent = server.send("/predict?model=gel", [(name, image), (name, b"Dear reader")])
        assert sent.status_code == 200
        rows = sent.json()["predictions"]
        assert rows[0]["probabilities"]
        assert rows[1]["error"].startswith("not an image")


# Too much ----------------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_before_it_comes(strict: Server, gels: Path) -> None:
    answer = strict.ask(multipart(strict, b"", length=1000 * MB)[:-20])
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"larger than 2 MB" in answer
    assert lives(strict, gels)


def test_a_body_without_a_length_is_refused_when_it_passes_the_limit(strict: Server, gels: Path) -> None:
    assert lives(strict, gels)
    before = strict.memory()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n"
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    sent = 0
    with strict.connect() as connection:
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(part), part))
        connection.settimeout(10)
        try:
            for _ in range(1000 * MB // 65_536):
                connection.sendall(chunk)
                sent += 65_536
        except OSError:
            pass  # the server has had enough
        try:
            answer = connection.recv(65_536)
        except ConnectionError:
            answer = b"HTTP/1.1 413"  # the answer was lost with the connection
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 40 * MB
    assert strict.memory() - before < 30 * MB
    assert lives(strict, gels)


def test_too_many_images_or_fields(strict: Server, gels: Path) -> None:
    image = images_of(gels)[0].read_bytes()
    many = strict.send("/predict", [("a.png", image)] * 9, **allowed())
    assert many.status_code == 413
    assert "9 images in one request; at most 8 are taken" in many.json()["detail"]
    for body, status in (
        ({"files": {"other": b"x"}}, 422),
        ({"data": {"images": "text"}}, 415),
        ({"json": {"images": []}}, 415),
        ({"data": b"--y", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        ({"data": b"", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"files": [("images", (f"{number}.png", b"")) for number in range(200)]}, 400),
        ({"files": {"images": b"x"}, "data": {f"field{number}": "x" for number in range(20)}}, 400),
    ):
        headers = {**allowed()["headers"], **body.pop("headers", {})}
        answer = requests.post(strict.address + "/predict", headers=headers, timeout=60, **body)
        assert answer.status_code == status, (body, answer.text)
        assert len(answer.json()["detail"]) > 10
    assert lives(strict, gels)


def test_a_full_queue_says_come_back(strict: Server, gels: Path) -> None:
    image = images_of(gels)[0].read_bytes()
    seen: set[int] = set()
    with ThreadPoolExecutor(8) as clients:
        for _ in range(20):
            answers = list(clients.map(lambda _: strict.send("/predict", [("a.png", image)] * 8, **allowed()), range(8)))
            seen |= {answer.status_code for answer in answers}
            full = [answer for answer in answers if answer.status_code == 429]
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in full)
            if seen >= {200, 429}:
                break
    assert seen == {200, 429}
    assert lives(strict, gels)


def test_bodies_of_all_clients_together_are_bounded(strict: Server, gels: Path) -> None:
    part = multipart(strict, bytes(1_950_000))[:1_900_000]
    others = [strict.connect() for _ in range(5)]
    try:
        for connection in others:
            connection.settimeout(5)
            connection.sendall(part)
        full = b"".join(_rest(connection) for connection in others)
    finally:
        for connection in others:
            connection.close()
    assert b"HTTP/1.1 429" in full
    assert b"too many images are being sent at one time" in full
    assert lives(strict, gels)


def png_that_says(height: int, width: int, rows: bytes = b"") -> bytes:
    """A PNG file whose header speaks of that many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Small files that would be large images."""
    tiff, jpeg, webp = io.BytesIO(), io.BytesIO(), io.BytesIO()
    tifffile.imwrite(tiff, np.zeros((6000, 6000), np.uint8), compression="zlib", rowsperstrip=6000)
    Image.new("L", (1500, 1500)).save(jpeg, "JPEG")
    wide = bytearray(jpeg.getvalue())
    place = wide.index(b"\xff\xc0") + 5
    wide[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    Image.new("L", (4000, 4000)).save(webp, "WEBP")
    return {
        "header.png": png_that_says(60_000, 60_000),
        "zeros.png": png_that_says(9000, 9000, bytes(9000 * 9001)),
        "largest.png": png_that_says(2**31 - 1, 2**31 - 1),
        "zeros.tif": tiff.getvalue(),
        "wide.jpg": bytes(wide),
        "zeros.webp": webp.getvalue(),
    }


def test_decompression_bombs_stay_closed(strict: Server, gels: Path) -> None:
    found = bombs()
    assert all(len(content) < MB // 4 for content in found.values())
    assert lives(strict, gels)
    before = strict.memory()
    for name, content in found.items():
        began = time.perf_counter()
        answer = strict.send("/predict", [(name, content)], **allowed())
        assert answer.status_code == 422, name
        assert "too large" in answer.json()["detail"], (name, answer.json())
        assert time.perf_counter() - began < 5
    assert strict.memory() - before < 30 * MB
    assert lives(strict, gels)


# Too slow ----------------------------------------------------------------------------------------------------------------


def test_slow_clients_are_cut_off_and_keep_nobody_waiting(strict: Server, gels: Path) -> None:
    heads = [strict.connect() for _ in range(10)]
    bodies = [strict.connect() for _ in range(10)]
    try:
        began = time.monotonic()
        for number, connection in enumerate(heads):
            if number:  # the first says nothing at all
                connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        for connection in bodies:
            connection.sendall(multipart(strict, bytes(100_000))[:5000])
        dripping = threading.Event()
        drip = threading.Thread(target=_drip, args=(heads[1:] + bodies, dripping))
        drip.start()
        for _ in range(5):
            asked = time.monotonic()
            assert lives(strict, gels)
            assert time.monotonic() - asked < 5
        for connection in bodies:
            assert b"HTTP/1.1 408" in _rest(connection)
        for connection in heads:
            assert _rest(connection) == b""
        assert time.monotonic() - began < 30
        dripping.set()
        drip.join()
    finally:
        for connection in (*heads, *bodies):
            connection.close()
    assert lives(strict, gels)


def _drip(connections: list, enough: threading.Event) -> None:
    """One byte now and then to each."""
    while not enough.wait(0.3):
        for connection in connections:
            try:
                connection.send(b"x")
            except OSError:
                continue


def _rest(connection) -> bytes:
    """All that comes until the server closes."""
    connection.settimeout(12)
    answer = b""
    try:
        while more := connection.recv(4096):
            answer += more
    except ConnectionError:
        pass
    return answer


def test_too_many_connections_are_told_so(strict: Server, gels: Path) -> None:
    open_ones = [strict.connect() for _ in range(45)]
    try:
        time.sleep(0.2)
        assert strict.get("/health").status_code == 503
    finally:
        for connection in open_ones:
            connection.close()
    time.sleep(0.3)
    assert lives(strict, gels)


def test_a_client_that_goes_away_leaves_nothing_behind(strict: Server, gels: Path) -> None:
    request = multipart(strict, images_of(gels)[0].read_bytes())
    for part in (60, len(request) // 2, len(request)):
        for _ in range(5):
            with strict.connect() as connection:
                connection.sendall(request[:part])
    deadline = time.monotonic() + 10
    while True:
        metrics = strict.get("/metrics", **allowed()).text.splitlines()
        held = [line for line in metrics if line.startswith(("coverslip_queue_images ", "coverslip_upload_bytes "))]
        if held == ["coverslip_queue_images 0.0", "coverslip_upload_bytes 0.0"]:
            break
        assert time.monotonic() < deadline, held
        time.sleep(0.1)
    assert lives(strict, gels)


# The page asks for the token ----------------------------------------------------------------------------------------------


def test_the_page_asks_for_the_token(strict: Server, gels: Path, tmp_path: Path) -> None:
    with chromium() as browser:
        page = browser.new_context(**LOOKS["phone"]).new_page()
        page.goto(strict.address)
        page.locator("#ask-token[open]").wait_for()
        look_at(page, "phone-token", 4, tmp_path)
        page.fill("#token", "not the right one")
        page.keyboard.press("Enter")
        page.locator("#token-message", has_text="not the right one").wait_for()
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.locator("#choose-files:enabled").wait_for()
        page.set_input_files("#files", images_of(gels)[:20])  # more than a request or the queue may hold
        page.locator(".card .label").nth(19).wait_for()
        large = tmp_path / "large.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (1100, 1100, 3), np.uint8)).save(large)
        page.set_input_files("#files", large)
        page.locator(".card .error", has_text="larger than the 2 MB").wait_for()


# Start and end ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could answer")
def test_killed_under_load_and_started_again(gel_run: Path, gels: Path) -> None:
    files = images_of(gels)[:6]
    stop = threading.Event()
    answered: list[int] = []

    def load(server: Server) -> None:
        while not stop.is_set():
            try:
                answered.append(server.send("/predict", files).status_code)
            except requests.RequestException:
                return

    with coverslip_server(gel_run, ready=False) as first:
        early = first.get("/health")
        assert (early.status_code, early.json()["status"]) == (503, "starting")
        refused = first.send("/predict", files)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        first.wait_until_ready()
        said = first.send("/predict", files).json()["predictions"]
        clients = [threading.Thread(target=load, args=(first,)) for _ in range(4)]
        for client in clients:
            client.start()
        while len(answered) < 20:
            time.sleep(0.01)
        first.process.kill()
        first.process.wait()
        stop.set()
        for client in clients:
            client.join()
    assert set(answered) == {200}
    with coverslip_server(gel_run, port=first.port) as second:
        assert second.send("/predict", files).json()["predictions"] == said
        _stop_in_the_middle_of_a_request(second, files[0])


def _stop_in_the_middle_of_a_request(server: Server, file: Path) -> None:
    """What was accepted before the signal is answered, and then the process ends well."""
    request = multipart(server, file.read_bytes())
    with server.connect() as connection, server.connect() as idle:
        connection.sendall(request[:500])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while _takes_connections(server):
            assert time.monotonic() < deadline
        connection.sendall(request[500:])
        answer = _rest(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"probabilities":{"gel":' in answer
        assert _rest(idle) == b""
    assert server.process.wait(timeout=20) == 0


def _takes_connections(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose signals are its own, too."""
    command = [sys.executable, "-m", "coverslip", "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could answer")
def test_a_signal_while_the_models_are_opened_ends_the_server_at_once(gel_run: Path) -> None:
    with coverslip_server(*(f"m{number}={gel_run}" for number in range(40)), ready=False) as server:
        assert server.get("/health").json()["status"] == "starting"
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert server.process.wait(timeout=20) == 0
        assert time.monotonic() - began < 5


def test_a_damaged_bundle_ends_the_server(gel_run: Path, tmp_path: Path) -> None:
    shutil.copytree(gel_run / "bundle", tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"....")
    done = start(tmp_path / "damaged", "--port", "0")
    assert done.returncode == 2
    assert "its SHA-256 differs" in done.stderr


def test_an_address_that_is_taken(gel_run: Path, server: Server) -> None:
    done = start(gel_run, "--port", server.port)
    assert done.returncode == 2
    assert f"cannot listen at 127.0.0.1:{server.port}" in done.stderr


# The document ---------------------------------------------------------------------------------------------------------------


def test_the_server_keeps_to_its_openapi_document(strict: Server, tmp_path: Path) -> None:
    """Schemathesis; that a file which is no image is refused cannot be said in a schema, so that this check is left out."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{strict.address}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}",
        "--max-examples", "10", "--seed", "1", "--exclude-checks", "positive_data_acceptance", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert "6 selected" in done.stdout
