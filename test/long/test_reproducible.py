"""Two builds of one commit, in trees at different places, install the same bytes (r1: not on the contract's list)."""

import hashlib
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import smelt_job
from smelt_job import ROOT, Skip, expect, expect_equal, test


@test("r1", "two clones, two builds: the same bytes of everything that is installed")
def same_bytes():
    sums = []
    with tempfile.TemporaryDirectory(prefix="smelt-twice-") as scratch:
        for place in ("a", "another/and/deeper"):
            tree, to = os.path.join(scratch, place), os.path.join(scratch, "to-" + place[:1] + str(len(place)))
            if subprocess.run(["git", "clone", "-q", ROOT, tree], stderr=subprocess.DEVNULL).returncode != 0:
                raise Skip("this tree is no git repository")
            made = subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "install", f"DESTDIR={to}"], cwd=tree, capture_output=True, text=True)
            expect(made.returncode == 0, made.stderr[-2000:])
            found = {}
            for folder, _, names in os.walk(to):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        found[os.path.relpath(os.path.join(folder, name), to)] = hashlib.sha256(file.read()).hexdigest()
            sums.append(found)
    expect(any(name.endswith("bin/train") for name in sums[0]), f"nothing installed: {sums[0]}")
    expect_equal(sums[0], sums[1], "sha256 of what was installed")


if __name__ == "__main__":
    smelt_job.main()
