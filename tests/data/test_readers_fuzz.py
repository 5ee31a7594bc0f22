"""Any dataset, and any damage to its file: 100 examples each here, 2,000 in faults."""

import damage
import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = damage.of(100)
KINDS = st.sampled_from(sorted(damage.FORMATS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where files are written, and large ones unpacked."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fuzz")
        patch.setenv("DT_JAX_DATA", str(folder / "cache"))
        yield folder


@EXAMPLES
@given(arrays=damage.datasets(), kind=KINDS, limit=damage.limits)
def test_any_dataset_comes_out_as_it_was_written(folder, arrays, kind, limit):
    damage.check_round_trip(folder, arrays, kind, limit)


@EXAMPLES
@given(damage.datasets(), KINDS, damage.limits, damage.damages())
def test_any_damage_is_told_or_does_no_harm(folder, arrays, kind, limit, done):
    damage.check_damage(folder, arrays, kind, limit, done)


@EXAMPLES
@given(damage.datasets(), KINDS, damage.limits, damage.changes())
def test_any_other_array_is_told_or_does_no_harm(folder, arrays, kind, limit, change):
    damage.check_change(folder, arrays, kind, limit, change)
