import os
import signal
import time
from pathlib import Path

import pytest
from command import run, start, wait_until_it_listens

from dt_jax.utils.signals import SIGNALS, Stopped, StopRequest

WAITS = """if True:
    import time
    from dt_jax.cli.common import run_command

    def main():
        print("begun", flush=True)
        time.sleep(100)

    run_command(main, "-c")
"""


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_program_says_what_stopped_it_and_exits_as_the_shell_has_it(signum):
    # Where these tests run in the background, Ctrl-C is ignored and stays so.
    code = f"import signal; signal.signal({signum:d}, signal.default_int_handler)\n"
    process = start("-c", code + WAITS)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signum)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (
        128 + signum,
        f"-c: stopped by {signum.name}\n",
    )


@pytest.fixture
def handled():
    """Have the signals raise when they are not noted, whoever runs the tests."""
    before = [signal.signal(each, signal.default_int_handler) for each in SIGNALS]
    yield
    for each, handler in zip(SIGNALS, before, strict=True):
        signal.signal(each, handler)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("signum", SIGNALS)
def test_a_request_waits_to_be_read(signum):
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signum)
        time.sleep(0.01)
        assert stop.asked == signum
        with pytest.raises(Stopped, match=f"^stopped by {signum.name}$") as stopped:
            stop.check()
    assert stopped.value.status == 128 + signum
    with pytest.raises(KeyboardInterrupt):  # as before
        os.kill(os.getpid(), signum)


@pytest.mark.usefixtures("handled")
def test_only_a_second_ctrl_c_does_not_wait():
    with StopRequest() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)
            assert stop.asked is None
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_second_ctrl_c_does_what_is_usual_where_no_handler_was_set():
    code = """if True:
        import os, signal, time
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        from dt_jax.utils.signals import StopRequest
        with StopRequest():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
    """
    status, _, err = run("-c", code)
    assert (status, err) == (-signal.SIGINT, "")


def test_a_print_that_nobody_reads_does_not_keep_a_program_from_leaving():
    code = """if True:
        from dt_jax.cli.common import run_command

        def main():
            while True:
                print("x" * 9999)

        run_command(main, "-c")
    """
    process = start("-c", code)
    process.stdout.read(10)
    time.sleep(0.5)  # the pipe is full
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 128 + signal.SIGTERM
    process.communicate()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("module", ["evaluate", "data", "collect"])
def test_signals_are_answered_while_a_module_is_imported(module):
    process = start("-m", "dt_jax", module, "--help")
    wait_until_it_listens(process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == f"python -m dt_jax {module}: interrupted by SIGTERM\n"
