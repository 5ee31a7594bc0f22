"""Any text for any key, and any command line: a valid value or one line."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dt_jax.config import default_config, flags, validate
from dt_jax.config.keys import keys_of
from dt_jax.config.load import from_dict, override
from dt_jax.utils.errors import UserError

EXAMPLES = 100  # of each property
KEYS = keys_of("dt")

numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.floats(), max_size=4).map(lambda values: str(values)[1:-1]),
)
words = st.sampled_from(
    [
        *("None", "none", "true", "False", "gpu", "gym", "timeouts", "minari:"),
        *("wandb", "wandb,tensorboard", "", "(", ","),
        *("1e999", "-0", "0x10", "1_000", "1e5", "٣", "1" * 5000, "9" * 400),
        *("hopper-medium-v2", "Minari:x", "~", "..", "/", "\0", "\n", "\udcff"),
    ]
)
texts = st.one_of(numbers, words, st.text(max_size=12))
keys = st.sampled_from(sorted(KEYS))

fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def refusal(call, *arguments):
    """Return the message of the UserError that a call raises; None if it succeeds."""
    try:
        call(*arguments)
    except UserError as error:
        return " ".join(str(error).split())
    return None


@fuzzed
@given(name=keys, text=texts)
def test_any_text_for_a_key_is_a_valid_value_or_refused(name, text):
    config = default_config()
    message = refusal(override, config, name, text)
    if message is None:
        assert KEYS[name].check.accepts(config[name])
    else:
        assert message.startswith(f"config.{name}=")
        assert message.endswith(KEYS[name].check.expected)
        assert config[name] == KEYS[name].default


@fuzzed
@given(changes=st.dictionaries(keys.filter("agent".__ne__), texts, max_size=6))
def test_a_valid_configuration_survives_json(changes):
    config = default_config()
    for name, text in changes.items():
        refusal(override, config, name, text)  # keeps the value if it is refused
    if refusal(validate, config):
        return
    back = from_dict(json.loads(json.dumps(config.to_dict())))
    validate(back)
    assert back.to_dict() == config.to_dict()
    assert {k: type(back[k]) for k in KEYS} == {k: type(config[k]) for k in KEYS}


flag_names = st.sampled_from(
    ["config", "workdir", "dry_run", *map("config.{}".format, KEYS)]
)
arguments = st.one_of(
    st.builds("--{}={}".format, flag_names, texts),
    st.builds("--{}".format, flag_names),
    st.builds("--{}={}".format, st.text(max_size=8), texts),
    st.text(max_size=8),
    st.sampled_from(["-h", "--", "-", "--config=configs/pen.py:human", "--no"]),
)


@fuzzed
@given(words=st.lists(arguments, max_size=5))
def test_any_command_line_is_a_request_or_refused(words):
    try:
        refusal(flags.parse, words)
    except SystemExit:
        assert {"-h", "--help"} & set(words)
