"""Load TensorFlow without the dozen lines that its libraries print about themselves."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path


def load_tensorflow() -> None:
    """Import TensorFlow and Keras; call it before the first use of either.

    What the libraries write to stderr while they are loaded (which instructions they use, that there is no CUDA) is
    held back, and shown only if loading fails. Later messages below the level of errors are switched off, those of
    errors too where there is no NVIDIA driver, because then they only say that there is none. TF_CPP_MIN_LOG_LEVEL
    overrides that.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/proc/driver/nvidia").exists() else "3")
    if "tensorflow" in sys.modules:
        return
    with _stderr_held():
        import_module("tensorflow")
        import_module("keras")
    # Its advice on retracing is for whoever writes a network: a last batch that is smaller is traced once more.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextmanager
def _stderr_held() -> Iterator[None]:
    """Send file descriptor 2 to a temporary file; show what it holds if the block raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
