import re

from dt_jax.datasets.demo.progress import progress


def test_lines_at_a_twentieth_and_at_the_quarters(capsys):
    with progress("x", 1000) as advance:
        for _ in range(110):  # more than there is to do
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    told = [re.fullmatch(r"collecting x: (\S+) of 1,000 .*", line)[1] for line in lines]
    assert told == ["50", "250", "500", "750", "1,000"]
    for line in lines[:-1]:
        assert re.search(r", about \d+ s left$", line)
    assert lines[-1] == "collecting x: 1,000 of 1,000 transitions"


def test_large_strides_are_told_once_each(capsys):
    with progress("x", 100) as advance:
        for stride in (60, 40):
            advance(stride)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["60", "100"]
