"""Counters for Prometheus. Each server has its own; none knows what was asked or answered."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from havoc_inference.service import EngineService

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What a server counts.

    Args:
        service: the engine's own counters are read when they are asked for.
    """

    def __init__(self, service: EngineService) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(service))
        self.requests = Counter(
            "havoc_requests", "Requests by route and status.", ("route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "havoc_request_seconds",
            "From the head of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.first_token = Histogram(
            "havoc_first_token_seconds",
            "From handing a prompt to the engine to the first piece of the answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.at_work = Gauge("havoc_requests_at_work", "Requests that are being answered.", registry=self._registry)
        self.slow_heads = Counter(
            "havoc_slow_connections", "Connections closed because no request came in time.", registry=self._registry
        )

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    def __init__(self, service: EngineService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """The engine's counters as they are now."""
        now = self._service.statistics()
        for name, text, value in (
            ("running", "Answers that are being generated.", now.running),
            ("waiting", "Answers that wait for room.", now.waiting),
            ("pages_used", "Pages of the cache that answers hold.", now.pages_used),
            ("pages_total", "Pages of the cache.", now.pages_total),
        ):
            yield GaugeMetricFamily(f"havoc_engine_{name}", text, value=value)
        for name, text, value in (
            ("prompt_tokens", "Tokens of prompts.", now.prompt_tokens),
            ("cached_prompt_tokens", "Tokens of prompts that were found in the cache.", now.cached_prompt_tokens),
            ("generated_tokens", "Tokens of answers.", now.generated_tokens),
            ("preempted", "Answers that gave their pages back and were read again.", now.preempted),
            ("cancelled", "Answers that nobody waited for any more.", now.cancelled),
        ):
            yield CounterMetricFamily(f"havoc_engine_{name}", text, value=value)

    def describe(self) -> Iterator[Metric]:
        """Nothing: names need no reading of the counters, and none of ours collide."""
        yield from ()
