"""smelt_real: the real CIFAR-100, where it is found: $SMELT_CIFAR100 (a directory with train.bin and test.bin, or an archive), build/data (make data) or
../shared/data."""

import os
import shutil
import tarfile

from smelt_job import ROOT, Skip

PLACES = [os.environ.get("SMELT_CIFAR100", ""), os.path.join(ROOT, "build/data/cifar-100-binary"), os.path.join(ROOT, "build/data/cifar-100-binary.tar.gz"),
          os.path.join(ROOT, "../shared/data/cifar-100-binary.tar.xz")]


def real_files(folder):
    """train.bin and test.bin of the real set in `folder`."""
    place = next((place for place in PLACES if place and os.path.exists(place)), None)
    if place is None:
        raise Skip("the real CIFAR-100 is not here; make data downloads it")
    if os.path.isdir(place):
        for name in ("train.bin", "test.bin"):
            shutil.copyfile(os.path.join(place, name), os.path.join(folder, name))
        return
    with tarfile.open(place) as archive:
        for member in archive:
            name = os.path.basename(member.name)
            if name in ("train.bin", "test.bin"):
                with archive.extractfile(member) as source, open(os.path.join(folder, name), "wb") as file:
                    shutil.copyfileobj(source, file)
