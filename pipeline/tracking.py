"""MLflow: one run per training. Nothing here can stop a training: a fault becomes one warning."""

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pipeline.params import TrackingParams
from pipeline.progress import warn

LOCAL_STORE = "sqlite:///mlflow.db"
_TIMEOUT_SECONDS = 5
_PIP_REQUIREMENTS = ("tensorflow", "keras", "numpy")


def store_uri(params: TrackingParams) -> str:
    """Return where runs go: MLFLOW_TRACKING_URI, else `tracking.uri`; the local store if that server is away."""
    uri = configured_uri(params)
    if uri.startswith(("http://", "https://")) and (reason := unreachable(uri)):
        warn(
            f"the MLflow server {without_secrets(uri)} cannot be reached ({reason}): this run is kept in {LOCAL_STORE}"
        )
        return LOCAL_STORE
    return uri


def configured_uri(params: TrackingParams) -> str:
    """Return MLFLOW_TRACKING_URI, else `tracking.uri`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or params.uri


def without_secrets(uri: str) -> str:
    """Return an address without user name, password and query, any of which may be secret."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    # Not urlsplit: it takes part of a password with a slash in it for the host.
    return f"{scheme}://{re.split(r'[?#]', rest.rpartition('@')[2])[0]}"


def code_version() -> str:
    """Return the git commit, with `-dirty` if tracked files differ from it; 'no git' in a source archive."""
    git = shutil.which("git")
    if git is None:
        return "no git"
    result = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return result.stdout.strip() or "no git"


class Run:
    """An MLflow run, or nothing if MLflow cannot be had.

    Parameters
    ----------
    params : TrackingParams
        Store, experiment and whether the machine's use is logged.
    name : str
        Name of a new run.
    run_id : str or None
        A run to go on with, such as the training's when it is evaluated.
    uri : str or None
        The store of that run; None: see `store_uri`.
    nested : bool
        Whether it is a part of the run that is open, which goes on when this one ends.
    """

    def __init__(
        self,
        params: TrackingParams,
        name: str = "",
        run_id: str | None = None,
        uri: str | None = None,
        *,
        nested: bool = False,
    ) -> None:
        self.params, self._nested = params, nested
        # What is written beside a model holds no password; the configured address may.
        known = configured_uri(params) if uri == without_secrets(configured_uri(params)) else uri
        self.uri = known or store_uri(params)
        self.id = run_id or ""
        self._broken = False
        self._try(self._start, name, run_id)

    def _start(self, name: str, run_id: str | None) -> None:
        mlflow = load_mlflow()
        mlflow.set_tracking_uri(self.uri)
        if run_id is None:
            mlflow.set_experiment(self.params.experiment)
        run = mlflow.start_run(
            run_id=run_id or None,
            run_name=None if run_id else name,
            nested=self._nested,
            log_system_metrics=self.params.system_metrics and run_id is None,
        )
        self.id = run.info.run_id

    def log_params(self, values: dict[str, Any]) -> None:
        """Log parameters (nested dictionaries become dotted names)."""
        flat = {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}
        self._try(lambda: load_mlflow().log_params(flat))

    def log_tags(self, values: dict[str, str]) -> None:
        """Log tags."""
        self._try(lambda: load_mlflow().set_tags(values))

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Log numbers; NaN is left out, because MLflow's stores refuse or change it."""
        defined = {key: float(value) for key, value in values.items() if value == value}
        self._try(lambda: load_mlflow().log_metrics(defined, step=step))

    def log_files(self, *paths: Path) -> None:
        """Log files and folders as artifacts."""

        def log(path: Path) -> None:
            if path.is_dir():
                load_mlflow().log_artifacts(str(path), path.name)
            else:
                load_mlflow().log_artifact(str(path))

        for path in paths:
            self._try(log, path)

    def log_model(self, model: Any, example: Any) -> None:
        """Log a Keras model with signature and example, and register it if the parameters name it."""
        self._try(self._log_model, model, example)

    def _log_model(self, model: Any, example: Any) -> None:
        import mlflow.tensorflow
        from mlflow.models import infer_signature

        with redirect_stdout(io.StringIO()):  # Keras' progress bars of MLflow's trial prediction
            mlflow.tensorflow.log_model(
                model,
                name="model",
                signature=infer_signature(example, model.predict(example, verbose=0)),
                input_example=example,
                pip_requirements=list(_PIP_REQUIREMENTS),  # else MLflow starts a second Python to guess them
                registered_model_name=self.params.register or None,
            )

    def end(self, status: str = "FINISHED") -> None:
        """Close the run, also one that broke: left open, MLflow would try again when the program ends."""
        already_said = self._broken
        self._broken = False
        self._try(lambda: load_mlflow().end_run(status), quiet=already_said)

    def _try(self, call: Callable[..., Any], *args: Any, quiet: bool = False) -> None:
        if self._broken:
            return
        try:
            call(*args)
        except Exception as error:  # whatever a store, a server or a file system throws: the training goes on
            self._broken = True
            if quiet:
                return
            reason = " ".join(str(error).split()).replace(self.uri, without_secrets(self.uri))[:300]
            warn(
                f"MLflow failed ({type(error).__name__}: {reason}); the work goes on without it, "
                "its figures are in models/ and reports/"
            )


def load_mlflow() -> Any:
    """Return the module `mlflow`, with telemetry off, short waits and no talk."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # else it takes uv.lock for the model's needs and installs it
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    import logging

    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def unreachable(uri: str) -> str:
    """Return why the server at `uri` cannot be used now; '' if it answers."""
    import requests

    try:
        answer = requests.get(uri.rstrip("/") + "/health", timeout=_TIMEOUT_SECONDS)
    except requests.RequestException as error:
        return type(error).__name__
    return "" if answer.status_code < 500 else f"HTTP {answer.status_code}"
