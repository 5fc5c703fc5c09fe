"""The demo: a server, an issuer and some services, each a process of its own.

In the first act events cross between them; in the second, tokens stop working, also while the server is away. Nothing
of the library imports it.
"""
