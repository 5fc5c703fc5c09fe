"""Runs the tests on a server in a container: ``make test-docker REDIS_IMAGE=redis:8``.

Those that can run on any server run on it; `JWT_EVENTS_TEST_URL` tells them where. Those that start, freeze or kill a
server need one of their own, and run by ``make test``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import redis
from docker.errors import DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from tests.support.waiting import block_until

PORT = 6379
ON_IT = "[url or -url"
"""Selects the tests that run on the server of `JWT_EVENTS_TEST_URL`, by the ends of their names."""


@contextmanager
def server(image: str) -> Iterator[str]:
    """Start a container that runs a Redis or Valkey; return the URL of the server.

    Raises:
        DockerException: there is no Docker, or it has no such image.
    """
    testcontainers_config.ryuk_disabled = True  # it would need a second image, to remove what we remove ourselves
    with DockerContainer(image).with_exposed_ports(PORT) as container:
        url = f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(PORT)}"
        with closing(redis.Redis.from_url(url)) as client:
            block_until(lambda: _answers(client), within=60.0, what=f"the server of {image}")
        yield url


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def main(image: str, *arguments: str) -> int:
    """Run the tests on this image; return an exit code: that of pytest, or 2 if there is no server."""
    try:
        with server(image) as url:
            print(f"==> {image} answers at {url}")
            command = [sys.executable, "-m", "pytest", "-k", ON_IT, *arguments]
            return subprocess.run(command, env=os.environ | {"JWT_EVENTS_TEST_URL": url}, check=False).returncode
    except DockerException as error:
        print(
            f"make test-docker needs a running Docker that has {image} or can fetch it, and that failed:\n  {error}\n"
            "Start Docker (`docker info` must answer), or point DOCKER_HOST at one, or choose another REDIS_IMAGE.\n"
            "Without Docker: JWT_EVENTS_TEST_URL=redis://… make test runs the tests on a server of yours as well.",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
