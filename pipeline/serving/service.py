"""The server's state: the model, its threads, their queue, what is counted. The addresses (`app`) call it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import UserError
from pipeline.exported import Manifest
from pipeline.params import ServeParams
from pipeline.predicting import Answer, Predictor, Source
from pipeline.serving.answers import withheld
from pipeline.serving.metrics import Metrics
from pipeline.serving.pictures import MapMaker, film_png
from pipeline.serving.problems import RequestError, busy
from pipeline.serving.uploads import MIB, Budget, ClientGoneError, Receive
from pipeline.serving.workshop import Job, Workshop

_PICTURES = 16  # that may wait; the page asks for one or two at a time


class AnswerLog(Protocol):
    """Where answers are noted; `pipeline.prediction_log` has one. It must not block."""

    def append(
        self, answers: Sequence[Answer], request_id: str = "", *, timings: Mapping[str, float] | None = None
    ) -> object:
        """Note the answers of one request, and the milliseconds of steps that are not in them."""


@dataclass(frozen=True)
class Maps:
    """What draws heat maps, or why nothing does."""

    maker: MapMaker | None
    reason: str


class Service:
    """A model that answers.

    Parameters
    ----------
    predictors : sequence of Predictor
        One for each thread; the same one may stand there several times if its engine may be called by all at once.
    params : ServeParams
        Queue, batch and time-outs.
    maps : Maps
        Heat maps.
    log : AnswerLog, optional
        Where answers are noted.
    """

    def __init__(
        self, predictors: Sequence[Predictor], params: ServeParams, maps: Maps, log: AnswerLog | None = None
    ) -> None:
        self.params, self.maps, self.log = params, maps, log
        self.manifest: Manifest = predictors[0].exported.manifest
        self.gate = predictors[0].gate is not None
        self.max_pixels = params.max_megapixels * 1_000_000
        self.budget = Budget(params.max_memory_mb * MIB)
        self.metrics = Metrics(lambda: self.films.waiting, lambda: self.budget.used)
        self.metrics.model.info({"version": self.manifest.version, "format": self.manifest.format})
        self.films = Workshop[Source, Answer](
            [_asking(predictor) for predictor in predictors],
            params.queue,
            params.batch,
            params.wait_ms / 1000,
            self.metrics.batches.observe,
        )
        self._views, self._maps = (Workshop[Callable[[], Any], Any]([_calling], _PICTURES) for _ in range(2))
        self.stopping = False

    async def predict(
        self, films: Sequence[bytes], request_id: str, receive: Receive, *, flagged: bool
    ) -> list[Answer]:
        """Answer for the films of one request.

        Parameters
        ----------
        films : sequence of bytes
            The files.
        request_id : str
            The films are called `REQUEST-0`, `REQUEST-1` and so on, after it.
        receive : callable
            ASGI's, to notice a client that goes away.
        flagged : bool
            Whether films that the gate flags get numbers too.

        Raises
        ------
        RequestError
            `busy` if they do not fit into the queue, `late` if they took too long.
        ClientGoneError
            If nobody waits for the answer any more.
        """
        sources = [Source(f"{request_id}-{k}", data) for k, data in enumerate(films)]
        answers, jobs = await self._done(self.films, sources, receive)
        for answer, job in zip(answers, jobs, strict=True):
            self.metrics.answered(answer, job.waited)
        given = answers if flagged else [withheld(answer) for answer in answers]
        if self.log is not None:
            queued = 1000 * sum(job.waited for job in jobs) / len(jobs)
            self.log.append(given, request_id, timings={"queue": queued})
        return given

    async def view(self, film: bytes, receive: Receive) -> tuple[bytes, tuple[int, int]]:
        """Return a film's pixels as PNG, and the size of the film; see `pictures.film_png`."""
        answers, _ = await self._done(self._views, [lambda: film_png(film, self.max_pixels)], receive)
        found: tuple[bytes, tuple[int, int]] = answers[0]
        return found

    async def explain(self, film: bytes, receive: Receive) -> dict[str, Any]:
        """Return the heat maps of a film; see `pictures.MapMaker`."""
        maker = self.maps.maker
        if maker is None:
            raise RequestError("unavailable", self.maps.reason)
        answers, _ = await self._done(self._maps, [lambda: maker(film, self.max_pixels)], receive)
        found: dict[str, Any] = answers[0]
        return found

    def stop(self) -> None:
        """Finish what was accepted, and end the threads."""
        self.stopping = True
        for workshop in (self.films, self._views, self._maps):
            workshop.stop()

    async def _done(
        self, workshop: Workshop[Any, Any], items: Sequence[Any], receive: Receive
    ) -> tuple[list[Any], list[Job[Any, Any]]]:
        """Put items into a workshop and wait: for the results, for the time-out, or for the client to go away."""
        if len(items) > workshop.room:
            raise busy(f"{len(items)} films are more than may wait", workshop.delay())
        jobs = workshop.submit(items)
        work = asyncio.gather(*(job.future for job in jobs))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((work, gone), timeout=self.params.answer_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result(), jobs
            if gone.done():
                raise ClientGoneError
            raise RequestError("late", f"no answer within {self.params.answer_s:g} seconds", {"Retry-After": "10"})
        except UserError as error:  # of the film, or the memory that it took
            raise RequestError("unreadable", str(error)) from None
        finally:
            gone.cancel()
            if not work.done():
                workshop.forget(jobs)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _asking(predictor: Predictor) -> Callable[[list[Source]], Sequence[Answer]]:
    return lambda sources: predictor(sources, flagged=True)  # what is not asked for is withheld afterwards


def _calling(calls: list[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]
