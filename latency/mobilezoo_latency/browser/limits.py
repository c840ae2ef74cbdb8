"""What a connection may send, how long it may take, and how many there may be: a server among strangers."""

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
"""Of a request line and its headers together."""
HEAD_S = 15.0
"""For them to arrive, the wait of a kept connection included."""
BODY_S = 120.0
SEND_S = 30.0
"""For each piece of an answer to be taken."""
MOST_CONNECTIONS = 48
MOST_FROM_ONE = 12
"""Connections of one address; browsers open six."""


class Incoming(io.RawIOBase):
    """The reading end of a connection: so many bytes, until so late, and not one more."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.allow(0, 0.0)

    def allow(self, size_bytes: int, limit_s: float) -> None:
        """So much may come from now on. What was read ahead already is not counted again."""
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
    """A thread per connection, and only so many. Those that break (a doubted certificate, a reload) are no news."""

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, address: str, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()
        super().__init__((address, 0), handler)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of a name for the address: where no name server answers, it takes seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, or its end where there are too many."""
        with self._lock:
            full = self._open.total() >= MOST_CONNECTIONS or self._open[client_address[0]] >= MOST_FROM_ONE
            self._open[client_address[0]] += not full
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open[client_address[0]] -= 1
                self._open += Counter()  # forget addresses without a connection

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing."""


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
        """The body of a request; shorter where the connection ended before. Raises TimeoutError."""
        self.incoming.allow(size_bytes, BODY_S)
        return self.rfile.read(size_bytes)

    def log_message(self, *_: object) -> None:
        """Nothing: the token stands in every path."""
