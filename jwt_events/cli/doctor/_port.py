"""What a port speaks, TLS or plain text, for a URL that asks for the other one."""

from __future__ import annotations

import asyncio
import ssl

_WITHIN = 2.0
_MAX_REPLY_BYTES = 512


async def mismatch(scheme: str, host: str, port: int) -> str:
    """Return the advice for a URL whose scheme is not what the port speaks; empty if that is not the problem."""
    if scheme == "redis" and await _speaks_tls(host, port):
        return "The port speaks TLS: use rediss://."
    if scheme == "rediss" and await _speaks_plain_text(host, port):
        return "The port speaks plain text, without TLS: use redis://, or its TLS port."
    return ""


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent that would need to be secret
    try:
        async with asyncio.timeout(_WITHIN):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # the other side speaks TLS, and refuses: it may want a certificate
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


async def _speaks_plain_text(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_WITHIN):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                reply = await reader.read(_MAX_REPLY_BYTES)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return False
    return reply.startswith((b"+", b"-"))  # PONG, or an error such as NOAUTH; TLS answers with an alert or not at all
