"""Any text for any key, and any command line: a value that holds, or one line."""

from pathlib import Path

import pytest
from dt_jax.config.rules import RULES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dt_jax.config import default_config, flags
from dt_jax.config.load import from_json, override, to_json, validate
from dt_jax.utils.errors import UserError

ROOT = Path(__file__).parents[2]
EXAMPLES = 100  # of each property

numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.floats(), max_size=4).map(lambda values: str(values)[1:-1]),
)
words = st.sampled_from(
    [
        *[
            "None",
            "none",
            "true",
            "False",
            "gpu",
            "gym",
            "timeouts",
            "minari:",
            "wandb",
            "wandb,tensorboard",
            "",
            "(",
            ",",
        ],
        *["1e999", "-0", "0x10", "1_000", "1e5", "٣", "1" * 5000, "9" * 400],
        *["hopper-medium-v2", "Minari:x", "~", "..", "/", "\0", "\n", "\udcff"],
    ]
)
texts = st.one_of(numbers, words, st.text(max_size=12))
keys = st.sampled_from(sorted(RULES))

fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


CONFIG = default_config().lock()
TEXT = to_json(CONFIG)


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    """Find `configs` as launch.py does: its own folder is the first on the path."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)


def refused(call, *arguments):
    """Return the line of the UserError that a call raises, as printed; None without."""
    try:
        call(*arguments)
    except UserError as error:
        return " ".join(str(error).split())
    return None


@fuzzed
@given(key=keys, text=texts)
def test_any_text_for_any_key_is_a_value_that_holds_or_is_refused(key, text):
    before = CONFIG[key]
    try:
        line = refused(override, CONFIG, key, text)
        if line is None:
            assert RULES[key].holds(CONFIG[key])
        else:
            assert line.startswith(f"config.{key}=")
            assert line.endswith(RULES[key].expected)
            assert CONFIG[key] == before
    finally:
        with CONFIG.ignore_type():
            CONFIG[key] = before


@fuzzed
@given(changes=st.dictionaries(keys, texts, max_size=6))
def test_a_valid_configuration_survives_its_json(changes):
    config = from_json(TEXT)
    for key, text in changes.items():
        refused(override, config, key, text)  # then it stays as it was
    if refused(validate, config):
        return
    back = from_json(to_json(config))
    validate(back)
    assert back.to_dict() == config.to_dict()
    assert {k: type(back[k]) for k in RULES} == {k: type(config[k]) for k in RULES}


@fuzzed
@given(text=st.one_of(st.text(max_size=30), st.sampled_from(["{}", "[]", "null", "1"])))
def test_any_other_text_is_no_configuration(text):
    assert refused(from_json, text).startswith("a configuration ")


@fuzzed
@given(cut=st.integers(0, len(TEXT) - 3))
def test_nor_is_the_beginning_of_one(cut):
    assert refused(from_json, TEXT[:cut]).startswith("a configuration that is no JSON")


flag_names = st.sampled_from(
    ["config", "workdir", "dry_run", *map("config.{}".format, RULES)]
)
arguments = st.one_of(
    st.builds("--{}={}".format, flag_names, texts),
    st.builds("--{}".format, flag_names),
    st.builds("--{}={}".format, st.text(max_size=8), texts),
    st.text(max_size=8),
    st.sampled_from(["-h", "--", "-", "--config=configs/pen.py:human", "--no"]),
)


@fuzzed
@given(typed=st.lists(arguments, max_size=5))
def test_any_command_line_is_a_request_or_is_refused(typed):
    try:
        refused(flags.parse, ["launch.py", *typed])
    except SystemExit:
        assert {"-h", "--help"} & set(typed)
