"""Both programs as files: what they say of themselves, how they are hardened, which libraries they need (p1 …: not on the contract's list)."""

import os
import re
import subprocess

import smelt_job
from smelt_job import ROOT, expect, expect_equal, expect_match, test

PROGRAMS = {"train": smelt_job.TRAIN, "serve": os.path.join(os.path.dirname(smelt_job.TRAIN), "serve")}

# Each library that a program names, and what it is there for. A new one needs a line here, its package in the Makefile's PACKAGES_RUN.
LIBRARIES = {
    "both": {"libc": "C", "libm": "C", "libcjson": "JSON", "libpthreadpool": "threads", "libz": "gzip", "libnettle": "checksums of archives",
             "libbz2": "archives", "liblzma": "archives", "libzstd": "archives"},
    "train": {"libgloo": "sums over hosts", "libprotobuf-c": "TensorBoard", "libstdc++": "Gloo's", "libgcc_s": "Gloo's"},
    "serve": {"libmicrohttpd": "HTTP"},
}


def elf(program, *options):
    return subprocess.run(["readelf", "-W", *options, PROGRAMS[program]], capture_output=True, text=True, check=True).stdout


@test("5b", "the programs name the listed libraries and no others, no place to look for them, and no driver")
def libraries():
    for program in PROGRAMS:
        dynamic = elf(program, "-d")
        named = {re.match(r"[\w+-]+", name)[0].removesuffix("-1") for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)}
        expect_equal(sorted(named - set(LIBRARIES["both"]) - set(LIBRARIES[program])), [], f"{program}: libraries that are not listed")
        expect(not re.search(r"R(UN)?PATH", dynamic), f"{program} has a path of libraries: {dynamic}")


@test("p1", "--version: version, commit, compiler, flags, and each library with its version")
def version():
    for program, names in (("train", {"Gloo", "protobuf-c"}), ("serve", {"libmicrohttpd"})):
        said = subprocess.run([PROGRAMS[program], "--version"], capture_output=True, text=True, check=True).stdout
        first, *lines = said.splitlines()
        expect_match(rf"^{program} \(smelt\) \d+\.\d+\.\d+, commit ([0-9a-f]{{12}}|unknown)$", first, "the first line")
        told = dict(line.split(": ", 1) for line in lines)
        expect_equal(set(told), {"compiler", "flags", "cJSON", "libarchive", "zlib"} | names, "what is told")
        expect_match(r"^-std=c17 .*-O", told.pop("flags"), "flags")
        for name, text in told.items():
            expect_match(r"\d+\.\d+", text, name)


@test("p2", "hardened: position-independent, read-only relocations, bound at start, no executable stack, guarded stacks, checked copies")
def hardened():
    for program in PROGRAMS:
        expect_match(r"Type:\s+DYN", elf(program, "-h"), f"{program}: position-independent")
        segments, dynamic, symbols = elf(program, "-l"), elf(program, "-d"), elf(program, "--dyn-syms")
        expect_match("GNU_RELRO", segments, f"{program}: read-only relocations")
        expect_match(r"BIND_NOW|FLAGS.*\bNOW\b", dynamic, f"{program}: bound at start")
        expect("TEXTREL" not in dynamic, f"{program}: relocations in code")
        expect_match(r"GNU_STACK.*\sRW\s", segments, f"{program}: a stack that is not executable")
        expect(not re.search(r"LOAD.*\sRWE\s", segments), f"{program}: memory that is writable and executable: {segments}")
        expect_match("__stack_chk_fail", symbols, f"{program}: guarded stacks")
        if "-D_FORTIFY_SOURCE" in subprocess.run([PROGRAMS[program], "--version"], capture_output=True, text=True, check=True).stdout:
            expect_match(r"__(memcpy|vsnprintf|snprintf|read|fprintf|realpath)_chk", symbols, f"{program}: checked copies")


@test("p3", "no path of the machine that built it is in a program")
def no_paths():
    for program in PROGRAMS:
        with open(PROGRAMS[program], "rb") as file:
            expect(ROOT.encode() not in file.read(), f"{program} holds {ROOT}")


if __name__ == "__main__":
    smelt_job.main()
