"""Any path or URL: reading, writing, listing, faults and what is said of them, against real servers on loopback."""

from __future__ import annotations

import base64
import hmac
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coverslip.errors import ConfigError, InputError, MissingInputError, ResourceError, UnreachableError
from coverslip.storage import (
    CHUNK,
    ENDPOINT,
    PATIENCE,
    TIMEOUT,
    URL,
    delete,
    download,
    exists,
    listing,
    output,
    output_file,
    place,
    read,
    stat,
    stats,
    upload,
    upload_folder,
)
from object_server import Fault, object_server
from servers import azurite_server, gcs_server, moto_server, silent_server


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=["s3", "az", "gs"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A URL of an empty folder in each kind of store, and the endpoint of its server.

    Google's emulator does not take what obstore sends to write; our own server does, for the protocol is close to that of S3.
    """
    with ExitStack() as stack:
        if request.param == "s3":
            yield "s3://bucket/folder", stack.enter_context(moto_server())
        elif request.param == "gs":
            yield "gs://bucket/folder", stack.enter_context(object_server(tmp_path_factory.mktemp("gs")))[0]
        else:
            endpoint = stack.enter_context(azurite_server())
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1")
            # the published key of the emulator, which every installation has
            key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
            patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
            make_container(endpoint, key)
            yield "az://bucket/folder", endpoint


def make_container(endpoint: str, key: str) -> None:
    """Azurite begins empty; a container is made by a request signed with the account's key."""
    now = formatdate(usegmt=True)
    said = f"x-ms-date:{now}\nx-ms-version:2021-08-06\n/devstoreaccount1/devstoreaccount1/bucket\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(key), f"PUT{chr(10) * 12}{said}".encode(), "sha256")).decode()
    headers = {"x-ms-date": now, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey devstoreaccount1:{signature}"}
    request = urllib.request.Request(f"{endpoint}/bucket?restype=container", method="PUT", headers=headers)
    urllib.request.urlopen(request, timeout=10).close()


def test_what_is_written_is_read_back_listed_and_looked_at(store: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where, endpoint = store
    monkeypatch.setenv(ENDPOINT, endpoint)
    folder = place(where)
    assert isinstance(folder, URL)
    large = os.urandom(CHUNK + 12345)
    (tmp_path / "out" / "below").mkdir(parents=True)
    (tmp_path / "out" / "large.bin").write_bytes(large)
    (tmp_path / "out" / "below" / "ein name.txt").write_bytes(b"hello")
    assert not exists(folder)
    assert upload_folder(tmp_path / "out", folder, last=["large.bin"]) == ["below/ein name.txt", "large.bin"]
    assert read(folder / "large.bin") == large
    assert read(folder / "large.bin", 100, 50) == large[100:150]
    assert download(folder / "large.bin", tmp_path / "copy") == len(large)
    assert (tmp_path / "copy").read_bytes() == large
    found = listing(folder)
    assert {name: known.size for name, known in found.items()} == {"below/ein name.txt": 5, "large.bin": len(large)}
    assert stat(folder / "large.bin") == found["large.bin"]
    assert stat(folder / "nothing") is None
    assert exists(folder)
    (tmp_path / "out" / "large.bin").write_bytes(b"other")
    upload(tmp_path / "out" / "large.bin", folder / "large.bin")
    assert stat(folder / "large.bin") != found["large.bin"]
    with pytest.raises(MissingInputError, match=r"there is nothing at .*folder/nothing"):
        read(folder / "nothing")


def test_outputs_go_to_each_kind_of_store_and_on(store: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    where, endpoint = store
    monkeypatch.setenv(ENDPOINT, endpoint)
    run = f"{where}-run"
    with output(run, resumable=True, last=["end.json"]) as folder:
        (folder / "below").mkdir(parents=True)
        (folder / "below" / "a.txt").write_text("a")
        (folder / "b.txt").write_text("b")
    with output(run, resume=True, resumable=True) as folder:
        assert {path.name: path.read_text() for path in folder.rglob("*.txt")} == {"a.txt": "a", "b.txt": "b"}
        (folder / "b.txt").unlink()
        (folder / "end.json").write_text("{}")
    assert set(listing(URL(run))) == {"below/a.txt", "end.json"}
    with output_file(f"{run}/table.csv") as file:
        file.write_text("c")
    assert read(URL(f"{run}/table.csv")) == b"c"


def test_googles_emulator_is_read_listed_and_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with gcs_server() as address:
        monkeypatch.setenv(ENDPOINT, address)
        target = f"{address}/upload/storage/v1/b/bucket/o?uploadType=media&name=folder/x.txt"
        urllib.request.urlopen(urllib.request.Request(target, data=b"hello", headers={"Content-Type": "text/plain"}), timeout=10).close()
        folder = URL("gs://bucket/folder")
        assert read(folder / "x.txt") == b"hello"
        assert read(folder / "x.txt", 1, 3) == b"ell"
        assert {name: known.size for name, known in listing(folder).items()} == {"x.txt": 5}
        assert stat(folder / "x.txt") == listing(folder)["x.txt"]
        assert stat(folder / "y.txt") is None


def test_many_files_of_a_folder_are_asked_for_in_one_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bucket" / "images"
    folder.mkdir(parents=True)
    for number in range(1500):
        (folder / f"{number}.png").write_bytes(bytes(number % 7))
    with object_server(tmp_path) as (address, server):
        monkeypatch.setenv(ENDPOINT, address)
        urls = [URL(f"s3://bucket/images/{number}.png") for number in range(1490, 1510)]
        found = stats(urls)
        assert [known is not None for known in found.values()] == [True] * 10 + [False] * 10
        assert len(server.requests) == 2  # pages of 1,000


FAULTS: tuple[Fault, ...] = ("close", "cut", "500", "503", "429", "slow", "hang")
NO_BODY = ("looked at", "written")
"""What is answered without a body, so that `cut` and `slow` do not touch it."""


def operations(folder: Path, address: str) -> dict[str, tuple[str, Callable[[], bool]]]:
    """Everything that a store is asked for: words of its error → the URL, and whether it does what it should."""
    large, small = os.urandom(CHUNK + 12345), os.urandom(5000)
    (folder / "bucket" / "below").mkdir(parents=True)
    for name, data in {"a.bin": small, "b.bin": small, "large.bin": large, "d.bin": small, "below/e.bin": small}.items():
        (folder / "bucket" / name).write_bytes(data)
    (folder / "large").write_bytes(large)
    (folder / "small").write_bytes(small)

    def after(doing: object, name: str, data: bytes | None) -> bool:
        file = folder / "bucket" / name
        return file.read_bytes() == data if data is not None else not file.exists()

    one, web, far, sent, wide, gone, below = (
        URL(text)
        for text in (
            "s3://bucket/a.bin", f"{address}/bucket/b.bin", "s3://bucket/large.bin", "s3://bucket/f.bin", "s3://bucket/g.bin",
            "s3://bucket/d.bin", "s3://bucket/below",
        )
    )  # fmt: skip
    return {
        "read": (str(one), lambda: read(one) == small),
        "read (web)": (str(web), lambda: read(web) == small),
        "read (large)": (str(far), lambda: download(far, folder / "copy") == len(large) and (folder / "copy").read_bytes() == large),
        "looked at": (str(below / "e.bin"), lambda: stat(below / "e.bin") is not None),
        "listed": (str(below), lambda: list(listing(below)) == ["e.bin"]),
        "written": (str(sent), lambda: after(upload(folder / "small", sent), "f.bin", small)),
        "written (large)": (str(wide), lambda: after(upload(folder / "large", wide), "g.bin", large)),
        "removed": (str(gone), lambda: after(delete(gone), "d.bin", None)),
    }


@pytest.mark.parametrize("faults", [*((fault, fault) for fault in FAULTS), ("500", "cut"), ("close", "slow")], ids="-".join)
def test_what_goes_wrong_for_a_moment_is_tried_again(faults: tuple[Fault, Fault], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "1.5")
    with (
        object_server(tmp_path, lambda method, path, before: faults[before] if before < 2 else "") as (address, server),
        ThreadPoolExecutor(8) as pool,
    ):
        monkeypatch.setenv(ENDPOINT, address)
        asked = operations(tmp_path, address)
        done = {name: pool.submit(act) for name, (_, act) in asked.items()}
        assert {name: one.result() for name, one in done.items()} == dict.fromkeys(asked, True)
        assert len(done) == 8
        assert len(server.requests) >= 3 * 6


@pytest.mark.parametrize("fault", FAULTS)
def test_what_stays_wrong_is_an_error_with_the_url_in_bounded_time(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "0.3")
    monkeypatch.setenv(PATIENCE, "1")

    def seconds(act: Callable[[], bool], url: str, doing: str) -> float:
        began = time.monotonic()
        with pytest.raises(
            UnreachableError, match=rf"^{re.escape(url)} cannot be {doing}: .*it was tried up to 9 times in up to 1 s \({PATIENCE}\)$"
        ):
            act()
        return time.monotonic() - began

    with object_server(tmp_path, lambda method, path, before: fault) as (address, _), ThreadPoolExecutor(8) as pool:
        monkeypatch.setenv(ENDPOINT, address)
        asked = operations(tmp_path, address)
        met = {name: one for name, one in asked.items() if name not in NO_BODY or fault not in ("cut", "slow")}
        took = [pool.submit(seconds, act, url, name.partition(" (")[0]) for name, (url, act) in met.items()]
        assert max(one.result() for one in took) < 8
        assert len(took) == len(asked) - (len(NO_BODY) if fault in ("cut", "slow") else 0)


def test_buckets_of_one_name_on_two_servers_are_not_confused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [URL(f"s3://bucket/images/{number}.bin") for number in range(30)]
    sizes = []
    for server, size in (("one", 10), ("other", 20)):
        folder = tmp_path / server / "bucket" / "images"
        folder.mkdir(parents=True)
        for url in urls:
            (folder / url.name).write_bytes(bytes(size))
        with object_server(tmp_path / server) as (address, _):
            monkeypatch.setenv(ENDPOINT, address)
            sizes.append({found.size for found in stats(urls).values() if found is not None})
    assert sizes == [{10}, {20}]


def test_signed_urls_and_marks_in_names_of_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    names = ("ein bild.png", "50%41.png", "was?.png", "dünn.png")
    for name in names:
        (tmp_path / "a" / name).write_bytes(name.encode())
    with object_server(tmp_path) as (address, server):
        table = place(f"{address}/a/table.csv?Signature=ab%2Fc")
        assert isinstance(table, URL)
        assert (table.name, table.suffix, str(table.parent)) == ("table.csv", ".csv", f"{address}/a?Signature=ab%2Fc")
        for name in names:  # as a table beside them says them
            assert read(table.parent / name) == name.encode()
        assert read(URL(f"{address}/a/ein%20bild.png")) == b"ein bild.png"  # as a browser says it
        assert server.queries[-2:] == ["Signature=ab%2Fc", ""]
        with pytest.raises(MissingInputError) as found:
            read(table)
        assert str(found.value) == f"there is nothing at {address}/a/table.csv?..."


def test_a_server_that_never_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "0.3")
    monkeypatch.setenv(PATIENCE, "0.5")
    with silent_server() as port, pytest.raises(UnreachableError, match=f"http://127.0.0.1:{port}/x.csv"):
        stat(URL(f"http://127.0.0.1:{port}/x.csv"))


def test_refused_access_says_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_server(tmp_path, lambda method, path, before: "403") as (address, server):
        monkeypatch.setenv(ENDPOINT, address)
        with pytest.raises(InputError, match=r"s3://bucket/a.*access was refused.*credentials"):
            read(URL("s3://bucket/a"))
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("url", "environment", "said"),
    [
        ("s3://bucket/a", {}, "AWS_PROFILE, or AWS_SKIP_SIGNATURE=true"),
        ("az://bucket/a", {}, "Account must be specified; set AZURE_STORAGE_ACCOUNT_NAME"),
        ("gs://bucket/a", {"GOOGLE_APPLICATION_CREDENTIALS": "/nothing.json"}, r"/nothing\.json.*set GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_what_keys_each_store_needs_is_said(
    url: str, environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_", ENDPOINT))]:
        monkeypatch.delenv(name)
    for name, value in {**environment, "HOME": str(tmp_path), TIMEOUT: "0.5", PATIENCE: "0.5"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=rf"{url} cannot be .*{said}"):
        read(URL(url))


def test_an_endpoint_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "localhost:9000")
    with pytest.raises(ConfigError, match=r"the endpoint 'localhost:9000' of the store is no address; expected http://HOST:PORT"):
        read(URL("s3://bucket/a"))


def test_keys_of_a_profile_are_found_where_the_environment_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a").write_bytes(b"a")
    with object_server(tmp_path) as (address, _):
        config, secrets = tmp_path / "config", tmp_path / "secrets"
        config.write_text(f"[profile lab]\nregion = eu-west-1\nendpoint_url = {address}\n")
        secrets.write_text("[lab]\naws_access_key_id = one\naws_secret_access_key = two\n")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", ENDPOINT):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_PROFILE", "lab")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(secrets))
        assert read(URL("s3://bucket/a")) == b"a"


def test_paths_and_urls_are_told_apart(tmp_path: Path) -> None:
    assert place(tmp_path.as_uri()) == tmp_path
    assert place("s3://bucket/a/") == URL("s3://bucket/a")
    assert str(URL("s3://bucket/a/b.csv").parent / "../c/d.png") == "s3://bucket/c/d.png"
    assert URL("s3://bucket/a") / "s3://other/x.png" == URL("s3://other/x.png")
    with pytest.raises(InputError, match=r"gcs:// is not read\. Did you mean 'gs'\?"):
        place("gcs://bucket/x")
    with pytest.raises(InputError, match="names no bucket"):
        place("s3:///x")


def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "soon")
    with pytest.raises(ConfigError, match="COVERSLIP_STORAGE_TIMEOUT=soon: expected a number of seconds"):
        read(URL("http://127.0.0.1:1/x"))


def test_output_for_a_url_is_sent_whole_and_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "0.3")
    monkeypatch.setenv(PATIENCE, "0.5")
    broken = [True]
    (tmp_path / "store").mkdir()

    def plan(method: str, path: str, before: int) -> Fault:
        return "500" if method == "PUT" and path.endswith("end.json") and broken[0] else ""

    with object_server(tmp_path / "store", plan) as (address, server):
        monkeypatch.setenv(ENDPOINT, address)

        def make() -> None:
            with output("s3://bucket/run", last=["end.json"], resumable=True) as folder:
                folder.mkdir()
                (folder / "z.txt").write_text("z")
                (folder / "end.json").write_text("{}")

        with pytest.raises(UnreachableError, match="What was made lies in"):
            make()
        assert sorted(path.name for path in (tmp_path / "store/bucket/run").iterdir()) == [".working.json", "z.txt"]
        broken[0] = False
        with output("s3://bucket/run", resume=True, last=["end.json"]) as folder:
            assert (folder / "end.json").exists()
        assert [path for method, path in server.requests if method == "PUT"][-1] == "bucket/run/end.json"
        with output("s3://bucket/run", resume=True) as folder:
            assert sorted(path.name for path in folder.iterdir()) == ["end.json", "z.txt"]  # from the store: the local copy is gone
        with pytest.raises(ResourceError, match="there is something at s3://bucket/run already"), output("s3://bucket/run"):
            pass
    with pytest.raises(InputError, match="web servers are read, not written"), output("https://host/run"):
        pass


class WithoutParts(SimpleHTTPRequestHandler):
    """A web server that knows no ranges, as that of Python itself."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def plain_web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of such a server, and the folder that it gives."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(WithoutParts, directory=tmp_path)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever)
        try:
            yield f"http://127.0.0.1:{server.server_port}", tmp_path
        finally:
            server.shutdown()


@pytest.mark.parametrize("size", [0, 5, 2 * CHUNK + 7])
def test_a_web_server_without_ranges_gives_whole_files(plain_web: tuple[str, Path], size: int, tmp_path: Path) -> None:
    address, folder = plain_web
    content = bytes(range(251)) * (size // 251 + 1)
    (folder / "file.bin").write_bytes(content[:size])
    url = URL(f"{address}/file.bin")
    assert read(url) == content[:size]
    assert read(url, 3) == content[3:size]
    assert download(url, tmp_path / "copy.bin") == size
    assert (tmp_path / "copy.bin").read_bytes() == content[:size]


def test_a_part_of_a_file_of_such_a_server_is_an_error_that_was_not_tried_again(plain_web: tuple[str, Path]) -> None:
    address, folder = plain_web
    (folder / "file.bin").write_bytes(bytes(100))
    with pytest.raises(UnreachableError, match=r"Range request not supported[^;]*$"):
        read(URL(f"{address}/file.bin"), 10, 20)


def test_a_bucket_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with moto_server() as address:
        monkeypatch.setenv(ENDPOINT, address)
        for act in (
            lambda: listing(URL("s3://nobucket/x")),
            lambda: read(URL("s3://nobucket/x")),
            lambda: upload(tmp_path / "file", URL("s3://nobucket/x")),
        ):
            with pytest.raises(InputError, match=r"^s3://nobucket/x.* cannot be .*: the store has no bucket 'nobucket'; check its name"):
                act()


def test_a_dead_store_is_seen_before_there_is_anything_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "0.3")
    monkeypatch.setenv(PATIENCE, "1")
    with silent_server() as port:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
        with pytest.raises(UnreachableError, match=r"s3://bucket/scores\.csv cannot be"), output_file("s3://bucket/scores.csv"):
            pytest.fail("work was done for a store that does not answer")
