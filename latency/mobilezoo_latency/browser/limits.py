"""Limits of a connection: bytes, seconds, and how many at once; the server is open to a whole network."""

import http.client
import io
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, ClassVar

HEAD_BYTES = 16_384
"""Most bytes of a request line and its headers together."""
HEAD_S = 15.0
"""Seconds for them to arrive, the wait of a kept connection included."""
BODY_S = 120.0
SEND_S = 30.0
"""Seconds for each piece of an answer to be taken."""
MOST_CONNECTIONS = 48
MOST_FROM_ONE = 12
"""Connections of one address; browsers open six."""


class Incoming(io.RawIOBase):
    """The reading end of a connection, with a limit of bytes and a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.allow(0, 0.0)

    def allow(self, size_bytes: int, limit_s: float) -> None:
        """Sets new limits; bytes that were read ahead already are not counted again.

        Args:
            size_bytes: most bytes from now on.
            limit_s: seconds from now to the deadline.
        """
        self._left, self._ends = size_bytes, time.monotonic() + limit_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wait_s = self._ends - time.monotonic()
        if self._left <= 0:
            raise http.client.LineTooLong("request")
        if wait_s <= 0:
            raise TimeoutError
        self._connection.settimeout(wait_s)
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class BoundedServer(ThreadingMixIn, HTTPServer):
    """A thread per connection, up to a limit. Broken connections (a doubted certificate, a reload) are not reported."""

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, address: str, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()
        super().__init__((address, 0), handler)

    def server_bind(self) -> None:
        """Binds without HTTPServer's look-up of a host name, which takes seconds if no name server answers."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection, or closes it if there are too many.

        Args:
            request: the connection's socket.
            client_address: (address, port) of the other side.
        """
        with self._lock:
            full = self._open.total() >= MOST_CONNECTIONS or self._open[client_address[0]] >= MOST_FROM_ONE
            self._open[client_address[0]] += not full
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves one connection to its end.

        Args:
            request: the connection's socket.
            client_address: (address, port) of the other side.
        """
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open[client_address[0]] -= 1
                self._open += Counter()  # forget addresses without a connection

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores an error of a connection: strangers must not fill the terminal.

        Args:
            request: the connection's socket.
            client_address: (address, port) of the other side.
        """


class BoundedHandler(BaseHTTPRequestHandler):
    """Reads through `Incoming`."""

    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float | None] = SEND_S
    server_version, sys_version = "mobilezoo", ""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.incoming = Incoming(self.connection)
        self.rfile = io.BufferedReader(self.incoming)

    def handle_one_request(self) -> None:
        self.incoming.allow(HEAD_BYTES, HEAD_S)
        super().handle_one_request()

    def body(self, size_bytes: int) -> bytes:
        """Reads the body of a request; shorter if the connection ended before. Raises TimeoutError."""
        self.incoming.allow(size_bytes, BODY_S)
        return self.rfile.read(size_bytes)

    def log_message(self, *_: object) -> None:
        """Logs nothing: the token stands in every path."""
