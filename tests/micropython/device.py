"""A sensor device in MicroPython, written from docs/wire.md and nothing else; how things are encoded is in wire.py.

It keeps every row until the gateway has released it. Where its memory is full, it samples nothing, so that no row that
has a number is ever lost, and it needs no Gap. It sends DataPlain, and repeats what is not acknowledged in a second.

On a board, give it a machine.UART and a real sensor. Run as a program it speaks on standard input and output, samples
as many rows as its argument says, 50 a second, and ends once all of them are released.
"""

import select
import struct
import sys
import time

from wire import Body, before, crc32c, frame, text, unframe, varint

CHIP, NAME, TICK_HZ = b"\x4d\x50\x00\x07", b"micropython", 1000
# Group, its name, the channel's name, unit, type and scale.
CHANNELS = (
    (0, b"climate", b"n", b"", 3, 0),
    (0, b"climate", b"temperature", b"\xc2\xb0C", 2, -2),
    (0, b"climate", b"humidity", b"%", 4, 0),
    (0, b"climate", b"heating", b"", 1, 0),
)
BLOCK_MAX, BLOCKS_MAX, LINGER, REPEAT, STATUS, SILENCE = 244, 32, 200, 1000, 4000, 15000


class Device:
    def __init__(self, port):
        self.port, self.frame, self.repeated = port, b"", 0
        self.boot, self.epoch, self.births, self.credit = 0, None, False, 0
        self.next = self.received = self.released = 0
        self.blocks, self.ranges = [], []  # Each block: first row, one past the last, bytes, when it was sent or None.
        self.rows, self.count = b"", 0  # The open block, without its head.
        self.births_at = self.heard = self.spoke = self.opened = 0
        self.welcomed, self.greet_at, self.greet_wait, self.greeted = False, 0, 250, 0
        self.described = [
            bytes([group]) + text(group_name) + text(name) + text(unit) + bytes([type, scale & 255])
            for group, group_name, name, unit, type, scale in CHANNELS
        ]
        self.schema = varint(crc32c(b"".join(self.described)))

    def full(self):
        return len(self.blocks) == BLOCKS_MAX

    def sample(self, now, group, values):
        """A row, whose values are encoded as their channels' types say; None where there is none."""
        present = sum(1 << at for at, value in enumerate(values) if value is not None)
        tail = varint(present) + b"".join([value for value in values if value is not None])
        if self.count and (len(self.rows) + len(tail) + 22 > BLOCK_MAX or self.count == 255):
            self.seal()
        if not self.count:
            self.base = self.last = self.opened = now
        self.rows += bytes([group]) + varint(now - self.last) + tail
        self.last, self.count, self.next = now, self.count + 1, self.next + 1 & 0xFFFFFFFF

    def seal(self):
        first = self.next - self.count & 0xFFFFFFFF
        head = varint(first) + varint(self.base) + bytes([self.count])
        self.blocks.append([first, self.next, head + self.rows, None])
        self.rows, self.count = b"", 0

    def receive(self, now, byte):
        if byte != b"\0":
            self.frame += byte
            return
        message, self.frame = unframe(self.frame), b""
        if message:
            self.heed(now, message[0], Body(message))

    def heed(self, now, kind, body):
        if kind == 0x41:
            epoch, boot, released, received = body.numbers(4)
            births, credit = not body.byte(), body.byte()
            answer = text(CHIP) + varint(self.greeted & 0xFFFFFFFF)
            known = body.rest[: len(text(CHIP))] == text(CHIP) and boot == self.boot
            if not (known or not self.boot and body.rest == answer) or before(self.next, received):
                return
            self.epoch, self.boot, self.births, self.welcomed = epoch, boot, births, True
            self.births_at, self.ranges = now, []
            for block in self.blocks:
                block[3] = None
        elif kind == 0x42:
            epoch, boot, received, released, count = body.numbers(5)
            ranges = [body.numbers(2) for _ in range(count)]
            credit, births = body.byte(), body.byte()
            if not self.is_mine(now, epoch) or boot != self.boot:
                return
            if before(received, self.received) or before(self.next, received):
                return
            self.births, self.ranges = self.births or births, ranges
        elif kind == 0x43:
            epoch, token = body.numbers(2)
            if self.is_mine(now, epoch):
                self.heard = now
                self.say(now, b"\x06" + varint(token) + varint(now))
            return
        else:
            if kind == 0x45 and body.byte() == 5:
                self.greet(now if self.welcomed else min(self.greet_at, now + 250))
            return
        self.received, self.credit, self.heard = received, credit, now
        if before(self.released, released):
            self.released = released
        self.blocks = [block for block in self.blocks if before(self.released, block[1])]

    def is_mine(self, now, epoch):
        if self.welcomed and epoch != self.epoch:
            self.greet(now)
        return self.welcomed

    def greet(self, now):
        self.welcomed, self.greet_at, self.greet_wait = False, now, 250

    def say(self, now, message):
        self.port.write(b"\0" + frame(message))
        self.spoke = now

    def tend(self, now):
        """Says whatever is due."""
        if self.welcomed and now - self.heard > SILENCE:
            self.greet(now)
        if not self.welcomed:
            if now >= self.greet_at:
                self.greet_at, self.greet_wait = now + self.greet_wait, min(2 * self.greet_wait, 5000)
                self.greeted = now
                self.say(now, b"\x01" + text(CHIP) + text(NAME) + varint(self.boot) + b"\1\1" + self.schema
                         + varint(self.released) + varint(self.next) + varint(TICK_HZ) + varint(now) + b"\1\0")
            return
        if not self.births:
            if now >= self.births_at:
                self.births_at = now + REPEAT
                for index, described in enumerate(self.described):
                    self.say(now, b"\x02" + self.schema + bytes([index, len(CHANNELS)]) + described)
            return
        if self.count and now - self.opened >= LINGER and not self.full():
            self.seal()
        self.send_blocks(now)
        unsent = any(block[3] is None for block in self.blocks)
        if now - self.spoke > (REPEAT if unsent and not self.credit else STATUS):
            sent = [block[1] for block in self.blocks if block[3] is not None]
            self.say(now, b"\x07" + varint(self.boot) + varint(self.released)
                     + varint(sent[-1] if sent else self.received) + varint(self.next)
                     + varint(sum(len(block[2]) for block in self.blocks)) + varint(BLOCKS_MAX * BLOCK_MAX) + b"\0")

    def send_blocks(self, now):
        under_way = 0
        for block in self.blocks:
            first, end, rows, sent = block
            if not before(self.received, end):
                continue
            under_way += 1
            held = any(not before(first, a) and not before(b, end) for a, b in self.ranges)
            if held or under_way > min(self.credit, 16) and sent is None or sent is not None and now - sent < REPEAT:
                continue
            self.repeated += sent is not None
            block[3] = now
            self.say(now, b"\x04" + struct.pack("<I", self.boot) + rows)


def main(total):
    device, started, sampled = Device(sys.stdout.buffer), time.ticks_ms(), 0
    arrived = select.poll()
    arrived.register(sys.stdin, select.POLLIN)
    while sampled < total or before(device.released, device.next):
        now = time.ticks_diff(time.ticks_ms(), started)
        if sampled < total and now >= 20 * sampled and not device.full():
            heating = bytes([sampled % 2]) if sampled % 3 == 0 else None
            temperature = 2 * sampled - 500
            zigzag = 2 * temperature if temperature >= 0 else -2 * temperature - 1
            device.sample(now, 0, [varint(sampled), varint(zigzag), struct.pack("<f", sampled / 8), heating])
            sampled += 1
        while arrived.poll(0):
            device.receive(now, sys.stdin.buffer.read(1))
        device.tend(now)
        arrived.poll(5)
    sys.stderr.write("%d rows, %d repeated blocks, boot %d\n" % (sampled, device.repeated, device.boot))


if __name__ == "__main__":
    main(int(sys.argv[1]))
