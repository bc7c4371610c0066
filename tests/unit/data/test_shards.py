"""Shards: what is written is what is read, from a folder and from a store, and what is damaged is named."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coverslip.config import DataConfig, SplitConfig
from coverslip.data.inputs import list_samples
from coverslip.data.scan import hash_files
from coverslip.data.sharding import plan_shards, write_shards
from coverslip.data.shards import WHOLE_FROM, Piece, Shards
from coverslip.data.sources import load_table
from coverslip.errors import MissingInputError, ResourceError, ShardError, UnreachableError
from coverslip.start import data_layer
from coverslip.storage import ENDPOINT, PATIENCE, TIMEOUT, URL
from coverslip.structures import Channel, Table, Task
from object_server import Fault, object_server

IMAGES = 60


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    names = tuple(f"klasse {number % 3}/{number}.x.png" for number in range(IMAGES))
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 24), dtype=np.uint8)).save(root / name)
    parts = np.array([("train", "validation", "test")[number % 7 % 3] for number in range(IMAGES)])
    classes = ("klasse 0", "klasse 1", "klasse 2")
    groups = np.array([f"g{number // 2}" for number in range(IMAGES)])
    return Table(root, names, classes, np.arange(IMAGES) % 3, Task.MULTICLASS, groups=groups, preset=parts)


def contents(table: Table) -> dict[str, tuple[str, str, str, list[bytes]]]:
    parts = ["" for _ in table.images] if table.preset is None else table.preset.tolist()
    groups = ["" for _ in table.images] if table.groups is None else table.groups.tolist()
    facts = zip(table.images, range(len(table)), parts, groups, table.samples, strict=True)
    return {name: (table.label_text(row), part, group, [file.read_bytes() for file in files]) for name, row, part, group, files in facts}


def read_table(where: object, **split: str) -> Table:
    return load_table(DataConfig(path=str(where)), SplitConfig(**split))


def test_shards_hold_what_was_written_and_any_tar_program_reads_them(table: Table, tmp_path: Path) -> None:
    plan = plan_shards(table, (), tmp_path / "shards", size=6000)
    assert write_shards(plan, workers=2) == len(plan.shards) >= 4
    again = read_table(tmp_path / "shards", group="patient")
    assert contents(again) == contents(table)
    assert again.images != table.images  # mixed
    assert hash_files(again) == [hash_files(table)[table.images.index(name)] for name in again.images]
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [
        "index.json", "rows.parquet", *(f"shard-{number:05d}.tar" for number in range(len(plan.shards))),
    ]  # fmt: skip
    counted: Counter[str] = Counter()
    for path in (tmp_path / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                counted[ending] += 1
                stream = tar.extractfile(member)
                assert stream is not None
                if ending == "png":
                    assert stream.read() == (Path(str(table.root)) / table.images[int(key)]).read_bytes()
    assert counted == {"png": IMAGES, "cls": IMAGES, "json": IMAGES}


def test_the_same_data_give_the_same_bytes_and_the_order_may_be_kept(table: Table, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shards(plan_shards(table, (), tmp_path / name, size=6000, seed=3), workers=2)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    write_shards(plan_shards(table, (), tmp_path / "c", size=6000, seed=None))
    assert read_table(tmp_path / "c").images == table.images


def test_tar_files_without_an_index_are_read_as_webdataset(table: Table, tmp_path: Path) -> None:
    write_shards(plan_shards(table, (), tmp_path / "shards", size=6000))
    (tmp_path / "shards" / "index.json").unlink()
    (tmp_path / "shards" / "rows.parquet").unlink()
    assert contents(read_table(tmp_path / "shards", group="group")) == contents(table)
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        for number in range(6):
            for ending, data in (("jpg", (Path(str(table.root)) / table.images[number]).read_bytes()), ("cls", b"%d" % (number % 2))):
                (tmp_path / "member").write_bytes(data)
                tar.add(tmp_path / "member", f"folder/{number:03d}.{ending}")
    other = read_table(tmp_path / "other.tar")
    assert (other.classes, other.images[1], other.labels.tolist()) == (("0", "1"), "folder/001.jpg", [0, 1] * 3)
    data = (tmp_path / "other.tar").read_bytes()
    (tmp_path / "other.tar").write_bytes(data[:1200])
    with pytest.raises(ShardError, match=r"other\.tar"):
        read_table(tmp_path / "other.tar")


def test_tar_files_are_named_in_braces_here_and_at_a_url(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_shards(table, (), tmp_path / "store" / "bucket", size=6000)
    write_shards(plan)
    last = len(plan.shards) - 1
    assert last >= 2
    names = f"shard-{{00000..{last:05d}}}.tar"
    with object_server(tmp_path / "store") as (address, _):
        monkeypatch.setenv(ENDPOINT, address)
        for place in (str(tmp_path / "store" / "bucket"), "s3://bucket", f"{address}/bucket"):
            assert contents(read_table(f"{place}/{names}", group="group")) == contents(table)
            assert data_layer(f"{place}/{names}") == {"data": {"path": f"{place}/{names}"}}
            some = read_table(f"{place}/shard-{{00000,00002}}.tar", group="group")
            assert 0 < len(some) < len(table)
            assert len(list_samples([f"{place}/shard-{{00000,00002}}.tar"], DataConfig())[0]) == len(some)
            with pytest.raises(MissingInputError, match=rf"there is nothing at .*bucket/shard-{last + 1:05d}\.tar, file {last + 2} of"):
                read_table(f"{place}/shard-{{00000..{last + 1:05d}}}.tar")


def test_several_files_and_labels_a_sample(tmp_path: Path) -> None:
    random, files = np.random.default_rng(0), []
    for number in range(8):
        files.append((f"{number}_r.png", f"{number}_g.png"))
        for name in files[-1]:
            Image.fromarray(random.integers(0, 255, (9, 9), dtype=np.uint8)).save(tmp_path / name)
    targets = random.integers(0, 2, (8, 3))
    targets[0] = 0
    names = tuple(f"sample {number}" for number in range(8))
    table = Table(tmp_path, names, ("a", "b", "c"), targets, Task.MULTILABEL, files=tuple(files))
    write_shards(plan_shards(table, (Channel("red", "r"), Channel("green", "g")), tmp_path / "shards", size=1000))
    config = DataConfig(path=str(tmp_path / "shards"), allow_empty=True)
    again = load_table(config, SplitConfig())
    assert (again.task, contents(again)) == (Task.MULTILABEL, contents(table))
    assert isinstance(again.root, Shards)
    assert again.root.channels == (Channel("red", "r"), Channel("green", "g"))


def test_a_damaged_shard_is_named(table: Table, tmp_path: Path) -> None:
    write_shards(plan_shards(table, (), tmp_path / "shards", size=6000))
    shard = tmp_path / "shards" / "shard-00001.tar"
    data = shard.read_bytes()

    def read_all() -> None:
        contents(read_table(tmp_path / "shards"))

    for left in (len(data) // 2, len(data) - 100):  # the last bytes of a tar file are empty
        shard.write_bytes(data[:left])
        with pytest.raises(ShardError, match=r"shard-00001\.tar is truncated"):
            read_all()
    shard.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
    with pytest.raises(ShardError, match=r"shard-00001\.tar was changed"):
        read_all()
    shard.unlink()
    with pytest.raises(ShardError, match=r"shard-00001\.tar is missing"):
        read_all()
    shard.write_bytes(data)
    read_all()
    rows = tmp_path / "shards" / "rows.parquet"
    rows.write_bytes(rows.read_bytes() + b"x")
    with pytest.raises(ShardError, match=r"rows\.parquet is not the one that belongs"):
        read_all()
    index = tmp_path / "shards" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"format": 99}))
    with pytest.raises(ShardError, match="format 99"):
        read_all()


def test_writing_goes_on_where_it_was_stopped(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_shards(table, (), tmp_path / "whole", size=6000)
    write_shards(plan)
    stopping = replace(plan, destination=tmp_path / "shards")

    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        write_shards(stopping, workers=1, progress=stop)
    left = sum(path.suffix == ".tar" for path in (tmp_path / "shards").iterdir())
    assert 2 <= left < len(plan.shards)
    with pytest.raises(ResourceError, match="shards of other data"):
        write_shards(plan_shards(table, (), tmp_path / "shards", size=6000, seed=1))
    assert write_shards(stopping) == len(plan.shards) - left
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "shards" / path.name).read_bytes()
    shutil.rmtree(tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "notes.txt").write_text("mine")
    with pytest.raises(ResourceError, match="something else than shards"):
        write_shards(plan)


def test_shards_in_a_store_are_copied_whole_once_several_pieces_are_asked_for(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    with object_server(tmp_path / "store") as (address, server):
        monkeypatch.setenv(ENDPOINT, address)
        plan = plan_shards(table, (), URL("s3://bucket/shards"), size=6000)
        write_shards(plan)
        far = read_table("s3://bucket/shards", group="group")
        server.requests.clear()
        assert contents(far) == contents(table)
        asked = Counter(path for method, path in server.requests if method == "GET" and path.endswith(".tar"))
        assert all(1 < count <= WHOLE_FROM for count in asked.values())
        assert len(asked) == len(plan.shards)
        shutil.rmtree(tmp_path / "cache")
        tight = read_table("s3://bucket/shards", group="group")
        assert isinstance(tight.root, Shards)
        tight.root.shelf.limit = 20_000  # which not all fit into
        for _ in range(2):
            assert contents(tight) == contents(table)
        kept = sum(path.stat().st_size for path in (tmp_path / "cache" / "shards").rglob("*") if path.is_file())
        assert kept <= 20_000


@pytest.mark.parametrize(("damage", "reason"), [("cut", "bytes, where"), ("flip", "SHA-256 differs"), ("gone", "is missing")])
def test_a_damaged_shard_in_a_store_is_named(
    damage: str, reason: str, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    with object_server(tmp_path / "store") as (address, _):
        monkeypatch.setenv(ENDPOINT, address)
        write_shards(plan_shards(table, (), URL("s3://bucket/shards"), size=6000))
        shard = tmp_path / "store" / "bucket" / "shards" / "shard-00002.tar"
        data = shard.read_bytes()
        far = read_table("s3://bucket/shards")
        if damage == "gone":
            shard.unlink()
        else:
            shard.write_bytes(data[:-600] if damage == "cut" else data[:-700] + bytes([data[-700] ^ 1]) + data[-699:])
        with pytest.raises(ShardError, match=rf"s3://bucket/shards/shard-00002\.tar.*{reason}"):
            contents(far)


def test_what_does_not_read_back_is_an_error(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "0.3")
    monkeypatch.setenv(PATIENCE, "0.5")

    def plan(method: str, path: str, before: int) -> Fault:
        return "503" if method == "GET" and path.endswith("shard-00001.tar") else ""

    (tmp_path / "store").mkdir()
    with object_server(tmp_path / "store", plan) as (address, _):
        monkeypatch.setenv(ENDPOINT, address)
        with pytest.raises(UnreachableError, match=r"s3://bucket/shards/shard-00001\.tar"):
            write_shards(plan_shards(table, (), URL("s3://bucket/shards"), size=6000))
        with pytest.raises(ShardError, match="s3://bucket/shards are not finished"):
            read_table("s3://bucket/shards")


def test_a_piece_says_where_it_lies(table: Table, tmp_path: Path) -> None:
    write_shards(plan_shards(table, (), tmp_path / "shards"))
    piece = read_table(tmp_path / "shards").samples[0][0]
    assert isinstance(piece, Piece)
    assert str(piece) == f"{piece.name} in {tmp_path / 'shards' / 'shard-00000.tar'}"
    assert piece.suffix == ".png"
    assert pickle.loads(pickle.dumps(piece)).read_bytes() == piece.read_bytes()  # as it travels to processes that measure
