#!/usr/bin/env python3
"""Request bodies as Python's libraries write them: numpy's arrays and archives, Pillow's pictures. Needs numpy and Pillow; tests do not.

    python3 test/golden/bodies/make_bodies.py       writes its files beside itself, the same bytes with the same versions

Pictures are of 32 x 32 pixels: red 8x, green 8y, blue 4(x + y). Arrays are [[0, 1, 2], [3, 100, 125]]. test/unit/test_npy.c, test_decode.c
know both rules.
"""
import io
import os
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))


def write(name, content):
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(content)


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=True)
    return file.getvalue()


def picture(image, kind, **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def interlaced(mixed):
    """Adam7, which Pillow does not write."""
    height, width, _ = mixed.shape
    rows = b""
    for x, y, dx, dy in (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2):
        rows += b"".join(b"\0" + row.tobytes() for row in mixed[y::dy, x::dx])

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def undated(content):
    """The same zip with one date in it, so that running again changes nothing."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.infolist():
            with new.open(zipfile.ZipInfo(member.filename), "w", force_zip64=True) if member.compress_type == 0 else _deflated(new, member) as out:
                out.write(old.read(member))
    return file.getvalue()


def _deflated(archive, member):
    info = zipfile.ZipInfo(member.filename)
    info.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(info, "w", force_zip64=True)


def archive(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return undated(file.getvalue())


def ycck(rgb):
    """A JPEG whose inks are Y Cb Cr and black, as Photoshop writes it. Pillow does not: it gets those planes as CMYK (which it inverts), and
    the Adobe segment is told what they are."""
    ink = 255 - rgb.astype(float)
    black = ink.min(-1)
    inks = 255 * (ink - black[..., None]) / np.maximum(255 - black, 1)[..., None]
    planes = np.asarray(Image.fromarray(inks.round().astype(np.uint8)).convert("YCbCr"))
    jpeg = picture(Image.fromarray(np.dstack([255 - planes, black.astype(np.uint8)]), "CMYK"), "JPEG", quality=95)
    transform = jpeg.index(b"Adobe") + 11
    return jpeg[:transform] + b"\2" + jpeg[transform + 1 :]


def main():
    y, x = np.mgrid[0:32, 0:32]
    planes = np.stack([8 * x, 8 * y, 4 * (x + y)]).astype(np.uint8)
    mixed = np.ascontiguousarray(planes.transpose(1, 2, 0))
    values = np.array([[0, 1, 2], [3, 100, 125]])

    for word in "<f2 <f4 <f8 >f2 >f4 >f8 |u1 |i1 <u2 >u2 <i2 >i2 <u4 >u4 <i4 >i4 <u8 >u8 <i8 >i8".split():
        order = {"<": "little", ">": "big", "|": "one"}[word[0]]
        write(f"{order}_{word[1:]}.npy", npy(values.astype(word)))
    write("bool.npy", npy(values > 1))
    write("fortran_f4.npy", npy(np.asfortranarray(values.astype("<f4"))))
    write("fortran_i2_3d.npy", npy(np.asfortranarray(np.arange(24, dtype=">i2").reshape(2, 3, 4))))
    write("version_2.npy", npy(values.astype("<f4"), (2, 0)))
    write("version_3.npy", npy(values.astype("<f4"), (3, 0)))
    write("scalar.npy", npy(np.float64(2.5)))
    write("empty.npy", npy(np.zeros((0, 3), "<f4")))
    write("object.npy", npy(np.array([{}, []], dtype=object)))
    write("structure.npy", npy(np.zeros(2, dtype=[("a", "<f4"), ("b", "|u1")])))
    write("text.npy", npy(np.array(["one", "two"])))
    write("bytes.npy", npy(np.array([b"one", b"two"])))
    write("complex.npy", npy(np.zeros(2, "<c8")))
    write("date.npy", npy(np.zeros(2, "<M8[s]")))

    write("one.npz", archive(np.savez, planes))
    write("named.npz", archive(np.savez_compressed, images=mixed[None], labels=np.arange(5)))
    write("two.npz", archive(np.savez_compressed, planes, mixed))
    write("sparse.npz", archive(np.savez_compressed, indices=np.arange(3), indptr=np.arange(3), format=np.array(b"csr"), shape=np.array([3, 3]), data=np.ones(3)))

    rgb = Image.fromarray(mixed)
    grey = Image.fromarray(planes[0])
    write("rgb.png", picture(rgb, "PNG"))
    write("grey.png", picture(grey, "PNG"))
    write("palette.png", picture(rgb.quantize(256), "PNG"))
    write("rgba.png", picture(Image.fromarray(np.dstack([mixed, np.full((32, 32), 128, np.uint8)])), "PNG"))
    write("grey_16.png", picture(Image.fromarray((planes[0].astype(np.uint16) << 8) + 200), "PNG"))
    write("interlaced.png", interlaced(mixed))
    write("rgb.bmp", picture(rgb, "BMP"))
    write("baseline.jpg", picture(rgb, "JPEG", quality=95))
    write("progressive.jpg", picture(rgb, "JPEG", quality=95, progressive=True))
    write("grey.jpg", picture(grey, "JPEG", quality=95))
    write("cmyk.jpg", picture(rgb.convert("CMYK"), "JPEG", quality=95))
    write("ycck.jpg", ycck(mixed))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    write("exif.jpg", picture(rgb, "JPEG", quality=95, exif=exif))


if __name__ == "__main__":
    main()
