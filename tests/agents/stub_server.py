"""A tiny OpenAI-compatible server on 127.0.0.1: checks what it is asked and answers from a script, faults included."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass
class Reply:
    """``content`` None leaves the choices out; ``raw`` replaces the whole body."""

    content: str | None = ""
    status: int = 200
    delay_s: float = 0.0
    raw: bytes | None = None
    drop: bool = False


@dataclass
class Stub:
    """The script and what came; the last reply is repeated when the script is through."""

    url: str = ""
    script: deque[Reply] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    pictures: list[list[tuple[int, int]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_reply(self) -> Reply:
        with self.lock:
            return self.script.popleft() if len(self.script) > 1 else self.script[0]


def _check(body: dict[str, Any], problems: list[str]) -> list[tuple[int, int]]:
    """Sizes of the pictures in a request; whatever a strict server would refuse goes into ``problems``."""
    sizes = []
    for message in body["messages"]:
        if message["role"] not in ("system", "user", "assistant"):
            problems.append(f"role {message['role']}")
        if isinstance(message["content"], str):
            continue
        for part in message["content"]:
            if part["type"] == "text" and isinstance(part["text"], str):
                continue
            if part["type"] != "image_url" or message["role"] != "user":
                problems.append(f"part {part['type']} in a message of {message['role']}")
                continue
            kind, _, data = part["image_url"]["url"].partition(";base64,")
            if kind not in ("data:image/png", "data:image/jpeg"):
                problems.append(f"url of kind {kind[:30]}")
            with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
                picture.load()
                sizes.append(picture.size)
    return sizes


@contextmanager
def serve() -> Iterator[Stub]:
    stub = Stub(script=deque([Reply(r"<answer>\boxed{A}</answer>")]))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with stub.lock:
                if self.path != "/v1/chat/completions":
                    stub.problems.append(f"path {self.path}")
                stub.requests.append(body)
                stub.headers.append({name.lower(): value for name, value in self.headers.items()})
                stub.pictures.append(_check(body, stub.problems))
            reply = stub.next_reply()
            time.sleep(reply.delay_s)
            if reply.drop:
                self.close_connection = True
                self.connection.close()
                return
            try:
                self._send(reply, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client did not wait for a slow reply

        def _send(self, reply: Reply, body: dict[str, Any]) -> None:
            if reply.status != 200:
                payload: dict[str, Any] = {"error": {"message": f"scripted {reply.status}", "type": "stub"}}
            else:
                message = {"role": "assistant", "content": reply.content}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                payload = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
                payload["choices"] = [] if reply.content is None else [choice]
            data = json.dumps(payload).encode() if reply.raw is None else reply.raw
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
