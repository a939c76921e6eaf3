"""serve_bodies: golden images, in every form in which a client may send them, and readers of what comes back. Python's standard library only."""

import array
import base64
import functools
import json
import math
import os
import re
import struct
import sys
import zlib

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
SIZE, VALUES = 32, 3 * 32 * 32
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
IMAGES = 1  # golden.h's stream of image bytes
WIDTH, HEIGHT = 50, 37


# --- the images ---------------------------------------------------------------------------------------------------------


def f32(value):
    """The nearest float."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def _mix(h):
    h ^= h >> 16
    h = h * 0x85EBCA6B & 0xFFFFFFFF
    h ^= h >> 13
    h = h * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 16


@functools.lru_cache(maxsize=None)
def pixels(n):
    """Golden image n: 3072 bytes, planes of red, green, blue."""
    stream = _mix(IMAGES + 0x9E3779B9)
    return bytes(_mix(i ^ stream) >> 24 for i in range(n * VALUES, (n + 1) * VALUES))


@functools.lru_cache(maxsize=None)
def normalized(n):
    """What the network takes, as float32 operations give it."""
    mean, std = [f32(m) for m in MEAN], [f32(s) for s in STD]
    return [f32(f32(f32(p / 255) - mean[i // 1024]) / std[i // 1024]) for i, p in enumerate(pixels(n))]


def interleaved(planes, area=SIZE * SIZE):
    """Planes → R G B R G B …"""
    return bytes(planes[c * area + i] for i in range(area) for c in range(3))


def nested(values, *shape):
    """A flat list as nested lists of that shape."""
    for size in reversed(shape[1:]):
        values = [values[i:i + size] for i in range(0, len(values), size)]
    return values


@functools.lru_cache(maxsize=None)
def picture():
    """RGB RGB … of the picture of make_serve.py, 50 x 37."""
    out = bytearray()
    for y in range(HEIGHT):
        for x in range(WIDTH):
            out += bytes((x * 7 + y * 3 & 255, x * x // 5 + y * 11 & 255, 230 if (x // 6 + y // 6) % 2 else 20))
    return bytes(out)


def golden_file(path):
    with open(os.path.join(GOLDEN, path), "rb") as file:
        return file.read()


def jpeg(name):
    return golden_file(f"pictures/{name}.jpg")


@functools.lru_cache(maxsize=None)
def _golden():
    with open(os.path.join(GOLDEN, "serve.txt")) as file:
        lines = [line.split() for line in file if not line.startswith("#")]
    return {line[0]: [float(v) for v in line[1:]] for line in lines}


def logits(n):
    """What PyTorch answers for golden image n, or for "picture"."""
    return _golden()[f"logits.{n}"]


def probabilities(n):
    return _golden()[f"probabilities.{n}"]


def softmax(row):
    powers = [math.exp(v - max(row)) for v in row]
    return [p / sum(powers) for p in powers]


# --- npy ----------------------------------------------------------------------------------------------------------------


def npy_raw(header, data, version=(1, 0), align=64):
    """Any header text, padded as numpy pads it."""
    text = header.encode("utf-8" if version[0] == 3 else "latin-1")
    length = "<H" if version[0] == 1 else "<I"
    before = 8 + struct.calcsize(length)
    text += b" " * (-(before + len(text) + 1) % align) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack(length, len(text)) + text + data


def npy(descr, shape, data, fortran=False, version=(1, 0)):
    shape = "(" + "".join(f"{s}," for s in shape[:1]) + ", ".join([""] + [str(s) for s in shape[1:]])[1:] + ")" if shape else "()"
    return npy_raw(f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}", data, version)


def pack(descr, values):
    """Numbers as the bytes of an array of that type."""
    code = {"b1": "?", "u1": "B", "i1": "b", "u2": "H", "i2": "h", "u4": "I", "i4": "i", "u8": "Q", "i8": "q", "f2": "e", "f4": "f", "f8": "d"}[descr[1:]]
    return struct.pack(("<" if descr[0] in "|=" else descr[0]) + str(len(values)) + code, *values)


def npy_u8(*images):
    """(N, 3, 32, 32) bytes."""
    return npy("|u1", (len(images), 3, SIZE, SIZE), b"".join(pixels(n) for n in images))


def npy_f4(*images):
    """(N, 3, 32, 32) normalised floats: what a PyTorch user sends."""
    return npy("<f4", (len(images), 3, SIZE, SIZE), b"".join(pack("<f4", normalized(n)) for n in images))


def npy_read(data, columns=None):
    """Rows of an answer; raises unless it is version 1.0, <f4, C order, two axes, whole."""
    assert data[:8] == b"\x93NUMPY\x01\x00", f"not npy 1.0: {data[:16]!r}"
    length = struct.unpack("<H", data[8:10])[0]
    assert (10 + length) % 64 == 0 and data[9 + length:10 + length] == b"\n", "header is not padded to 64 with a newline at its end"
    header = data[10:10 + length].decode("ascii")
    found = re.fullmatch(r"\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \} *\n", header)
    assert found, f"header {header!r}"
    n, k = int(found[1]), int(found[2])
    assert columns in (None, k), f"{k} columns, wanted {columns}"
    values = array.array("f", data[10 + length:])
    if sys.byteorder != "little":
        values.byteswap()
    assert len(values) == n * k, f"{len(values)} values for ({n}, {k})"
    return [list(values[i * k:(i + 1) * k]) for i in range(n)]


def npz(entries, compress=False, zip64=True):
    """As numpy.savez writes it: sizes of the local header are in a zip64 field."""
    out, central = bytearray(), bytearray()
    for name, data in entries:
        packed, method = data, 0
        if compress:
            deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
            packed, method = deflate.compress(data) + deflate.flush(), 8
        at, crc = len(out), zlib.crc32(data)
        extra = struct.pack("<HHQQ", 1, 16, len(data), len(packed)) if zip64 else b""
        sizes = (0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (len(packed), len(data))
        out += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 45, 0, method, 0, 0x21, crc, *sizes, len(name), len(extra)) + name.encode() + extra + packed
        central += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 45, 45, 0, method, 0, 0x21, crc, len(packed), len(data), len(name), 0, 0, 0, 0, 0,
                               at) + name.encode()
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(entries), len(entries), len(central), len(out), 0)
    return bytes(out + central) + end


# --- pictures -----------------------------------------------------------------------------------------------------------


def png(width, height, rows, color=2, depth=8, palette=None, interlaced=False):
    """A PNG of that colour type; rows: the bytes of each line, packed as the type wants (interlaced: whole bytes a pixel only)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    if interlaced:
        size, data = len(rows[0]) // width, b""
        for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
            for row in rows[y0::dy]:
                line = b"".join(row[x * size:(x + 1) * size] for x in range(x0, width, dx))
                data += b"\0" + line if line else b""
    else:
        data = b"".join(b"\0" + row for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced)))
            + (chunk(b"PLTE", palette) if palette else b"") + chunk(b"IDAT", zlib.compress(data, 6)) + chunk(b"IEND", b""))


def lines(rgb, width, size=3):
    return [rgb[i:i + width * size] for i in range(0, len(rgb), width * size)]


@functools.lru_cache(maxsize=None)
def image_png(n):
    return png(SIZE, SIZE, lines(interleaved(pixels(n)), SIZE))


def picture_png(**how):
    return png(WIDTH, HEIGHT, lines(picture(), WIDTH), **how)


def bmp(n):
    rgb = interleaved(pixels(n))
    rows = [b"".join(bytes(reversed(row[i:i + 3])) for i in range(0, len(row), 3)) for row in reversed(lines(rgb, SIZE))]
    data = b"".join(rows)
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + len(data), 0, 0, 54, 40, SIZE, SIZE, 1, 24, 0, len(data), 2835, 2835, 0, 0) + data


# --- text ---------------------------------------------------------------------------------------------------------------


def csv(*images):
    """A line of 3072 whole numbers an image, as CSVSerializer writes a (N, 3, 32, 32) array."""
    return "\n".join(",".join(str(p) for p in pixels(n)) for n in images).encode()


def b64(data):
    return base64.b64encode(data).decode()


def json_lines(items):
    return "\n".join(json.dumps(item) for item in items).encode()
