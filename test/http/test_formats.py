"""Contract tests 135-149, 158, 159: bodies in and out. Method: one image in every form that clients send it; each answer within 1e-4 of
PyTorch's (test/golden/serve.txt), and identical to the bit among the forms that hold whole-number pixels. Broken bodies get a 4xx with
a sentence that says where."""

import base64
import csv
import io
import json
import math
import os
import re
import struct
import zlib

import serve_bodies as bodies
from serve_bodies import SIZE, VALUES, b64, interleaved, jpeg, lines, nested, normalized, npy, npy_raw, pack, picture, pixels, png
from smelt_serve import ROOT, Server, distance, expect, expect_equal, expect_match, expect_scores, main, once, shared, test

NPY = "application/x-npy"
JSON = "application/json"


@once
def reference():
    """The npy answers to golden image 0 as whole-number pixels: what every such form must answer to the bit."""
    return shared().invoke(bodies.npy_u8(0), NPY, NPY).ok(NPY).body


def same_bits(body, type, what, server=None):
    answer = (server or shared()).invoke(body, type, NPY)
    expect(answer.status == 200, f"{what}: {answer}")
    expect(answer.body == reference(), f"{what}: not the bits of the npy |u1 answer; off by {distance(answer.rows()[0], bodies.npy_read(reference())[0]):.2e}")


def scored(body, type, *wanted, what, tolerance=1e-4):
    try:
        return expect_scores(shared().invoke(body, type, NPY), *wanted, tolerance=tolerance)
    except AssertionError as problem:
        raise AssertionError(f"{what}: {problem}")


@test(135, "npy: every type, order, layout and header version")
def npy_forms():
    whole = pixels(0)
    for descr in ("|u1", "<u2", ">u2", "<i2", ">i2", "<u4", "<i4", ">i4", "<u8", "<i8", ">i8", "=i4"):
        same_bits(npy(descr, (1, 3, 32, 32), pack(descr, whole)), NPY, descr)
    for shape in ((VALUES,), (1, VALUES), (3, 32, 32)):
        same_bits(npy("|u1", shape, whole), NPY, f"shape {shape}")
    for shape in ((32, 32, 3), (1, 32, 32, 3)):
        same_bits(npy("|u1", shape, interleaved(whole)), NPY, f"shape {shape}")
    floats = normalized(0)
    for descr, tolerance in (("<f4", 1e-4), (">f4", 1e-4), ("<f8", 1e-4), (">f8", 1e-4), ("<f2", 2e-2)):
        scored(npy(descr, (1, 3, 32, 32), pack(descr, floats)), NPY, 0, what=descr, tolerance=tolerance)
    scored(npy("<f4", (2, VALUES), pack("<f4", normalized(1) + floats)), NPY, 1, 0, what="(2, 3072)")
    hwc = [normalized(n)[c * 1024 + i] for n in (2, 3) for i in range(1024) for c in range(3)]
    scored(npy("<f4", (2, 32, 32, 3), pack("<f4", hwc)), NPY, 2, 3, what="floats, (N, 32, 32, 3)")


@test("135b", "npy: Fortran order")
def npy_fortran():
    def fortran(values, shape):
        """C order → Fortran order."""
        out, steps = [], []
        step = 1
        for size in reversed(shape):
            steps.insert(0, step)
            step *= size
        index = [0] * len(shape)
        for _ in range(step):
            out.append(values[sum(i * s for i, s in zip(index, steps))])
            for axis in range(len(shape)):
                index[axis] += 1
                if index[axis] < shape[axis]:
                    break
                index[axis] = 0
        return out

    same_bits(npy("|u1", (1, 3, 32, 32), bytes(fortran(pixels(0), (1, 3, 32, 32))), fortran=True), NPY, "Fortran |u1")
    same_bits(npy("|u1", (32, 32, 3), bytes(fortran(interleaved(pixels(0)), (32, 32, 3))), fortran=True), NPY, "Fortran |u1 (32, 32, 3)")
    two = normalized(0) + normalized(1)
    scored(npy("<f8", (2, 3, 32, 32), pack("<f8", fortran(two, (2, 3, 32, 32))), fortran=True), NPY, 0, 1, what="Fortran <f8")
    same_bits(npy("|u1", (VALUES,), pixels(0), fortran=True), NPY, "Fortran, one axis")


@test("135c", "npy: versions 2 and 3, odd order of keys and spaces, trailing bytes")
def npy_headers():
    data = pixels(0)
    for version in ((1, 0), (2, 0), (3, 0)):
        same_bits(npy("|u1", (1, 3, 32, 32), data, version=version), NPY, f"version {version}")
    for header in ("{'shape': (1, 3, 32, 32), 'fortran_order': False, 'descr': '|u1'}", "{'descr':'|u1','fortran_order':False,'shape':(1,3,32,32)}",
                   '{ "descr" : "|u1" , "fortran_order" : False , "shape" : ( 1 , 3 , 32 , 32 , ) , }', "{'descr': '|u1', 'fortran_order': False, 'shape': (1L, 3L, 32L, 32L), }"):
        same_bits(npy_raw(header, data), NPY, header)
    same_bits(npy_raw("{'descr': '|u1', 'fortran_order': False, 'shape': (3072,), }", data, align=16), NPY, "a header padded to 16")
    same_bits(npy("|u1", (VALUES,), data) + b"more", NPY, "trailing bytes")
    same_bits(npy("|u1", (1, 3, 32, 32), data), "tensor/pt", "tensor/pt")


@test("135d", "npz: stored with zip64 fields, and deflated")
def npz_forms():
    one = bodies.npy_u8(0)
    for compress in (False, True):
        for zip64 in (False, True):
            same_bits(bodies.npz([("arr_0.npy", one)], compress, zip64), "application/x-npz", f"npz, compress={compress}, zip64={zip64}")
    for data in (b"PK\3\4", bodies.npz([("arr_0.npy", one)])[:500], bodies.npz([("readme.txt", b"hello")])):
        shared().invoke(data, "application/x-npz").refused(400)


@test(136, "npy that must not be read: objects, structures, text, complex, impossible shapes, short data, damaged headers")
def npy_refused():
    server, data = shared(), pixels(0)
    for descr in ("|O", "|S3", "<U3", "|V4", "<c8", "<M8[s]", "<f16", "x", ""):
        answer = server.invoke(npy(descr, (VALUES,), data), NPY)
        answer.refused(answer.status if answer.status in (400, 415) else 400)
    evil = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."
    answer = server.invoke(npy("|O", (1,), evil), NPY)
    answer.refused(answer.status if answer.status in (400, 415) else 400)
    for shape in ("(-1, 3, 32, 32)", "(4294967296, 4294967296)", "(18446744073709551615,)", "(9223372036854775807, 3072)", "(0, 3, 32, 32)", "()", "(3071,)", "(1, 1, 1, 3, 32, 32)", "(1.5,)", "('a',)", "(3072", "(" + "1, " * 100 + ")", "(99999999999999999999999,)"):
        server.invoke(npy_raw(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}", data), NPY).refused(400)
    server.invoke(npy_raw("{'descr': [('a', '|u1'), ('b', '<f4')], 'fortran_order': False, 'shape': (3072,), }", data), NPY).refused(400)
    for header in ("", "{", "{}", "{'descr': '|u1'}", "{'descr': '|u1', 'fortran_order': Maybe, 'shape': (3072,)}", "[]", "__import__('os').system('true')",
                   "{'descr': '|u1', 'fortran_order': False, 'shape': (3072,), 'more': 1}", "{" * 5000):
        server.invoke(npy_raw(header, data), NPY).refused(400)
    found = server.invoke(npy("|u1", (2, 3, 32, 32), data), NPY).refused(400).json()["error"]["message"]
    expect_match("3072", found, "what was found")
    one = bodies.npy_u8(0)
    for cut in (1, 5, 6, 7, 8, 9, 10, 50, 127, 128, 129, len(one) - 1):
        server.invoke(one[:cut], NPY).refused(400)
    for value in (math.nan, math.inf, -math.inf):
        floats = normalized(0)[:]
        floats[5] = value
        server.invoke(npy("<f4", (VALUES,), pack("<f4", floats)), NPY).refused(400, "nan|inf|finite")


@test(137, "JSON: every dialect and layout, identical bits for whole-number pixels")
def json_forms():
    flat, hwc = list(pixels(0)), list(interleaved(pixels(0)))
    chw3, hwc3 = nested(flat, 3, 32, 32), nested(hwc, 32, 32, 3)
    forms = {
        "3072 numbers": flat, "3 x 32 x 32": chw3, "32 x 32 x 3": hwc3, "1 x 3072": [flat], "1 x 3 x 32 x 32": [chw3], "1 x 32 x 32 x 3": [hwc3],
        "instances": {"instances": [chw3]}, "instances, flat": {"instances": [flat]}, "inputs": {"inputs": chw3}, "inputs, batch": {"inputs": [chw3]},
        "image": {"image": b64(bodies.image_png(0))}, "b64": {"b64": b64(bodies.image_png(0))}, "instances of b64": {"instances": [{"b64": b64(bodies.image_png(0))}]},
        "instances of image": {"instances": [{"image": b64(bodies.image_png(0))}]}, "inputs of image": {"inputs": {"image": b64(bodies.image_png(0))}},
        "list of images": [{"image": b64(bodies.image_png(0))}], "image as numbers": {"instances": [{"image": chw3}]},
        "base64 of raw bytes": {"image": b64(pixels(0))},
    }
    for name, value in forms.items():
        same_bits(json.dumps(value).encode(), JSON, name)
    same_bits(json.dumps(forms["instances"], indent=2).encode(), JSON, "with line breaks")
    same_bits(("\ufeff" + json.dumps(flat)).encode("utf-8-sig")[3:], JSON, "with a byte order mark")
    same_bits(json.dumps(flat).replace(" ", "").encode(), JSON, "without spaces")
    scored(json.dumps(normalized(0)).encode(), JSON, 0, what="floats")
    scored(json.dumps({"instances": [normalized(1), normalized(2)]}).encode(), JSON, 1, 2, what="two of floats")
    scored(json.dumps([{"image": b64(bodies.image_png(n))} for n in (3, 1, 0)]).encode(), JSON, 3, 1, 0, what="three pictures")


@test("137b", "JSON that is refused: NaN, Infinity, 1e400, nesting, lone surrogates, ragged lists, wrong counts, damaged text")
def json_refused():
    server, flat = shared(), [1.0] * VALUES
    text = json.dumps(flat)
    for word in ("NaN", "Infinity", "-Infinity", "1e400", "-1e999", '"1"', "null", "true", "[]", "{}", "01", "+1", "1.", ".5", "0x10", "1e", "--1", "1_000"):
        server.invoke(text.replace("1.0", word, 1).encode(), JSON).refused(400)
    for body in (b"[" * 100000, b'{"instances":' * 50000, b'{"image": "\\ud800"}', b'"\\udfff"', b"{", b"[1,", b"[1 2]", b"{]", b"nul", b"\xff\xfe", b"[1]x", b"\0",
                 b'{"image": "not base64!"}', b'{"image": "AAAA"}', b'{"image": 5}', b'{"instances": []}', b"[]", b"{}", b'{"foo": [1]}', b"5", b'"text"', b"null",
                 json.dumps([[1, 2], [3]]).encode(), json.dumps(flat[:-1]).encode(), json.dumps([flat, flat[:-1]]).encode(), json.dumps(nested(flat, 3, 32, 32)[:2]).encode(),
                 b'{"image": "%s"}' % base64.b64encode(bodies.image_png(0))[:-80]):
        server.invoke(body, JSON).refused(400)
    expect_match("3071.*3072|3072.*3071", server.invoke(json.dumps(flat[:-1]).encode(), JSON).json()["error"]["message"], "found and expected")
    expect_match(r"image 2\b|byte \d+: a list of 3071", server.invoke(json.dumps([flat, flat[:-1]]).encode(), JSON).json()["error"]["message"], "which record")


@test(138, "CSV: one line, many, with and without the last newline, CRLF, whole numbers and floats")
def csv_forms():
    line = bodies.csv(0)
    for what, body in {"a line": line, "with newline": line + b"\n", "CRLF": line + b"\r\n", "a blank last line": line + b"\n\n", "spaces": line.replace(b",", b", ")}.items():
        same_bits(body, "text/csv", what)
    scored(bodies.csv(2, 0, 1) + b"\n", "text/csv", 2, 0, 1, what="three lines")
    scored(bodies.csv(2, 0).replace(b"\n", b"\r\n"), "text/csv", 2, 0, what="two lines, CRLF")
    scored(",".join(repr(v) for v in normalized(0)).encode(), "text/csv", 0, what="floats")
    scored(",".join(f"{v:.8e}" for v in normalized(0)).encode(), "text/csv", 0, what="floats with exponents")
    message = shared().invoke(line + b"\n" + line[line.index(b",") + 1:], "text/csv").refused(400, "3071", "3072").json()["error"]["message"]
    expect_match(r"line 2\b", message, "which line")
    for body in (b"a,b,c", b",".join(b'"%s"' % v for v in line.split(b",")), line.replace(b",", b";"), line + b",5", line[:-1] + b",", b",".join([b"nan"] * VALUES), b"\n\n", line.replace(b",", b",x", 1), b",".join([b"1e999"] * VALUES)):
        shared().invoke(body, "text/csv").refused(400)


@test(139, "JSON Lines: every form of an object a line, a blank last line; as many lines out, in order")
def json_lines_forms():
    items = [list(pixels(0)), {"image": b64(bodies.image_png(1))}, {"instances": [list(pixels(2))]}, nested(normalized(3), 3, 32, 32)]
    for type in ("application/jsonlines", "application/json-lines", "application/x-ndjson", "application/jsonl"):
        answer = shared().invoke(bodies.json_lines(items) + b"\n\n", type, "application/jsonlines").ok("application/jsonlines")
        expect_scores(answer, 0, 1, 2, 3)
    same_bits(bodies.json_lines([list(pixels(0))]), "application/jsonlines", "one line")
    message = shared().invoke(bodies.json_lines(items[:2]) + b"\n[1,2]\n", "application/jsonlines").refused(400).json()["error"]["message"]
    expect_match(r"line 3\b", message, "which line")


def picture_scores(data, what, tolerance=1e-4, type="image/png"):
    row = shared().invoke(data, type, NPY)
    expect(row.status == 200, f"{what}: {row}")
    off = distance(row.rows()[0], bodies.probabilities("picture"))
    expect(off <= tolerance, f"{what}: off by {off}")


@test(140, "PNG: grey, palette, transparency, 16 bits, interlaced, other sizes; BMP")
def pictures():
    rgb, wide = picture(), bodies.WIDTH
    picture_scores(bodies.picture_png(), "RGB 50 x 37, scaled as torchvision does")
    picture_scores(bodies.picture_png(interlaced=True), "interlaced")
    rgba = b"".join(rgb[i:i + 3] + bytes([i % 256]) for i in range(0, len(rgb), 3))
    picture_scores(png(wide, bodies.HEIGHT, lines(rgba, wide, 4), color=6), "RGBA")
    deep = b"".join(bytes([v, v]) for v in rgb)
    picture_scores(png(wide, bodies.HEIGHT, lines(deep, wide, 6), depth=16), "16 bits")
    grey = bytes(pixels(0)[:1024])
    three = npy("|u1", (3, 32, 32), grey * 3)
    wanted = shared().invoke(three, NPY, NPY).ok().body
    for what, data in {"grey": png(SIZE, SIZE, lines(grey, SIZE, 1), color=0), "palette": png(SIZE, SIZE, lines(grey, SIZE, 1), color=3, palette=bytes(v for i in range(256) for v in (i, i, i))),
                       "grey and alpha": png(SIZE, SIZE, lines(b"".join(bytes([v, 255]) for v in grey), SIZE, 2), color=4)}.items():
        answer = shared().invoke(data, "image/png", NPY)
        expect(answer.status == 200 and answer.body == wanted, f"{what}: {answer if answer.status != 200 else 'other bits than the same planes as npy'}")
    row = shared().invoke(npy("|u1", (bodies.HEIGHT, wide, 3), rgb), NPY, NPY).rows()[0]
    expect(distance(row, bodies.probabilities("picture")) <= 1e-4, "an npy of another size is not scaled as a picture is")
    same_bits(bodies.image_png(0), "image/png", "PNG 32 x 32")
    same_bits(bodies.bmp(0), "image/bmp", "BMP")


def jpeg_scores(data, wanted, what):
    """JPEG loses a little, and decoders differ by a level: 0.014 at the most here. Colours read wrongly move a score by 0.03 and more."""
    row = shared().invoke(data, "image/jpeg", NPY).rows()[0]
    expect(distance(row, wanted) < 0.02, f"{what}: off by {distance(row, wanted)}")
    return row


@test("140c", "JPEG: baseline, progressive, grey, turned by EXIF; CMYK and YCCK, but not four components that do not say which")
def jpegs():
    baseline = jpeg_scores(jpeg("baseline"), bodies.probabilities("picture"), "baseline")
    for name in ("progressive", "exif"):
        row = shared().invoke(jpeg(name), "image/jpeg", NPY).rows()[0]
        expect(distance(row, baseline) < 1e-6, f"{name}: off by {distance(row, baseline)} from the baseline file")
    rgb = picture()
    grey = bytes((rgb[i] * 19595 + rgb[i + 1] * 38470 + rgb[i + 2] * 7471 + 0x8000) >> 16 for i in range(0, len(rgb), 3))  # Pillow's
    grey = png(bodies.WIDTH, bodies.HEIGHT, lines(grey, bodies.WIDTH, 1), color=0)
    jpeg_scores(jpeg("grey"), shared().invoke(grey, "image/png", NPY).rows()[0], "grey")
    jpeg_scores(jpeg("cmyk"), bodies.probabilities("picture"), "CMYK")
    same = shared().invoke(bodies.golden_file("bodies/rgb.png"), "image/png", NPY).rows()[0]
    for name in ("baseline", "cmyk", "ycck"):
        jpeg_scores(bodies.golden_file(f"bodies/{name}.jpg"), same, f"{name} of another picture")
    shared().invoke(jpeg("cmyk").replace(b"Adobe", b"adobe"), "image/jpeg").refused(400, "CMYK")


@test("140b", "pictures that are refused, at once: cut off, damaged, empty, far too large, not what they say")
def pictures_refused():
    server = shared()
    before = server.memory("VmHWM")

    def claims(width, height):
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + b"\0\0\0\5IDATx\x9c\x03\0\0"
                + struct.pack(">I", zlib.crc32(b"IDATx\x9c\x03\0\0")) + b"\0\0\0\0IEND\xaeB`\x82")

    data = jpeg("baseline")
    at = data.index(b"\xff\xc0") + 5
    cases = {
        "a PNG of 65 000 x 65 000": claims(65000, 65000), "a PNG of 4 294 967 295": claims(0xFFFFFFFF, 0xFFFFFFFF), "a PNG of 0 x 0": claims(0, 0),
        "a JPEG of 65 500 x 65 500": data[:at] + b"\xff\xdc\xff\xdc" + data[at + 4:], "a cut PNG": bodies.image_png(0)[:1000], "a cut JPEG": data[:300],
        "a PNG's first bytes": b"\x89PNG\r\n\x1a\n", "a JPEG's first bytes": b"\xff\xd8\xff", "text": b"hello, I am no picture", "a GIF": b"GIF89a" + b"\0" * 100,
        "a damaged PNG": bodies.image_png(0)[:41] + b"\xff" * 100 + bodies.image_png(0)[141:],
    }
    for what, body in cases.items():
        for type in ("image/png", "image/jpeg", "application/x-image"):
            answer = server.invoke(body, type)
            expect(answer.status == 400, f"{what} as {type}: {answer}")
            answer.refused(400)
    grown = server.memory("VmHWM") - before
    expect(grown < 300 << 20, f"grown by {grown} bytes")


@test(141, "bodies without a telling type are looked at: JPEG, PNG, npy, npz, raw planes, CIFAR records")
def sniffed():
    two = pixels(0) + pixels(1)
    for type in ("application/octet-stream", "file-path/raw-bytes", "application/x-image", None):
        same_bits(bodies.image_png(0), type, f"PNG as {type}")
        shared().invoke(jpeg("baseline"), type, NPY).ok()
        if type == "application/x-image":
            continue
        same_bits(bodies.npy_u8(0), type, f"npy as {type}")
        same_bits(bodies.npz([("arr_0.npy", bodies.npy_u8(0))]), type, f"npz as {type}")
        same_bits(pixels(0), type, f"raw planes as {type}")
        scored(two, type, 0, 1, what=f"two raw images as {type}")
        scored(b"\7\x09" + pixels(0) + b"\3\4" + pixels(1), type, 0, 1, what=f"CIFAR-100 records as {type}")
        scored(b"\7" + pixels(1), type, 1, what=f"a CIFAR-10 record as {type}")
        shared().invoke(b"\1" * 5000, type).refused(400, "3072")
    same_bits(bodies.image_png(0), "image/jpeg", "a PNG that says image/jpeg")
    same_bits(bodies.image_png(0), "image/*", "a PNG that says image/*")


@test(142, "parameters, case and spaces of Content-Type; charset utf-16 is 415")
def content_types():
    line = bodies.csv(0)
    for type in ("text/csv; charset=utf-8", "TEXT/CSV", "text/csv;charset=UTF-8", 'text/csv; charset="utf-8"', " text/csv ", "text/csv ; header=absent",
                 "Text/Csv;charset=us-ascii"):
        same_bits(line, type, type)
    same_bits(json.dumps(list(pixels(0))).encode(), "application/json; charset=utf-8", "JSON with a charset")
    for type in ("text/csv; charset=utf-16", "application/json; charset=latin-1"):
        shared().invoke(line, type).refused(415, "charset|utf-8")


@test(143, "a type that is not supported is 415 with the list of those that are")
def unsupported():
    for type in ("text/libsvm", "application/x-recordio-protobuf", "video/mp4", "text", "/", "application/", "a/b/c", "x" * 500):
        shared().invoke(bodies.npy_u8(0), type).refused(415, "application/x-npy", "application/json", "text/csv", "image/")


@test(144, "Accept: absent, wildcards, lists, q; the answer's type is the bare word; nothing acceptable is 406")
def accepts():
    one = bodies.npy_u8(0)
    cases = {
        None: JSON, "*/*": JSON, "application/*": JSON, "text/*": "text/csv", "text/csv": "text/csv", "application/json": JSON, NPY: NPY, "tensor/pt": "tensor/pt",
        "application/jsonlines": "application/jsonlines", "text/csv, application/json": {"text/csv", JSON}, "text/csv,application/json;q=0.5": "text/csv",
        "text/csv;q=0.2, application/x-npy;q=0.9": NPY, "application/json;q=0, */*": {NPY, "text/csv", "application/jsonlines"}, "image/png, text/csv": "text/csv",
        "image/png, */*;q=0.1": JSON, "APPLICATION/X-NPY": NPY, " text/csv ; q=1.0 ": "text/csv", "application/json; charset=utf-8": JSON, "": JSON,
        "text/csv;q=0.001,*/*;q=0": "text/csv",
    }
    for accept, wanted in cases.items():
        answer = expect_scores(shared().invoke(one, NPY, accept), 0)
        expect(answer.type in (wanted if isinstance(wanted, set) else {wanted}), f"Accept {accept!r}: {answer.type}, wanted {wanted}")
    for accept in ("image/png", "application/xml", "application/json;q=0", "video/*", "*/*;q=0", "text/html, image/*"):
        shared().invoke(one, NPY, accept).refused(406, "application/json")


@test(145, "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is the answer's type when the request names none")
def default_accept():
    for type in (NPY, "text/csv"):
        with Server(env={"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": type, "SMELT_THREADS": "1"}) as server:
            expect_equal(expect_scores(server.invoke(bodies.npy_u8(0), NPY), 0).type, type, "no Accept")
            expect_equal(expect_scores(server.invoke(bodies.npy_u8(0), NPY, "*/*"), 0).type, type, "*/*")
            expect_equal(server.invoke(bodies.npy_u8(0), NPY, JSON).ok().type, JSON, "JSON asked for")


@test(146, "answers: npy is 1.0, <f4, C order, (N, 100); rows sum to 1; JSON and CSV read back as the same floats")
def answers():
    body = bodies.npy_u8(0, 1, 2)
    wanted = shared().invoke(body, NPY, NPY).rows()  # bodies.npy_read refuses anything but the form of the title
    expect_equal([len(row) for row in wanted], [100] * 3, "columns")
    for row in wanted:
        expect(abs(sum(row) - 1) < 1e-5 and min(row) >= 0, f"a row that sums to {sum(row)}")
    for accept in (JSON, "application/jsonlines", "text/csv"):
        rows = shared().invoke(body, NPY, accept).rows()
        expect([[bodies.f32(v) for v in row] for row in rows] == wanted, f"{accept}: other floats than npy")


@test(147, "the same image as npy, JSON, CSV, PNG, raw bytes: the same bits")
def same_everywhere():
    forms = {"JSON": (json.dumps(list(pixels(0))).encode(), JSON), "CSV": (bodies.csv(0), "text/csv"), "PNG": (bodies.image_png(0), "image/png"),
             "raw": (pixels(0), "application/octet-stream"), "JSON Lines": (bodies.json_lines([list(pixels(0))]), "application/jsonlines")}
    for what, (body, type) in forms.items():
        same_bits(body, type, what)
    two = shared().invoke(bodies.npy_u8(1, 0), NPY, NPY).rows()
    expect(two[1] == bodies.npy_read(reference())[0], "an image's scores depend on the image before it")


@test(148, "logits and probabilities equal PyTorch's within 1e-4; so do those of a bare model.pth and a bare model.safetensors")
def as_pytorch():
    for n in range(4):
        expect_scores(shared().invoke(bodies.npy_f4(n), NPY, NPY), n)
        row = shared().invoke(bodies.npy_f4(n), NPY, NPY, custom_attributes="output=logits").rows()[0]
        expect(distance(row, bodies.logits(n)) <= 1e-4, f"image {n}: logits off by {distance(row, bodies.logits(n)):.2e}")


@test("148b", "a bare .pth or .safetensors: classes and stem from the weights; normalisation, labels and ranges from the environment")
def bare_weights():
    from smelt_serve import lay_model
    statistics = {"SMELT_MEAN": "0.507,0.487,0.441", "SMELT_STD": "0.267,0.256,0.276", "SMELT_THREADS": "1"}
    for name in ("model.pth", "model.safetensors"):
        with Server(model={}, wait=False, wrapper=("sh", "-c", 'while [ ! -e "$SAGEMAKER_BASE_DIR/go" ]; do sleep 0.01; done; exec "$@"', "sh"), env=statistics) as server:
            lay_model(server.path("model"), names=(name,))
            open(server.path("go"), "w").close()
            server.wait_ready()
            expect_scores(server.invoke(bodies.npy_u8(0), NPY, NPY), 0)
            top = server.invoke(bodies.npy_u8(0), NPY, JSON, custom_attributes="top_k=1").ok().json()
            expect_match("^[a-z_]+$", top["predictions"][0]["label"], "CIFAR-100's label by count")
    with Server(env={"SMELT_FLOATS": "unit", "SMELT_THREADS": "1"}) as server:
        expect_scores(server.invoke(npy("<f4", (VALUES,), pack("<f4", [p / 255 for p in pixels(0)])), NPY, NPY), 0)
    with Server(env={"SMELT_FLOATS": "pixels", "SMELT_OUTPUT": "logits", "SMELT_THREADS": "1"}) as server:
        row = server.invoke(npy("<f8", (VALUES,), pack("<f8", [float(p) for p in pixels(0)])), NPY, NPY).rows()[0]
        expect(distance(row, bodies.logits(0)) <= 1e-4, f"off by {distance(row, bodies.logits(0))}")


@test("148c", "top_k: labels, indices, probabilities in falling order, in JSON, JSON Lines and CSV; npy cannot say it: 406")
def top_k():
    order = sorted(range(100), key=lambda k: -bodies.probabilities(0)[k])[:5]
    server = shared()
    one = server.invoke(bodies.npy_u8(0), NPY, JSON, custom_attributes="top_k=5").ok(JSON).json()
    expect_equal([p["index"] for p in one["predictions"]], order, "indices")
    expect_equal(sorted(one["predictions"][0]), ["index", "label", "probability"], "fields")
    for p in one["predictions"]:
        expect(abs(p["probability"] - bodies.probabilities(0)[p["index"]]) <= 1e-4, f"{p}")
    two = server.invoke(bodies.npy_u8(0, 1), NPY, JSON, custom_attributes="top_k=2").ok().json()
    expect_equal([[p["index"] for p in image] for image in two["predictions"]],
                 [sorted(range(100), key=lambda k: -bodies.probabilities(n)[k])[:2] for n in (0, 1)], "indices of two images")
    text = server.invoke(bodies.npy_u8(0, 1), NPY, "application/jsonlines", custom_attributes="top_k=3").ok().text
    expect_equal([len(json.loads(line)["predictions"]) for line in text.split("\n")], [3, 3], "JSON Lines")
    text = server.invoke(bodies.npy_u8(0, 1), NPY, "text/csv", custom_attributes="top_k=3").ok().text
    expect_equal([len(row) for row in csv.reader(io.StringIO(text))], [6, 6], "CSV columns")
    server.invoke(bodies.npy_u8(0), NPY, NPY, custom_attributes="top_k=5").refused(406)


@test(149, "error bodies: short JSON, the sentence says what was found and expected, nothing of the machine (checked with every refusal)")
def error_bodies():
    server = shared()
    cases = [(server.invoke(bodies.npy_u8(0)[:1000], NPY), 400), (server.invoke(b"x", "text/weird"), 415), (server.invoke(bodies.npy_u8(0), NPY, "image/png"), 406),
             (server.get("/invocations"), 405), (server.get("/../../etc/passwd"), 404), (server.invoke(b"A" * 100000, JSON), 400),
             (server.invoke(b"[" + b"\xc3\x28" * 1000, JSON), 400), (server.invoke(b"\x1b[2J" * 1000, "text/csv"), 400)]
    for answer, status in cases:
        answer.refused(status)


@test("137s", "every sample of opt_ml_layout/requests is answered, and says the same picture")
def samples():
    folder, scores = os.path.join(ROOT, "opt_ml_layout/requests"), {}
    with open(os.path.join(folder, "README.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| `([\w.]+)` \| `([\w/-]+)` \|", file.read(), re.M)
    expect_equal({name for name, _ in rows} | {"README.md"}, set(os.listdir(folder)), "files of the table and of the folder")
    for name, kind in rows:
        with open(os.path.join(folder, name), "rb") as file:
            for row in shared().invoke(file.read(), kind, JSON).rows():
                scores[f"{name} as {kind}"] = row
    wanted = scores["pixels.npy as application/x-npy"]
    for what, row in scores.items():
        # A JPEG is not quite the picture; the model normalises a little otherwise than the floats were.
        off = distance(row, wanted)
        expect(off <= (0.2 if "jpg" in what else 0.02 if "normalized" in what else 0), f"{what}: {off:.2e} away")


@test(158, "PyTorchPredictor's defaults with a list: npy of float64 in, npy out; int64 lists are pixels")
def predictor_lists():
    answer = expect_scores(shared().invoke(npy("<f8", (1, 3, 32, 32), pack("<f8", normalized(0))), NPY, NPY), 0)
    expect_equal(answer.type, NPY, "Content-Type")
    same_bits(npy("<i8", (1, 3, 32, 32), pack("<i8", pixels(0))), NPY, "int64")


@test(159, "answers as the SDK's CSV, JSON Lines and pandas deserializers read them")
def deserializers():
    body = bodies.npy_u8(0, 1)
    text = shared().invoke(body, NPY, "text/csv").ok("text/csv").text
    expect_equal([len(row) for row in csv.reader(text.splitlines())], [100, 100], "CSV rows")
    text = shared().invoke(body, NPY, "application/jsonlines").ok("application/jsonlines").text
    expect_equal([len(json.loads(line)) for line in text.rstrip().split("\n")], [100, 100], "JSON Lines")
    answer = shared().invoke(body, NPY, "text/csv, application/json")  # what PandasDeserializer asks for
    expect(answer.type in ("text/csv", JSON), f"{answer.type}")
    expect_scores(answer, 0, 1)


if __name__ == "__main__":
    main()
