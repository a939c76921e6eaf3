"""Whichever call of CUDA or cuDNN fails, and whenever: `train` ends with one sentence and the right code, at once and whole. Method: simulated GPUs
(test/sim); for each function that smelt_cuda.so takes from a library its first, second, fourth, seventh, … call fails, until a run no longer gets that far.
Skipped where there is no CUDA toolkit."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import smelt_job
from smelt_hosts import RUN
from smelt_job import ROOT, Job, Skip, expect, test

INTERNAL, DEVICE = 1, 4
LIBRARY = os.path.join(ROOT, "build/cuda13/smelt_cuda.so")
SETTINGS = {**RUN, "epochs": "1", "max_steps": "5", "checkpoint_every_steps": "2", "backend": "cuda", "devices": "1", "deterministic": "true"}
# What only says good-bye: nobody asks how it went, as it may be what has failed that is being left.
GOODBYES = ("Destroy", "Free", "Unload", "Abort")
# Words about what went wrong, not calls that can.
WORDS = ("GetErrorName", "GetErrorString", "GetLastError", "PeekAtLastError", "GetVersion", "GetCudartVersion", "RuntimeGetVersion", "DriverGetVersion")
HANG_SECONDS = 120  # only a hang gets there


def calls():
    if not os.path.exists(LIBRARY):
        raise Skip("no smelt_cuda.so: make cuda sim")
    symbols = subprocess.run(["nm", "-D", "--undefined-only", LIBRARY], capture_output=True, text=True, check=True).stdout.split()
    taken = sorted({symbol.split("@")[0] for symbol in symbols if symbol.startswith("cuda") or symbol == "cudnnBackendExecute" or symbol == "cudnnCreate"})
    return [name for name in taken if not any(word in name for word in GOODBYES + WORDS)]


def end_of(name, k, gpus):
    """Exit code and last words when the k-th call of that name fails."""
    with Job({**SETTINGS, "devices": str(gpus)}) as job:
        environment = {"LD_LIBRARY_PATH": os.path.join(ROOT, "build/sim"), "SMELT_CUDA_LIBRARY": LIBRARY, "SMELT_CACHE": "", "SM_NUM_GPUS": None,
                       "SIM_DEVICES": str(gpus), "SIM_SEED": str(100 + k), "SIM_FAIL": f"{name}:{k}@{gpus - 1}"}
        result = job.run(env=environment, limit=HANG_SECONDS)
        return result.code, result.err


def each_call_fails(gpus):
    silent, wrong, runs = [], [], 0
    for name in calls():
        k, before = 1, 0
        while True:
            code, words = end_of(name, k, gpus)
            runs += 1
            if code == 0:
                if k == 1:
                    silent.append(name)
                break
            if code not in (INTERNAL, DEVICE) or not any(line.startswith("error: ") for line in words.splitlines()):
                wrong.append((name, k, code, words[-300:]))
            k, before = k + before + 1, k
    print(f"{runs} runs; nothing came of a failing {', '.join(silent) or 'none'}")
    expect(not wrong, f"{len(wrong)} ended wrong: {wrong[:5]}")
    return silent


@test("k1", "one GPU: each call fails once, early or late")
def one():
    silent = each_call_fails(1)
    # Of the device finder alone, or not called by this job.
    expect(len(silent) < 12, f"failures that nobody sees: {silent}")


@test("k2", "two GPUs: the second one's calls fail; both end")
def two():
    each_call_fails(2)


if __name__ == "__main__":
    smelt_job.main()
