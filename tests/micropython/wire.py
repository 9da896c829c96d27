"""Numbers, texts and frames as docs/wire.md describes them, in MicroPython."""

import struct


def varint(n):
    out = b""
    while n > 127:
        n, out = n >> 7, out + bytes([n & 127 | 128])
    return out + bytes([n])


def text(s):
    return varint(len(s)) + s


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(message):
    parts = (message + struct.pack("<I", crc32c(message))).split(b"\0")
    return b"".join([bytes([len(part) + 1]) + part for part in parts]) + b"\0"


def unframe(stuffed):
    """The message, or nothing if the frame is damaged."""
    out, at = b"", 0
    while at < len(stuffed):
        out += stuffed[at + 1 : at + stuffed[at]] + b"\0"
        at += stuffed[at]
    whole = at == len(stuffed) and len(out) > 5
    return out[:-5] if whole and out[-5:-1] == struct.pack("<I", crc32c(out[:-5])) else b""


def before(a, b):
    return 0 < (b - a) & 0xFFFFFFFF < 1 << 31


class Body:
    def __init__(self, message):
        self.rest = message[1:]

    def byte(self):
        byte, self.rest = self.rest[0], self.rest[1:]
        return byte

    def number(self):
        byte = self.byte()
        return byte & 127 | (self.number() << 7 if byte > 127 else 0)

    def numbers(self, count):
        return [self.number() for _ in range(count)]
