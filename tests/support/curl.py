"""Stands in for curl where a document shows it, with as much of it as the documents use."""

from __future__ import annotations

import argparse
import sys

import httpx


def main() -> None:
    """Send the request that the arguments describe, and print the response."""
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("url")
    parser.add_argument("-i", dest="include", action="store_true")
    parser.add_argument("-s", dest="is_silent", action="store_true")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-X", dest="method", default="GET")
    arguments = parser.parse_args()
    headers = dict(header.split(": ", 1) for header in arguments.headers)
    try:
        response = httpx.request(arguments.method, f"http://{arguments.url}", headers=headers, trust_env=False)
    except httpx.TransportError as error:
        sys.exit(f"curl: {error}")
    shown = []
    if arguments.include:
        shown.append(f"HTTP/1.1 {response.status_code} {response.reason_phrase}")
        shown += [f"{name.decode()}: {value.decode()}" for name, value in response.headers.raw]
        shown.append("")
    sys.stdout.write("\n".join([*shown, response.text, ""]))


if __name__ == "__main__":
    main()
