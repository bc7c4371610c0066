"""Damaged image files by the thousand: none may be more than the server can take."""

from __future__ import annotations

import http.client
import io
import json
import os
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from servers import Server

from .conftest import images_of

COUNT = int(os.environ.get("COVERSLIP_MUTATIONS", "2000"))
"""How many files are sent."""
WARM = 500
"""After how many files the memory of the server must no longer grow."""
GROWTH = 40_000_000


def whole_files(gels: Path) -> list[tuple[str, bytes]]:
    """One small image in every format and some of their variants."""
    with Image.open(images_of(gels)[0]) as image:
        grey = image.convert("L").resize((96, 64))
    colour, deep = grey.convert("RGB"), np.asarray(grey).astype(np.uint16) * 257
    found = []
    for name, picture, options in (
        ("a.png", grey, {}), ("a.png", colour, {}), ("a.png", colour.convert("RGBA"), {}), ("a.png", colour.convert("P"), {}),
        ("a.jpg", grey, {}), ("a.jpg", colour, {"progressive": True}), ("a.jpg", colour.convert("CMYK"), {}), ("a.bmp", colour, {}),
        ("a.webp", colour, {}), ("a.webp", colour, {"lossless": True}), ("a.tif", grey, {"compression": "tiff_lzw"}),
        ("a.tif", colour, {"compression": "jpeg"}), ("a.tif", colour.convert("CMYK"), {}),
    ):  # fmt: skip
        stream = io.BytesIO()
        picture.save(stream, {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "webp": "WEBP", "tif": "TIFF"}[name[2:]], **options)
        found.append((name, stream.getvalue()))
    packed = [{"compression": kind} for kind in ("zlib", "lzma")]
    for options in (*packed, {"bigtiff": True}, {"imagej": True}, {"ome": True}, {"tile": (32, 32)}):
        stream = io.BytesIO()
        tifffile.imwrite(stream, deep, **options)
        found.append(("a.tif", stream.getvalue()))
    return found


def cut(data: bytearray, random: np.random.Generator) -> bytes:
    return bytes(data[: random.integers(0, len(data))])


def flip_bits(data: bytearray, random: np.random.Generator) -> bytes:
    for _ in range(random.integers(1, 40)):
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
    return bytes(data)


def flip_head(data: bytearray, random: np.random.Generator) -> bytes:
    for _ in range(random.integers(1, 6)):
        data[random.integers(min(len(data), 64))] = int(random.integers(256))
    return bytes(data)


def huge_numbers(data: bytearray, random: np.random.Generator) -> bytes:
    """Sizes, counts and offsets that lead astray."""
    number = int(random.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(max(1, min(len(data), 400) - 4)))
        data[place : place + 4] = struct.pack(str(random.choice(["<I", ">I"])), number)
    return bytes(data)


def move_pieces(data: bytearray, random: np.random.Generator) -> bytes:
    a, b = sorted(random.integers(0, len(data), 2).tolist())
    return bytes({0: data[:a] + data[b:], 1: data[:b] + data[a:], 2: data[a:] + data[:a]}[int(random.integers(3))])


def noise_inside(data: bytearray, random: np.random.Generator) -> bytes:
    place, length = int(random.integers(len(data))), int(random.integers(1, 200))
    return bytes(data[:place]) + random.bytes(length) + bytes(data[place:])


def only_noise(data: bytearray, random: np.random.Generator) -> bytes:
    return bytes(data[: random.integers(0, 12)]) + random.bytes(int(random.integers(0, 2000)))


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], bytes], ...] = (
    cut, flip_bits, flip_head, huge_numbers, move_pieces, noise_inside, only_noise,
)  # fmt: skip
NAMES = ("a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.czi", "a.nd2", "a.lif", "a", "a.exe")


def mutated(number: int, whole: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    random = np.random.default_rng(number)
    name, data = whole[number % len(whole)]
    wrong_name = random.random() < 0.2
    return str(random.choice(NAMES)) if wrong_name else name, MUTATIONS[random.integers(len(MUTATIONS))](bytearray(data), random)


class Client:
    """One connection that stays open, and sends without a detour."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def send(self, name: str, data: bytes) -> tuple[int, bytes]:
        head = f'--x--x\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode()
        kind = {"Content-Type": "multipart/form-data; boundary=x--x"}
        self._connection.request("POST", "/predict?model=gel&thumbnails=true", head + data + b"\r\n--x--x--\r\n", kind)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()


def test_damaged_files_get_an_answer_and_the_server_lives(server: Server, gels: Path) -> None:
    whole = whole_files(gels)
    assert len(whole) == 19
    for name, data in whole:
        assert server.send("/predict?model=gel", [(name, data)]).status_code == 200, name
    clients = [Client(server), Client(server)]
    answers: Counter[int] = Counter()
    wrong: list[tuple[int, int, bytes]] = []
    memory = 0

    def send(numbers: range) -> None:
        client = clients[numbers.start % 2]
        for number in numbers:
            status, body = client.send(*mutated(number, whole))
            answers[status] += 1
            if status not in (200, 422) or (status == 422 and not json.loads(body)["problems"][0]["reason"]):
                wrong.append((number, status, body))

    with ThreadPoolExecutor(2) as threads:
        for start in range(0, COUNT, WARM):
            list(threads.map(send, (range(start + first, min(start + WARM, COUNT), 2) for first in (0, 1))))
            memory = memory or server.memory()
    for client in clients:
        client.close()
    assert wrong == []
    assert sum(answers.values()) == COUNT
    assert answers[422] > COUNT // 2
    assert answers[200] > COUNT // 20
    assert server.memory() - memory < GROWTH
    assert server.get("/health").status_code == 200
    assert server.send("/predict?model=gel", images_of(gels)[:3]).status_code == 200
