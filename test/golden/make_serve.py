#!/usr/bin/env python3
"""Makes serve.txt and pictures/ with PyTorch, torchvision and Pillow: what the model that test/http/make_model.c writes answers to the first
of golden.h's images, and to a picture of another size after torchvision's Resize and CenterCrop.

    python3 test/golden/make_serve.py

Computed in double from fp32 weights and images; logits and probabilities of torchvision's resnet34 in evaluation mode."""
import os

import numpy as np
import PIL.Image
import torch
import torchvision

from make_golden import HERE, WEIGHTS, hash_images, hash_units, line, normalize, set_weights

HEAD_SCALE = 4
WIDTH, HEIGHT = 50, 37  # of the picture; serve_bodies.py draws it too


def draw():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = x * 7 + y * 3, x * x // 5 + y * 11, np.where((x // 6 + y // 6) % 2 != 0, 230, 20)
    return PIL.Image.fromarray(np.stack([p & 255 for p in planes], -1).astype(np.uint8))


def pictures(folder):
    """JPEG files as cameras and programs write them, all of the same picture."""
    os.makedirs(folder, exist_ok=True)
    picture = draw()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees; torchvision does not look at it either
    save = lambda name, image, **how: image.save(os.path.join(folder, name), quality=95, **how)
    save("baseline.jpg", picture, subsampling=0)
    save("progressive.jpg", picture, subsampling=0, progressive=True)
    save("exif.jpg", picture, subsampling=0, exif=exif)
    save("grey.jpg", picture.convert("L"))
    save("cmyk.jpg", picture.convert("CMYK"))


def sharpen(entries):
    """As golden_sharpen of golden.h."""
    for index, (name, tensor) in enumerate(entries):
        with torch.no_grad():
            value = tensor.numpy()
            unit = hash_units(WEIGHTS + index, value.size)
            if value.ndim == 4:
                value = value - value.mean((1, 2, 3), keepdims=True)
            elif name.endswith("running_mean"):
                value = unit / 4
            elif name.endswith("running_var"):
                value = 1 + unit / 2
            elif name == "fc.weight":
                value = value * HEAD_SCALE
            tensor.copy_(torch.from_numpy(value.astype(np.float32).astype(np.float64)))


def main():
    model = torchvision.models.resnet34(num_classes=100).double()
    entries = [(k, v) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")]
    set_weights(entries, 0)
    sharpen(entries)
    model.eval()
    with torch.no_grad():
        resize = torchvision.transforms.Compose([torchvision.transforms.Resize(32), torchvision.transforms.CenterCrop(32)])
        resized = np.asarray(resize(draw())).transpose(2, 0, 1)
        logits = model(torch.from_numpy(normalize(np.concatenate([hash_images(4, 32), resized[None]])).astype(np.float64)))
    pictures(os.path.join(HERE, "pictures"))
    with open(os.path.join(HERE, "serve.txt"), "w") as file:
        file.write("# resnet34, imagenet stem, 32x32, 100 classes, evaluation; torch %s, torchvision %s\n" % (torch.__version__, torchvision.__version__))
        for n, name in enumerate(("0", "1", "2", "3", "picture")):
            line(file, "logits." + name, logits[n].numpy())
            line(file, "probabilities." + name, torch.softmax(logits[n], 0).numpy())


if __name__ == "__main__":
    main()
