"""The server against `predict` on the same images and machine: images a second, latency, memory.

mobilenetv2_100 at 224x224 (weights from COVERSLIP_WEIGHTS) on simulated gel photographs, or on `--data`; a model is trained for it,
or given by `--bundle`. Rates: `predict` on files, then one image a request from many clients at once, then `predict` again, so that
a drift of the machine's speed is seen. The clients are a process of their own on the cores that the server has, too.

    python benchmarks/serving_http.py --requests 10000

The server's memory is read ten times during the requests: what it grew by in all, and in the second half of them, when nothing is
new to it any more.

Adds a row to benchmarks/results/serving-http-<machine>.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coverslip.runtime import WAITING

os.environ.update(WAITING | dict(os.environ))

import numpy as np
import pandas as pd
import psutil

RESULTS = Path(__file__).parent / "results"
SIZE = 224
PARTS = 10


def train(data: Path, place: Path, backbone: str) -> Path:
    """A linear probe of the backbone, one epoch: its numbers say nothing, its speed does."""
    from coverslip.config import load_config
    from coverslip.experiment import run

    sections = {
        "data": {"path": str(data)},
        "pixels": {"height": SIZE, "width": SIZE, "colour": "rgb"},
        "model": {"backbone": backbone, "weights": "pretrained"},
        "training": {"regime": "probe", "epochs": 1},
        "intervals": {"resamples": 100},
    }
    run(load_config(sections), place)
    return place / "bundle"


def images_of(folder: Path) -> list[Path]:
    """The images below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".tif"))


def predict_rate(bundle: Path, files: list[Path], seconds: float) -> float:
    """Images a second of `predict`, after one pass to warm up."""
    from coverslip.predict import Model

    model = Model(bundle)
    samples = [(file,) for file in files]
    model.score(samples[:64])
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        model.score(samples)
        done += len(samples)
    return done / (time.perf_counter() - began)


# The clients ----------------------------------------------------------------------------------------------------------------


async def client(port: int, bodies: list[bytes], todo: list[int], told: list[tuple[int, float]]) -> None:
    """One connection that asks, waits for the answer, and asks again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while todo:
        body = bodies[todo.pop() % len(bodies)]
        began = time.perf_counter()
        writer.write(body)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        told.append((int(head.split(b" ", 2)[1]), time.perf_counter() - began))
    writer.close()


async def load(port: int, files: list[Path], clients: int, requests: int) -> dict[str, object]:
    """All the clients: seconds, and status and latency of each request."""
    bodies = [request(port, file) for file in files]
    told: list[tuple[int, float]] = []
    todo = list(range(requests))
    began = time.perf_counter()
    await asyncio.gather(*(client(port, bodies, todo, told) for _ in range(clients)))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "statuses": [status for status, _ in told], "latencies": [latency for _, latency in told]}


def request(port: int, file: Path) -> bytes:
    """A whole request with one image."""
    part = f'--x--x\r\nContent-Disposition: form-data; name="images"; filename="{file.name}"\r\n\r\n'.encode()
    body = part + file.read_bytes() + b"\r\n--x--x--\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: multipart/form-data; boundary=x--x\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def ask_many(port: int, data: Path, clients: int, requests: int) -> dict[str, object]:
    """The clients in a process of their own."""
    command = [
        sys.executable,
        __file__,
        "--as-clients",
        str(port),
        "--data",
        str(data),
        "--clients",
        str(clients),
        "--requests",
        str(requests),
    ]
    found: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


# The measurement ------------------------------------------------------------------------------------------------------------


def measure(bundle: Path, data: Path, options: argparse.Namespace) -> dict[str, object]:
    """A row of the results."""
    files = images_of(data)
    before = predict_rate(bundle, files, options.seconds)
    command = [sys.executable, "-m", "coverslip", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().strip().rpartition(":")[2])
        wait_until_ready(port)
        process = psutil.Process(server.pid)
        warm = max(1000, options.requests // 10)
        ask_many(port, data, options.clients, warm)
        memory = [process.memory_info().rss]
        told = []
        for _ in range(PARTS):
            told.append(ask_many(port, data, options.clients, options.requests // PARTS))
            memory.append(process.memory_info().rss)
            print(f"{len(told)} of {PARTS}: {memory[-1] / 1e6:.1f} MB", flush=True)
        server.terminate()
    after = predict_rate(bundle, files, options.seconds)
    latencies = np.concatenate([np.array(part["latencies"]) for part in told])
    statuses = np.concatenate([np.array(part["statuses"]) for part in told])
    rate = len(latencies) / sum(float(str(part["seconds"])) for part in told)
    return {
        "images": len(files),
        "requests": len(latencies),
        "clients": options.clients,
        "predict_images_per_second": round((before + after) / 2, 1),
        "predict_before": round(before, 1),
        "predict_after": round(after, 1),
        "http_images_per_second": round(rate, 1),
        "share": round(rate / ((before + after) / 2), 3),
        "latency_median_ms": round(1000 * float(np.median(latencies)), 1),
        "latency_p99_ms": round(1000 * float(np.quantile(latencies, 0.99)), 1),
        "failed": int((statuses != 200).sum()),
        "memory_warm_mb": round(memory[0] / 1e6, 1),
        "memory_grown_mb": round((memory[-1] - memory[0]) / 1e6, 1),
        "memory_grown_in_second_half_mb": round((memory[-1] - memory[PARTS // 2]) / 1e6, 1),
    }


def wait_until_ready(port: int) -> None:
    """Return when the model is open."""
    import urllib.error
    import urllib.request

    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10):
                return
        except urllib.error.HTTPError:
            time.sleep(0.1)


def main() -> None:
    """Measure, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="A folder of images; simulated gels when not given.")
    parser.add_argument("--bundle", type=Path, help="A model; one is trained when not given.")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--images", type=int, default=400, help="Simulated images.")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="For how long predict is timed, each time.")
    parser.add_argument("--as-clients", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_clients:
        print(json.dumps(asyncio.run(load(options.as_clients, images_of(options.data), options.clients, options.requests))))
        return
    from coverslip.simulate import simulate
    from machine import machine_name

    with tempfile.TemporaryDirectory() as place:
        data = options.data or simulate("gels", Path(place) / "gels", images=options.images, seed=1)
        bundle = options.bundle or train(data, Path(place) / "run", options.backbone)
        row = {"model": options.backbone if options.bundle is None else options.bundle.name, **measure(bundle, data, options)}
    out = RESULTS / f"serving-http-{machine_name()}.csv"
    earlier = [pd.read_csv(out)] if out.exists() else []
    pd.concat([*earlier, pd.DataFrame([row])]).to_csv(out, index=False)
    print(pd.DataFrame([row]).T.to_string(header=False))


if __name__ == "__main__":
    main()
