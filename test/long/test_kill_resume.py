"""Contract test 75 in full: 20 random instants (seeded) of SIGKILL and SIGTERM over a job with every feature on, and every single
write of the checkpoint directory. The end must have the bits of an undisturbed run."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import smelt_job
from smelt_job import Job, expect, fault_env, test

PLAIN = {"epochs": "4", "batch_size": "32", "checkpoint_every_steps": "3", "keep_checkpoints": "2", "artifact_formats": "safetensors"}
RICH = {**PLAIN, "ema_decay": "0.9", "mixup_alpha": "0.2", "cutmix_alpha": "1.0", "label_smoothing": "0.1", "lr_schedule": "cosine",
        "warmup_epochs": "1", "flip": "alternating", "random_erase": "0.2", "rotation_degrees": "15"}


def undisturbed(values):
    with Job(values) as job:
        result = job.run().expect_success()
        return job.model(), result.seconds


def random_instants(values, seed, runs, number):
    model, seconds = undisturbed(values)
    rng = random.Random(seed)
    for run in range(runs):
        with Job(values) as job:
            stops = []
            for _ in range(rng.randrange(1, 4)):
                process = job.start()
                stops.append(rng.uniform(0.02, 1.0) * seconds)
                time.sleep(stops[-1])
                result = process.signal(number).finish()
                expect(result.failure is None, result.tail())
                expect(number == signal.SIGKILL or result.code == 0 or stops[-1] < 0.1, result.tail())
                job.restart()
            result = job.run().expect_success()
            expect(job.model() == model, f"seed {seed}, run {run}, stopped after {stops} s: other weights")


@test(75, "SIGKILL at 20 random instants, plain settings")
def kill_plain():
    random_instants(PLAIN, 1, 20, signal.SIGKILL)


@test("75r", "SIGKILL at 10 random instants, every feature on")
def kill_rich():
    random_instants(RICH, 2, 10, signal.SIGKILL)


@test("86r", "SIGTERM at 20 random instants, every feature on")
def term_rich():
    random_instants(RICH, 3, 20, signal.SIGTERM)


@test("75c", "SIGKILL at each call of the checkpoint directory and of model/, in turn")
def kill_each_call():
    model, _ = undisturbed(PLAIN)
    for call, pattern, step in (("rename", "*/checkpoints/*", 1), ("fsync", "*/checkpoints*", 1), ("close", "*/checkpoints/*", 1),
                                ("unlink", "*/checkpoints/*", 1), ("write", "*/checkpoints/*", 61), ("rename", "*/model/*", 1),
                                ("fsync", "*/model*", 1), ("write", "*/model/*", 23)):
        n = 1
        while True:
            with Job(PLAIN) as job:
                result = job.run(env=fault_env(f"{call}:{pattern}:{n}:KILL"))
                if result.code == 0:
                    break
                expect(result.code == -signal.SIGKILL, result.tail())
                job.restart()
                job.run().expect_success()
                expect(job.model() == model, f"killed at {call} {n} of {pattern}: other weights")
            n += step
        expect(n > 1, f"{call} of {pattern} never happened")


if __name__ == "__main__":
    smelt_job.main()
