"""Contract tests 38–52: what a channel may hold and how it arrives. Method: the same few pictures in every layout and mode must
give the same model, bit for bit, because order and augmentation depend on seed and index alone; what is broken is refused."""

import os
import signal
import struct
import subprocess
import time

import smelt_data
import smelt_job
from smelt_job import Job, expect, expect_equal, expect_match, fault_env, once, test, tree

BAD_DATA = 3
SHORT = {"max_steps": "2", "artifact_formats": "safetensors"}

@once
def reference():
    """The model that the plain layout gives: train.bin and test.bin at the channel's root."""
    with Job(SHORT) as job:
        job.run().expect_success()
        return job.model()


def same_model(job, what, **options):
    job.run(**options).expect_success()
    expect(job.model() == reference(), f"{what}: another model than from plain files")


def broken(files, *patterns, **extra):
    with Job(SHORT, files=files, **extra) as job:
        return job.run().expect_failure(BAD_DATA, *patterns)


class ReadOnly:
    """`path` cannot be written: a read-only bind mount for root, whom modes do not stop; modes for others."""

    def __init__(self, path):
        self.path = path

    def modes(self, directory_mode):
        for folder, _, _ in os.walk(self.path):
            os.chmod(folder, directory_mode)

    def __enter__(self):
        if os.geteuid() != 0:
            return self.modes(0o555)
        for command in (["mount", "--bind", self.path, self.path], ["mount", "-o", "remount,bind,ro", self.path]):
            if subprocess.run(command, capture_output=True).returncode != 0:
                raise smelt_job.Skip("mount is refused here")

    def __exit__(self, *_):
        if os.geteuid() != 0:
            return self.modes(0o755)
        smelt_job.unmount(self.path)


# --- layouts ----------------------------------------------------------------------------------------------------------


@test(38, "binary files at the root, nested, in .tar and .tar.gz; python pickles: the same model")
def layouts():
    tiny = Job.tiny()
    binary = {f"cifar-100-binary/{name}": data for name, data in tiny.items()}
    names = {"cifar-100-binary/fine_label_names.txt": b"".join(b"class%d\n" % i for i in range(100))}
    pickles = {"train": smelt_data.python2_pickle(tiny["train.bin"]), "test": smelt_data.python2_pickle(tiny["test.bin"])}
    for what, files in (("nested", {**binary, **names}),
                        ("nested twice", {f"data/{name}": data for name, data in binary.items()}),
                        ("tar", {"cifar-100-binary.tar": smelt_data.tar(binary)}),
                        ("tar.gz", {"cifar-100-binary.tar.gz": smelt_data.tar({**binary, **names}, compress=True)}),
                        ("python", {f"cifar-100-python/{name}": data for name, data in pickles.items()}),
                        ("python at the root", pickles),
                        ("python tar.gz", {"cifar-100-python.tar.gz":
                                           smelt_data.tar({f"cifar-100-python/{n}": d for n, d in pickles.items()}, compress=True)})):
        with Job(SHORT, files=files) as job:
            same_model(job, what)


@test("38b", "training and validation in channels of their own: the same model")
def separate_channels():
    tiny = Job.tiny()
    for other in ("validation", "test"):
        with Job(SHORT, files={"train.bin": tiny["train.bin"]}) as job:
            job.channel(other, {"test.bin": tiny["test.bin"]})
            same_model(job, f"channel {other}")


@test("38c", "CIFAR-10 binary: ten classes")
def cifar_10():
    files = {f"data_batch_{i}.bin": smelt_data.binary_10(50, seed=i) for i in (1, 2)}
    files["test_batch.bin"] = smelt_data.binary_10(50, seed=9)
    with Job(SHORT, files=files) as job:
        job.run().expect_success()
        import smelt_read
        _, tensors = smelt_read.safetensors(job.path("model/model.safetensors"))
        expect_equal(tensors["fc.weight"][1], [10, 512], "shape of the head")


@test("38d", "a folder of pictures a class: classes by name; a class that only validation has is refused")
def picture_folders():
    classes = ("apple", "pear", "plum")
    train = {f"train/{name}": data for name, data in smelt_data.class_folders(classes, 8).items()}
    with Job(SHORT, files=train, validation_split="0.25", batch_size="6") as job:
        job.channel("train", {})
        job.run().expect_success()
        expect_match('"apple".*"pear".*"plum"', job.read("model/model.json").decode().replace("\n", " "), "class names")
    with Job(SHORT, files=smelt_data.class_folders(classes, 8), batch_size="6") as job:
        job.channel("validation", smelt_data.class_folders(("apple", "quince"), 2))
        job.run().expect_failure(BAD_DATA, "quince")


@test("38e", "a share of the training pictures is held out when there is no validation set")
def held_out():
    with Job(SHORT, files={"train.bin": smelt_data.binary(200)}, validation_split="0.5") as job:
        result = job.run().expect_success()
        expect("validation:accuracy" in result.metrics()[-1], f"no validation metric: {result.tail()}")


@test(39, "a read-only channel works and nothing is written in it")
def read_only_channel():
    with Job(SHORT) as job:
        with ReadOnly(job.path("input/data")):
            before = tree(job.path("input"))
            same_model(job, "read-only channel")
            expect_equal(tree(job.path("input")), before, "the input directory")


@test("39b", "a writable channel is left as it is, also with archives in it")
def untouched_channel():
    files = {"cifar-100-binary.tar.gz": smelt_data.tar({f"cifar-100-binary/{n}": d for n, d in Job.tiny().items()}, compress=True)}
    with Job(SHORT, files=files) as job:
        before = tree(job.path("input"))
        same_model(job, "archive")
        expect_equal(tree(job.path("input")), before, "the input directory")


@test(40, "FastFile: slow reads, no mmap")
def fast_file():
    with Job(SHORT) as job:
        job.entry("train", {"TrainingInputMode": "FastFile", "S3DistributionType": "FullyReplicated"})
        same_model(job, "FastFile", env=fault_env("mmap:*/input/data/*:1+:ENODEV", "read:*/input/data/*:1+:SLOW"))


@test(41, "an empty channel: its name and path")
def empty_channel():
    broken({}, "train", "input/data/train")
    with Job(SHORT, files={}) as job:
        os.rmdir(job.path("input/data/train"))
        job.run().expect_failure(BAD_DATA, "train", "input/data/train")


@test(42, "truncated files and labels out of range: the size, the record")
def broken_records():
    tiny = Job.tiny()
    size = len(tiny["train.bin"]) - 1
    broken({**tiny, "train.bin": tiny["train.bin"][:-1]}, "train.bin", str(size), "3074")
    wrong = bytearray(tiny["train.bin"])
    wrong[3074 * 17 + 1] = 100
    broken({**tiny, "train.bin": bytes(wrong)}, "train.bin", r"\b1[78]\b", "100")
    wrong = bytearray(tiny["train.bin"])
    wrong[3074 * 5] = 20
    broken({**tiny, "train.bin": bytes(wrong)}, "train.bin", r"\b[56]\b", "20")


@test("42b", "broken archives and pickles, an unreadable file: exit 3 with the file's name")
def broken_archives():
    tiny = Job.tiny()
    archive = smelt_data.tar({f"cifar-100-binary/{n}": d for n, d in tiny.items()}, compress=True)
    broken({"data.tar.gz": archive[:len(archive) // 2]}, r"data\.tar\.gz")
    flipped = bytearray(archive)
    flipped[len(flipped) // 2] ^= 0xFF
    broken({"data.tar.gz": bytes(flipped)}, r"data\.tar\.gz")
    pickled = smelt_data.python2_pickle(tiny["train.bin"])
    broken({"train": pickled[:-5000], "test": smelt_data.python2_pickle(tiny["test.bin"])}, r"\btrain\b")
    evil = b"\x80\x02cposix\nsystem\n(U\x10touch pwned-file\ntR."
    with Job(SHORT, files={"train": evil, "test": evil}) as job:
        job.run().expect_failure(BAD_DATA, "train")
        expect(not os.path.exists(os.path.join(job.scratch, "pwned-file")), "the pickle was executed")
    with Job(SHORT) as job:
        job.run(env=fault_env("read:*/train.bin:1+:EIO")).expect_failure(BAD_DATA, r"train\.bin", "Input/output error")


@test(43, "hidden files, _SUCCESS, .DS_Store and empty files are ignored")
def chaff():
    files = {**Job.tiny(), "_SUCCESS": b"", ".DS_Store": b"\0\0\0\1Bud1", ".hidden.bin": b"x" * 100, "empty.bin": b"", "README.txt": b"hello\n"}
    with Job(SHORT, files=files) as job:
        same_model(job, "chaff in the channel")


@test(44, "symbolic links: a linked file is followed, a loop of directories ends")
def links():
    with Job(SHORT, files={}) as job:
        for name, data in Job.tiny().items():
            job.write(f"store/{name}", data)
            os.symlink(job.path("store", name), job.path("input/data/train", name))
        os.symlink(job.path("input/data/train"), job.path("input/data/train/again"))
        same_model(job, "linked files", limit=60)
    with Job(SHORT, files={}) as job:
        os.symlink("train.bin", job.path("input/data/train/train.bin"))
        job.run(limit=60).expect_failure(BAD_DATA, "train")


# --- pipes ------------------------------------------------------------------------------------------------------------


def piped(data=None, wrapper="None", **writer):
    """A job with both channels as FIFOs."""
    job = Job(SHORT, channel=None)
    job.train_writer = job.pipe("train", Job.tiny()["train.bin"] if data is None else data, wrapper, **writer)
    job.pipe("validation", Job.tiny()["test.bin"] if wrapper == "None" else smelt_data.recordio([Job.tiny()["test.bin"]]), wrapper)
    return job


@test(45, "Pipe mode gives the model that File mode gives")
def pipe_mode():
    with piped() as job:
        same_model(job, "Pipe")
    tarred = smelt_data.tar({"cifar-100-binary/train.bin": Job.tiny()["train.bin"]}, compress=True)
    with piped(tarred) as job:
        same_model(job, "Pipe with a tar.gz stream")


@test(46, "a FIFO that appears late is waited for; the next FIFO is not needed")
def late_fifo():
    with piped(delay=2.0) as job:
        result = job.run().expect_success()
        expect(result.seconds > 2, "did not wait")
        expect(job.model() == reference(), "another model")


@test(47, "no writer ever comes and SIGTERM arrives: exit 0 in time, no failure file")
def no_writer():
    for make in (True, False):
        with Job(SHORT, channel=None) as job:
            job.entry("train", {"TrainingInputMode": "Pipe"})
            if make:
                os.mkfifo(job.path("input/data/train_0"))
            process = job.start()
            time.sleep(1.0)
            expect(process.running(), "gave up at once")
            process.signal(signal.SIGTERM).finish(10).expect_success()


@test(48, "the writer closes inside a record: exit 3")
def half_record():
    with piped(Job.tiny()["train.bin"][:-1000]) as job:
        job.run().expect_failure(BAD_DATA, "train", "3074|record")


@test(49, "RecordIO-wrapped pipes are unwrapped; a bad magic, a truncated record: exit 3")
def recordio():
    train = Job.tiny()["train.bin"]
    half = 3074 * 90
    good = smelt_data.recordio([train[:half], train[half:]])
    with piped(good, "RecordIO") as job:
        same_model(job, "RecordIO")
    for bad in (smelt_data.recordio([train], magic=0x3ED7230A), good[:-7], good[:8 + half] + struct.pack("<II", 1, 2)):
        with piped(bad, "RecordIO") as job:
            job.run().expect_failure(BAD_DATA, "train", "record")


@test(50, "a Pipe channel that is not needed is still opened, so that its writer is not left hanging")
def unread_pipe():
    with Job(SHORT) as job:
        writer = job.pipe("leftover", b"x" * 3_000_000)
        job.run().expect_success()
        writer.join(5)
        expect(not writer.is_alive(), "the writer is still blocked")
        expect(writer.written > 0 or writer.broken, "nobody opened the FIFO")


# --- determinism ------------------------------------------------------------------------------------------------------


@test(52, "one seed, one model: across runs and thread counts; another seed gives another")
def determinism():
    with Job(SHORT) as job:
        same_model(job, "second run")
    for threads in ("2",):
        with Job(SHORT, threads=threads) as job:
            same_model(job, f"threads={threads}")
    with Job(SHORT, seed="8") as job:
        job.run().expect_success()
        expect(job.model() != reference(), "the seed changes nothing")


if __name__ == "__main__":
    smelt_job.main()
