"""MLflow's model registry, as `cxr promote` uses it. Unlike a training's run, a fault here is an error: one line."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.params import TrackingParams
from pipeline.tracking import configured_uri, load_mlflow, unreachable, without_secrets

_MISSING = "RESOURCE_DOES_NOT_EXIST"


class Registry:
    """The registered model that `tracking.register` names, in the configured store.

    Parameters
    ----------
    params : TrackingParams
        Store (MLFLOW_TRACKING_URI wins) and name of the registered model.

    Attributes
    ----------
    address : str
        The store's address without user name and password.
    name : str
        The registered model.

    Raises
    ------
    UserError
        If no model is registered by name, or the store cannot be reached. No store is made where none is.
    """

    def __init__(self, params: TrackingParams) -> None:
        self._uri = configured_uri(params)
        self.address = without_secrets(self._uri)
        self.name = params.register
        if not self.name:
            raise UserError("tracking.register is empty, so that no model is registered: name one and train again")
        self._require_store()
        self._client: Any = self._ask(self._connect)

    def version_of(self, run_id: str, address: str) -> str:
        """Return the version that a training registered.

        Parameters
        ----------
        run_id, address : str
            Run and store, as `training.json` names them.
        """
        if not run_id:
            raise UserError("the training has no MLflow run, so the registry has no such model: train again")
        if address != self.address:
            raise UserError(
                f"the training's run is in {address}, and the registry in use is {self.address}: set "
                "MLFLOW_TRACKING_URI or tracking.uri to the former, or train again with the latter at hand"
            )
        query = f"name = '{self.name}' and run_id = '{run_id}'"
        versions = [int(item.version) for item in self._ask(lambda: self._client.search_model_versions(query))]
        if not versions:
            raise UserError(f"{self.name} in {self.address} has no version of run {run_id}: train again to register it")
        return str(max(versions))

    def holder(self, alias: str) -> str | None:
        """Return the version that an alias points to; None if there is no such alias."""
        model = self._ask(lambda: self._client.get_registered_model(self.name), absent=True)
        found = model.aliases.get(alias) if model else None
        return None if found is None else str(found)

    def require_version(self, version: str) -> None:
        """Refuse a version that was deleted from the registry."""
        if self._ask(lambda: self._client.get_model_version(self.name, version), absent=True) is None:
            raise UserError(f"{self.name} in {self.address} has no version {version} any more: nothing was changed")

    def move(self, alias: str, version: str | None) -> None:
        """Let an alias point to a version; None removes it."""
        if version is None:
            self._ask(lambda: self._client.delete_registered_model_alias(self.name, alias))
        else:
            self._ask(lambda: self._client.set_registered_model_alias(self.name, alias, version))

    def tag(self, version: str, tags: dict[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self._ask(partial(self._client.set_model_version_tag, self.name, version, key, value))

    def log(self, run_id: str, path: Path, folder: str) -> None:
        """Log a file as an artifact of a run, into a folder of its artifacts."""
        self._ask(lambda: self._client.log_artifact(run_id, str(path), folder))

    def _connect(self) -> Any:
        return load_mlflow().MlflowClient(self._uri, registry_uri=self._uri)

    def _require_store(self) -> None:
        if self._uri.startswith(("http://", "https://")):
            reason = unreachable(self._uri)
        elif self._uri.startswith("sqlite:///"):
            path = Path(self._uri.removeprefix("sqlite:///").split("?")[0])
            reason = "" if path.is_file() else "no such file"
        else:
            reason = ""
        if reason:
            raise self._failure(reason)

    def _ask(self, call: Callable[[], Any], *, absent: bool = False) -> Any:
        """Call MLflow; with `absent` the answer is None if what was asked for does not exist."""
        try:
            return call()
        except Exception as error:  # stores throw what their database, HTTP library or file system throws
            if absent and getattr(error, "error_code", "") == _MISSING:
                return None
            raise self._failure(f"{type(error).__name__}: {error}") from error

    def _failure(self, reason: str) -> UserError:
        secret = self._uri.partition("://")[2].rpartition("@")[0]  # user name and password
        said = " ".join(reason.split()).replace(self._uri, self.address)
        said = (said.replace(f"{secret}@", "") if secret else said)[:300]
        return UserError(
            f"the MLflow registry {self.address} failed ({said}): start it, or correct MLFLOW_TRACKING_URI or "
            "tracking.uri, and try again"
        )
