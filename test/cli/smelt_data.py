"""smelt_data: tiny data sets in the layouts that a channel can hold. Deterministic, a few hundred kilobytes, no packages.

Every class has its own colours and stripes, so a network can learn it; two pictures of a class differ by shift and noise."""

import gzip
import io
import random
import struct
import tarfile
import zlib

RECORD_BYTES = 3074

# CIFAR-100's coarse label of each fine label.
COARSE = bytes((
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5,
    5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13,
    15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13))


def picture(label, rng):
    """3072 bytes, planes of 32x32: two tones a plane that depend on the class, striped, shifted and noisy."""
    planes = []
    for plane in range(3):
        low, high = (label * 37 + plane * 91) % 200, (label * 53 + plane * 29 + 55) % 200
        period = 2 + (label + plane) % 7
        row = bytes(high if (x // period) % 2 else low for x in range(64))
        shift, tilt = rng.randrange(8), label % 3
        rows = [row[(shift + y * tilt) % 32:][:32] for y in range(32)]
        noise = int.from_bytes(rng.randbytes(1024), "little") & int.from_bytes(b"\x1f" * 1024, "little")
        planes.append((int.from_bytes(b"".join(rows), "little") + noise).to_bytes(1024, "little"))
    return b"".join(planes)


def binary(count, seed=1, classes=100):
    """`count` records of cifar-100-binary; labels go round the classes in a shuffled order, so that all occur."""
    rng = random.Random(seed)
    labels = [i % classes for i in range(count)]
    rng.shuffle(labels)
    return b"".join(bytes((COARSE[label], label)) + picture(label, rng) for label in labels)


def binary_10(count, seed=1):
    """The same for cifar-10-binary: one label byte, ten classes."""
    rng = random.Random(seed)
    return b"".join(bytes((i % 10,)) + picture(i % 10, rng) for i in range(count))


def tar(files, compress=False):
    """A tar of {name: bytes}, optionally gzipped."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1, mtime=0) if compress else buffer.getvalue()


def python2_pickle(records, names=("fine_labels", "coarse_labels")):
    """What cifar-100-python/train holds for these binary records: Python 2's pickle protocol 2 of a dict with an ndarray."""
    out = bytearray(b"\x80\x02}(")

    def string(text):
        raw = text.encode()
        out.extend(b"U" + bytes((len(raw),)) + raw)

    def small_list(values):
        out.extend(b"](" + b"".join(b"K" + bytes((v,)) for v in values) + b"e")

    rows = [records[i:i + RECORD_BYTES] for i in range(0, len(records), RECORD_BYTES)]
    string("batch_label")
    string("training batch 1 of 1")
    string(names[0])
    small_list(r[1] for r in rows)
    string(names[1])
    small_list(r[0] for r in rows)
    string("data")
    raw = b"".join(r[2:] for r in rows)
    out.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01J" + struct.pack("<i", len(rows)) +
               b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" +
               struct.pack("<i", len(raw)) + raw + b"tbu.")
    return bytes(out)


def recordio(payloads, magic=0xCED7230A):
    """SageMaker's RecordIO wrapping: each payload (an S3 object) becomes one record."""
    return b"".join(struct.pack("<II", magic, len(p)) + p + b"\0" * (-len(p) % 4) for p in payloads)


def png(width, height, rgb):
    """An 8-bit RGB PNG of the given pixels (rows of width * 3 bytes)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + rgb[y * width * 3:(y + 1) * width * 3] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def class_folders(classes, each, width=24, height=20, seed=3):
    """{"class/00.png": bytes}: `each` pictures in a folder a class."""
    rng = random.Random(seed)
    files = {}
    for k, name in enumerate(classes):
        for i in range(each):
            tone = bytes(((k * 80) % 256, (k * 140 + 40) % 256, 255 - (k * 60) % 256))
            pixels = bytearray(tone * (width * height))
            for _ in range(60):
                pixels[rng.randrange(len(pixels))] = rng.randrange(256)
            files[f"{name}/{i:02d}.png"] = png(width, height, bytes(pixels))
    return files
