"""`train --selftest` on GPUs that are simulated: what it says of sound ones, of one that computes wrong, one that fails, one whose process dies,
and none. What it proves on a real one, only a real one can say."""

import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import smelt_job
from smelt_job import ROOT, expect, expect_equal, expect_match, test

DEVICE = 4
TRAIN = os.path.join(ROOT, "build/bin/train")


def start(gpus, **more):
    machine = {"LD_LIBRARY_PATH": os.path.join(ROOT, "build/sim"), "SMELT_CUDA_LIBRARY": os.path.join(ROOT, "build/cuda13/smelt_cuda.so"),
               "SIM_DEVICES": str(gpus), "SIM_SEED": "11"}
    return subprocess.Popen([TRAIN, "--selftest"], env={**os.environ, **machine, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(process):
    """Its exit code, what it printed, and its last words."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@test("f1", "a sound T4: the units of both networks in the precisions that it has agree with the CPU; exit code 0")
def sound():
    code, out, err = report(start(1, SIM_GPU="t4"))
    expect_equal((code, err), (0, ""), "exit code and errors")
    expect_match(r"(?m)^GPU 0: Tesla T4, compute capability 7\.5, ", out, "the GPU's line")
    parts = re.findall(r"^  (fp32|fp16|tf32|bf16), (imagenet|cifar) stem, \d+ images: (\d+) of (\d+) values agree", out, re.M)
    # What a slow machine has no time for is left out, and counted; the first part never is.
    found, wanted = {part[:2] for part in parts}, {(precision, stem) for precision in ("fp32", "fp16") for stem in ("imagenet", "cifar")}
    expect(("fp32", "imagenet") in found and found <= wanted, f"parts {sorted(found)}")
    expect(found == wanted or "parts were left out" in out, f"only {sorted(found)}, and nothing is said to be left out")
    expect(all(good == of and int(of) > 200 for *_, good, of in parts), "not all values agree")
    expect_match(r"(?m)^passed: (\d+) of \1 checks on 1 GPU in \d+ s", out, "the last line")


@test("f2", "one of two computes wrong: its report names the precision, the network and the convolution; sums are checked all the same; exit code 4")
def wrong():
    code, out, err = report(start(2, SIM_WRONG="cudnnBackendExecute:3@1"))
    expect_equal(code, DEVICE, "exit code")
    first, second = out.split("GPU 1: ")
    expect("WRONG" not in first, "a sound GPU is blamed")
    expect_match(r"(?m)^  WRONG fp32, imagenet stem, 8 images: layer1\.0\.conv2, output is off by \S+ of its length, allowed ", second, "what is wrong")
    expect_equal(len(re.findall(r"^  sums over 2 GPUs: 8192 of 8192 gradients looked at are right$", out, re.M)), 2, "lines on sums")
    expect_match(r"(?m)^FAILED: \d+ of \d+ checks on 2 GPUs in ", out, "the last line")
    expect_match(r"(?m)^error: self-test: \d of \d+ checks failed; ", err, "the error")


@test("f3", "one that fails, and one whose process dies: the report says why; nobody waits for it; exit code 4")
def broken():
    code, out, err = report(start(1, SIM_FAIL="cudnnBackendExecute:40"))
    expect_equal(code, DEVICE, "exit code of a failing GPU")
    expect_match(r"(?m)^  FAILED: layer\S+ .*CUDNN_STATUS_EXECUTION_FAILED", out, "why it failed")
    expect_match(r"(?m)^error: self-test: 1 of 1 GPUs could not finish it; ", err, "the error")
    process = start(2)
    children = []
    while len(children) < 2 and process.poll() is None:
        time.sleep(0.05)
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            children = file.read().split()
        # Before the ranks' processes there is one that looks for devices.
        children = children if len(children) == 2 else []
    os.kill(int(children[0]), signal.SIGKILL)
    code, out, err = report(process)
    expect_equal(code, DEVICE, "exit code of a dying process")
    expect_match(r"(?m)^  FAILED: it crashed: signal 9$", out, "how it ended")


@test("f4", "no GPU: a sentence and exit code 4")
def none():
    code, out, err = report(start(0))
    expect_equal((code, out), (DEVICE, ""), "exit code and report")
    expect_match(r"(?m)^error: .*GPU", err, "the error")


if __name__ == "__main__":
    smelt_job.main()
