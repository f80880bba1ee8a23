"""Models on this host: pulled from the object store once, loaded once in each process.

The folder is shared by all processes of the host. A file in it is named by its SHA-256, appears
whole, and is checked against its name before it is loaded: one that does not fit is pulled again.
Whoever pulls holds the file's lock, so the others wait instead of pulling, too.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from augury.errors import CorruptError, LimitError, UnavailableError
from augury.ids import new_id
from augury.models import backends
from augury.models.port import Model
from augury.models.signature import Signature
from augury.storage.files import file_digest, sync
from augury.storage.objects import locate

if TYPE_CHECKING:
    from augury.settings import Settings

_log = logging.getLogger(__name__)
_MOST_LOADED = 8
_PULL_S = 600.0
_CHUNK_BYTES = 8 * 2**20

_Key = tuple[str, str, str, str, int]


class ModelCache:
    """The models of one process, over the files of its host. Safe to share among threads.

    Args:
        folder: shared by all processes of this host; made if there is none.
        settings: say how the object store is reached.
        most_loaded: models kept in memory; the one used longest ago goes first.
    """

    def __init__(
        self, folder: Path, settings: Settings, *, most_loaded: int = _MOST_LOADED
    ) -> None:
        self._folder = folder / "models"
        self._settings = settings
        self._most_loaded = most_loaded
        self._loaded: OrderedDict[_Key, Model] = OrderedDict()
        self._loading: dict[_Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def load(
        self,
        *,
        digest: str,
        uri: str,
        flavor: str,
        signature: Signature,
        num_threads: int,
        backend: str = "",
    ) -> Model:
        """The model, from memory, from this host's disk, or from the object store.

        Args:
            digest: SHA-256 that the file must have.
            uri: where the object store keeps it.
            flavor: its format. A pickle runs code: pass digests from the registry only.
            signature: its inputs and outputs.
            num_threads: threads that one call of `predict` may use.
            backend: what the plan pinned; see `backends.load`.

        Raises:
            NotFoundError: the object store does not have it.
            UnavailableError: the object store did not answer.
            CorruptError: the object store has other content than `digest`.
        """
        key = (digest, flavor, repr(signature), backend, num_threads)
        with self._lock:
            turn = self._loading.setdefault(key, threading.Lock())
        with turn:
            model = self._known(key)
            if model is None:
                path = self.pull(digest=digest, uri=uri)
                model = backends.load(
                    flavor, path, signature, backend=backend, num_threads=num_threads
                )
                self._keep(key, model)
        return model

    def _known(self, key: _Key) -> Model | None:
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
            return self._loaded.get(key)

    def _keep(self, key: _Key, model: Model) -> None:
        with self._lock:
            self._loaded[key] = model
            while len(self._loaded) > self._most_loaded:
                oldest, _ = self._loaded.popitem(last=False)
                self._loading.pop(oldest, None)

    def pull(self, *, digest: str, uri: str) -> Path:
        """Path of the model's file on this host, with exactly the content of `digest`.

        Raises:
            As `load`.
        """
        from filelock import FileLock, Timeout

        path = self._folder / f"{digest}{Path(uri).suffix}"
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._folder / f"{digest}.lock", timeout=_PULL_S):
                if not self._is_good(path, digest):
                    self._pull(path, digest, uri)
        except Timeout as error:
            raise UnavailableError(
                f"another process has been pulling model {uri} for {_PULL_S:.0f} s; see "
                f"{self._folder}"
            ) from error
        return path

    def _is_good(self, path: Path, digest: str) -> bool:
        if not path.exists():
            return False
        if file_digest(path) == digest:
            return True
        _log.warning(
            "a cached model is damaged; pulling it again",
            extra={"action": "model_cache_damaged", "path": str(path), "digest": digest},
        )
        return False

    def _pull(self, path: Path, digest: str, uri: str) -> None:
        part = path.with_name(f".{new_id('pull')}.tmp")
        try:
            found = self._copy(uri, part)
            if found != digest:
                raise CorruptError(
                    f"model {uri} is damaged in the object store: expected SHA-256 {digest}, "
                    f"found {found}; register the model's file again",
                    uri=uri,
                    expected=digest,
                    found=found,
                )
            sync(part)
            part.replace(path)
        except OSError as error:
            raise LimitError(f"model {uri} cannot be written to {path}: {error}") from error
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, uri: str, part: Path) -> str:
        """Writes the object's content; returns its SHA-256."""
        store, key = locate(uri, self._settings)
        hasher = hashlib.sha256()
        with closing(store.open(key)) as source, part.open("wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                hasher.update(chunk)
                target.write(chunk)
        return hasher.hexdigest()
