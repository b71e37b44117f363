"""Does `havoc serve` stand fuzzing, clients that hang or leave, and sixteen who ask at once?

    python benchmarks/serve_load.py [RUN] [--examples 200] [--requests 1000] [--hanging 200] [--clients 16] [--rounds 4]

RUN is the folder of a run, a checkpoint or an exported folder; without it a small model of random weights (context 1,024) is
written to a temporary folder. The server is `havoc serve` in a process of its own, on a free port of 127.0.0.1; the clients
are in this process. One after the other:

    fuzz     schemathesis, seeded: so many examples of every route, allowed and not allowed; statuses are counted
    hang     so many connections that each send a part of a request and then nothing; meanwhile /health is asked, and
             afterwards the seconds are counted until the server has closed them all
    cancel   so many requests, half of which hang up after a random time; the answers of the others are compared with those to
             the same request alone. Before and after: pages of the cache in use, and the resident memory of the server
    load     16 clients that stream 64 tokens each, again and again: time to the first token, time of the whole answer

One JSON line. It ends within --minutes, whatever happens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

SOURCE = Path(__file__).resolve().parents[1] / "src"
NEW_TOKENS = 64
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Len"


@dataclass(frozen=True)
class Server:
    """The process that is looked at."""

    url: str
    port: int
    pid: int

    def counters(self) -> dict[str, float]:
        """Prometheus' names without labels -> values."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        pairs = (line.split() for line in lines if not line.startswith("#") and "{" not in line)
        return {name: float(value) for name, value in pairs}

    def resident_bytes(self) -> int:
        """Memory of the process that is in RAM."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    def idle_after(self, limit_s: float) -> float | None:
        """Seconds until nothing runs and no page is in use; None: never."""
        started = time.perf_counter()
        while time.perf_counter() - started < limit_s:
            now = self.counters()
            if now["havoc_engine_running"] == now["havoc_engine_waiting"] == now["havoc_engine_pages_used"] == 0:
                return time.perf_counter() - started
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--parts", nargs="+", default=["load", "fuzz", "hang", "cancel"])
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--hanging", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--minutes", type=int, default=15)
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("It took longer than --minutes."))
    signal.alarm(60 * args.minutes)

    from havoc_core.processor import cpu_name

    with tempfile.TemporaryDirectory() as name:
        model = args.run or write_model(Path(name) / "random")
        with serving(model) as server:
            line: dict[str, Any] = {
                "benchmark": "serve_load",
                "model": model.name,
                "cpu": cpu_name(),
                "cores": os.cpu_count(),
            }
            parts: dict[str, Callable[[], dict[str, Any]]] = {
                "load": lambda: asyncio.run(load(server, clients=args.clients, rounds=args.rounds)),
                "fuzz": lambda: fuzz(server, examples=args.examples),
                "hang": lambda: hang(server, number=args.hanging),
                "cancel": lambda: asyncio.run(cancel(server, number=args.requests)),
            }
            line |= {name: part() for name, part in parts.items() if name in args.parts}
    print(json.dumps(line))


@contextmanager
def serving(model: Path) -> Iterator[Server]:
    words = ["serve", str(model), "--port", "0", "--name", "model", "--device", "cpu", "--max-waiting", "2000"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from havoc_cli.main import entry; entry()", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = next(line.split(" at ")[1].split(" ")[0] for line in process.stdout if " is served at " in line)
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        httpx.get(f"{url}/health", timeout=60)
        yield Server(url, int(url.rpartition(":")[2]), process.pid)
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()
        drain.wait(10)


def write_model(folder: Path) -> Path:
    """A run with one checkpoint of random weights: 4 layers of 256, bytes as tokens, a context of 1,024."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as FastTokenizer

    from havoc_core import checkpoint, config_files
    from havoc_core.config import TrainingConfig
    from havoc_core.model import first_weights
    from havoc_core.models import havoc
    from havoc_core.tokenizer import SPECIAL_TOKENS, BpeEngine, Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate([*SPECIAL_TOKENS, *alphabet])}, merges=[])
    )
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    model = {
        "size": "nano", "vocab_size": 512, "d_model": 256, "num_layers": 4, "max_seq_len": 1024,
        "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 64}, "mlp": {"hidden_dim": 704},
    }  # fmt: skip
    config = TrainingConfig.model_validate({"model": model, "data": {"max_sequence_length": 1024}})
    with checkpoint.writing(folder / "checkpoints" / "checkpoint_step_0") as inside:
        checkpoint.save_tensors(inside / "model.pt", first_weights(havoc.build(config.model), seed=0))
        checkpoint.save_json(inside / "training_state.json", {"step": 0, "dummy_data": True})
        (inside / "config.json").write_text(config_files.to_json(config), encoding="utf-8")
        Tokenizer(BpeEngine(fast)).save(inside / "tokenizer")
    return folder


def fuzz(server: Server, *, examples: int) -> dict[str, Any]:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, seed, settings

    description = narrowed(httpx.get(f"{server.url}/openapi.json").json())
    statuses: Counter[int] = Counter()
    failures: list[str] = []
    started = time.perf_counter()
    for path, methods in description["paths"].items():
        for method in methods:
            operation = schemathesis.openapi.from_dict(description)[path][method.upper()]
            for mode in ("POSITIVE", "NEGATIVE") if method == "post" else ("POSITIVE",):
                chosen = getattr(schemathesis.GenerationMode, mode)

                @seed(0)
                @settings(
                    max_examples=examples, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )  # fmt: skip
                @given(case=operation.as_strategy(generation_mode=chosen))
                def ask(case: Any) -> None:
                    answer = case.call(base_url=server.url, timeout=120)
                    statuses[answer.status_code] += 1
                    if answer.status_code >= 500 or "Traceback" in answer.text:
                        failures.append(f"{case.method} {case.path} {case.body!r:.300} {answer.text:.300}")

                ask()
    return {
        "requests": statuses.total(),
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "failures": failures[:5],
        "seconds": round(time.perf_counter() - started, 1),
    }


def narrowed(description: dict[str, Any]) -> dict[str, Any]:
    """The description with the one model's name and fewer tokens: most of what is allowed reaches the engine."""
    for schema in description["components"]["schemas"].values():
        fields = schema.get("properties", {})
        if "model" in fields:
            fields["model"] = {"enum": ["model", None]}
        if "max_tokens" in fields:
            fields["max_tokens"]["anyOf"][0]["maximum"] = NEW_TOKENS
    return description


def hang(server: Server, *, number: int) -> dict[str, Any]:
    before = server.counters()["havoc_slow_connections_total"]
    sockets = []
    for at in range(number):
        raw = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        raw.sendall(HEAD[: at % len(HEAD)])
        sockets.append(raw)
    started = time.perf_counter()
    health = [httpx.get(f"{server.url}/health", timeout=60).elapsed.total_seconds() for _ in range(50)]
    answered = httpx.post(f"{server.url}/v1/completions", json={"prompt": "a", "max_tokens": 8}, timeout=60)
    for raw in sockets:
        try:
            assert raw.recv(1) == b""
        except ConnectionResetError:
            pass
        raw.close()
    return {
        "connections": number,
        "closed_by_the_server": int(server.counters()["havoc_slow_connections_total"] - before),
        "all_closed_after_s": round(time.perf_counter() - started, 1),
        "health_ms_p95": round(1000 * percentile(health, 95), 1),
        "answer_meanwhile": answered.status_code,
    }


async def cancel(server: Server, *, number: int) -> dict[str, Any]:
    draw = random.Random(0)
    asks = [
        {"prompt": f"Number {at}: ", "max_tokens": 48, "seed": at, "ignore_eos": True, "stream": at % 2 == 0}
        for at in range(20)
    ]
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
        alone = [await whole(client, ask) for ask in asks]
        for _ in range(2):  # caches and pools have their size before memory is looked at
            await asyncio.gather(*(whole(client, ask) for ask in asks))
        memory, before = server.resident_bytes(), server.counters()

        async def one(at: int) -> bool | None:
            if draw.random() < 0.5:
                try:
                    await asyncio.wait_for(whole(client, asks[at % 20]), timeout=draw.uniform(0.0, 1.5))
                except TimeoutError:
                    return None
                return True
            return await whole(client, asks[at % 20]) == alone[at % 20]

        started = time.perf_counter()
        given: list[bool | None] = []
        for first in range(0, number, 64):
            given += await asyncio.gather(*(one(at) for at in range(first, min(first + 64, number))))
    idle = server.idle_after(10.0)
    after = server.counters()
    return {
        "requests": number,
        "cancelled_by_the_client": given.count(None),
        "cancelled_in_the_engine": int(after["havoc_engine_cancelled_total"] - before["havoc_engine_cancelled_total"]),
        "answers_that_differ": given.count(False),
        "idle_after_s": None if idle is None else round(idle, 2),
        "pages_in_use": int(after["havoc_engine_pages_used"]),
        "memory_growth_mib": round((server.resident_bytes() - memory) / 2**20, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


async def whole(client: httpx.AsyncClient, ask: dict[str, Any]) -> str:
    """The text of an answer, streamed or not."""
    answer = await client.post("/v1/completions", json=ask)
    answer.raise_for_status()
    if not ask["stream"]:
        text: str = answer.json()["choices"][0]["text"]
        return text
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n")[:-2]]
    return "".join(event["choices"][0]["text"] for event in events)


async def load(server: Server, *, clients: int, rounds: int) -> dict[str, Any]:
    first: list[float] = []
    total: list[float] = []

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
            for again in range(rounds):
                started = time.perf_counter()
                ask = {"prompt": f"{number} {again}: the mean of a sample of ten values is", "max_tokens": NEW_TOKENS,
                       "seed": number, "ignore_eos": True, "stream": True}  # fmt: skip
                async with http.stream("POST", "/v1/completions", json=ask) as answer:
                    lines = answer.aiter_lines()
                    await anext(lines)
                    first.append(time.perf_counter() - started)
                    async for _ in lines:
                        pass
                total.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    seconds = time.perf_counter() - started
    return {
        "clients": clients,
        "answers": len(total),
        "tokens_per_s": round(len(total) * NEW_TOKENS / seconds, 1),
        **{f"first_token_ms_p{p}": round(1000 * percentile(first, p), 1) for p in (50, 95)},
        **{f"answer_ms_p{p}": round(1000 * percentile(total, p), 1) for p in (50, 95)},
    }


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    main()
