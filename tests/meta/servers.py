"""Runs the tests on real servers that package registries have: ``make test-servers SERVERS="redis-6.2 redis-8"``.

Those tests that can run on any server run on it; `JWT_EVENTS_TEST_URL` tells them where. Each worker has a server of
its own, as the tests count what is left there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import redis

from tests.meta.docker import ON_IT
from tests.meta.programs import SERVERS, ServerMissingError, program
from tests.support.waiting import block_until


@contextmanager
def server(binary: Path) -> Iterator[str]:
    """Run a server on a socket of its own; return its URL.

    Raises:
        ServerMissingError: it does not start.
    """
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "server.sock"
        url = f"unix://{socket}"
        command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--dir", directory, "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with closing(redis.Redis.from_url(url)) as client:
                block_until(lambda: process.poll() is not None or _is_ready(client), within=30.0, what=str(binary))
                if process.poll() is not None:
                    raise ServerMissingError(f"{binary} ended with code {process.returncode} when it was started")
            yield url
        finally:
            process.kill()
            process.wait()


def _is_ready(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def run(name: str, workers: int, arguments: Sequence[str]) -> int:
    """Run the tests on one of these servers, started once for each worker; return the exit code of pytest.

    Raises:
        ServerMissingError: it cannot be had or does not start.
    """
    binary = program(name)
    with ExitStack() as stack:
        urls = [stack.enter_context(server(binary)) for _ in range(workers)]
        with closing(redis.Redis.from_url(urls[0])) as client:
            print(f"==> Running the tests on Redis {client.info('server')['redis_version']}", flush=True)
        options = ["--numprocesses", str(workers), "--dist", "worksteal", "-k", ON_IT]
        environment = os.environ | {"JWT_EVENTS_TEST_URL": " ".join(urls)}
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    """Run the tests on each of these servers; return the first exit code that is not 0, or 2 if a server is missing."""
    parser = argparse.ArgumentParser(prog="make test-servers", allow_abbrev=False)
    parser.add_argument("names", help=f"with blanks between them: {', '.join(SERVERS)}")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--missing", type=int, default=2, help="the exit code that a missing server means")
    options, arguments = parser.parse_known_args()
    codes = []
    for name in options.names.split():
        try:
            codes.append(run(name, options.workers, arguments))
        except ServerMissingError as error:
            print(f"==> NOT RUN: the tests on {name}: {error}", file=sys.stderr)
            codes.append(options.missing)
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
