"""The readers with 2,000 examples of each kind; tests/data tries 100 of each."""

import damage
import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = 2000
CHECKS = {
    "datasets written and read": (damage.check_round_trip, []),
    "corrupt files": (damage.check_damage, [damage.damages()]),
    "arrays of another kind": (damage.check_change, [damage.changes()]),
}


@pytest.mark.parametrize("name", CHECKS)
def test_readers(tmp_path, monkeypatch, record_property, name):
    monkeypatch.setenv("DT_JAX_DATA", str(tmp_path / "cache"))
    check, more = CHECKS[name]
    kinds, tried = st.sampled_from(sorted(damage.FORMATS)), []

    @damage.fixed_examples(EXAMPLES)
    @given(st.tuples(damage.datasets(), kinds, damage.limits, *more))
    def checked(example):
        tried.append(example[1])
        check(tmp_path, *example)

    checked()
    record_property(name, f"{len(tried):,}")
