"""Starting from given weights (contract 1.5, channel "model" or "pretrained"; the letter p stands for no number of the list). Method: a
job's own artefacts are given to a second job that trains with a learning rate of 0, so its weights must come out as they went in."""

import os

import smelt_data
import smelt_job
import smelt_read
from smelt_job import Job, expect, expect_equal, expect_match, once, test

BAD_DATA = 3
FROZEN = {"max_steps": "1", "lr": "0", "momentum": "0", "weight_decay": "0", "artifact_formats": "safetensors", "stem": "auto"}


@once
def trained():
    """{name: bytes} of a trained job's model/."""
    with Job(max_steps="2", seed="99") as job:
        job.run().expect_success()
        return {name: job.read(f"model/{name}") for name in job.files("model")}


def tensors_of(job, name="model/model.safetensors"):
    return smelt_read.safetensors(job.path(name))[1]


def weights_kept(job, but=()):
    """All trained tensors but `but` are those of trained(); running statistics may have moved."""
    job.write("given.safetensors", trained()["model.safetensors"])
    given, found = tensors_of(job, "given.safetensors"), tensors_of(job)
    for name in given:
        if "running" not in name and "tracked" not in name:
            expect((given[name] == found[name]) != (name in but), f"{name} is {'kept' if name in but else 'changed'}")


@test("p1", "weights from a channel: safetensors, pth, model.tar.gz; the stem follows the weights")
def formats():
    model = trained()
    for channel, files in (("model", {"model.tar.gz": smelt_data.tar(model, compress=True)}), ("pretrained", {"weights.pth": model["model.pth"]}),
                           ("model", {"model.safetensors": model["model.safetensors"]})):
        with Job(FROZEN) as job:
            job.channel(channel, files, ContentType="application/x-sagemaker-model")
            result = job.run().expect_success()
            expect_match("stem=imagenet", result.out, "stem")
            weights_kept(job)


@test("p2", "another number of classes: the head starts anew, with a line that says so")
def other_head():
    with Job(FROZEN, files={"data_batch_1.bin": smelt_data.binary_10(64), "test_batch.bin": smelt_data.binary_10(20)}) as job:
        job.channel("model", {"model.pth": trained()["model.pth"]})
        result = job.run().expect_success()
        expect_match("(?i)(head|fc).*(100|10).*", result.text, "line about the head")
        expect_equal(tensors_of(job)["fc.weight"][1], [10, 512], "shape of the head")
        weights_kept(job, but=("fc.weight", "fc.bias"))


@test("p3", "what does not fit or is broken: exit 3 with the tensor or the file; nothing is executed")
def misfits():
    pth = trained()["model.pth"]
    with Job(FROZEN, stem="cifar", batch_size="8") as job:
        job.channel("model", {"model.pth": pth})
        result = job.run()
        result.expect_failure(result.code, r"conv1\.weight", "7", "3")
        expect(result.code in (2, BAD_DATA), f"exit {result.code}")
    for name, data in (("model.pth", pth[:len(pth) // 2]), ("model.safetensors", trained()["model.safetensors"][:-4]), ("model.pth", b"hello"),
                       ("model.pth", b"\x80\x02cposix\nsystem\n(U\x10touch pwned-file\ntR."), ("model.tar.gz", b"\x1f\x8b\x08\0\0")):
        with Job(FROZEN) as job:
            job.channel("model", {name: data})
            job.run().expect_failure(BAD_DATA, name)
            expect(not os.path.exists(os.path.join(job.scratch, "pwned-file")), "the pickle was executed")
    with Job(FROZEN, pretrained="/no/such/file.pth") as job:
        job.run().expect_failure(BAD_DATA, "/no/such/file.pth")


if __name__ == "__main__":
    smelt_job.main()
