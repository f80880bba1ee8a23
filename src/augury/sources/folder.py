"""News of a local folder: which keys changed, within milliseconds, as long as the system tells.

Only a hint: the system may drop news, a network file system has none. The listing is what is relied
upon, so whatever goes wrong here costs latency and is said, nothing else.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from pathlib import Path

from augury.errors import UnavailableError
from augury.storage.files import make_folder

_log = logging.getLogger(__name__)
# the watching thread wakes once a step; two quiet steps, at most a debounce, and it tells
_STEP_MS = 5
_DEBOUNCE_MS = 50

logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every change


class FolderNews:
    """Watches one folder in a thread of its own until closed.

    Args:
        folder: absolute path; made if it does not exist.
        news: gets sets of changed keys (files and folders), relative to the folder.

    Raises:
        UnavailableError: the folder cannot be made or entered.
    """

    def __init__(self, folder: Path, news: queue.SimpleQueue[set[str]]) -> None:
        self._folder = folder
        self._news = news
        self._stop = threading.Event()
        self._place = _place_of(folder)
        self._thread = threading.Thread(target=self._run, name=f"watch {folder}", daemon=True)
        self._thread.start()

    def is_current(self) -> bool:
        """False if the thread ended or the folder is another one by now: begin anew."""
        try:
            found = self._folder.stat()
        except OSError:
            return False
        return self._thread.is_alive() and (found.st_dev, found.st_ino) == self._place

    def close(self) -> None:
        """Stops watching; returns when the thread ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from watchfiles import watch

        try:
            for changes in watch(
                self._folder,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                stop_event=self._stop,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                self._news.put({self._key(path) for _, path in changes} - {""})
        except Exception as error:  # the library raises what the system said, of any class
            _log.warning(
                "news of %s ended (%s); it is listed instead",
                self._folder,
                error,
                extra={"action": "folder_news_ended"},
            )

    def _key(self, path: str) -> str:
        relative = os.path.relpath(path, self._folder)
        return "" if relative.startswith("..") or relative == "." else relative


def _place_of(folder: Path) -> tuple[int, int]:
    try:
        if not folder.is_dir():
            make_folder(folder)
            _log.info("made the folder %s, to watch it", folder, extra={"action": "folder_made"})
        found = folder.stat()
    except OSError as error:
        raise UnavailableError(
            f"the folder {folder} cannot be watched: {error.strerror}"
        ) from error
    return found.st_dev, found.st_ino
