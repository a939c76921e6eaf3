"""The demo's data set and make data, as a newcomer meets them. Method: the picture painter runs twice and its files are read here by
offset; the download is given files by file:// instead of the real archive. Not on the contract's list: numbered d1, d2, …"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile

import smelt_job
from smelt_job import ROOT, Skip, expect, expect_equal, expect_match, test

PAINTER = os.path.join(ROOT, "build/release/demo_pictures")


def shell(*command, **environment):
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)


def paint(folder, *counts):
    return shell(PAINTER, folder, *counts)


def content(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


@test("d1", "the painted data set: CIFAR-100's form, every class equally often, the same bytes each time, no picture twice")
def painted():
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            result = paint(os.path.join(folder, name), "300", "100")
            expect_equal(result.returncode, 0, result.stderr)
        a, b = os.path.join(folder, "a"), os.path.join(folder, "b")
        expect_equal(sorted(os.listdir(a)), ["coarse_label_names.txt", "fine_label_names.txt", "test.bin", "train.bin"], "files")
        for name in os.listdir(a):
            expect(content(a, name) == content(b, name), f"{name} differs between two runs")
        fine, coarse = (content(a, name).decode().splitlines() for name in ("fine_label_names.txt", "coarse_label_names.txt"))
        expect_equal((len(set(fine)), len(set(coarse))), (100, 20), "distinct names")
        pictures = set()
        for name, count in (("train.bin", 300), ("test.bin", 100)):
            data = content(a, name)
            expect_equal(len(data), count * 3074, f"bytes of {name}")
            records = [data[i:i + 3074] for i in range(0, len(data), 3074)]
            for record in records:
                colour, _, shape = fine[record[1]].split("_")
                expect_equal(f"{colour}_{shape}", coarse[record[0]], f"coarse class of {fine[record[1]]}")
            expect_equal(sorted(r[1] for r in records), sorted(list(range(100)) * (count // 100)), f"labels of {name}")
            pictures |= {r[2:] for r in records}
        expect_equal(len(pictures), 400, "distinct pictures")


@test("d2", "the painter refuses bad numbers and unwritable folders with a sentence")
def painter_refuses():
    with tempfile.TemporaryDirectory() as folder:
        for counts in (("99", "100"), ("100", "x"), ("100", "1000001"), ("-100", "100")):
            result = paint(folder, *counts)
            expect_equal(result.returncode, 2, f"exit code for {counts}")
            expect_match("a number from 100", result.stderr, "sentence")
        result = paint("/proc/nowhere", "100", "100")
        expect_equal(result.returncode, 5, "exit code of an unwritable folder")


@test("d2b", "the painter turns a record into a request's body: PNG, npy, JSON with the record's own bytes")
def requests():
    with tempfile.TemporaryDirectory() as folder:
        expect_equal(paint(folder, "100", "100").returncode, 0, "painting")
        records, planes = os.path.join(folder, "test.bin"), content(folder, "test.bin")[7 * 3074 + 2:8 * 3074]
        for ending in ("png", "npy", "json"):
            result = shell(PAINTER, "--record", records, "7", os.path.join(folder, f"r.{ending}"))
            expect_equal(result.returncode, 0, result.stderr)
        expect(content(folder, "r.npy")[:8] == b"\x93NUMPY\1\0" and content(folder, "r.npy")[128:] == planes, "r.npy is not the record")
        expect_equal(json.loads(content(folder, "r.json"))["instances"], [list(planes)], "r.json")
        expect(content(folder, "r.png").startswith(b"\x89PNG\r\n"), "r.png is no PNG")
        for number, name, code in (("100", "r.npy", 3), ("0", "r.gif", 2)):
            expect_equal(shell(PAINTER, "--record", records, number, os.path.join(folder, name)).returncode, code, f"exit code for record {number} as {name}")


@test("d3", "make data: unpacks the right archive, refuses a wrong one, keeps a good one, says what to do without internet")
def data():
    if shutil.which("curl") is None:
        raise Skip("curl is not here, and wget cannot read file://")
    with tempfile.TemporaryDirectory() as folder:
        source, out = os.path.join(folder, "source.tar.gz"), os.path.join(folder, "out")
        os.makedirs(os.path.join(folder, "cifar-100-binary"))
        with open(os.path.join(folder, "cifar-100-binary/train.bin"), "wb") as file:
            file.write(bytes(3074))
        with tarfile.open(source, "w:gz") as archive:
            archive.add(os.path.join(folder, "cifar-100-binary"), "cifar-100-binary")
        with open(source, "rb") as file:
            md5 = hashlib.md5(file.read()).hexdigest()
        url = "file://" + source
        wrong = shell("test/demo/data", out, CIFAR100_URL=url)
        expect_equal((wrong.returncode, os.listdir(out)), (1, []), "exit code and leftovers of a wrong archive")
        expect_match(f"md5 {md5}, expected 03b5dce01913d631647c71ecec9e9cb8", wrong.stderr, "sentence")
        right = shell("test/demo/data", out, CIFAR100_URL=url, CIFAR100_MD5=md5)
        expect_equal(right.returncode, 0, right.stderr)
        expect_equal(sorted(os.listdir(out)), ["cifar-100-binary", "cifar-100-binary.tar.gz"], "what is there")
        expect_equal(len(content(out, "cifar-100-binary/train.bin")), 3074, "bytes of train.bin")
        os.remove(source)
        again = shell("test/demo/data", out, CIFAR100_URL=url, CIFAR100_MD5=md5)
        expect_equal(again.returncode, 0, again.stderr)
        expect_match("already there", again.stdout, "second run")
        nowhere = shell("test/demo/data", os.path.join(folder, "other"), CIFAR100_URL=url)
        expect_equal((nowhere.returncode, os.listdir(os.path.join(folder, "other"))), (1, []), "exit code and leftovers without the file")
        expect_match("is this machine on the internet", nowhere.stderr, "sentence")


if __name__ == "__main__":
    # Once and before any test: they run side by side.
    subprocess.run(["make", "-s", "build/release/demo_pictures"], cwd=ROOT, check=True)
    smelt_job.main()
