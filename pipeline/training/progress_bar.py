"""What is seen while a network is fitted. Imports Keras: for the training process only."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras

from pipeline import progress

if TYPE_CHECKING:
    from rich.progress import Progress

_BAR_SECONDS = 0.25
_LOG_SECONDS = 30.0
_BAR_WIDTH = 12


class ProgressBar(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Show one phase of a training: a `rich` bar on a terminal, a line every 30 seconds in a log, nothing under `-q`.

    Epoch, images, images a second, time left, the epoch's loss so far and the best validation AUC so far. It must stand
    behind the callback that adds `val_auc` to an epoch's figures.

    A step costs one look at the clock. The loss is fetched from the device when it is shown, four times a second at
    most: `on_train_batch_begin` is given no figures, whereas for each callback with an `on_train_batch_end` Keras waits
    for them at every step. Within an epoch of several workers it is not shown: all would have to fetch it together.

    Parameters
    ----------
    images : int
        In an epoch.
    epochs : int
        Of this phase.
    what : str
        The phase, such as "training the head".
    first : int
        Keras' number of the phase's first epoch, where epochs are counted through all phases.
    best : float
        Validation AUC that was reached before; NaN if none was.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        images: int,
        epochs: int,
        what: str,
        *,
        first: int = 0,
        best: float = math.nan,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._images, self._epochs, self._what, self._first, self._best = images, epochs, what, first, best
        self._clock, self._every = clock, _LOG_SECONDS
        self._epoch = self._done = 0  # epoch of the phase, its images that went through
        self._bar: Progress | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002  # Keras passes it by name
        """Begin the bar."""
        # The first step, which builds the graph, would make all figures of speed too low: counting begins behind it.
        self._trained = self._at_work = 0.0  # images and seconds in steps
        self._begin: tuple[float, int] | None = None  # end of the first step, and images of the phase by then
        self._shown = self._clock()
        if not progress.is_quiet() and sys.stderr.isatty():
            self._every, self._bar = _BAR_SECONDS, _bar()
            self._bar.start()
            self._bar.console.show_cursor(True)  # rich hides it, and a killed process could not bring it back
            self._task = self._bar.add_task(self._what, total=self._images * self._epochs)
            self._show(self._shown, {})

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Begin an epoch."""
        self._epoch, self._done = epoch - self._first, 0
        self._mark = self._clock()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count the steps before this one, and show them if it is time."""
        if batch == 0 or progress.is_quiet():
            return
        now = self._clock()
        self._count(self._images_after(batch), now)
        if now - self._shown >= self._every:
            # What Keras itself reads at the end of an epoch, several devices included.
            self._show(now, self.model.get_metrics_result() if one_worker(self.model.distribute_strategy) else {})

    def on_epoch_end(self, _epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the validation AUC, which has been added to the figures by now."""
        figures = logs or {}
        self._best = max((figures.get("val_auc", math.nan), self._best), key=lambda value: (value == value, value))
        self._done, now = self._images, self._clock()
        if self._begin is None:  # an epoch of one step
            self._begin = now, (self._epoch + 1) * self._images
        if self._bar is not None:
            self._show(now, figures)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """End the bar."""
        self.close()

    def close(self) -> None:
        """End the bar; also for a training that was broken off, of which Keras says nothing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _images_after(self, steps: int) -> int:
        """Return the images of an epoch after some of its steps; its last batch may be smaller."""
        of = self.params.get("steps") or steps
        return min(self._images, math.ceil(self._images / of) * steps)

    def _count(self, done: int, now: float) -> None:
        if self._begin is None:
            self._begin = now, self._epoch * self._images + done
        else:
            self._trained += done - self._done
            self._at_work += now - self._mark
        self._done, self._mark = done, now

    def _show(self, now: float, measured: Mapping[str, Any]) -> None:
        self._shown = now
        loss = float(measured.get("image_loss", measured.get("loss", math.nan)))  # see `ExactAuc` on the first one
        figures = (self._speed(), self._left(now), _figure("best val AUC", self._best), _figure("loss", loss))
        epoch = f"epoch {self._first + self._epoch + 1}/{self._first + self._epochs}"
        text = f"{self._what}: {epoch}, {self._done:,}/{self._images:,} images"
        text = ", ".join([text, *(figure for figure in figures if figure)])
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.update(self._task, completed=self._epoch * self._images + self._done, description=text)
            self._bar.refresh()

    def _speed(self) -> str:
        """Return images a second of the steps alone, without scoring between epochs."""
        rate = self._trained / self._at_work if self._at_work > 0 else 0.0
        return f"{rate:,.{0 if rate >= 10 else 1}f}/s" if rate else ""

    def _left(self, now: float) -> str:
        """Return the time left of the phase, with what lies between its epochs."""
        if self._begin is None:
            return ""
        done = self._epoch * self._images + self._done
        rate = (done - self._begin[1]) / max(1e-9, now - self._begin[0])
        return f"{_duration((self._images * self._epochs - done) / rate)} left" if rate > 0 else ""


def one_worker(strategy: Any) -> bool:
    """Say whether a tf.distribute strategy is of this process alone: elsewhere figures are reduced over all workers."""
    resolver = getattr(strategy, "cluster_resolver", None)
    return resolver is None or sum(map(len, resolver.cluster_spec().as_dict().values())) <= 1


def _figure(name: str, value: float) -> str:
    return f"{name} {value:.4f}" if math.isfinite(value) else ""


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        BarColumn(bar_width=_BAR_WIDTH),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,  # its thread would take time from the steps
    )
