"""Contract tests 74–90: stopping anywhere is as if nothing had stopped. Method: jobs are killed or stopped at chosen calls (fault.c)
and at random instants (seeded), restarted as the platform does it (model/ and output/ empty, checkpoints kept), and must end with
the very bits of a job that was left alone."""

import os
import random
import re
import signal
import time

import smelt_data
import smelt_job
import smelt_read
from smelt_job import CHECKPOINT, Job, Watch, expect, expect_equal, expect_match, fault_env, once, test

# Three steps an epoch; checkpoints at steps 2, 3, 4, 6, 8, 9.
RUN = {"epochs": "3", "batch_size": "32", "checkpoint_every_steps": "2", "keep_checkpoints": "3", "artifact_formats": "safetensors"}
RESUMED = r"(?i)resum.*epoch.*step"

def alone(values):
    """(model bytes, result) of a job with these settings that nobody disturbs."""
    return _alone(tuple(sorted(values.items(), key=str)))


@once
def _alone(items):
    with Job(dict(items)) as job:
        result = job.run().expect_success()
        return job.model(), result


def expect_same_end(job, result, values, what):
    model, reference = alone(values)
    expect(job.model() == model, f"{what}: the final weights differ from an undisturbed run's: {result.tail()}")
    volatile = ("images_per_second", "epoch_seconds", "seconds")
    last, wanted = ({k: v for k, v in r.metrics()[-1].items() if k not in volatile} for r in (result, reference)) if result.metrics() else ({}, {})
    expect_equal(last, wanted, f"{what}: last metric line")


def killed(values, order):
    """A job that SIGKILL ended at the call that `order` names; the caller enters it."""
    job = Job(values)
    result = job.run(env=fault_env(f"{order}:KILL"))
    if result.code != -signal.SIGKILL:
        job.drop()
    expect_equal(result.code, -signal.SIGKILL, f"{order}: the job was not killed; {result.tail()}")
    return job


def spoil(path, how):
    with open(path, "r+b") as file:
        size = os.path.getsize(path)
        if how == "truncated":
            file.truncate(size // 2)
        elif how == "empty":
            file.truncate(0)
        else:
            at = {"header": 40, "data": size // 3, "checksum": size - 2}[how]
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes((byte ^ 0x10,)))


# --- where ------------------------------------------------------------------------------------------------------------


@test(74, "checkpoints go to LocalPath; without checkpointconfig to base/checkpoints")
def where():
    with Job(RUN, epochs="1") as job:
        job.run().expect_success()
        expect(job.checkpoints(), "no checkpoint in base/checkpoints")
    with Job(RUN, epochs="1") as job:
        own = os.path.join(job.scratch, "elsewhere/ckpt")
        job.config("checkpointconfig", {"LocalPath": own, "S3Uri": "s3://bucket/x"})
        job.run().expect_success()
        expect([n for n in os.listdir(own) if CHECKPOINT.fullmatch(n)], "no checkpoint in LocalPath")
        expect_equal(job.checkpoints(), [], "checkpoints in the default place")
    with Job(RUN, epochs="1") as job:
        job.config("checkpointconfig", {"LocalPath": "/opt/ml/checkpoints/deep"})
        job.run().expect_success()
        expect(job.checkpoints("checkpoints/deep"), "a LocalPath below /opt/ml is not taken below the base")


# --- killed -----------------------------------------------------------------------------------------------------------


@test(75, "SIGKILL at chosen calls, then at random instants, restarted: the bits of an undisturbed run")
def killed_anywhere():
    for order in ("write:*/checkpoints/*:1", "rename:*/checkpoints/*:2", "fsync:*/checkpoints:3", "write:*/checkpoints/*:14",
                  "write:*/model/*:2", "rename:*/model/*:1"):
        with killed(RUN, order) as job:
            job.restart()
            expect_same_end(job, job.run().expect_success(), RUN, order)


@test("75b", "SIGKILL three times at random instants")
def killed_at_random():
    rng = random.Random(75)
    seconds = alone(RUN)[1].seconds
    with Job(RUN) as job:
        for _ in range(3):
            process = job.start()
            time.sleep(rng.uniform(0.1, 0.8) * seconds)
            process.signal(signal.SIGKILL).finish()
            job.restart()
        expect_same_end(job, job.run().expect_success(), RUN, "killed three times")


@test("75c", "the same with moving average, mixup, label smoothing, clipping and a held-out share")
def killed_with_everything():
    values = {**RUN, "epochs": "2", "ema_decay": "0.9", "mixup_alpha": "0.2", "cutmix_alpha": "1.0", "label_smoothing": "0.1",
              "gradient_clip_norm": "1.0", "lr_schedule": "cosine", "warmup_epochs": "1", "flip": "alternating", "random_erase": "0.2"}
    with killed(values, "rename:*/checkpoints/*:4") as job:
        job.restart()
        expect_same_end(job, job.run().expect_success(), values, "all features")


@test(76, "the resume line names epoch and step; finished epochs are not repeated")
def resume_line():
    with killed(RUN, "rename:*/checkpoints/*:4") as job:
        epoch, step = (int(n) for n in CHECKPOINT.fullmatch(job.checkpoints()[-1]).groups())
        job.restart()
        result = job.run().expect_success()
        line = next((line for line in result.lines if re.search(RESUMED, line)), None)
        expect(line, f"no resume line: {result.tail()}")
        expect_match(rf"step\D{{0,3}}0*{step}\b", line, "the step of the checkpoint")
        expect_equal([m["epoch"] for m in result.metrics()], [str(e) for e in range(epoch + 1, 4)], "epochs after the resume")


# --- beside the training ------------------------------------------------------------------------------------------------


@test("76b", "steps go on while a checkpoint is written; it is told of when it is there; same bits")
def written_beside():
    values = {**RUN, "epochs": "1", "log_every_steps": "1"}
    with Job(values) as job:
        result = job.run(env=fault_env("write:*-000000002.*:1+:SLOW"), limit=300).expect_success()
        step = next(i for i, line in enumerate(result.lines) if re.search(r"\[step\].* step=3\b", line))
        saved = next(i for i, line in enumerate(result.lines) if re.search(r"checkpoint saved .*\bstep=2\b", line))
        expect(step < saved, f"step 3 waited for the checkpoint of step 2: {result.tail()}")
        expect_same_end(job, result, values, "a slow disk")


# --- damaged ----------------------------------------------------------------------------------------------------------


@test(77, "the newest checkpoint truncated or with one bit flipped: the one before it, with a warning")
def newest_damaged():
    for how in ("truncated", "empty", "header", "data", "checksum"):
        with killed(RUN, "rename:*/checkpoints/*:4") as job:
            expect(len(job.checkpoints()) >= 2, f"too few checkpoints: {job.checkpoints()}")
            older, newest = job.checkpoints()[-2:]
            spoil(job.path("checkpoints", newest), how)
            job.restart()
            result = job.run().expect_success()
            expect_match(rf"(?i)warning.*{re.escape(newest)}", result.text, f"{how}: warning about the newest")
            expect_match(rf"(?i)resum.*step\D{{0,3}}0*{int(CHECKPOINT.fullmatch(older)[2])}\b", result.text, f"{how}: resume line")
            expect_same_end(job, result, RUN, how)


@test(78, "all checkpoints damaged: a warning, and training from the beginning")
def all_damaged():
    with killed(RUN, "rename:*/checkpoints/*:4") as job:
        for name in job.checkpoints():
            spoil(job.path("checkpoints", name), "data")
        job.restart()
        result = job.run().expect_success()
        expect_match(r"(?i)warning.*(begin|scratch|start)", result.text, "warning")
        expect_same_end(job, result, RUN, "from the beginning")


# --- company ----------------------------------------------------------------------------------------------------------


@test(79, "markers, foreign files, directories, files that vanish between listing and opening: no error")
def company():
    with killed(RUN, "rename:*/checkpoints/*:4") as job:
        newest = job.checkpoints()[-1]
        foreign = {f"{newest}.sagemaker-uploading": b"", f"{newest}.sagemaker-uploaded": b"", "notes.txt": b"mine", "ckpt-1-1.bin": b"x",
                   "xckpt-00001-000000009.safetensors": b"x", "ckpt-00001-000000009.safetensors.sagemaker-ignore.bak": b"x",
                   "sub/ckpt-00009-000000099.safetensors": b"x"}
        for name, data in foreign.items():
            job.write(f"checkpoints/{name}", data)
        os.mkdir(job.path("checkpoints/ckpt-00008-000000088.safetensors"))
        job.write("checkpoints/ckpt-00009-000000099.safetensors", b"gone when it is opened")
        job.restart()
        result = job.run(env=fault_env("open|stat:*/ckpt-00009-000000099.safetensors*:1+:ENOENT",
                                       "open|stat:*.sagemaker-uploading:1+:ENOENT"))
        expect_same_end(job, result.expect_success(), RUN, "in company")
        for name, data in foreign.items():
            expect_equal(job.read(f"checkpoints/{name}"), data, name)


@test(80, "temporary names end in .sagemaker-ignore; a final name appears only by rename")
def names_in_time():
    with Job(RUN) as job:
        watch = Watch(job.path("checkpoints"))
        job.run().expect_success()
        events = watch.events()
        watch.close()
        final = [(event, name) for event, name in events if CHECKPOINT.fullmatch(name)]
        expect(len([e for e in final if e[0] == "moved_to"]) >= 3, f"too few checkpoints were seen: {events}")
        expect_equal({event for event, _ in final} - {"moved_to", "delete"}, set(), "events on final names")
        other = {name for event, name in events if not CHECKPOINT.fullmatch(name) and not name.endswith(".sagemaker-ignore")}
        expect_equal(other, set(), "other names in the directory")


@test(81, "a checkpoint that is being uploaded is not pruned")
def uploading():
    with Job(RUN, keep_checkpoints="2") as job:
        process = job.start(env=fault_env("write:*/checkpoints/*:1+:SLOW"))
        process.wait_for(job.checkpoints, "the first checkpoint")
        held = job.checkpoints()[0]
        job.write(f"checkpoints/{held}.sagemaker-uploading", b"")
        process.finish().expect_success()
        expect(held in job.checkpoints(), f"{held} was deleted during its upload: {job.checkpoints()}")
        expect_equal(len(job.checkpoints()), 3, "the held one and the two newest")


@test(82, "at most keep_checkpoints own checkpoints remain, foreign files all do")
def pruning():
    for keep in ("2", "3"):
        with Job(RUN, keep_checkpoints=keep) as job:
            job.write("checkpoints/foreign.bin", b"x")
            job.write("checkpoints/ckpt-final.safetensors", b"x")
            job.run().expect_success()
            expect_equal(len(job.checkpoints()), int(keep), f"own checkpoints with keep_checkpoints={keep}")
            expect(job.exists("checkpoints/foreign.bin") and job.exists("checkpoints/ckpt-final.safetensors"), "foreign files were deleted")


# --- what fits --------------------------------------------------------------------------------------------------------


@test(83, "a finished job started again: the model at once, no further epoch")
def finished():
    with Job(RUN) as job:
        job.run().expect_success()
        job.restart()
        result = job.run().expect_success()
        expect_equal(job.model(), alone(RUN)[0], "model")
        expect_equal([line for line in result.lines if line.startswith("[step]")], [], "steps of a finished job")


@test("83b", "a job that max_steps ended goes on when the limit is lifted")
def larger_budget():
    with Job(RUN, max_steps="6") as job:
        job.run().expect_success()
        job.restart()
        job.set(**RUN)
        job.hyperparameters({k: v for k, v in job.settings.items() if k != "max_steps"})
        result = job.run().expect_success()
        expect_match(RESUMED, result.text, "resume line")
        expect(job.checkpoints()[-1].endswith("000000009.safetensors"), f"not trained to the end: {job.checkpoints()}")


@test(84, "a checkpoint of another network is refused with both descriptions")
def other_network():
    with Job(RUN, epochs="1") as job:
        job.run().expect_success()
        job.restart()
        job.set(stem="cifar", batch_size="8")
        job.run().expect_failure(2, "ckpt-", "imagenet", "cifar")
        job.set(stem="imagenet", batch_size="32")
        job.restart()
        for name in job.files("input/data/train"):
            os.remove(job.path("input/data/train", name))
        job.write("input/data/train/data_batch_1.bin", smelt_data.binary_10(100))
        job.write("input/data/train/test_batch.bin", smelt_data.binary_10(50))
        job.run().expect_failure(2, "ckpt-", r"\b100\b", r"\b10\b")


# --- stopped ----------------------------------------------------------------------------------------------------------


@test(86, "SIGTERM while reading, in an epoch, in validation, while writing: exit 0, no failure file, nothing lost")
def stopped_anywhere():
    for order, trained in (("read:*/train.bin:1", False), ("read:*/test.bin:1", False), ("write:*/checkpoints/*:1", True),
                           ("rename:*/checkpoints/*:2", True), ("fsync:*/checkpoints:1", True), ("write:*/model/*:1", True),
                           ("rename:*/model/*:1", True), ("write:*/output/data/*:1", False)):
        with Job(RUN) as job:
            log = os.path.join(job.scratch, "log")
            result = job.run(env=fault_env(f"{order}:TERM", log=log), limit=60).expect_success()
            expect(os.path.exists(log), f"{order} never happened")
            if trained:
                expect(job.exists("model/model.safetensors"), f"{order}: no model: {result.tail()}")
                smelt_read.safetensors(job.path("model/model.safetensors"))
                expect(job.checkpoints(), f"{order}: no checkpoint")
            job.restart()
            expect_same_end(job, job.run().expect_success(), RUN, f"SIGTERM at {order}")


@test("86b", "SIGTERM at the first line of the log and within validation")
def stopped_early_and_late():
    with Job(RUN) as job:
        process = job.start()
        process.wait_line(".")
        process.signal(signal.SIGTERM).finish(60).expect_success()
    values = {**RUN, "epochs": "1", "log_every_steps": "1", "checkpoint_every_steps": None}
    files = {**Job.tiny(), "test.bin": smelt_data.binary(4000, 5)}
    with Job(values, files=files) as job:
        process = job.start()
        process.wait_line(r"\bstep=3\b")
        result = process.signal(signal.SIGTERM).finish(60).expect_success()
        expect(job.exists("model/model.safetensors") and job.checkpoints(), f"nothing was saved: {result.tail()}")
        expect_equal(result.metrics(), [], "metric lines of a validation that was cut short")


@test(87, "two SIGTERMs: a fast exit, a checkpoint that loads")
def stopped_twice():
    with Job(RUN, epochs="500") as job:
        process = job.start(env=fault_env("write:*/checkpoints/*:20+:SLOW"))
        process.wait_for(job.checkpoints, "the first checkpoint")
        process.signal(signal.SIGTERM)
        time.sleep(0.3)
        process.signal(signal.SIGTERM)
        result = process.finish(60)
        expect(result.failure is None, result.tail())
        expect(result.code in (0, 143, -signal.SIGTERM), f"exit code: {result.tail()}")
        job.restart()
        job.set(epochs="1")
        process = job.start()
        process.wait_line(RESUMED, 60)


@test(89, "SIGTERM in an epoch, restart: from the step of the stop, to the same bits")
def stopped_and_resumed():
    values = {**RUN, "checkpoint_every_steps": None, "log_every_steps": "1"}
    with Job(values) as job:
        process = job.start()
        process.wait_line(r"\bstep=5\b")
        process.signal(signal.SIGTERM).finish(60).expect_success()
        step = int(CHECKPOINT.fullmatch(job.checkpoints()[-1])[2])
        expect(step >= 5, f"the checkpoint is of step {step}")
        job.restart()
        result = job.run().expect_success()
        expect_match(rf"(?i)resum.*step\D{{0,3}}0*{step}\b", result.text, "resume line")
        expect_same_end(job, result, values, f"stopped at step {step}")


@test(90, "SIGINT is SIGTERM; SIGHUP and SIGPIPE change nothing")
def other_signals():
    with Job(RUN, epochs="500") as job:
        process = job.start()
        process.wait_line(r"^\[metric\]")
        process.signal(signal.SIGPIPE).signal(signal.SIGHUP)
        at = len(process.events)
        process.wait_line(r"^\[metric\]", start=at)
        process.signal(signal.SIGINT).finish(60).expect_success()
        expect(job.exists("model/model.safetensors") and job.checkpoints(), "nothing was saved")


@test("90b", "the wanted end comes early: max_steps, max_seconds and early stopping end with exit 0 and a model")
def budgets():
    for values in ({"max_steps": "3"}, {"max_seconds": "1", "epochs": "1000"},
                   {"epochs": "50", "early_stopping_patience": "1", "early_stopping_metric": "accuracy", "lr": "1e-9", "momentum": "0"}):
        with Job(values, artifact_formats="safetensors") as job:
            job.run().expect_success()
            expect(job.exists("model/model.safetensors"), f"{values}: no model")


if __name__ == "__main__":
    smelt_job.main()
