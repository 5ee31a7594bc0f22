"""A local web server with configurable failures."""

import gc
import socket
import threading
import time
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TICK = 0.01  # seconds between the pieces of a slow response


class Server(ThreadingHTTPServer):
    """Serves the same file under every path.

    Attributes:
      content: the file.
      failures: functions of the handler that answer the next requests instead.
      usual: the function that answers all other requests.
      requests: the paths requested so far.
      release: ends all stalled responses.
      url: of the file.
    """

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.failures = []
        self.usual = serve
        self.requests = []
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/folder/data.hdf5"

    def handle_error(self, request, client_address):
        """Ignore clients that disconnect."""


@contextmanager
def serving(content):
    """Yield a running server."""
    with Server(content) as server:
        # shutdown() takes one polling interval.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
    with warnings.catch_warnings():
        # pooch does not close the connection of a failed response.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        failures = self.server.failures
        (failures.pop(0) if failures else self.server.usual)(self)

    def log_message(self, *_):
        pass


def serve(handler, stop=None, stall=False, seconds=0):
    """Send the file, or only its bytes up to `stop`.

    Sending takes `seconds`. A stalled response then waits for `release`.
    """
    server = handler.server
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(server.content)))
    handler.end_headers()
    body = server.content[:stop]
    piece = -(-len(body) // int(seconds / _TICK + 1)) or 1
    for i in range(0, len(body), piece):
        handler.wfile.write(body[i : i + piece])
        handler.wfile.flush()
        if seconds:
            time.sleep(_TICK)
    if stall:
        server.release.wait(5)


def status(code):
    """Return a function that answers with an HTTP status."""
    return lambda handler: handler.send_error(code)


def redirect(location):
    """Return a function that answers with a redirection."""

    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.end_headers()

    return answer


def closed_port():
    """Return a local port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return closed.getsockname()[1]
