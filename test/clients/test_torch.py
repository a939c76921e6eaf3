"""PyTorch loads what train wrote, as torchvision's resnet34, and its logits are those of serve (t1 …: not on the contract's list)."""

import io
import os

from smelt_clients import bodies, expect, once, scratch, smelt_job, smelt_serve, test

import numpy
import torch
import torchvision
from safetensors.torch import load_file

IMAGES = (0, 1, 2, 3)


@once
def trained():
    """(folder of the model, serve's logits of the golden images)"""
    folder = scratch()
    with smelt_job.Job(max_steps="2") as job:
        job.run().expect_success()
        files = {name: job.read(f"model/{name}") for name in job.files("model")}
    for name, data in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    with smelt_serve.Server(model=files) as server:
        answer = server.invoke(bodies.npy_f4(*IMAGES), "application/x-npy", "application/json", target="/invocations?output=logits")
        return folder, numpy.array(answer.ok().json(), numpy.float32)


def logits(state):
    network = torchvision.models.resnet34(num_classes=100)
    network.load_state_dict(state)
    network.eval()
    with torch.no_grad():
        return network(torch.tensor([bodies.normalized(n) for n in IMAGES]).reshape(-1, 3, 32, 32)).numpy()


def expect_same(found, what):
    off = abs(found - trained()[1]).max()
    expect(off <= 1e-4 * max(1, abs(found).max()), f"{what}: {off:.2e} away from serve's logits")


@test("t1", "torch.load(model.pth, weights_only=True) into torchvision's resnet34 gives serve's logits")
def pth():
    expect_same(logits(torch.load(os.path.join(trained()[0], "model.pth"), weights_only=True)), "model.pth")


@test("t2", "model.safetensors, read by the safetensors package, gives serve's logits")
def safetensors():
    expect_same(logits(load_file(os.path.join(trained()[0], "model.safetensors"))), "model.safetensors")


@test("t3", "serve answers for a file that PyTorch saved: state dict, Lightning's checkpoint")
def saved_by_torch():
    torch.manual_seed(3)
    network = torchvision.models.resnet34(num_classes=100)
    network.eval()
    with torch.no_grad():
        wanted = network(torch.tensor([bodies.normalized(n) for n in IMAGES]).reshape(-1, 3, 32, 32)).numpy()
    for name, thing in (("weights.pt", network.state_dict()),
                        ("last.ckpt", {"state_dict": {f"model.{key}": value for key, value in network.state_dict().items()}, "epoch": 3})):
        file = io.BytesIO()
        torch.save(thing, file)
        with smelt_serve.Server(model={name: file.getvalue()}) as server:
            found = server.invoke(bodies.npy_f4(*IMAGES), "application/x-npy", "application/json", target="/invocations?output=logits").ok().json()
        off = abs(numpy.array(found) - wanted).max()
        expect(off <= 1e-4 * abs(wanted).max(), f"{name}: {off:.2e} away from PyTorch's logits")


if __name__ == "__main__":
    smelt_job.main()
