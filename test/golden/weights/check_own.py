"""Shows that torch reads own.pth, which test_pth.c makes again byte for byte: python check_own.py [file.pth …]

Without arguments: own.pth. Every file is loaded with weights_only=True, and once more with mmap=True; own.pth is compared with the
rule in rule.py; a file with 218 tensors is loaded, strict, into torchvision's resnet34, whose model.safetensors beside it
must agree to the bit."""
import pathlib
import sys

import torch

from rule import state

here = pathlib.Path(__file__).parent
for path in [pathlib.Path(a) for a in sys.argv[1:]] or [here / "own.pth"]:
    loaded = torch.load(path, weights_only=True)
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert list(loaded) == list(mapped) and all(torch.equal(loaded[k], mapped[k]) and loaded[k].dtype == mapped[k].dtype for k in loaded)
    if path.name == "own.pth":
        wanted = state()
        assert list(loaded) == list(wanted)
        assert all(torch.equal(loaded[k], wanted[k]) and loaded[k].dtype == wanted[k].dtype and loaded[k].shape == wanted[k].shape for k in wanted)
    if len(loaded) == 218:
        import safetensors.torch
        import torchvision

        model = torchvision.models.resnet34(num_classes=loaded["fc.bias"].numel())
        assert list(loaded) == list(model.state_dict())
        model.load_state_dict(loaded, strict=True)
        other = safetensors.torch.load_file(path.with_suffix(".safetensors"))
        assert sorted(other) == sorted(loaded)
        for key, tensor in model.state_dict().items():
            assert other[key].dtype == tensor.dtype and torch.equal(other[key].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)), key
    print(f"{path}: {len(loaded)} tensors, as they should be")
