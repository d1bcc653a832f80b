"""A disk with a volatile write cache, as flash cards and drives have one: a plugin for nbdkit.

    nbdkit -f -U SOCKET python disk.py file=IMAGE

A write of 4096 octets stays in memory, or goes to the image at once, as a coin falls; a flush brings all to the image and
takes up to 200 ms, as on a card that tidies up. So a disk whose power goes has of what was not flushed each block or not,
whatever the order in which they were written; one that is cut off amid a flush as well. IMAGE.unflushed says how many blocks
would be lost.
"""

import os
import random
import time

import nbdkit

API_VERSION = 2
BLOCK = 4096
FLUSH_S_MAX = 0.2

image = None
unflushed = None
cached = {}


def config(key, value):
    global image, unflushed
    if key != "file":
        raise ValueError("the only parameter is file=IMAGE")
    image = os.open(value, os.O_RDWR)
    unflushed = os.open(value + ".unflushed", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    note()


def note():
    os.pwrite(unflushed, b"%6d\n" % len(cached), 0)


def config_complete():
    if image is None:
        raise ValueError("which image? file=IMAGE")


def open(readonly):
    return 1


def get_size(_):
    return os.fstat(image).st_size


def block_size(_):
    return (BLOCK, BLOCK, 0xFFFFFFFF)


def can_write(_):
    return True


def can_flush(_):
    return True


def blocks(octets, offset):
    """The blocks of a request: where each is in the image, and its octets."""
    if offset % BLOCK or len(octets) % BLOCK:
        raise ValueError("not whole blocks")
    for start in range(0, len(octets), BLOCK):
        yield offset + start, octets[start : start + BLOCK]


def pread(_, octets, offset, flags):
    for at, block in blocks(memoryview(octets), offset):
        block[:] = cached[at] if at in cached else os.pread(image, BLOCK, at)


def pwrite(_, octets, offset, flags):
    for at, block in blocks(octets, offset):
        if random.getrandbits(1):
            cached[at] = bytes(block)
        else:
            cached.pop(at, None)
            os.pwrite(image, block, at)
    note()


def flush(_, flags):
    time.sleep(random.uniform(0, FLUSH_S_MAX))
    for at, block in cached.items():
        os.pwrite(image, block, at)
    cached.clear()
    note()
