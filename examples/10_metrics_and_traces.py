"""Learn to watch it: what Prometheus scrapes, and the way from the request that revoked to the handler that obeyed."""

import asyncio
import os

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from jwt_events import Publisher, RedisStream, RevocationList, Subscriber, TokenRevoked
from jwt_events.metrics import Metrics

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")

# For Jaeger it is one line instead of three: provider = jwt_events.tracing.setup("shop", "http://jaeger:4317")
provider = TracerProvider()
spans = InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(spans))

metrics = Metrics()  # one for all parts of a program
stream = RedisStream(URL, key="jwt:events:watched")
publisher = Publisher(stream, metrics=metrics, tracer_provider=provider)
subscriber = Subscriber(stream, metrics=metrics, tracer_provider=provider)
revocations = RevocationList(stream, metrics=metrics)  # how stale it is is the number to be woken up for
obeyed = asyncio.Event()


@subscriber.on(TokenRevoked)
async def close_cart(event: TokenRevoked) -> None:
    obeyed.set()


async def main() -> None:
    async with revocations, publisher, subscriber:
        with provider.get_tracer("shop").start_as_current_span("POST /logout"):  # your framework makes this one
            await publisher.publish(TokenRevoked(token_id="token-1"))
        await obeyed.wait()

    # Have it scraped by prometheus_client.start_http_server(9000), each instance by itself.
    for sample in (sample for family in REGISTRY.collect() for sample in family.samples):
        if sample.value and sample.name in ("jwt_events_published_total", "jwt_events_handled_total"):
            print(sample.name, *sample.labels.values(), sample.value)

    finished = {span.context.span_id: span for span in spans.get_finished_spans()}
    for span in finished.values():
        cause = span.parent or next((link.context for link in span.links), None)
        print(span.name, "because of", finished[cause.span_id].name if cause else "somebody")


asyncio.run(main())
