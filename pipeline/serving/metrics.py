"""What Prometheus can ask: requests, time by step, the queue, batches, the gate's verdicts. Nothing of any film."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from pipeline.predicting import STEPS, Answer

if TYPE_CHECKING:
    from pipeline.prediction_log import LogState

ALL_STEPS = ("read", "queue", *STEPS)
"""From the first byte of the body to the last number; `pipeline.predicting.STEPS` are the later ones."""
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server, in a registry of its own.

    Parameters
    ----------
    queued, held : callable
        Return the films that wait and the bytes of uploads that are held, now.
    """

    def __init__(self, queued: Callable[[], float], held: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "cxr_requests",
            "Requests by address, method and status",
            ("path", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "cxr_request_seconds", "Time of a whole request", ("path",), buckets=_SECONDS, registry=self.registry
        )
        self.steps = Histogram(
            "cxr_step_seconds", "Time of a film by step", ("step",), buckets=_SECONDS, registry=self.registry
        )
        self.films = Counter("cxr_films", "Films by what became of them", ("outcome",), registry=self.registry)
        self.reasons = Counter("cxr_gate_reasons", "Films by the gate's reasons", ("reason",), registry=self.registry)
        self.batches = Histogram("cxr_batch_films", "Films of a batch", buckets=_SIZES, registry=self.registry)
        self.model = Info("cxr_model", "The model that answers", registry=self.registry)
        for name, text, read in (
            ("cxr_queue_films", "Films that wait", queued),
            ("cxr_upload_bytes", "Bytes of uploads that are held", held),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)
        for step in ALL_STEPS:
            self.steps.labels(step)

    def answered(self, answer: Answer, waited: float) -> None:
        """Count a film.

        Parameters
        ----------
        answer : Answer
            What became of it: ok, flagged or failed.
        waited : float
            Seconds in the queue.
        """
        self.films.labels(answer.status).inc()
        self.steps.labels("queue").observe(waited)
        for step, milliseconds in answer.timings.items():
            self.steps.labels(step).observe(milliseconds / 1000)
        for reason in answer.verdict.reasons if answer.verdict else ():
            self.reasons.labels(reason).inc()

    def watch_log(self, state: "Callable[[], LogState]") -> None:
        """Show how the prediction log fares.

        Parameters
        ----------
        state : callable
            `PredictionLog.state`.
        """
        self.registry.register(_LogRows(state))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _LogRows(Collector):
    """Rows of the prediction log; all figures of one look, so that they add up."""

    def __init__(self, state: "Callable[[], LogState]") -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        rows = CounterMetricFamily(
            "cxr_log_rows", "Rows of the prediction log by what became of them", labels=["state"]
        )
        rows.add_metric(["written"], state.written)
        rows.add_metric(["dropped"], state.dropped)
        yield rows
        yield GaugeMetricFamily("cxr_log_waiting_rows", "Rows that a kill would lose now", value=state.waiting)


CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
