"""Makes the weight files beside it with the real torch and safetensors (see versions.txt). python make_weights.py

What they hold is said in rule.py."""
import collections
import os
import pathlib
import warnings
import zipfile

import safetensors
import safetensors.torch
import torch

from rule import state, values

warnings.simplefilter("ignore")
here = pathlib.Path(__file__).parent
def save(name, thing, **options):
    torch.save(thing, here / name, **options)


for word, dtype in (("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16), ("f64", torch.float64)):
    save(f"zip_{word}.pth", state(dtype))
    safetensors.torch.save_file(state(dtype), here / f"{word}.safetensors", metadata={"format": "pt", "note": "a \"quoted\" text"})
save("legacy_f32.pth", state(), _use_new_zipfile_serialization=False)
save("prefixed.pth", state(prefix="module.model."))
save("parameters.pth", {name: torch.nn.Parameter(t, requires_grad=t.is_floating_point()) for name, t in state().items()})
save("model_key.pt", {"epoch": 3, "loss": 0.5, "model": state(), "optimizer": {"state": {}, "param_groups": []}})


def strided():
    """The same values behind strides, offsets and one shared storage."""
    tensors = state()
    tensors["conv.weight"] = tensors["conv.weight"].contiguous(memory_format=torch.channels_last)
    both = torch.cat([torch.full((5,), 99.0), tensors["norm.weight"], values(2, (3, 4)).float().t().contiguous().reshape(-1)])
    tensors["norm.weight"] = both[5:9]
    tensors["fc.weight"] = both[9:].reshape(4, 3).t()
    tensors["scalar"] = values(4, ()).float().expand(3)[1]
    assert tensors["conv.weight"].stride() == (18, 1, 6, 2) and tensors["fc.weight"].stride() == (1, 3)
    return tensors


save("strided.pth", strided())
save("legacy_strided.pth", strided(), _use_new_zipfile_serialization=False)


def deflated(name, original):
    """The same records compressed, as a zip tool packs them again; torch reads that."""
    with zipfile.ZipFile(here / original) as old, zipfile.ZipFile(here / name, "w") as new:
        for member in old.infolist():
            record = zipfile.ZipInfo(member.filename)
            record.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(record, old.read(member))
    torch.load(here / name, weights_only=True)


deflated("deflated.pth", "strided.pth")


class Anneal:
    """What a scheduler object looks like in a checkpoint: attributes, a bound method, a reference to itself."""

    def __init__(self):
        self.total_steps = 100
        self.itself = self
        self.anneal_func = self.step

    def step(self):
        pass


checkpoint = {
    "epoch": 2,
    "global_step": 1408,
    "pytorch-lightning_version": "2.5.0",
    "state_dict": state(prefix="model."),
    "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 2}}}},
    "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.25), "best_k_models": {}}, Anneal: {"old": 1}},
    "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
    "lr_schedulers": [Anneal()],
    "hparams_name": "kwargs",
    "hyper_parameters": {"lr": 0.001, "path": pathlib.PurePosixPath("/a/b"), "counts": collections.defaultdict(dict, a={"b": 1})},
}
save("lightning.ckpt", checkpoint)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/smelt_evil_was_here",))


save("evil.pth", {"state_dict": state(), "callback": Evil()})
save("evil_root.pth", Evil())
save("evil_tensor.pth", {"conv.weight": Evil()})

# Refused.
save("module.pth", torch.nn.Linear(2, 2))
save("module_legacy.pth", torch.nn.Linear(2, 2), _use_new_zipfile_serialization=False)
save("sparse.pth", {"weight": torch.eye(3).to_sparse()})
save("complex.pth", {"weight": torch.ones(2, dtype=torch.complex64)})
save("float8.pth", {"weight": torch.ones(2).to(torch.float8_e4m3fn)})
save("numbers.pth", {"epoch": 3})
save("list.pth", [torch.ones(2)])
torch.jit.script(torch.nn.Linear(2, 2)).save(here / "script.pt")
(here / "versions.txt").write_text(f"torch {torch.__version__}\nsafetensors {safetensors.__version__}\n")
