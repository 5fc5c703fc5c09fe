"""`SetStream` against a transmitter that serves management on loopback, and one that answers nonsense."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from aiohttp import web

from jwt_events import InvalidOption
from jwt_events.errors import Closed, TransmitterError, TransmitterRefused
from jwt_events.signals import CAEP, SetPoller, SetStream
from jwt_events.signals._configuration import well_known_url
from jwt_events.testing import RecordingPublisher, Transmitter
from tests.signals.test_poller import events
from tests.support.services import aiohttp_server
from tests.support.waiting import wait_until

IDP = Transmitter()
SECRET = "Bearer of-the-receiver"
CAROL = {"format": "email", "email": "carol@example.com"}


def stream_of(served: Any, **options: Any) -> SetStream:
    """Describe the stream at a transmitter."""
    usual: dict[str, Any] = {"authorization": SECRET, "configuration_url": served.configuration_url}
    return SetStream(IDP.issuer, **usual | options)


class TestManagement:
    """The life of a stream."""

    async def test_from_creation_to_deletion(self) -> None:
        """It is created, read, changed, replaced, paused, verified, and deleted."""
        async with IDP.serve(authorization=SECRET) as served, stream_of(served) as stream:
            about = await stream.discover()
            assert about.jwks_uri == f"{served.url}/jwks"
            assert about.delivery_methods_supported == ("urn:ietf:rfc:8935", "urn:ietf:rfc:8936")
            created = await stream.create(events_requested=[f"{CAEP}session-revoked", "https://x.example/y"])
            assert stream.stream_id == created.stream_id
            assert created.endpoint_url == served.poll_url
            assert created.events_delivered == (f"{CAEP}session-revoked",)
            assert created.audience == (IDP.audience,)
            assert await stream.read() == created
            changed = await stream.update(description="orders")
            assert (changed.description, changed.events_requested) == ("orders", created.events_requested)
            replaced = await stream.replace(push_url="https://orders.example/events", push_authorization="Bearer x")
            assert (replaced.description, replaced.events_requested) == (None, ())
            assert replaced.delivery_method == "urn:ietf:rfc:8935"
            assert served.streams[created.stream_id]["delivery"]["authorization_header"] == "Bearer x"
            assert [one.stream_id for one in await stream.streams()] == [created.stream_id]
            assert (await stream.status()).status == "enabled"
            assert (await stream.set_status("paused", reason="upkeep")).reason == "upkeep"
            assert (await stream.status()).status == "paused"
            await stream.verify("s1")
            assert len(served.pending) == 1
            await stream.delete()
            assert served.streams == {}
            assert stream.stream_id is None

    async def test_subjects(self) -> None:
        """Subjects are added and removed; of one that was removed nothing comes."""
        async with IDP.serve(authorization=SECRET) as served, stream_of(served) as stream:
            await stream.create()
            await stream.add_subject(CAROL, verified=True)
            assert served.emit(f"{CAEP}session-revoked", CAROL) is not None
            await stream.remove_subject(CAROL)
            assert served.emit(f"{CAEP}session-revoked", CAROL) is None
            await stream.add_subject(CAROL)
            assert served.emit(f"{CAEP}session-revoked", CAROL) is not None
            for wrong in ({"format": "email"}, {}, {"format": ""}, "carol"):
                with pytest.raises(InvalidOption, match="subject"):
                    await stream.add_subject(wrong)  # type: ignore[arg-type]  # text is one of them

    async def test_which_stream(self) -> None:
        """The only stream is found; of several, one must be named."""
        async with IDP.serve(authorization=SECRET) as served, stream_of(served) as first:
            with pytest.raises(InvalidOption, match="0 streams"):
                await first.read()
            created = await first.create()
            async with stream_of(served) as other:
                assert (await other.read()) == created
            await first.create()
            async with stream_of(served) as other:
                with pytest.raises(InvalidOption, match="2 streams"):
                    await other.read()
            async with stream_of(served, stream_id=created.stream_id) as other:
                assert (await other.read()) == created

    async def test_refused(self) -> None:
        """What the transmitter refuses has its status; without the authorization the advice is to look at it."""
        async with IDP.serve(authorization=SECRET) as served:
            async with stream_of(served, stream_id="unknown") as stream:
                with pytest.raises(TransmitterRefused) as caught:
                    await stream.read()
                assert caught.value.status == 404
            async with stream_of(served, authorization="Bearer wrong") as stream:
                with pytest.raises(TransmitterRefused, match="authorization") as caught:
                    await stream.create()
                assert caught.value.status == 401
        async with stream_of(served, timeout=1.0) as stream:
            with pytest.raises(TransmitterError, match="not reached"):
                await stream.discover()
        with pytest.raises(Closed):
            await stream.discover()


async def transmitter_that_answers(answer: Callable[[web.Request], Any]) -> web.Application:
    """Make a transmitter that answers every request in this way."""
    app = web.Application()

    async def handle(request: web.Request) -> web.Response:
        found = answer(request)
        return found if isinstance(found, web.Response) else web.json_response(found)

    app.router.add_route("*", "/{path:.*}", handle)
    return app


@pytest.mark.parametrize(
    "answer",
    [
        {"issuer": "https://evil.example"},
        {"issuer": IDP.issuer, "configuration_endpoint": "http://evil.example/streams"},
        {"issuer": IDP.issuer, "configuration_endpoint": "file:///etc/passwd"},
        {"issuer": IDP.issuer, "configuration_endpoint": ["x"]},
        {"issuer": IDP.issuer, "delivery_methods_supported": "push"},
        {"issuer": IDP.issuer},
        {},
        [],
        None,
        web.Response(text="no JSON"),
        web.Response(body=b"[" * 100_000),
        web.Response(body=b" " * 2_000_000),
        web.Response(status=302, headers={"Location": "https://evil.example"}),
        web.Response(status=503),
    ],
    ids=lambda answer: str(answer)[:60] if not isinstance(answer, web.Response) else f"{answer.status}",
)
async def test_nonsense(answer: Any) -> None:
    """A configuration that is none, is another's, or leads elsewhere, is a typed error, and nothing is sent there."""

    def respond(_: web.Request) -> Any:
        if isinstance(answer, web.Response):
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        return answer

    async with (
        aiohttp_server(await transmitter_that_answers(respond)) as host,
        SetStream(IDP.issuer, configuration_url=f"http://{host}/c", authorization=SECRET) as stream,
    ):
        with pytest.raises(TransmitterError):
            await stream.create()


async def test_a_redirect_does_not_take_the_authorization_along() -> None:
    """A transmitter, or what stands for it, cannot send the secret elsewhere."""
    seen: list[str | None] = []

    def take(request: web.Request) -> Any:
        seen.append(request.headers.get("Authorization"))
        return {}

    async with aiohttp_server(await transmitter_that_answers(take)) as thief:

        def lead_away(_: web.Request) -> web.Response:
            return web.Response(status=308, headers={"Location": f"http://{thief}/poll"})

        async with (
            aiohttp_server(await transmitter_that_answers(lead_away)) as host,
            RecordingPublisher() as publisher,
            SetPoller(publisher, events(), f"http://{host}/poll", authorization=SECRET) as poller,
        ):
            await wait_until(lambda: poller.failure is not None)
            assert isinstance(poller.failure, TransmitterRefused)
    assert seen == []


async def test_tls() -> None:
    """A certificate that no known authority signed is refused; with the context of its authority it is not."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    seen: list[str] = []

    def answer(request: web.Request) -> Any:
        seen.append(request.headers["Authorization"])
        return {"issuer": IDP.issuer}

    runner = web.AppRunner(await transmitter_that_answers(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_side).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}/c"
        async with SetStream(IDP.issuer, authorization=SECRET, configuration_url=url) as stream:
            with pytest.raises(TransmitterError, match="not reached"):
                await stream.discover()
        assert seen == []
        async with SetStream(IDP.issuer, authorization=SECRET, configuration_url=url, ssl_context=trusting) as stream:
            assert (await stream.discover()).issuer == IDP.issuer
        assert seen == [SECRET]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://tr.example.com", "https://tr.example.com/.well-known/ssf-configuration"),
        ("https://tr.example.com/", "https://tr.example.com/.well-known/ssf-configuration"),
        ("https://tr.example.com/issuer1", "https://tr.example.com/.well-known/ssf-configuration/issuer1"),
    ],
)
def test_well_known(issuer: str, url: str) -> None:
    """The well-known path goes between the host and the path of the issuer, as the specification's example has it."""
    assert well_known_url(issuer) == url
