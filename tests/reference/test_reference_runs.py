"""Short runs compute what they computed before the last refactoring.

On the machine that digests.json names, to the same bits; elsewhere to 1e-5.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from record import RUNS, differences, machine, record

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT.parent / "shared" / "datasets" / "hopper-mixed.hdf5"
NAMES = [*RUNS] if DATA.exists() else ["quickstart"]


@pytest.mark.slow
def test_runs_compute_what_they_did():
    expected = json.loads((HERE / "digests.json").read_text())
    recorded = record(ROOT, DATA, NAMES)
    if machine() == expected["machine"]:
        assert differences(expected, recorded) == []
        return
    for name, found in recorded["runs"].items():
        for key, value in found.items():
            if not key.endswith("sha256"):
                known = expected["runs"][name][key]
                np.testing.assert_allclose(value, known, rtol=1e-5, err_msg=name)
