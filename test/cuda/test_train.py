"""`train` on simulated GPUs, whole jobs from outside: the unchanged program and smelt_cuda.so with ../sim's libraries in place of NVIDIA's. Method:
a few steps of the 7x7 stem; losses against the CPU's, and against themselves."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../cli"))

import smelt_job  # noqa: E402
from smelt_hosts import expect_close, losses  # noqa: E402
from smelt_job import ROOT, Job, expect, expect_equal, test  # noqa: E402

BAD_SETTING = 2
FEW = {"batch_size": "8", "max_steps": "2", "lr": "0.001", "lr_schedule": "constant", "warmup_epochs": "0", "log_every_steps": "1", "backend": "cuda",
       "precision": "fp32", "artifact_formats": "safetensors", "peer_timeout_seconds": "10"}
# A validation of eight images is enough.
FILES = {**Job.tiny(), "test.bin": Job.tiny()["test.bin"][:8 * 3074]}
# float32: 2^-24 for each rounding, some hundred layers of roundings that partly cancel, and a first step's weights that are off by as much.
FLOAT_MAX = 1e-4


def environment(gpus=1, **more):
    return {"LD_LIBRARY_PATH": os.path.join(ROOT, "build/sim"), "SMELT_CUDA_LIBRARY": os.path.join(ROOT, "build/cuda13/smelt_cuda.so"),
            "SMELT_SIM_DEVICES": str(gpus), "SMELT_SIM_SEED": "5", "SMELT_CACHE": "", **more}


def job(**values):
    return Job({**FEW, **values}, files=FILES)


def trained(gpus=1, env=None, **values):
    with job(**values) as one:
        result = one.run(env=env or environment(gpus)).expect_success()
        return losses(result), one.model()


def refused(code, *patterns, gpus=1, env=None, **values):
    with job(**values) as one:
        return one.run(env=environment(gpus, **(env or {}))).expect_failure(code, *patterns)


@test("t1", "fp32: the CPU's losses; the same bits again, in another order of everything that may be reordered")
def floats():
    found, model = trained()
    expect_close(found, trained(backend="cpu")[0], FLOAT_MAX, "fp32")
    again, model_again = trained(env=environment(SMELT_SIM_SEED="77"))
    expect_equal(again, found, "losses of the second run")
    expect(model_again == model, "other weights the second time")


@test("t5", "more devices than GPUs: refused")
def too_few():
    refused(BAD_SETTING, "devices=2, but this host has 1 GPU", devices="2")


if __name__ == "__main__":
    smelt_job.main()
