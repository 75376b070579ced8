"""What is seen of a real Keras training: on a terminal, in a log, under -q; every figure worked out by hand."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.progress import note, set_quiet
from pipeline.training.progress_bar import ProgressBar, one_worker

IMAGES, BATCH, STEPS, EPOCHS = 79, 2, 40, 3
AUCS = (0.7, float("nan"), 0.65)


class Counting(keras.Model):
    """Count how often its figures are asked for."""

    asked = 0

    def get_metrics_result(self) -> Any:
        self.asked += 1
        return super().get_metrics_result()


class Time(keras.callbacks.Callback):
    """Let 10 seconds go by in the first step, 1 in each other and 20 in scoring, and add a validation AUC."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def on_train_batch_end(self, _batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.now += 1 if self.now else 10

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        self.now += 20
        logs["val_auc"] = AUCS[epoch]
        note(f"epoch {epoch + 1} is over")


def fit(with_bar: bool = True, **fitting: Any) -> Counting:
    inputs = keras.Input((1,))
    # Its output is 0 and stays so: the squared error of image i, whose target is i, is i squared.
    model = Counting(inputs, keras.layers.Dense(1, kernel_initializer="zeros")(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    x = np.arange(IMAGES, dtype=np.float32)[:, None]
    time = Time()
    bar = ProgressBar(IMAGES, EPOCHS, "training [bold]all", clock=lambda: time.now)
    callbacks = [time, bar] if with_bar else [time]
    model.fit(x, x, BATCH, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks, **fitting)
    return model


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[list[bytes]]:
    """Make standard error a pseudo-terminal; what was written to it is in the list in the end."""
    leader, follower = os.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(leader, 1 << 16):
                shown.append(part)
        except OSError:  # how Linux says that nobody writes any more
            pass

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    try:
        with monkeypatch.context() as patch, os.fdopen(follower, "w", encoding="utf-8") as stream:
            patch.setattr(sys, "stderr", stream)
            yield shown
    finally:
        reader.join()
        os.close(leader)


def mean_square(count: int) -> float:
    return sum(k * k for k in range(count)) / count


def test_a_log_gets_a_line_every_thirty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training")]
    late = f"best val AUC 0.7000, loss {mean_square(62):.4f}"
    # The clock begins behind the first step, at 10 s with 2 images; an epoch's other steps take 39 s, scoring 20.
    assert lines == [
        f"training [bold]all: epoch 1/3, 42/79 images, 2.0/s, 98 s left, loss {mean_square(42):.4f}",
        "training [bold]all: epoch 2/3, 2/79 images, 2.0/s, 118 s left, best val AUC 0.7000, loss 0.5000",
        f"training [bold]all: epoch 2/3, 62/79 images, 2.0/s, 62 s left, {late}",
        "training [bold]all: epoch 3/3, 2/79 images, 2.0/s, 58 s left, best val AUC 0.7000, loss 0.5000",
        f"training [bold]all: epoch 3/3, 62/79 images, 2.0/s, 12 s left, {late}",
    ]


def test_the_loss_is_fetched_for_the_lines_alone(capsys: pytest.CaptureFixture[str]) -> None:
    more = fit().asked - fit(with_bar=False).asked
    assert more == sum(line.startswith("training") for line in capsys.readouterr().err.splitlines()) == 5
    # For a callback that overrides this, Keras fetches all figures at every step.
    assert ProgressBar.on_train_batch_end is keras.callbacks.Callback.on_train_batch_end


def test_the_figures_of_several_workers_are_not_asked_for_by_one() -> None:
    def of_workers(*addresses: str) -> Any:
        spec = tf.train.ClusterSpec({"worker": list(addresses)})
        return SimpleNamespace(cluster_resolver=tf.distribute.cluster_resolver.SimpleClusterResolver(spec))

    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["/cpu:0"]), of_workers("a:1")):
        assert one_worker(strategy)
    assert not one_worker(of_workers("a:1", "b:1"))


def test_a_training_that_goes_on_counts_from_there(capsys: pytest.CaptureFixture[str]) -> None:
    fit(initial_epoch=2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training")]
    assert line == f"training [bold]all: epoch 3/3, 42/79 images, 2.0/s, 18 s left, loss {mean_square(42):.4f}"


def test_a_terminal_gets_a_bar_and_the_epochs_lines_stay_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, 140) as shown:
        fit()
    text = b"".join(shown).decode()
    for epoch, left in ((1, "2 min"), (2, "60 s"), (3, "0 s")):
        assert f"epoch {epoch} is over\r\n" in text
        last = f"training [bold]all: epoch {epoch}/3, 79/79 images, 2.0/s, {left} left, best val AUC 0.7000, loss 2041"
        assert last in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is in sight again


def test_a_narrow_terminal_gets_the_beginning_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, 80) as shown:
        fit()
    rows = re.split(r"\r\n|\r\x1b\[2K", re.sub(r"\x1b\[[?\d;]*[mhl]", "", b"".join(shown).decode()))
    assert max(len(row) for row in rows) <= 80
    assert any("training [bold]all: epoch 3/3, 79/79 images, 2.0/s, 0 s left" in row for row in rows)


def test_a_bar_that_is_broken_off_gives_standard_error_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, 140):
        bar, before = ProgressBar(IMAGES, EPOCHS, "training"), sys.stderr
        bar.on_train_begin()
        assert sys.stderr is not before  # what is printed goes above the bar
        bar.close()
        bar.close()
        assert sys.stderr is before


def test_a_process_that_is_killed_leaves_the_cursor_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, 140) as shown:
        ProgressBar(IMAGES, EPOCHS, "training").on_train_begin()
    text = b"".join(shown)
    assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l")


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    set_quiet(True)
    assert fit().asked == fit(with_bar=False).asked
    assert capsys.readouterr().err == ""
    with terminal(monkeypatch, 140) as shown:
        fit()
    assert shown == []
