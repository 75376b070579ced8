"""What converters print about themselves, held back unless they fail."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

_LOGGERS = ("tf2onnx", "tensorflow", "absl")


@contextmanager
def silenced() -> Iterator[None]:
    """Hold back file descriptors 1 and 2, Python's warnings and the converters' loggers; show them if it raises.

    Converters write from C++, in dozens of lines that no user can act on.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # tf2onnx and TensorFlow call what their own packages deprecate
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        held = [stack.enter_context(_held(descriptor)) for descriptor in (1, 2)]
        try:
            yield
        except BaseException:
            for file in held:
                file.seek(0)
                sys.stderr.write(file.read().decode(errors="replace"))
            raise


@contextmanager
def _held(descriptor: int) -> Iterator[IO[bytes]]:
    """Send a file descriptor to a temporary file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), descriptor)
        try:
            yield file
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
