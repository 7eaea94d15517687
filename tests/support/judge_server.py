"""A real HTTP server on the loopback that speaks as much of the OpenAI protocol as a judge needs."""

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

PART = re.compile(r"=== (question|answer [12]) (\w+) ===\n(.*?)\n=== end of \1 \2 ===", re.DOTALL)


class Asked(NamedTuple):
    """A request, read back from its prompt; `tries` counts those of the same prompt, this one too."""

    question: str
    first: str
    second: str
    tries: int


def completion(text, finish_reason="stop"):
    """A chat completion as JSON."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        [message] = body["messages"]
        parts = tuple(text for _, _, text in PART.findall(message["content"]))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.add(self.headers["Authorization"])
            self.server.tried[parts] += 1
            asked = Asked(*parts, self.server.tried[parts])
        answer = self.server.answer(asked)
        if answer is None:
            return  # hang up without a word
        status, headers, text = answer if isinstance(answer, tuple) else (200, {}, completion(answer))
        if status == 200:  # counted before the client can go on to the next
            with self.server.lock:
                self.server.answered[parts] += 1
        content = text.encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))} | headers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


class JudgeServer(ThreadingHTTPServer):
    """Answers each request with what `answer(asked)` gives: a reply, (status, headers, body), or None to hang up.

    Attributes:
        bodies: of all requests; keys: their Authorization headers.
        tried, answered: how often (question, first answer, second answer) was asked, and with success.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = lambda asked: "verdict: 1"
        self.lock = threading.Lock()
        self.bodies, self.keys, self.tried, self.answered = [], set(), Counter(), Counter()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # clients that time out or are killed hang up


QUESTIONS = {1: "Why is the sky blue?", 2: "What is 2 + 2?", 3: "Name a river.", 4: "Sing!"}
PLAYERS = {"guanaco": "{} Long and good.", "vicuna": "{} Good.", "base": "{}"}  # a question, and more


def serving(monkeypatch):
    """Fixture: a server, and an environment that says nothing of another."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with JudgeServer() as made:
        yield made
        made.shutdown()


def command_line(server, tmp_path):
    """Fixture: a function: players and more flags → a command line that writes to `tmp_path / "ratings"`."""
    questions = [{"question_id": n, "text": text, "category": f"c{n % 2}"} for n, text in QUESTIONS.items()]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    for name, form in PLAYERS.items():
        rows = [{"question_id": n, "text": form.format(text), "model_id": name} for n, text in QUESTIONS.items()]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def build(*flags, players=("guanaco", "vicuna")):
        return [
            *("--questions", str(tmp_path / "questions.jsonl")),
            *("--answers", *(str(tmp_path / f"{name}.jsonl") for name in players)),
            *("--base_url", server.url, "--model", "org/judge:1", "--output", str(tmp_path / "ratings")),
            *("--retry_wait", "0.001", "--concurrency", "1", *flags),
        ]

    return build


def longer_wins(asked):
    return f"Hm.\nverdict: {1 if len(asked.first) > len(asked.second) else 2}"


def read(directory):
    """{name of a ratings file: its lines}"""
    return {
        path.name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(Path(directory).glob("*.jsonl"))
    }
