"""`train` on GPUs that are simulated: the unchanged program and smelt_cuda.so over test/sim. What it computes is held against ref, what it does when a
GPU, its memory or the sums fail against the contract (tests 85-97 of which test/cli holds with CPU ranks)."""

import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import smelt_job
from smelt_hosts import RUN, expect_close, losses
from smelt_job import ROOT, Job, expect, expect_equal, expect_match, test
from smelt_real import real_files

INTERNAL, DEVICE = 1, 4
HANG_SECONDS = 120  # only a hang gets there
FP32 = {**RUN, "epochs": "1", "backend": "cuda", "precision": "fp32", "devices": "1", "deterministic": "true"}
LONG = {**FP32, "epochs": "500", "devices": "2", "sync_bn": "false", "checkpoint_every_epochs": "0", "peer_timeout_seconds": "8"}


def machine(gpus, **more):
    """A machine with so many simulated GPUs."""
    return {"LD_LIBRARY_PATH": os.path.join(ROOT, "build/sim"), "SMELT_CUDA_LIBRARY": os.path.join(ROOT, "build/cuda13/smelt_cuda.so"), "SMELT_CACHE": "",
            "SM_NUM_GPUS": None, "SIM_DEVICES": str(gpus), "SIM_SEED": "11", **more}


def trained(settings, gpus=1):
    """Losses of the steps, and the model's bytes."""
    with Job(settings) as job:
        result = job.run(env=machine(gpus)).expect_success()
        return losses(result), open(job.path("model/model.safetensors"), "rb").read()


@test(101, "one GPU in fp32: the losses of ref; the same bits again, in another order of what the streams allow")
def one():
    wanted, _ = trained({**FP32, "backend": "ref", "precision": "auto"})
    with Job(FP32) as job:
        first = job.run(env=machine(1)).expect_success()
        expect_match(r"device backend=cuda gpu=\S.* precision=fp32", first.out, "the device's line")
        bits = open(job.path("model/model.safetensors"), "rb").read()
        job.drop_checkpoints()
        job.restart()
        job.run(env=machine(1, SIM_SEED="12")).expect_success()
        expect(open(job.path("model/model.safetensors"), "rb").read() == bits, "other weights in another order")
    # As on CPUs: activations next to zero part the curves after two steps.
    expect_close(losses(first)[:2], wanted[:2], 1e-4, "the first steps")


@test("s2", "four GPUs: the loss curve of one, when statistics are synchronised")
def four():
    alone, _ = trained({**FP32, "max_steps": "2"})
    together, _ = trained({**FP32, "max_steps": "2", "devices": "4"}, gpus=4)
    expect_equal(len(together), 2, "steps")
    expect_close(together, alone, 1e-4, "four GPUs")


@test("s3", "half precision: fp16 and bf16 start as fp32 does, within what their digits allow")
def half():
    wanted, _ = trained({**FP32, "max_steps": "1"})
    # Rounding errors of 36 layers, each of them relative to its own activations, add up like a random walk: 36 roundings, four a layer.
    for precision, epsilon in (("fp16", 2**-11), ("bf16", 2**-8)):
        found, _ = trained({**FP32, "max_steps": "1", "precision": precision})
        expect_close(found, wanted, (36 * 4) ** 0.5 * epsilon, precision)


@test("s4", "SIGTERM: all GPUs stop after the same step; the next run goes on from there with the bits of one that was not stopped")
def stop():
    settings = {**LONG, "epochs": "3", "max_steps": "6"}
    whole, bits = trained(settings, gpus=2)
    with Job(settings) as job:
        process = job.start(env=machine(2))
        process.wait_line(r"\[step\].* step=2 ")
        process.signal(signal.SIGTERM)
        first = process.finish(HANG_SECONDS).expect_success()
        expect(1 < len(losses(first)) < 6, f"{len(losses(first))} steps before the stop")
        job.restart()
        second = job.run(env=machine(2)).expect_success()
        expect_match(r"(?i)resumed from", second.out, "the second run")
        expect_equal(losses(first) + losses(second), whole, "losses")
        expect(open(job.path("model/model.safetensors"), "rb").read() == bits, "other weights after a stop")


@test("s5", "a GPU dies in the middle of a step: one sentence that names it, code 4, nobody hangs")
def dies():
    with Job(LONG) as job:
        process = job.start(env=machine(2, SIM_FAIL="kernel/loss:3@1"))
        process.finish(HANG_SECONDS).expect_failure(DEVICE, "rank 1", "GPU 1")


@test(102, "out of memory: the batch size and the bytes are named")
def memory():
    with Job({**LONG, "devices": "1"}) as job:
        job.run(env=machine(1, SIM_MEMORY_MB="120"), limit=HANG_SECONDS).expect_failure(INTERNAL, "memory", "batches of 32 images", "bytes")


@test("s7", "a sum that never ends on one GPU: all end within the time for that, and say so")
def stall():
    with Job({**LONG, "collective_timeout_seconds": "5"}) as job:
        process = job.start(env=machine(2, SIM_NCCL="hang:9@1"))
        process.finish(HANG_SECONDS).expect_failure(DEVICE, "no rank has finished a step for 5 s|its GPU has not ended a step for 5 s")


@test("s8", "GPUs and CPUs go on from each other's checkpoints")
def mixed():
    settings = {**FP32, "epochs": "3", "checkpoint_every_steps": "3"}
    with Job({**settings, "max_steps": "3"}) as job:
        curve = losses(job.run(env=machine(1)).expect_success())
        for steps, values in (("6", {"backend": "cpu", "precision": "auto"}), ("9", {"backend": "cuda", "precision": "fp32"})):
            job.restart()
            job.set(max_steps=steps, **values)
            result = job.run(env=machine(1)).expect_success()
            expect_match(r"(?i)resumed from", result.out, f"the run to step {steps}")
            curve += losses(result)
        expect_equal(len(curve), 9, "steps in all")
        expect(sum(curve[6:]) < sum(curve[:3]), f"losses do not fall: {curve}")


@test("s9", "real images, augmented and mixed: four GPUs take the first steps of the CPU")
def real():
    settings = {**FP32, "max_steps": "2", "recipe": "fast10", "mixup_alpha": "0.2", "cutmix_alpha": "1", "random_erase": "0.25", "rotation_degrees": "15", "ema_decay": "0.99"}
    curves = []
    for values, gpus in (({"backend": "cpu", "precision": "auto"}, 0), ({"devices": "4"}, 4)):
        with Job({**settings, **values}) as job:
            folder = job.path("input/data/train")
            real_files(folder)
            for name, images in (("train.bin", 1000), ("test.bin", 64)):
                with open(os.path.join(folder, name), "r+b") as file:
                    file.truncate(images * 3074)
            curves.append(losses(job.run(env=machine(gpus)).expect_success()))
    expect_equal(len(curves[0]), 2, "steps")
    expect_close(curves[1], curves[0], 1e-4, "four GPUs")


if __name__ == "__main__":
    smelt_job.main()
