"""Contract tests 53–65: what a job leaves behind, and what it says when it cannot. Method: artefacts are read by independent strict
readers (smelt_read); disks are filled with small tmpfs mounts; every write, fsync, close and rename is made to fail in turn by a
preloaded library (fault.c), and no such run may end with exit 0 and a damaged or missing model."""

import json
import os
import re
import signal
import stat
import sys
import tarfile

import smelt_data
import smelt_job
import smelt_read
from smelt_hosts import ranks_of
from smelt_job import ROOT, Job, Tmpfs, expect, expect_equal, expect_match, fault_env, test

DISK_FULL = 5
SHORT = {"max_steps": "1"}


def damage(job):
    """None when model/ holds a whole, loadable model; otherwise what is wrong with it."""
    try:
        _, tensors = smelt_read.safetensors(job.path("model/model.safetensors"))
        torch = smelt_read.pth(job.path("model/model.pth"))
        json.loads(job.read("model/model.json"))
    except Exception as problem:  # whatever breaks the strict readers
        return f"{type(problem).__name__}: {problem}"
    if {name: entry[1] for name, entry in torch.items()} != smelt_read.resnet34_shapes():
        return "model.pth has other tensors"
    return smelt_read.same_tensors(tensors, torch)


# --- success ----------------------------------------------------------------------------------------------------------


@test(53, "model/ holds the artefacts and nothing else: no temporary files, links, checkpoints")
def model_directory():
    for umask in (0o022, 0o077):
        with Job(SHORT) as job:
            job.run(umask=umask).expect_success()
            expect_equal(job.files("model"), ["model.json", "model.pth", "model.safetensors"], "files in model")
            for name in job.files("model"):
                info = os.lstat(job.path("model", name))
                expect(stat.S_ISREG(info.st_mode), f"{name} is not a regular file")
                expect_equal(oct(info.st_mode & 0o777), "0o644", f"mode of {name} under umask {umask:o}")
            for folder in ("output", "checkpoints"):
                expect(not [f for f in job.files(folder) if f.endswith((".tmp", ".sagemaker-ignore"))], f"temporary files: {job.files(folder)}")
            expect(not [n for n in os.listdir(job.scratch) if n != "ml"], f"files in the working directory: {os.listdir(job.scratch)}")


@test("53b", "model.safetensors and model.pth hold the same tensors, torchvision's names, shapes and order")
def artefacts_agree():
    for stem in ("imagenet", "cifar"):
        with Job(SHORT, stem=stem, batch_size="8") as job:
            job.run().expect_success()
            wanted = smelt_read.resnet34_shapes(stem)
            metadata, tensors = smelt_read.safetensors(job.path("model/model.safetensors"))
            torch = smelt_read.pth(job.path("model/model.pth"))
            expect_equal(list(torch), list(wanted), "order of model.pth")
            expect_equal({n: e[1] for n, e in torch.items()}, wanted, "shapes of model.pth")
            expect_equal(smelt_read.same_tensors(tensors, torch), None, "safetensors against pth")
            counters = {e[2] for n, e in torch.items() if n.endswith("num_batches_tracked")}
            expect_equal(counters, {(1).to_bytes(8, "little")}, "num_batches_tracked after one step")
            expect_equal({e[0] for n, e in torch.items() if not n.endswith("tracked")}, {"F32"}, "types")


@test("53c", "model.json says what a program needs to serve the model")
def model_json():
    with Job(SHORT) as job:
        job.write("input/data/train/fine_label_names.txt", "".join(f"class{i}\n" for i in range(100)))
        job.run().expect_success()
        model = json.loads(job.read("model/model.json"))
        text = json.dumps(model)
        for word in ("resnet34", "imagenet", "class99", "32"):
            expect(word in text, f"model.json lacks {word}: {text[:1000]}")
        for name in ("architecture", "stem", "classes", "image_size"):
            expect(any(name in key for key in model), f"model.json lacks {name}: {list(model)}")


@test("53d", "output/data holds the history as JSON lines and CSV, one line an epoch")
def history():
    with Job(epochs="2") as job:
        job.run().expect_success()
        lines = [json.loads(line) for line in job.read("output/data/history.jsonl").decode().splitlines()]
        expect_equal([line["epoch"] for line in lines], [1, 2], "epochs of history.jsonl")
        rows = job.read("output/data/history.csv").decode().splitlines()
        expect_equal(len(rows), 3, "lines of history.csv, with its head")
        expect_equal(len(set(row.count(",") for row in rows)), 1, "columns of history.csv")


MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("peak_kilobytes", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@test("53e", "7x7 stem, batch 128, with a moving average and checkpoints: less than 700 MB resident")
def memory():
    files = {"train.bin": smelt_data.binary(256), "test.bin": smelt_data.binary(100)}
    with Job(batch_size="128", ema_decay="0.99", checkpoint_every_steps="1", files=files) as job:
        result = job.run(wrapper=(sys.executable, "-c", MEASURE))
        expect_equal(result.code, 0, "exit code")
        peak_bytes = int(re.search(r"peak_kilobytes (\d+)", result.out).group(1)) * 1024
        expect(peak_bytes < 700e6, f"{peak_bytes / 1e6:.0f} MB at most")


# --- failure text -----------------------------------------------------------------------------------------------------


@test(54, "model/, packed and unpacked as the platform does it, is what serve serves")
def packed():
    sys.path.append(os.path.join(ROOT, "test/http"))
    import serve_bodies
    import smelt_serve
    with Job(max_steps="1") as job:
        job.run().expect_success()
        archive = os.path.join(job.scratch, "model.tar.gz")
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(job.path("model"), ".")
        with tarfile.open(archive) as tar:
            files = {os.path.basename(member.name): tar.extractfile(member).read() for member in tar.getmembers() if member.isfile()}
        with smelt_serve.Server(model=files) as server:
            rows = server.invoke(serve_bodies.npy_u8(0, 1), "application/x-npy").ok().json()
    expect_equal([len(row) for row in rows], [100, 100], "scores")


@test(55, "the failure text: short, UTF-8, plain, informative")
def failure_text():
    long = "ü" * 2000
    for values in ({"recipe": long}, {"lr": "\x1b[31mred"}, {"epochs": "0"}):
        with Job(values) as job:
            job.run().expect_failure(2, next(iter(values)))


@test(56, "a failure text that another process left during the run is not overwritten")
def existing_failure():
    with Job(epochs="500", log_every_steps="1") as job:
        process = job.start()
        process.wait_line(r"\[step\].*step=3 ")
        job.write("output/failure", "the first cause, from another process")
        os.kill(ranks_of(process)[0], signal.SIGKILL)
        result = process.finish()
        expect_equal(result.code, 1, "exit code")
        expect_equal(result.failure, b"the first cause, from another process", "failure file")
        expect("signal 9" in result.err, "the own cause is not on stderr")


@test("56b", "a failure text of an earlier run in the same directory is gone after the next one")
def earlier_failure():
    with Job(SHORT, epochs="0") as job:
        job.write("output/failure", "of an earlier run")
        job.run().expect_failure(2, "epochs")
        job.set(epochs="1")
        job.run().expect_success()
        expect(not job.exists("output/failure"), "a failure file after a success")


@test(57, "exit codes: settings 2, data 3, disk 5")
def exit_codes():
    with Job({"lr": "fast"}) as job:
        job.run().expect_failure(2, "lr")
    with Job(files={"train.bin": b"x"}) as job:
        job.run().expect_failure(3, "train.bin")
    with Job({"backend": "cuda"}) as job:
        result = job.run()
        expect(result.code in (2, 4), f"backend cuda without a GPU: {result.tail()}")
        smelt_job.check_failure_text(result.failure)
    with Job(SHORT) as job:
        job.run(env=fault_env("write:*/model/*:1+:EIO")).expect_failure(DISK_FULL, "model", "Input/output error")


# --- disks ------------------------------------------------------------------------------------------------------------


@test(58, "model/ on a disk smaller than the model: exit 5, No space left")
def model_disk_full():
    with Job(SHORT) as job, Tmpfs(job.path("model"), 30 << 20):
        job.run().expect_failure(DISK_FULL, "No space left|space", r"model")
        expect(not job.files("model"), f"pieces were left: {job.files('model')}")


@test("58b", "model/ has room for one of the two artefacts: still a failure")
def model_disk_nearly_full():
    with Job(SHORT) as job, Tmpfs(job.path("model"), 130 << 20):
        job.run().expect_failure(DISK_FULL, "No space left|space")
        expect(not [f for f in job.files("model") if f.endswith(".tmp")], f"pieces were left: {job.files('model')}")


def fill(path):
    """Takes all space that is left on the file's disk."""
    with open(path, "wb", buffering=0) as file:
        for piece in (1 << 20, 4096):
            try:
                while True:
                    file.write(b"\0" * piece)
            except OSError:
                pass


@test(59, "checkpoint disk full: older own checkpoints make room")
def checkpoint_disk_full():
    # Room for two checkpoints and no third, though five are asked for.
    with Job(epochs="4", keep_checkpoints="5") as job, Tmpfs(job.path("checkpoints"), 420 << 20):
        job.write("checkpoints/foreign", b"x")
        result = job.run().expect_success()
        expect_match("(?i)warning.*checkpoint", result.text, "warning")
        expect(1 <= len(job.checkpoints()) <= 2, f"own checkpoints: {job.checkpoints()}")
        expect(job.exists("checkpoints/foreign"), "a foreign file was deleted")
        expect_equal([f for f in job.files("checkpoints") if f.endswith(".sagemaker-ignore")], [], "temporary files")


@test("59c", "checkpoint disk full of foreign files: exit 5, and the last good checkpoint stays loadable")
def checkpoint_disk_foreign():
    with Job(epochs="3") as job, Tmpfs(job.path("checkpoints"), 420 << 20) as disk:
        expect(job.run(env=fault_env("rename:*/checkpoints/*:2:KILL")).code == -9, "was not killed")
        (good,) = job.checkpoints()
        for name in job.files("checkpoints"):
            if name != good:
                os.remove(job.path("checkpoints", name))
        fill(job.path("checkpoints/foreign"))
        job.restart()
        job.run().expect_failure(DISK_FULL, "checkpoint", "space")
        expect_equal(job.files("checkpoints"), sorted([good, "foreign"]), "files")
        disk.resize(900 << 20)
        job.restart()
        result = job.run().expect_success()
        step = int(smelt_job.CHECKPOINT.fullmatch(good)[2])
        expect_match(rf"(?i)resum.*step\D{{0,3}}{step}\b", result.text, "resume line")


@test("59b", "no room for even one checkpoint: exit 5 and a sentence, no hang")
def checkpoint_disk_tiny():
    with Job(epochs="2") as job, Tmpfs(job.path("checkpoints"), 20 << 20):
        result = job.run()
        result.expect_failure(DISK_FULL, "checkpoint", "space")
        expect(not job.files("checkpoints"), f"pieces were left: {job.files('checkpoints')}")


@test(60, "output/ full when the failure is written: the text is there all the same, and on stderr")
def failure_disk_full():
    with Job(SHORT) as job, Tmpfs(job.path("output"), 1 << 20):
        os.makedirs(job.path("output/data"))
        process = job.start()
        process.wait_line(".")
        fill(job.path("output/filler"))
        result = process.finish()
        if result.code == 0:
            raise smelt_job.Skip("the job ended before the disk was full")
        result.expect_failure(DISK_FULL, "space")


@test("60b", "an output disk that is full at the very start: a failure with a sentence on stderr")
def output_disk_full_at_start():
    with Job({"epochs": "0"}) as job, Tmpfs(job.path("output"), 64 << 10):
        fill(job.path("output/filler"))
        result = job.run()
        expect(result.code in (2, DISK_FULL) and re.search("epochs|space", result.err), result.tail())


# --- faults -----------------------------------------------------------------------------------------------------------


def every_fault(call, pattern, error, step=1, most=200, trained=True):
    """Makes the n-th matching call fail, n rising until no call is left to fail; returns how many runs were spoiled. `trained`: each
    run finds the checkpoint of a finished job and only has the model to write."""
    n, spoiled = 1, 0
    with Job(SHORT) as job:
        log = os.path.join(job.scratch, "fault.log")
        if trained:
            job.run().expect_success()
        while n < most:
            job.restart()
            if not trained:
                job.drop_checkpoints()
            if os.path.exists(log):
                os.remove(log)
            result = job.run(env=fault_env(f"{call}:{pattern}:{n}:{error}", log=log))
            fired = os.path.exists(log)
            if result.code == 0:
                expect_equal(damage(job), None, f"exit 0 after the {n}th {call} failed")
                expect(result.failure is None, "failure file and exit 0")
            else:
                expect(result.code == DISK_FULL, f"{call} {n} {error}: {result.tail()}")
                result.expect_failure(DISK_FULL, "space|Input/output|quota")
                expect(not [f for f in job.files("model") if f.endswith((".tmp", ".sagemaker-ignore"))], f"pieces: {job.files('model')}")
            if not fired:
                expect_equal(result.code, 0, "exit code of the undisturbed run")
                return spoiled
            spoiled += 1
            n += step
    return spoiled


@test("61a", "each fsync in model/ fails in turn: never exit 0 with a damaged model")
def fault_fsync():
    expect(every_fault("fsync", "*/model*", "EIO") >= 3, "fsync was hardly called")


@test("61b", "each close in model/ fails in turn")
def fault_close():
    expect(every_fault("close", "*/model/*", "EIO") >= 3, "close was hardly called")


@test("61c", "each rename in model/ fails in turn")
def fault_rename():
    expect(every_fault("rename", "*/model/*", "ENOSPC") >= 3, "rename was hardly called")


@test("61d", "writes in model/ fail in turn (every so many, because there are many)")
def fault_write():
    expect(every_fault("write", "*/model/*", "ENOSPC", step=29) >= 2, "write was hardly called")


@test("61e", "short writes change nothing")
def short_writes():
    with Job(SHORT) as job:
        job.run(env=fault_env("write:*/model/*:2:SHORT", "write:*/checkpoints/*:2:SHORT")).expect_success()
        expect_equal(damage(job), None, "the model after short writes")


@test("61f", "checkpoint faults: the job fails with a sentence or ends with a good model")
def fault_checkpoint():
    for call, most in (("fsync", 4), ("rename", 3), ("close", 3)):
        expect(every_fault(call, "*/checkpoints*", "ENOSPC", most=most, trained=False) >= 1, f"{call} was not called")


@test("61g", "a history that cannot be written is a failure")
def fault_history():
    with Job(SHORT) as job:
        result = job.run(env=fault_env("write|rename|fsync:*/output/data/history*:1+:ENOSPC"))
        result.expect_failure(DISK_FULL, "history")


@test(64, "SIGSEGV: a reason in the failure file, exit 139 or killed by the signal")
def crash():
    with Job(SHORT) as job:
        result = job.run(env=fault_env("rename:*/model/*:1:SEGV"))
        expect(result.code in (139, -11, 1), f"exit {result.code}")
        expect(result.failure is not None, f"no failure file: {result.tail()}")
        expect_match(r"(?i)SIGSEGV|segmentation|signal 11|crash", smelt_job.check_failure_text(result.failure), "the reason")


@test(65, "stdout closed, its reader gone, or its disk full: training goes on")
def no_stdout():
    for stdout in ("closed", "broken", "/dev/full"):
        with Job(SHORT) as job:
            job.run(stdout=stdout).expect_success()
            expect_equal(damage(job), None, f"the model with stdout {stdout}")


if __name__ == "__main__":
    smelt_job.main()
