# SPDX-License-Identifier: Apache-2.0
"""An HTTP proxy before a store that does to requests and answers what networks and overloaded servers do."""
import http.client
import http.server
import socket
import ssl
import struct
import threading
import time
import urllib.parse

HELD_S_MAX = 120


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.time = time.monotonic()

    def __repr__(self):
        return f"{self.method} {self.path}"


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


class Reset(Exception):
    """The client's connection is to break."""


class Rule:
    """`fault(proxy, request, forward)` gives an Answer; it is applied to the first `times` requests that `match`."""

    def __init__(self, fault, times, match):
        self.fault, self.times, self.match = fault, times, match
        self.hits = []


class FaultProxy:
    def __init__(self, port, tls=None):
        proxy = self
        self.target_port, self.rules, self.requests, self.lock = port, [], [], threading.Lock()
        self.released = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                proxy.serve(self)

            do_GET = do_PUT = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        class HttpServer(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                pass

        self.server = HttpServer(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def add(self, fault, times=1, match=lambda q: True):
        rule = Rule(fault, times, match)
        with self.lock:
            self.rules.append(rule)
        return rule

    def heal(self):
        with self.lock:
            self.rules = []
            self.requests = []

    def choose(self, request):
        with self.lock:
            self.requests.append(request)
            for rule in self.rules:
                if len(rule.hits) < rule.times and rule.match(request):
                    rule.hits.append(request)
                    return rule.fault
        return None

    def forward(self, request):
        c = http.client.HTTPConnection("127.0.0.1", self.target_port, timeout=60)
        path = urllib.parse.urlsplit(request.path)._replace(scheme="", netloc="").geturl()
        c.putrequest(request.method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers:
            if name.lower() not in ("connection", "proxy-connection"):
                c.putheader(name, value)
        c.endheaders(request.body or None)
        r = c.getresponse()
        answer = Answer(r.status, [(k, v) for k, v in r.getheaders() if k.lower() not in
                                   ("connection", "keep-alive", "transfer-encoding", "content-length")], r.read())
        answer.length = r.getheader("content-length")
        c.close()
        return answer

    def serve(self, h):
        size = int(h.headers.get("content-length") or 0)
        try:
            request = Request(h.command, h.path, h.headers.items(), h.rfile.read(size))
            fault = self.choose(request)
            answer = fault(self, request, lambda: self.forward(request)) if fault else self.forward(request)
            self.reply(h, request, answer)
        except (Reset, OSError, http.client.HTTPException):
            h.close_connection = True
            reset(h.connection)

    @staticmethod
    def reply(h, request, answer):
        body, cut = answer.body, getattr(answer, "cut", None)
        head = [f"HTTP/1.1 {answer.status} X"] + [f"{k}: {v}" for k, v in answer.headers]
        length = getattr(answer, "length", None) if request.method == "HEAD" else len(body)
        if length is not None and answer.status != 204:
            head.append(f"Content-Length: {length}")
        h.wfile.write("\r\n".join([*head, "", ""]).encode())
        if request.method != "HEAD":
            h.wfile.write(body if cut is None else body[:cut])
        h.wfile.flush()
        if cut is not None:
            raise Reset


def reset(connection):
    """RST, not FIN."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    connection.close()


# ---- faults -----------------------------------------------------------------------------------------------------

def status(code, body=b"", **headers):
    """An answer of the proxy's own; the store never sees the request."""
    return lambda proxy, request, forward: Answer(code, [(k.replace("_", "-"), v) for k, v in headers.items()], body)


def lose_answer(proxy, request, forward):
    """It is done, and nobody is told."""
    forward()
    raise Reset


def lose_request(proxy, request, forward):
    raise Reset


def cut_answer(proxy, request, forward):
    """Half of the body, then a reset."""
    answer = forward()
    answer.cut = len(answer.body) // 2
    return answer


def stall(proxy, request, forward):
    """Nothing comes, until the test ends."""
    proxy.released.wait(HELD_S_MAX)
    raise Reset


def hold(proxy, request, forward):
    """On its way for long: it arrives after the test lets it."""
    proxy.released.wait(HELD_S_MAX)
    forward()
    raise Reset


def shorten(proxy, request, forward):
    """A whole answer, of fewer bytes than the store sent."""
    answer = forward()
    answer.body = answer.body[:len(answer.body) // 2]
    return answer


def garble(proxy, request, forward):
    answer = forward()
    answer.body = answer.body.replace(b"<", b"\x00<", 3) if answer.body else answer.body
    return answer


def flood(proxy, request, forward):
    """More than any answer may have."""
    answer = forward()
    answer.body += b" " * (80 << 20)
    return answer
