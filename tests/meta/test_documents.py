"""What the documents show and what the examples do, executed."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import sys
import tomllib
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from jwt_events import Publisher, RedisStream, SessionDestroyed, errors
from jwt_events.embedded import EmbeddedServer
from tests.meta.test_shape import DOORS, INSIDE, PACKAGES, modules
from tests.support.documents import DOCS, PAGES, README, ROOT, Block, anchors, blocks, links, prose
from tests.support.waiting import scaled

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SNIPPETS = blocks(*PAGES, language="python")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

OwnServer = Callable[[], EmbeddedServer]


async def _python(*arguments: str | Path, url: str, **environment: str) -> Process:
    env = os.environ | {"JWT_EVENTS_URL": url, "PYTHONWARNINGS": "error"} | environment
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, env=env, stdout=PIPE, stderr=PIPE)


async def _output(process: Process) -> list[str]:
    async with asyncio.timeout(scaled(30)):
        out, err = await process.communicate()
    meant = ("handler failed", "revocation list changed state", "dead letter", "signals are stale")
    told = tuple(f"jwt_events: {message}" for message in meant)
    assert process.returncode == 0
    assert [line for line in err.decode().splitlines() if not line.startswith(told)] == []
    return out.decode().splitlines()


def _name(block: object) -> str:
    return f"{block.page.stem}, {block.section}" if isinstance(block, Block) else str(block)


@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)  # it is the blocks that are tested here
@pytest.mark.parametrize("block", SNIPPETS, ids=_name)
async def test_block(own_server: OwnServer, tmp_path: Path, block: Block) -> None:
    """Every Python block runs when it is imported, with the address of a server put in, and prints what it says."""
    printed = re.findall(r"print\(.*\)  # (\w+)$", block.text, re.MULTILINE)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    async with own_server() as server:
        code = block.text.replace("redis://localhost:6379", server.url)
        await asyncio.to_thread((tmp_path / "page.py").write_text, code)
        running = await _python("-c", "import page", url=server.url, PYTHONPATH=path)
        assert await _output(running) == printed


def test_the_first_block_prints() -> None:
    """What one pastes first has something to show."""
    assert SNIPPETS[0].page == README
    assert SNIPPETS[0].text.count("print(") == 2


@asynccontextmanager
async def _running(example: str, url: str, **environment: str) -> AsyncIterator[Process]:
    """Run an example alongside the test; it is killed if it has not ended by then."""
    process = await _python(ROOT / "examples" / example, url=url, **environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _example(example: str, url: str) -> list[str]:
    """Run an example to its end and return what it prints."""
    return await _output(await _python(ROOT / "examples" / example, url=url))


async def _read(process: Process, until: Callable[[str], bool]) -> str:
    """Read what an example prints until it is enough."""
    assert process.stdout is not None
    heard = ""
    async with asyncio.timeout(scaled(30)):
        while not until(heard):
            line = await process.stdout.readline()
            assert line, f"it ended after {heard!r}"
            heard += line.decode()
    return heard


async def test_examples_publish_and_subscribe(own_server: OwnServer) -> None:
    """The subscriber of the second example hears what the first publishes, and drains on SIGTERM."""
    async with own_server() as server, _running("02_subscribe.py", server.url) as subscriber:
        await _read(subscriber, lambda heard: heard == "listening\n")
        published = await _example("01_publish.py", server.url)
        heard = await _read(subscriber, lambda heard: heard.count("audit:") == 5)  # threads print, maybe on one line
        subscriber.send_signal(signal.SIGTERM)
        rest = await _output(subscriber)
    assert published[1:] == ["key rotated", "3 more published"]
    assert "no longer good: token-1" in heard
    assert "audit: key_rotated from auth-service" in heard
    assert rest[-1] == "handled 5 events"


async def test_example_replay(own_server: OwnServer) -> None:
    """The third example replays all of the stream, then what follows a position."""
    async with own_server() as server:
        output = await _example("03_stream_replay.py", server.url)
    expected = [f"from the beginning: token-{number}" for number in range(5)]
    assert output == [*expected, "after the third: token-3", "after the third: token-4"]


async def test_example_groups(own_server: OwnServer) -> None:
    """In the fourth, two workers share five events, and one that failed is replayed. It can be run again."""
    async with own_server() as server:
        for _ in range(2):
            failure, success = await _example("04_groups.py", server.url)
            assert re.fullmatch(r"given up after 2 attempts: OSError at 04_groups.py:\d+ in mail", failure)
            assert success == "mailed: alice bob carol dave erin"


async def test_example_graceful_shutdown(own_server: OwnServer) -> None:
    """On SIGTERM the ninth finishes what can be finished; what cannot comes back at the next start."""
    sessions = {"quick": 0.2, "slow": 600}
    async with own_server() as server:
        async with Publisher(RedisStream(server.url, key="jwt:events:archive")) as publisher:
            await publisher.publish_many(
                SessionDestroyed(session_id=name, metadata={"seconds": seconds}) for name, seconds in sessions.items()
            )
        async with _running("09_graceful_shutdown.py", server.url, DRAIN_TIMEOUT="1") as process:
            await _read(process, lambda heard: heard.count("begun") == 2)
            process.send_signal(signal.SIGTERM)
            assert await _output(process) == ["finished: quick", "cancelled: slow", "handled 1 and left 1"]
        async with _running("09_graceful_shutdown.py", server.url) as process:
            assert await _read(process, lambda heard: "begun" in heard) == "begun: slow\n"


async def test_example_metrics_and_traces(own_server: OwnServer) -> None:
    """The tenth counts what it does, and its spans lead from the request to the handler."""
    async with own_server() as server:
        output = await _example("10_metrics_and_traces.py", server.url)
    assert set(output) == {
        "jwt_events_published_total token_revoked stream published 1.0",
        "jwt_events_handled_total token_revoked close_cart handled 1.0",
        "POST /logout because of somebody",
        "publish jwt:events:watched because of POST /logout",
        "process jwt:events:watched because of publish jwt:events:watched",
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path: Path) -> None:
    """An example has fewer than 60 lines and begins with what one learns; the documents lead to it."""
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert lines[0].startswith('"""Learn to ')
    assert f"../examples/{path.name}" in links(DOCS / "getting-started.md")


def test_examples_are_in_order() -> None:
    """They are numbered without a gap, and each is run by a test: here, or in a file about what it is about."""
    assert [path.name[:3] for path in EXAMPLES] == [f"{number:02}_" for number in range(1, len(EXAMPLES) + 1)]
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [path.name for path in EXAMPLES if f'"{path.name}"' not in tests] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link within the repository has a target: the file is there, and so is the heading."""
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        if link.startswith(("https://", "http://")):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_found() -> None:
    """The README leads to every other page, and has at most 200 lines."""
    assert {(README.parent / link.partition("#")[0]).resolve() for link in links(README)} >= {*PAGES} - {README}
    assert len(README.read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_installed_can_be_installed(page: Path) -> None:
    """No page installs the package from an index, where it is not; each extra that is named is there."""
    text = page.read_text()
    assert not re.search(r"pip install '?jwt[_-]events", text)
    named = {
        extra
        for extras in re.findall(r"(?:pip install '\.|jwt_events)\[([\w,]+)\]", text)
        for extra in extras.split(",")
    }
    assert named <= PROJECT["project"]["optional-dependencies"].keys()


def test_everything_is_in_the_source_distribution() -> None:
    """What stands at the top of the repository and is no setting of a tool is in the source distribution."""
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {path.relative_to(ROOT).parts[0] for path in PAGES} <= {*included}
    assert [name for name in included if not (ROOT / name).exists()] == []


def test_symptoms() -> None:
    """Each message that the page for beginners explains is one that the library says."""
    section = prose(DOCS / "getting-started.md").partition("## When it does not work")[2].partition("\n## ")[0]
    symptoms = " ".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))
    quoted = [text for text in re.findall(r"`([a-z][^`]+ [^`]+)`", symptoms) if not text.startswith("connecting to")]
    code = "\n".join(module.text for module in modules().values())
    assert len(quoted) > 6
    assert [text for text in quoted if f'"{text}"' not in code] == []


def test_guarantees_are_the_same() -> None:
    """What the transports guarantee is said twice, in the same words."""
    table, again = (
        re.findall(r"^\| `(?:Redis|Memory)\w+.*\|$", prose(page), re.MULTILINE)
        for page in (README, DOCS / "transports.md")
    )
    assert len(table) == 4
    assert table == again


class TestErrors:
    """The page about errors says what there is."""

    TEXT = prose(DOCS / "errors.md")

    @pytest.mark.parametrize("name", errors.__all__)
    def test_each(self, name: str) -> None:
        """Every error is on the page, with what it has for a program."""
        attributes = inspect.getdoc(getattr(errors, name)) or ""
        names = re.findall(r"^    (\w+): ", attributes.partition("Attributes:")[2], re.MULTILINE)
        assert [word for word in (name, *names) if f"`{word}`" not in self.TEXT] == []

    def test_kinds(self) -> None:
        """What is said to be a kind of another one is a subclass of it."""
        kinds = re.findall(r"^\| `(\w+)`, an? `(\w+)` \|", self.TEXT, re.MULTILINE)
        assert len(kinds) > 8
        assert [kind for kind, base in kinds if not issubclass(getattr(errors, kind), getattr(errors, base))] == []


class TestArchitecture:
    """The map of the code is the code."""

    TEXT = prose(DOCS / "architecture.md")

    def test_modules(self) -> None:
        """Every module has a line in the map, and every line a module."""
        listed = re.findall(r"^\| `jwt_events/([\w/]*)` \|", self.TEXT, re.MULTILINE)
        there = [
            path.relative_to(ROOT / "jwt_events").with_suffix("").as_posix().removesuffix("__init__")
            for path in (module.path for module in modules().values())
        ]
        assert sorted(listed) == sorted(there)
        mentioned = re.findall(r"`jwt_events/([\w/]*)`", self.TEXT)
        assert {name for name in mentioned if f"{name}/" not in there} <= {*there}

    def test_packages(self) -> None:
        """The order of the packages is the one that is tested."""
        rows = re.findall(r"^\| \d+ \| (.*?) \|", self.TEXT, re.MULTILINE)
        assert [_words(row) for row in rows] == [{name or "jwt_events" for name in row} for row in PACKAGES]

    def test_inside(self) -> None:
        """The order inside the large packages is the one that is tested."""
        rows = {
            package: tuple(_words(step) for step in order.split(" → "))
            for package, order in re.findall(r"^\| inside `(\w+)` \| (.*) \|$", self.TEXT, re.MULTILINE)
        }
        assert rows == {package: tuple({*row} for row in order) for package, order in INSIDE.items()}

    def test_doors(self) -> None:
        """The modules that may import a library are those that are tested."""
        rows = {
            library: _words(doors)
            for library, doors in re.findall(r"^\| library `(\w+)` \| (.*) \|$", self.TEXT, re.MULTILINE)
        }
        assert rows == {library: {door or "jwt_events" for door in doors} for library, doors in DOORS.items()}

    def test_classes(self) -> None:
        """Every class that the page names in its map, sequences and invariants is there."""
        named = set(re.findall(r"`([A-Z]\w*[a-z]\w*)(?:\.\w+)?`", self.TEXT))
        code = "\n".join(module.text for module in modules().values())
        assert [
            name for name in sorted(named) if not re.search(rf"^(class {name}\b|{name}\b.*=)", code, re.MULTILINE)
        ] == []

    def test_tests(self) -> None:
        """Every test that holds an invariant is there."""
        named = re.findall(r"`(tests/[\w/]+\.py)`", self.TEXT)
        assert named
        assert [name for name in named if not (ROOT / name).exists()] == []


def _words(text: str) -> set[str]:
    return set(re.findall(r"`([\w.]+)`", text))


class TestForge:
    """The files that the forge and the hooks of Git read."""

    @pytest.mark.parametrize(
        "path",
        [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml"],
        ids=lambda path: path.name,
    )
    def test_yaml(self, path: Path) -> None:
        """Each is a mapping in YAML."""
        assert isinstance(yaml.safe_load(path.read_text()), dict)

    def test_changes_are_tested(self) -> None:
        """What must pass before a change lands is run on every Python that is supported."""
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
        (job,) = workflow["jobs"].values()
        assert any(step.get("run") == ".ci/run" for step in job["steps"])
        supported = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if ":: 3." in line]
        assert job["strategy"]["matrix"]["python"] == supported

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_actions_are_pinned(self, path: Path) -> None:
        """Each action is pinned to a major version, and a workflow may only read unless a job says otherwise."""
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
        assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@(v|release/v)\d+", name)] == []

    def test_ruff_is_the_same(self) -> None:
        """The hooks check and format as `make lint` does."""
        hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
        assert {hook["id"] for repo in hooks["repos"] for hook in repo["hooks"]} >= {"ruff-check", "ruff-format"}
