"""The GPU's kernel, run by Triton's interpreter on the CPU, against the loop over differences."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

SCRIPT = """
import torch
from irstkit.train.models import difference_kernels, differences

torch.manual_seed(0)
for mode in ("zeros", "reflect"):
    for planes, height, width in ((3, 9, 12), (1, 41, 70), (2, 4, 5)):
        x, o = torch.rand(2, planes, height, width)
        for squares in (True, False):
            wanted = differences._sums(x.double(), o.double(), mode, squares=squares)
            found = difference_kernels.sums(x, o, mode, squares=squares)
            for sums, exact in list(zip(found, wanted))[: 1 + squares]:
                torch.testing.assert_close(differences._in_order(sums).double(), exact, rtol=1e-4, atol=1e-4)
x = torch.ones(1, 4, 4)
assert difference_kernels.sums(x, x, "zeros", squares=True)[0][0, 0, 0] == 7, "what check() looks for"
print("equal")
"""


def test_sums_of_the_kernel_are_those_of_the_cpu():
    # the interpreter is chosen when Triton is imported, hence a process of its own
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
