"""Stands in for curl where a document shows it, with as much of it as the documents use.

It is started dozens of times, so it imports little.
"""

from __future__ import annotations

import argparse
import sys
from http.client import HTTPConnection, HTTPException


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
    address, slash, path = arguments.url.partition("/")
    connection = HTTPConnection(address, timeout=30.0)
    try:
        connection.request(arguments.method, slash + path or "/", headers=headers)
        response = connection.getresponse()
        body = response.read().decode()
    except (OSError, HTTPException) as error:
        sys.exit(f"curl: {error}")
    finally:
        connection.close()
    shown = []
    if arguments.include:
        shown.append(f"HTTP/1.1 {response.status} {response.reason}")
        shown += [f"{name}: {value}" for name, value in response.getheaders()]
        shown.append("")
    sys.stdout.write("\n".join([*shown, body, ""]))


if __name__ == "__main__":
    main()
