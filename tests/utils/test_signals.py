import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from command import run, start, wait_until_it_listens

from dt_jax.utils.signals import SIGNALS, Stopped, StopRequest

SLEEPER = """if True:
    import time
    from dt_jax.cli.common import run_command

    def main():
        print("started", flush=True)
        time.sleep(100)

    run_command(main, "-c")
"""


@pytest.mark.parametrize("signum", SIGNALS)
def test_interrupted_program_reports_the_signal_and_its_status(signum):
    # In the background Ctrl-C is ignored, and an ignored signal stays ignored.
    code = f"import signal; signal.signal({signum:d}, signal.default_int_handler)\n"
    process = start("-c", code + SLEEPER)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signum)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + signum
    assert err == f"-c: interrupted by {signum.name}\n"


@pytest.fixture
def raising_handlers():
    """Have each signal raise KeyboardInterrupt where `StopRequest` does not act."""
    before = [signal.signal(each, signal.default_int_handler) for each in SIGNALS]
    yield
    for each, handler in zip(SIGNALS, before, strict=True):
        signal.signal(each, handler)


@pytest.mark.usefixtures("raising_handlers")
@pytest.mark.parametrize("signum", SIGNALS)
def test_request_is_recorded_until_it_is_checked(signum):
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signum)
        time.sleep(0.01)
        assert stop.received == signum
        with pytest.raises(Stopped, match=f"^interrupted by {signum.name}$") as stopped:
            stop.check()
    assert stopped.value.status == 128 + signum
    with pytest.raises(KeyboardInterrupt):  # the handler before is restored
        os.kill(os.getpid(), signum)


@pytest.mark.usefixtures("raising_handlers")
def test_only_a_second_ctrl_c_acts_at_once():
    with StopRequest() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)
            assert stop.received is None
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("raising_handlers")
def test_no_handler_is_set_outside_the_main_thread():
    def request():
        with StopRequest() as stop:
            handlers.append(signal.getsignal(signal.SIGTERM))
            stop.check()

    handlers = []
    thread = threading.Thread(target=request)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_second_ctrl_c_ends_a_process_without_a_handler():
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


def test_blocked_print_does_not_delay_the_exit():
    code = """if True:
        from dt_jax.cli.common import run_command

        def main():
            while True:
                print("x" * 9999)

        run_command(main, "-c")
    """
    process = start("-c", code)
    process.stdout.read(10)
    time.sleep(0.5)  # until the pipe is full
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 128 + signal.SIGTERM
    process.communicate()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("command", ["evaluate", "data", "collect"])
def test_signal_during_imports_ends_a_command(command):
    process = start("-m", "dt_jax", command, "--help")
    wait_until_it_listens(process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == f"python -m dt_jax {command}: interrupted by SIGTERM\n"


CHILD = """if True:
    import subprocess, time
    from dt_jax.utils.signals import end_with_parent
    end_with_parent()
    print(subprocess.Popen(["sleep", "100"]).pid, flush=True)
    time.sleep(100)
"""
PARENT = """if True:
    import os, subprocess, sys, time
    environment = os.environ | {"DT_JAX_PARENT": str(os.getpid())}
    command = [sys.executable, "-c", sys.argv[1]]
    print(subprocess.Popen(command, env=environment, process_group=0).pid, flush=True)
    time.sleep(100)
"""


def test_a_process_and_its_children_end_with_its_parent():
    process = start("-c", PARENT, CHILD)
    for _ in range(2):
        assert process.stdout.readline()  # the child and its own have started
    process.kill()
    process.communicate(timeout=10)  # until none of them holds stdout


# The main thread waits outside Python, as for a compiled program.
STUCK = """if True:
    import ctypes
    from dt_jax.cli.common import run_command
    from dt_jax.utils.signals import StopRequest

    def main():
        mutex = ctypes.create_string_buffer(64)
        with StopRequest():
            print("started", flush=True)
            for _ in range(2):
                ctypes.CDLL(None).pthread_mutex_lock(mutex)

    run_command(main, "-c")
"""
UNIGNORED = "import signal; signal.signal(2, signal.default_int_handler)\n"


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs Linux's mutexes")
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_a_process_that_is_stuck(second):
    process = start("-c", UNIGNORED + STUCK)
    assert process.stdout.readline() == "started\n"
    for signum in (signal.SIGUSR1, signal.SIGINT):
        process.send_signal(signum)
        time.sleep(0.5)
    assert process.poll() is None
    sent = time.monotonic()
    process.send_signal(second)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - sent < 2
    assert process.returncode == 128 + second
    assert err == f"-c: interrupted by {second.name}\n"


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs Linux's mutexes")
def test_sigterm_that_arrives_twice_at_once_is_one_signal():
    """As `timeout` sends it."""
    process = start("-c", UNIGNORED + STUCK)
    assert process.stdout.readline() == "started\n"
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.kill()
    process.communicate()


def test_forked_process_has_default_handlers():
    """A signal ends it, which its parent may wait for."""
    code = """if True:
        import os, signal, time
        from dt_jax.cli.common import run_command
        from dt_jax.utils.signals import SIGNALS, StopRequest

        def end_children():
            for signum in SIGNALS:
                if not (child := os.fork()):
                    try:
                        time.sleep(20)
                    except KeyboardInterrupt:
                        os._exit(0)
                time.sleep(0.1)
                os.kill(child, signum)
                _, status = os.waitpid(child, 0)
                print(signum, os.waitstatus_to_exitcode(status))

        def main():
            end_children()
            with StopRequest() as stop:
                end_children()
                stop.check()

        run_command(main, "-c")
    """
    code = UNIGNORED + "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n" + code
    status, out, err = run("-W", "ignore", "-c", code)  # Python 3.12 warns of fork
    ends = [(s, 0 if s == signal.SIGINT else -s) for s in SIGNALS]
    assert out.splitlines() == 2 * [f"{s} {end}" for s, end in ends]
    assert (status, err) == (0, "")
