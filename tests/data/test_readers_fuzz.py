"""Random datasets and corrupt files: 100 examples each here, 2,000 in faults."""

import damage
import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = damage.fixed_examples(100)
KINDS = st.sampled_from(sorted(damage.FORMATS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for files, and for the cache with unpacked arrays."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fuzz")
        patch.setenv("DT_JAX_DATA", str(folder / "cache"))
        yield folder


@EXAMPLES
@given(arrays=damage.datasets(), kind=KINDS, limit=damage.limits)
def test_any_dataset_is_read_as_it_was_written(folder, arrays, kind, limit):
    damage.check_round_trip(folder, arrays, kind, limit)


@EXAMPLES
@given(damage.datasets(), KINDS, damage.limits, damage.damages())
def test_any_corruption_is_reported_or_harmless(folder, arrays, kind, limit, corrupt):
    damage.check_damage(folder, arrays, kind, limit, corrupt)


@EXAMPLES
@given(damage.datasets(), KINDS, damage.limits, damage.changes())
def test_any_changed_array_is_reported_or_harmless(folder, arrays, kind, limit, change):
    damage.check_change(folder, arrays, kind, limit, change)
