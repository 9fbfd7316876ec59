"""A name server that knows one name: what resolvers ask it is UDP traffic as it is."""
from __future__ import annotations

import socket
import socketserver
import struct
import threading

A, IN = 1, 1


class _Query(socketserver.BaseRequestHandler):
    def handle(self):
        data, answer = self.request
        number, flags, questions = struct.unpack_from(">HHH", data)
        end = data.index(0, 12) + 1
        kind, space = struct.unpack_from(">HH", data, end)
        name, at = [], 12
        while data[at]:
            name.append(data[at + 1:at + 1 + data[at]].decode("ascii").lower())
            at += 1 + data[at]
        known = questions == 1 and ".".join(name) == self.server.name
        records = b""
        if known and (kind, space) == (A, IN):
            # The name is the question's; it may be kept for no time.
            records = struct.pack(">HHHIH4s", 0xC00C, A, IN, 0, 4, socket.inet_aton(self.server.address_of_name))
        # An answer, authoritative, recursion as it was asked for; 3: there is no such name.
        head = struct.pack(">HHHHHH", number, 0x8400 | flags & 0x0100 | (0 if known else 3), 1, 1 if records else 0, 0, 0)
        answer.sendto(head + data[12:end + 4] + records, self.client_address)


class NameServer:
    """On `address`, port 53, until the end of the block: `name` has the address `its`."""

    def __init__(self, address: str, name: str, its: str):
        self.server = socketserver.UDPServer((address, 53), _Query)
        self.server.name, self.server.address_of_name = name, its
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> "NameServer":
        self.thread.start()
        return self

    def __exit__(self, *ignored):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
