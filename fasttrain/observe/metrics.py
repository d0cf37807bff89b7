"""`/metrics` for Prometheus and `/healthz` for schedulers; the only file that knows Prometheus."""

from __future__ import annotations

import errno
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from fasttrain.errors import UserError
from fasttrain.observe.heartbeat import Heartbeat

_PATIENCE = 10.0  # seconds that a client may be silent

# Of `Heartbeat.figures`: its name here, and what it is.
_GAUGES = {
    "step": ("step", "Training steps that are done."),
    "steps": ("steps", "Training steps of the whole run."),
    "epoch": ("epoch", "The epoch that the last step belongs to, counted from 1."),
    "images_per_second": ("images_per_second", "Training throughput over all ranks."),
    "data_stall": ("data_stall_ratio", "Share of the training time spent waiting for data."),
    "loss": ("loss", "Training loss, the mean since the log before."),
    "accuracy": ("accuracy", "Training accuracy, 0 to 1, the mean since the log before."),
    "validation_accuracy": ("validation_accuracy", "Last validation accuracy, 0 to 1."),
    "checkpoint_step": ("checkpoint_step", "The step of the newest checkpoint."),
}


@contextmanager
def serving(port: int | None, heartbeat: Heartbeat, tell: Callable[[str], None]) -> Iterator[None]:
    """Answer on a port meanwhile, from threads of its own.

    Args:
        port: `None` for none, 0 for any that is free.
        heartbeat: What is told.
        tell: Is told the address, in one line.

    Raises:
        UserError: the port cannot be had, or prometheus-client is not installed.
    """
    if port is None:
        yield
        return
    server = _listen(port, _handler(heartbeat))
    address = f"http://{platform.node()}:{server.server_address[1]}"
    tell(f"metrics: {address}/metrics, health: {address}/healthz")
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Listens on every address of the machine, of either kind where there are two."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing that the user must know."""


def _listen(port: int, handler: Any) -> _Server:
    try:
        return _Server(("", port), handler)
    except OSError as error:
        why = {errno.EADDRINUSE: "is in use", errno.EACCES: "may be opened by root only"}
        reason = why.get(error.errno or 0, f"cannot be opened: {error.strerror}")
        raise UserError(
            f"track.metrics_port={port} {reason} on {platform.node()}; choose another, or 0 for "
            "any that is free"
        ) from error


def _handler(heartbeat: Heartbeat) -> Any:
    """What answers a request."""
    try:
        from prometheus_client import CollectorRegistry, MetricsHandler
    except ImportError as error:
        raise UserError(
            "track.metrics_port needs prometheus-client, which is not installed; "
            "run pip install prometheus-client, or leave it out"
        ) from error

    class Handler(MetricsHandler):
        registry = CollectorRegistry()
        timeout = _PATIENCE

        def do_GET(self) -> None:  # noqa: N802 - the base class names it
            path = self.path.split("?", 1)[0]
            if path == "/metrics":
                super().do_GET()
            elif path == "/healthz":
                self._answer_health()
            else:
                self.send_error(404, "there are /metrics and /healthz")

        def _answer_health(self) -> None:
            stalled = heartbeat.is_stalled
            body = b"stalled\n" if stalled else b"ok\n"
            self.send_response(503 if stalled else 200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    Handler.registry.register(_Figures(heartbeat))
    return Handler


class _Figures:
    """Tells Prometheus the figures of a heartbeat as they are when it asks."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat

    def collect(self) -> Iterator[Any]:
        """Yield a family for each figure that is known."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found, now = self._heartbeat.figures(), time.time()
        for key, (name, about) in _GAUGES.items():
            if found[key] is not None:
                yield GaugeMetricFamily(f"fasttrain_{name}", about, value=found[key])
        for key, name, about in (
            ("time", "idle_seconds", "Seconds since the run last showed a sign of life."),
            ("checkpoint_time", "checkpoint_age_seconds", "Age of the newest checkpoint."),
        ):
            if found[key] is not None:
                age = max(0.0, now - found[key])
                yield GaugeMetricFamily(f"fasttrain_{name}", about, value=age)
        restarts = "How many times the run went on after it was cut off."
        yield CounterMetricFamily("fasttrain_restarts", restarts, value=found["restarts"])
