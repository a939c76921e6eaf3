"""The real CIFAR-100, where it is found (smelt_real). Method: a few steps with the 7x7 stem, File mode; what is read is compared with what is known of the set. Numbered r1."""

import os
import re
import shutil

from smelt_job import Job, expect, expect_equal, main, test
from smelt_real import real_files

STEPS, BATCH, TEST_IMAGES = 40, 64, 1000


@test("r1", "the real CIFAR-100: all images are read, every class 500 times, and the loss falls within 40 steps")
def real_training():
    with Job(hyperparameters={"stem": "imagenet", "epochs": "1", "max_steps": str(STEPS), "batch_size": str(BATCH), "lr": "0.01", "warmup_epochs": "0",
                              "log_every_steps": "1", "artifact_formats": "safetensors", "checkpoint_every_epochs": "0"}) as job:
        folder = job.path("input/data/train")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        real_files(folder)
        with open(os.path.join(folder, "train.bin"), "rb") as file:
            labels = file.read()[1::3074]
        expect_equal([labels.count(label) for label in range(100)], [500] * 100, "images of each class")
        with open(os.path.join(folder, "test.bin"), "r+b") as file:
            file.truncate(TEST_IMAGES * 3074)  # validating on all 10 000 would only take longer
        result = job.run().expect_success()
        expect(re.search(rf"train_images=50000 validation_images={TEST_IMAGES} .*classes=100 ", result.out), result.tail())
        losses = [float(loss) for loss in re.findall(r"^\[step\].* loss_now=([0-9.]+)", result.out, re.M)]
        expect_equal(len(losses), STEPS, "steps reported")
        first, last = sum(losses[:5]) / 5, sum(losses[-10:]) / 10
        expect(last < first - 0.1, f"mean loss of the first 5 steps {first:.3f}, of the last 10 {last:.3f}: it does not fall")


if __name__ == "__main__":
    main()
