"""Writes opt_ml_layout/requests: one painted picture (test/demo) as a body of every content type that serve takes.

    make build/release/demo_pictures && python3 test/golden/make_requests.py        needs numpy and Pillow; the files are committed
"""
import base64
import io
import json
import os
import subprocess
import tempfile

import numpy
from PIL import Image

TO = "opt_ml_layout/requests"
RECORD = 3  # of the painted test pictures


def write(name, data):
    with open(os.path.join(TO, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def saved(save, *arguments, **options):
    file = io.BytesIO()
    save(file, *arguments, **options)
    return file.getvalue()


with tempfile.TemporaryDirectory() as folder:
    subprocess.run(["build/release/demo_pictures", folder, "100", "100"], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(folder, "test.bin"), "rb") as file:
        record = file.read()[RECORD * 3074:][:3074]
pixels = numpy.frombuffer(record[2:], numpy.uint8).reshape(3, 32, 32)
picture = Image.fromarray(pixels.transpose(1, 2, 0))
png = saved(picture.save, "PNG", optimize=True)

os.makedirs(TO, exist_ok=True)
write("picture.png", png)
write("picture.jpg", saved(picture.save, "JPEG", quality=95, subsampling=0))
write("picture.bmp", saved(picture.save, "BMP"))
write("pixels.npy", saved(numpy.save, pixels[None]))
write("normalized.npy", saved(numpy.save, ((pixels[None] / 255 - numpy.reshape([0.5071, 0.4865, 0.4409], (3, 1, 1))) /
                                           numpy.reshape([0.2673, 0.2564, 0.2762], (3, 1, 1))).astype(numpy.float32)))
write("pixels.npz", saved(numpy.savez_compressed, pixels[None]))
write("pixels.json", json.dumps(pixels[None].tolist()))
write("instances.json", json.dumps({"instances": [{"image": base64.b64encode(png).decode()}]}))
write("pixels.jsonl", "\n".join(json.dumps(pixels.tolist()) for _ in range(2)) + "\n")
write("pixels.csv", "\n".join(",".join(map(str, pixels.ravel())) for _ in range(2)) + "\n")
write("pixels.bin", pixels.tobytes())
